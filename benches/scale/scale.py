#!/usr/bin/env python3
"""What the index costs at scale. Every figure of docs/performance.md, "The index at scale", comes from here.

  scale.py tiny BINARY [--commits 10000]                 many commits of ten rows: time of each hundred
  scale.py long BINARY GROW [--commits 100000]           opening, and an ingest of ten rows, after so many commits of ten tokens
  scale.py grown BINARY GROW [--tokens 100000000]        1 M rows against an index of so many tokens, and what it takes on disk
  scale.py small BINARY GROW [--tokens 1000000000]       1,000 rows against it

GROW is `cargo build --release --example grow`. Rows come from benches/works/events.py. Wall and CPU time and memory are the
kernel's, of whole processes; medians of --runs runs, interleaved where two things are compared.
"""

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "works"))


NO = 3  # the exit code of "no": what `outcome` says of a batch that nobody committed


def measured(command, fine=(0,)):
    start = time.perf_counter()
    child = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    out, err = child.stdout.read(), child.stderr.read()
    _, status, usage = os.wait4(child.pid, 0)
    child.returncode = os.waitstatus_to_exitcode(status)
    if child.returncode not in fine:
        sys.exit(f"{command[:3]}… failed: {err.decode()[-2000:]}")
    return {"wall": time.perf_counter() - start, "cpu": usage.ru_utime + usage.ru_stime, "rss": usage.ru_maxrss / 1024, "out": out.decode()}


def ingest(binary, files, table, *more):
    return measured([binary, "ingest", *files, "--into", table, "--key", "event_id", "--output", "json", *more])


def fresh(path):
    shutil.rmtree(path, ignore_errors=True)
    return path


def tiny(args):
    table, source = fresh(os.path.join(args.folder, "tiny")), os.path.join(args.folder, "tiny.ndjson")
    print("| commits | wall ms | CPU ms |\n|---|--:|--:|")
    for hundred in range(0, args.commits, 100):
        runs = []
        for commit in range(hundred, hundred + 100):
            with open(source, "w") as out:
                out.writelines(json.dumps({"event_id": f"{commit}-{row}", "v": row}) + "\n" for row in range(10))
            runs.append(ingest(args.binary, [source], table))
        middle = lambda what: 1000 * statistics.median(run[what] for run in runs)
        print(f"| {hundred:,} to {hundred + 100:,} | {middle('wall'):.1f} | {middle('cpu'):.1f} |", flush=True)


def long(args):
    """Tables of 100, 1,000, … commits; the time of one that only opens it, and of one that adds ten rows."""
    source = os.path.join(args.folder, "long.ndjson")
    print("| commits | open: wall ms / CPU ms | ingest of ten rows: wall ms / CPU ms |\n|---|--:|--:|")
    table, have, commits = fresh(os.path.join(args.folder, "long")), 1, 100
    with open(source, "w") as out:
        out.write(json.dumps({"event_id": "first", "v": 0}) + "\n")
    ingest(args.binary, [source], table)
    while commits <= args.commits:
        measured([args.grow, table, str(10 * (commits - have)), str(commits - have)])
        opens, ingests = [], []
        for run in range(2 * args.runs + 1):
            opens.append(measured([args.binary, "outcome", table, "none"], fine=(NO,)))
            with open(source, "w") as out:
                out.writelines(json.dumps({"event_id": f"{commits}-{run}-{row}", "v": row}) + "\n" for row in range(10))
            ingests.append(ingest(args.binary, [source], table))
        have = commits + len(ingests)
        told = lambda runs: " / ".join(f"{1000 * statistics.median(run[what] for run in runs):.1f}" for what in ("wall", "cpu"))
        print(f"| {commits:,} | {told(opens)} | {told(ingests)} |", flush=True)
        commits *= 10


def grown_table(args, tokens):
    """A table with a million real keys and `tokens` others, compacted into one run. Returns it, its files of rows to ask
    with, and the bytes of its index."""
    import events
    known = 1_000_000
    table = os.path.join(args.folder, f"grown-{tokens}")
    rows = os.path.join(args.folder, "rows")
    files, _ = events.parquet(rows, 1_000_000, first_row=10**9, first_key=known, duplicates=0.05, known=known)
    few, _ = events.parquet(rows + "-few", 1_000, first_row=10**10, first_key=10**8, duplicates=0.05, known=known)
    if not os.path.exists(table + ".done"):
        keys = events.key_files(os.path.join(args.folder, "keys"), known)
        ingest(args.binary, keys, fresh(table))
        if tokens:
            print(measured([args.grow, table, str(tokens), "4"])["out"], end="")
            merge = measured([args.binary, "compact", table, "--output", "json"])
            print(f"merged into one run: {merge['wall']:.1f} s wall, {merge['cpu']:.1f} s CPU, {merge['rss']:.0f} MB")
        open(table + ".done", "w").close()
    state = json.loads(measured([args.binary, "status", table, "--output", "json"])["out"])
    folder = os.path.join(table, "_dedupe", "tokens")
    newest = max((os.path.join(folder, name) for name in os.listdir(folder)), key=os.path.getsize)
    print(f"{tokens + known:,} tokens, {os.path.getsize(newest) / (tokens + known):.2f} bytes each in the largest run; {state.get('runs')}")
    return table, files, few


def linked(table):
    copy = fresh(table + "-copy")
    shutil.copytree(table, copy, copy_function=os.link)
    return copy


def compare(args, what):
    sizes = [0, args.tokens]
    tables = {size: grown_table(args, size) for size in sizes}
    runs = {size: [] for size in sizes}
    for _ in range(args.runs):
        for size, (table, files, few) in tables.items():
            more = ["--memory", args.memory] if args.memory else []
            runs[size].append(ingest(args.binary, files if what == "grown" else few, linked(table), *more))
    print("| tokens | wall s | CPU s | MB | accepted |\n|---|--:|--:|--:|--:|")
    for size, all_ in runs.items():
        middle = lambda key: statistics.median(run[key] for run in all_)
        accepted = json.loads(all_[0]["out"])["accepted"]
        print(f"| {size + 1_000_000:,} | {middle('wall'):.3f} | {middle('cpu'):.3f} | {max(run['rss'] for run in all_):.0f} | {accepted:,} |")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("work", choices=["tiny", "long", "grown", "small"])
    parser.add_argument("binary")
    parser.add_argument("grow", nargs="?")
    parser.add_argument("--tokens", type=int)
    parser.add_argument("--commits", type=int)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--memory")
    parser.add_argument("--folder", default="/tmp/scale-bench")
    args = parser.parse_args()
    args.binary = os.path.abspath(args.binary)
    os.makedirs(args.folder, exist_ok=True)
    args.commits = args.commits or (100_000 if args.work == "long" else 10_000)
    if args.work == "tiny":
        return tiny(args)
    args.tokens = args.tokens or (100_000_000 if args.work == "grown" else 1_000_000_000)
    if not args.grow:
        parser.error("GROW is needed: cargo build --release --example grow")
    args.grow = os.path.abspath(args.grow)
    if args.work == "long":
        return long(args)
    compare(args, args.work)


if __name__ == "__main__":
    main()
