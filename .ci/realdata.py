#!/usr/bin/env python3
"""Runs the binary over a folder of real and hostile files, not ours to commit, and compares with their truth.

    .ci/realdata.py BINARY FOLDER [--only events|parquet|json]

Every event file and key must give the stated survivors; every Parquet file the distinct rows, or an error
that names it; every JSON document a quarantined or an accepted line, its neighbours untouched. Never a crash,
a hang, a memory blow-up or half a commit; every table that comes to be passes `dedupe verify`. Prints what
differed and exits 1 if anything did.
"""

import argparse
import csv
import gzip
import json
import sys
import tempfile
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pyarrow.parquet as pq
import rows
from cli import Dedupe, committed

MEMORY = "256MB"
PEAK_MIB = 1024  # what a run with that budget may ever take, program, threads and allocator included
LIMIT_S = 120

# ---- accepted deviations: what may differ from the truth of the folder, and why ----------------------------

# Parquet files that both other readers read, but that may be refused.
CHECKSUM = "a page does not match its checksum, at which the other readers do not look"
MAY_REFUSE = {
    "int96_from_spark.parquet": "dates beyond 64-bit nanoseconds, which the other readers wrap or round",
    "datapage_v1-corrupt-checksum.parquet": CHECKSUM,
    "rle-dict-uncompressed-corrupt-checksum.parquet": CHECKSUM,
    "dict-page-offset-zero.parquet": "its footer breaks the rules of Thrift, which the other readers let pass",
}

# Lines that Python's parser takes as JSON objects, but that are quarantined.
LONE_SURROGATE = "a lone surrogate is no character: it cannot be stored as UTF-8"
TWICE = "a member that stands twice has no one value: taking either would lose the other quietly"
REFUSED_OBJECTS = {
    "i_object_key_lone_2nd_surrogate.json": LONE_SURROGATE,
    "y_object_duplicated_key.json": TWICE,
    "y_object_duplicated_key_and_value.json": TWICE,
    "object_same_key_different_values.json": TWICE,
    "object_same_key_same_value.json": TWICE,
    "object_same_key_unclear_values.json": TWICE,
}


# ---- one run, checked for order ----------------------------------------------------------------------------


class Case:
    """One table of one file: collects what differs."""

    def __init__(self, dedupe, name, folder):
        self.dedupe, self.name, self.table = dedupe, name, folder / "table"
        self.differences, self.notes = [], []

    def expect(self, what, expected, found):
        if expected != found:
            self.differences.append((self.name, what, expected, found))

    def ingest(self, what, sources, key, *flags):
        """The summary of a run, or None and the reason after a refusal, which must commit nothing."""
        before = committed(self.table)
        outcome = self.dedupe.ingest(sources, self.table, key, *flags)
        if distress := outcome.distress():
            self.differences.append((self.name, what, "an orderly end", distress))
        if outcome.peak_mib > PEAK_MIB:
            self.differences.append(
                (self.name, what, f"at most {PEAK_MIB} MiB", f"{outcome.peak_mib:.0f} MiB")
            )
        if outcome.code == 0:
            try:
                return outcome.summary(), None
            except Exception as e:
                self.differences.append((self.name, what, "a summary", str(e)))
                return None, "no summary"
        said = outcome.out + outcome.err
        if not any(Path(source).name in said for source in sources):
            self.differences.append((self.name, what, "an error that names the file", outcome.last_words()))
        self.expect(f"{what}: versions committed by a failed run", before, committed(self.table))
        return None, outcome.last_words()

    def verify(self):
        if (self.table / "_dedupe/table.json").exists():
            if complaint := self.dedupe.verify(self.table):
                self.differences.append((self.name, "verify", "passes", complaint))
        return self


def numbers(summary, *names):
    return {name: summary[name] for name in names} if summary else None


# ---- events: survivors equal the truth ---------------------------------------------------------------------


def event_cases(folder, dedupe):
    for stream in json.loads((folder / "events_truth.json").read_text()):
        files = [folder / name for name in stream["files"]]
        for key in stream["keys"]:
            for null_key in ("quarantine", "keep", "fail"):
                yield lambda scratch, a=(dedupe, files, stream["rows"], key, null_key): check_events(
                    scratch, *a
                )


