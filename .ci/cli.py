"""Runs the dedupe binary within a time and a memory limit and takes its answer apart."""

import json
import os
import resource
import subprocess
import tempfile
import threading
import time
from dataclasses import dataclass
from pathlib import Path

VERDICTS = ("accepted", "duplicate", "replayed", "conflict", "late", "rejected")
SUMMARY = ("table", "version", "batch", "read", *VERDICTS, "files", "seconds")

# What a program that lost control leaves on stderr.
DISTRESS = (
    "panicked at",
    "RUST_BACKTRACE",
    "has overflowed its stack",
    "memory allocation of",
    "internal error",
)


@dataclass
class Outcome:
    args: list
    code: int  # negative: ended by that signal
    out: str
    err: str
    seconds: float
    peak_mib: float
    timed_out: bool

    def distress(self):
        """Why this was no orderly end, whatever the result; None if it was one."""
        if self.timed_out:
            return f"still running after {self.seconds:.0f} s"
        if self.code < 0:
            return f"ended by signal {-self.code}: {self.last_words()}"
        said = next((word for word in DISTRESS if word in self.err), None)
        return f"{said!r} on stderr: {self.last_words()}" if said else None

    def last_words(self):
        return " / ".join((self.err.strip() or self.out.strip()).splitlines()[-3:])[:300]

    def summary(self):
        """The one JSON object of `ingest --output json`, its fields and its row accounting checked."""
        assert self.code == 0, f"exit {self.code}: {self.last_words()}"
        summary = json.loads(self.out)
        missing = [name for name in SUMMARY if name not in summary]
        assert not missing, f"the summary lacks {missing}: {self.out}"
        assert summary["read"] == sum(summary[name] for name in VERDICTS), (
            f"rows are not conserved: {self.out}"
        )
        return summary


class Dedupe:
    def __init__(self, binary, time_limit=120, address_space_mib=8192, env=None):
        self.binary = str(Path(binary).resolve())
        self.time_limit = time_limit
        self.address_space = address_space_mib << 20
        self.env = {**os.environ, "NO_COLOR": "1", **(env or {})}

    def start(self, *args, stdout=subprocess.PIPE, stderr=subprocess.PIPE):
        process = subprocess.Popen(
            [self.binary, *map(str, args)],
            stdin=subprocess.DEVNULL,
            stdout=stdout,
            stderr=stderr,
            env=self.env,
        )
        if hasattr(
            resource, "prlimit"
        ):  # a backstop for the machine; what is judged is the peak that is measured
            resource.prlimit(process.pid, resource.RLIMIT_AS, (self.address_space, self.address_space))
        return process

    def run(self, *args):
        with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
            began = time.monotonic()
            process = self.start(*args, stdout=out, stderr=err)
            late = threading.Event()
            timer = threading.Timer(self.time_limit, lambda: (late.set(), process.kill()))
            timer.start()
            _, status, usage = os.wait4(process.pid, 0)
            timer.cancel()
            process.returncode = code = os.waitstatus_to_exitcode(status)
            return Outcome(
                list(map(str, args)),
                code,
                text(out),
                text(err),
                time.monotonic() - began,
                usage.ru_maxrss / 1024,
                late.is_set(),
            )

    def ingest(self, sources, table, key, *flags):
        return self.run(
            "ingest", *sources, "--into", table, "--key", ",".join(key), "--output", "json", *flags
        )

    def files(self, table):
        """The live data files, in the order in which the table names them."""
        outcome = self.run("files", table)
        assert outcome.code == 0, f"files: {outcome.last_words()}"
        return outcome.out.splitlines()

    def verify(self, table):
        """None, or what `verify` complains of."""
        outcome = self.run("verify", table)
        if outcome.code == 0 and not outcome.distress():
            return None
        return f"verify: exit {outcome.code}: {(outcome.out + outcome.err).strip()[:400]}"


def text(file):
    file.seek(0)
    return file.read().decode(errors="replace")


def committed(table):
    """How many versions of a local table hold rows: all ledger entries but the one that creates the table."""
    entries = (json.loads(path.read_text()) for path in (Path(table) / "_dedupe/ledger").glob("*.json"))
    return sum(entry["kind"] != "create" for entry in entries)
