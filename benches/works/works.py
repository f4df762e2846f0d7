#!/usr/bin/env python3
"""The six works of a deduplicating sink, by dedupe, DuckDB, Polars, and a plain copy: interleaved, checked, as ratios.

  works.py BINARY [--works A,B,C,D,E,F] [--scale 1.0] [--runs 3] [--known 100000000] [--folder /tmp/works]

A  first load, 10 M rows, 10 % duplicates             D  first load, 10 M rows, 0.01 % duplicates
B  1 M rows, 5 % of them among 9 M known keys         E  first load of 2 M NDJSON lines, 10 % duplicates
C  1 M rows, all known (a renamed file)               F  1 M rows against --known known keys, 5 % of them known

Every run is a process of its own; wall time, CPU time (user and system) and the most memory are the kernel's. The
number of surviving rows must be the same for all. `--scale 0.1` makes everything ten times smaller.
"""

import argparse
import concurrent.futures
import importlib.metadata
import json
import multiprocessing
import os
import platform
import shutil
import statistics
import subprocess
import sys
import time

POLARS = "import polars as pl, sys, glob\n"
DUCKDB = "import duckdb, sys, glob\ncon = duckdb.connect()\ncon.execute(\"SET preserve_insertion_order=false\")\n"
FORMAT = "(FORMAT parquet, COMPRESSION snappy)"


def programs(scene):
    """Peers for each work, each in the variants that were fastest when written by hand. `out` is a fresh path."""
    new, old, out = scene["new"], scene.get("old"), "{out}"
    source = f"read_parquet({new!r})" if scene["kind"] == "parquet" else f"read_json({new!r}, format='newline_delimited')"
    lazy = f"pl.scan_parquet({new!r})" if scene["kind"] == "parquet" else f"pl.scan_ndjson({new!r})"
    anti_join = f" ANTI JOIN (SELECT event_id FROM read_parquet({old!r})) USING (event_id)" if old else ""
    duck = lambda query: DUCKDB + f"con.execute(\"\"\"COPY ({query}) TO '{out}' {FORMAT}\"\"\")"
    first = "QUALIFY row_number() OVER (PARTITION BY event_id) = 1"
    peers = {
        "duckdb, distinct on": duck(f"SELECT DISTINCT ON (event_id) * FROM {source}{anti_join}"),
        "polars, unique": POLARS + (
            f"new = {lazy}.unique('event_id', keep='any')\n"
            + (f"new = new.join(pl.scan_parquet({old!r}).select('event_id'), on='event_id', how='anti')\n" if old else "")
            + f"new.sink_parquet('{out}', compression='snappy')"),
    }
    if scene["kind"] == "parquet":
        # Only the keys are deduplicated; the rows of those that stay are read in a second pass.
        places = f"read_parquet({new!r}, filename=true, file_row_number=true)"
        peers["duckdb, keys first"] = duck(
            f"SELECT * EXCLUDE (filename, file_row_number) FROM {places} SEMI JOIN (SELECT k.filename AS filename, "
            f"k.row AS file_row_number FROM (SELECT min({{'filename': filename, 'row': file_row_number}}) AS k "
            f"FROM {places}{anti_join} GROUP BY event_id)) USING (filename, file_row_number)")
    peers["duckdb, window"] = duck(f"SELECT * FROM {source}{anti_join} {first}")
    return peers


def copy_program(scene):
    lazy = f"pl.scan_parquet({scene['new']!r})" if scene["kind"] == "parquet" else f"pl.scan_ndjson({scene['new']!r})"
    return POLARS + f"{lazy}.sink_parquet('{{out}}', compression='snappy')"


def measured(command, cwd=None):
    start = time.perf_counter()
    child = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=cwd)
    out, err = child.stdout.read(), child.stderr.read()
    _, status, usage = os.wait4(child.pid, 0)
    child.returncode = os.waitstatus_to_exitcode(status)
    wall = time.perf_counter() - start
    if child.returncode:
        sys.exit(f"{command[:3]}… failed: {err.decode()[-2000:]}")
    return {"wall": wall, "cpu": usage.ru_utime + usage.ru_stime, "rss": usage.ru_maxrss / 1024, "out": out.decode()}


def rows_of(path):
    import pyarrow.parquet as pq
    return pq.ParquetFile(path).metadata.num_rows


def made(function, *args, **more):
    import events
    return getattr(events, function)(*args, **more)


def apart(function, *args, **more):
    """Calls it in a process of its own: what this one holds would be counted as memory of all that it starts."""
    context = multiprocessing.get_context("spawn")
    with concurrent.futures.ProcessPoolExecutor(1, mp_context=context) as pool:
        return pool.submit(function, *args, **more).result()


def fresh(path):
    shutil.rmtree(path, ignore_errors=True)
    if os.path.exists(path):
        os.remove(path)
    return path