def check_events(scratch, dedupe, files, total, truth, null_key):
    key = truth["key"]
    keyless = count_keyless(files, key)
    distinct = truth["distinct_null_equal"] - (keyless > 0)
    if len(key) == 1:
        assert (keyless, distinct) == (truth["rows_with_null_in_key"], truth["distinct_non_null"]), (
            "the truth contradicts itself"
        )
    name = f"{files[0].name if len(files) == 1 else f'{len(files)} files'} by {','.join(key)}, {null_key}"
    case = Case(dedupe, name, scratch)
    if null_key != "quarantine" and not keyless:
        return case  # nothing to see that the default does not show
    flags = ("--memory", MEMORY, "--null-key", null_key)
    first, why = case.ingest("first", files, key, *flags)
    if null_key == "fail":
        case.expect("outcome", "refused", "accepted" if first else "refused")
        return case.verify()
    if not first:
        case.expect("outcome", "accepted", why)
        return case
    rejected = keyless if null_key == "quarantine" else 0
    accepted = distinct + keyless - rejected
    case.expect(
        "first",
        {"read": total, "accepted": accepted, "duplicate": total - accepted - rejected, "rejected": rejected},
        numbers(first, "read", "accepted", "duplicate", "rejected"),
    )
    again, _ = case.ingest("again", files, key, *flags)
    case.expect(
        "again",
        {"read": total, "accepted": 0, "replayed": total},
        numbers(again, "read", "accepted", "replayed"),
    )
    if (
        null_key == "quarantine"
    ):  # kept rows without a key are never compared: read row by row they are new each time
        reread, _ = case.ingest("--reread", files, key, *flags, "--reread")
        case.expect(
            "--reread",
            {"read": total, "accepted": 0, "rejected": rejected},
            numbers(reread, "read", "accepted", "rejected"),
        )
    return case.verify()


def count_keyless(files, key):
    def value(row, name):
        for part in [name] if name in row else name.split("."):
            row = row.get(part) if isinstance(row, dict) else None
        return row

    return sum(
        all(value(row, name) is None for name in key)
        for file in files
        for row in map(json.loads, gzip.open(file, "rt", encoding="utf-8"))
    )


# ---- Parquet: the distinct rows, or an error ---------------------------------------------------------------


def parquet_cases(folder, dedupe):
    with open(folder / "PARQUET_MANIFEST.csv", newline="") as manifest:
        for row in csv.DictReader(manifest):
            yield lambda scratch, row=row: check_parquet(scratch, dedupe, folder / row["file"], row)


def check_parquet(scratch, dedupe, file, row):
    case = Case(dedupe, row["file"].partition("/parquet-testing/")[2], scratch)
    readable = row["pyarrow_read"] == row["duckdb_read"] == "ok"
    distinct = int(row["duckdb_distinct_rows"]) if row["duckdb_distinct_rows"] else None
    columns = (
        # The manifest cuts long schemas off: a file that pyarrow cannot read is asked for its first column only.
        [row["schema"].partition(":")[0]] if row["schema"] else ["id"]
    )
    total = keyless = None
    if row["pyarrow_read"] == "ok":
        table = pq.ParquetFile(file).read()
        columns = table.column_names
        given = rows.rows(table)
        total, keyless = len(given), sum(rows.key_of(r, columns) is None for r in given)
        ours = len(rows.first_wins(given, columns)) + (keyless > 0)
        distinct = ours if distinct is None else distinct
        assert ours == distinct, f"{file}: DuckDB counts {distinct} distinct rows, pyarrow gives {ours}"
    for null_key in ("quarantine", "keep") if keyless else ("quarantine",):
        case.table = scratch / null_key
        flags = ("--format", "parquet", "--memory", MEMORY, "--null-key", null_key)
        first, why = case.ingest(null_key, [file], columns, *flags)
        if not first:
            if file.name in MAY_REFUSE:
                case.notes.append(f"{case.name}: refused ({MAY_REFUSE[file.name]})")
            elif readable:
                case.expect(null_key, f"{distinct} distinct rows", why)
            continue
        if total is not None:
            rejected = keyless if null_key == "quarantine" else 0
            accepted = distinct - (keyless > 0) + keyless - rejected
            case.expect(
                null_key,
                {"read": total, "accepted": accepted, "rejected": rejected},
                numbers(first, "read", "accepted", "rejected"),
            )
        elif distinct is not None:
            case.expect(null_key, distinct, first["accepted"])
        else:
            case.notes.append(
                f"{case.name}: accepted {first['accepted']} of {first['read']} rows that no other reads"
            )
        if null_key == "quarantine":
            reread, _ = case.ingest("--reread", [file], columns, *flags, "--reread")
            case.expect(
                "--reread",
                {"accepted": 0, "rejected": first["rejected"]},
                numbers(reread, "accepted", "rejected"),
            )
        case.verify()
    return case