class Dedupe:
    """Runs the binary on a copy of a prepared table, so that every run begins with the same state."""

    def __init__(self, binary, folder):
        self.binary, self.folder = os.path.abspath(binary), folder

    def ingest(self, files, table, *more):
        return measured([self.binary, "ingest", *files, "--into", table, "--key", "event_id", "--output", "json", *more])

    def run(self, scene):
        table = fresh(os.path.join(self.folder, "table"))
        if scene.get("table"):
            # Links, not copies: nothing in a table is ever changed.
            shutil.copytree(scene["table"], table, copy_function=os.link)
        # Of text the default is zstd; the peers write snappy, and so does this.
        same_codec = ["--compression", "snappy"] if scene["kind"] == "ndjson" else []
        result = self.ingest(scene["files"], table, *same_codec)
        result["rows"] = json.loads(result["out"])["accepted"]
        return result


def prepare(work, args, dedupe):
    size = lambda rows: max(1000, int(rows * args.scale))
    folder = lambda name: os.path.join(args.folder, f"{name}-{args.scale:g}")
    def once(name, make):
        path, marker = folder(name), folder(name) + ".done"
        if not os.path.exists(marker):
            fresh(path)
            with open(marker + ".new", "w") as out:
                json.dump(make(path), out)
            os.rename(marker + ".new", marker)
        return json.load(open(marker))
    def loaded(name, files):
        def make(path):
            dedupe.ingest(files, path)
            return path
        return once(f"table-{name}", make)
    a = lambda: once("A", lambda path: apart(made, "parquet", path, size(10_000_000), duplicates=0.1))
    if work == "A":
        files, _ = a()
        return scene("first load, 10 % duplicates", files)
    if work == "D":
        files, _ = once("D", lambda path: apart(made, "parquet", path, size(10_000_000), duplicates=0.0001))
        return scene("first load, 0.01 % duplicates", files)
    if work in "BC":
        old, known = a()
        share = 0.05 if work == "B" else 1.0
        files, _ = once(work, lambda path: apart(made, "parquet", path, size(1_000_000), first_row=10**9, first_key=known, duplicates=share, known=known))
        names = {"B": "5 % of them known", "C": "all of them known"}
        return scene(f"{size(1_000_000):,} rows, {names[work]}", files, old=old, table=loaded("A", old))
    if work == "E":
        path, _ = once("E", lambda path: apart(made, "ndjson", path, size(2_000_000), 0.1))
        return scene("NDJSON, 10 % duplicates", [path], kind="ndjson")
    known = max(1000, args.known)
    old = once(f"keys-{known}", lambda path: apart(made, "key_files", path, known))
    files, _ = once(f"F-{known}", lambda path: apart(made, "parquet", path, size(1_000_000), first_row=10**9, first_key=known, duplicates=0.05, known=known))
    return scene(f"{size(1_000_000):,} rows against {known:,} known keys", files, old=old, table=loaded(f"keys-{known}", old))


def scene(title, files, kind="parquet", old=None, table=None):
    glob = lambda files: files[0] if len(files) == 1 else os.path.join(os.path.dirname(files[0]), "*.parquet")
    return {"title": title, "files": files, "new": glob(files), "kind": kind, "old": old and glob(old), "table": table}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("binary")
    parser.add_argument("--works", default="A,B,C,D,E,F")
    parser.add_argument("--scale", type=float, default=1.0)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--known", type=int, default=100_000_000)
    parser.add_argument("--folder", default="/tmp/works")
    parser.add_argument("--only", help="of the peers, only those whose name contains this")
    args = parser.parse_args()
    os.makedirs(args.folder, exist_ok=True)
    dedupe = Dedupe(args.binary, args.folder)
    versions = [subprocess.run([args.binary, "--version"], capture_output=True, text=True).stdout.strip()]
    for module in ["duckdb", "polars", "pyarrow"]:
        versions.append(f"{module} {importlib.metadata.version(module)}")
    print(f"{', '.join(versions)}; {platform.machine()}, {os.cpu_count()} cores; median of {args.runs} interleaved runs\n")
    print("| work | by | wall s | CPU s | wall, ratio to dedupe | CPU, ratio to dedupe | peak MB | rows |\n|---|---|--:|--:|--:|--:|--:|--:|", flush=True)
    for work in args.works.split(","):
        scene_ = prepare(work, args, dedupe)
        peers = {name: text for name, text in programs(scene_).items() if not args.only or args.only in name}
        runs = {name: [] for name in ["dedupe", *peers, "copy"]}
        for _ in range(args.runs):
            runs["dedupe"].append(dedupe.run(scene_))
            for name, text in [*peers.items(), ("copy", copy_program(scene_))]:
                out = fresh(os.path.join(args.folder, "out.parquet"))
                result = measured([sys.executable, "-c", text.replace("{out}", out)])
                result["rows"] = apart(rows_of, out)
                runs[name].append(result)
        wanted = runs["dedupe"][0]["rows"]
        middle = lambda name, what: statistics.median(run[what] for run in runs[name])
        for name, results in runs.items():
            rows = {run["rows"] for run in results}
            if name != "copy" and rows != {wanted}:
                sys.exit(f"{work}: {name} kept {rows} rows, dedupe {wanted}")
            ratio = lambda what: middle(name, what) / middle("dedupe", what)
            print(f"| {work}: {scene_['title']} | {name} | {middle(name, 'wall'):.2f} | {middle(name, 'cpu'):.2f} | {ratio('wall'):.2f} | "
                  f"{ratio('cpu'):.2f} | {max(run['rss'] for run in results):.0f} | {rows.pop():,} |", flush=True)


if __name__ == "__main__":
    main()