# ---- JSON: each line accepted or quarantined, its neighbours untouched -------------------------------------


def json_cases(folder, dedupe):
    with open(folder / "JSON_MANIFEST.csv", newline="") as manifest:
        for row in csv.DictReader(manifest):
            yield lambda scratch, row=row: check_json(scratch, dedupe, folder / row["file"], row)
            yield lambda scratch, row=row: check_between(scratch, dedupe, folder / row["file"], row)


def check_json(scratch, dedupe, file, row):
    """The document as a file of its own."""
    case = Case(dedupe, file.name, scratch)
    refused = file.name in REFUSED_OBJECTS
    objects = 0 if refused else int(row["lines_that_are_json_objects"])
    lines = int(row["nonempty_lines"])
    key = first_members(file) if objects else []
    summary, why = case.ingest("alone", [file], key or ["k"], "--format", "ndjson", "--memory", MEMORY)
    if refused:
        case.notes.append(f"{case.name}: its object is refused ({REFUSED_OBJECTS[file.name]})")
    if key:
        case.expect(
            "alone",
            {"accepted": objects, "rejected": lines - objects},
            numbers(summary, "accepted", "rejected") or why,
        )
    elif summary:
        case.expect("alone", {"accepted": 0, "rejected": lines}, numbers(summary, "accepted", "rejected"))
    return case.verify()


def check_between(scratch, dedupe, file, row):
    """The document between two good lines: these must survive it."""
    case = Case(dedupe, f"{file.name} between", scratch)
    source = scratch / f"{file.stem}.ndjson"
    source.write_bytes(b'{"k":1}\n' + file.read_bytes() + b'\n{"k":2}')
    objects = 0 if file.name in REFUSED_OBJECTS else int(row["lines_that_are_json_objects"])
    lines = int(row["nonempty_lines"])
    summary, why = case.ingest("between", [source], ["k"], "--null-key", "keep", "--memory", MEMORY)
    case.expect(
        "between",
        {"read": lines + 2, "accepted": objects + 2, "rejected": lines - objects},
        numbers(summary, "read", "accepted", "rejected") or why,
    )
    return case.verify()


def first_members(file):
    """The member names of the first object of the file, if they can be a key: nameable, and one not null."""
    row = next(json.loads(line) for line in file.read_bytes().split(b"\n") if line.lstrip().startswith(b"{"))
    named = all(name and "," not in name and "\0" not in name for name in row)
    return list(row) if named and any(value is not None for value in row.values()) else []


# ---- all of it ---------------------------------------------------------------------------------------------

GROUPS = {"events": event_cases, "parquet": parquet_cases, "json": json_cases}


def run(case):
    with tempfile.TemporaryDirectory() as scratch:
        return case(Path(scratch))


def show(differences):
    head = ("case", "what", "expected", "found")
    cells = [head] + [tuple(str(cell)[:160] for cell in row) for row in differences]
    widths = [max(len(row[n]) for row in cells) for n in range(3)]
    for row in cells:
        print("  ".join([*(cell.ljust(width) for cell, width in zip(row, widths)), row[3]]))


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("binary")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--only", choices=GROUPS)
    args = parser.parse_args()
    if not (args.folder / "events_truth.json").is_file():
        print(f"SKIPPED: no folder of real data at {args.folder}; DEDUPE_REALDATA names another place")
        return
    dedupe, differences, notes = Dedupe(args.binary, LIMIT_S), [], []
    for group in [args.only] if args.only else GROUPS:
        with ThreadPoolExecutor(2) as pool:
            done = list(pool.map(run, GROUPS[group](args.folder, dedupe)))
        found = [difference for case in done for difference in case.differences]
        print(
            f"{group}: {len(done)} cases, {len({difference[0] for difference in found})} of them differ",
            flush=True,
        )
        differences += found
        notes += [note for case in done for note in case.notes]
    if notes:
        print("\nAccepted deviations and open cases:")
        for note, times in Counter(notes).items():
            print(f"  {note}" + (f" ({times} times)" if times > 1 else ""))
    if differences:
        print("\nWhat differed:")
        show(differences)
        sys.exit(1)


if __name__ == "__main__":
    main()
