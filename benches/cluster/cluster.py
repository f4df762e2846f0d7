#!/usr/bin/env python3
"""What a cluster costs: the same rows ingested by one process, and by a Ballista cluster of one and of two executors on the same machine.

  cluster.py DEDUPE CLUSTER [--rows 10000000] [--files 16] [--tasks 8] [--runs 3] [--folder /tmp/dedupe-cluster]

CLUSTER is the example of that name. Each executor runs one task at a time, and the one process has one thread, so that two executors
are to it what two threads would be. Rows come from benches/works/events.py: one in five repeats an earlier one. Runs are
interleaved; wall time is that of `dedupe ingest`, CPU time that of all processes, the scheduler included. After each run the keys
in the table are compared with those of the first.
"""

import argparse
import glob
import hashlib
import json
import os
import shutil
import socket
import statistics
import subprocess
import sys
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "works"))

TICK = os.sysconf("SC_CLK_TCK")


def cpu_of(pid):
    with open(f"/proc/{pid}/stat") as stat:
        fields = stat.read().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / TICK


class Cluster:
    """A scheduler and executors, which end with it."""

    def __init__(self, binary, executors, folder):
        self.port = 41000 + executors * 100
        start = lambda *args: subprocess.Popen([binary, *args], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        self.processes = [start("scheduler", "--bind", f"127.0.0.1:{self.port}")]
        ports = [self.port]
        for executor in range(executors):
            port, work = self.port + 10 * (executor + 1), os.path.join(folder, f"work-{executors}-{executor}")
            os.makedirs(work, exist_ok=True)
            ports.append(port)
            self.processes.append(start("executor", "--scheduler", f"127.0.0.1:{self.port}", "--bind", f"127.0.0.1:{port}", "--tasks", "1",
                                        "--work-dir", work))
        for port in ports:
            while True:
                with socket.socket() as probe:
                    if probe.connect_ex(("127.0.0.1", port)) == 0:
                        break
                time.sleep(0.05)

    def cpu(self):
        return sum(cpu_of(process.pid) for process in self.processes)

    def close(self):
        for process in self.processes:
            process.kill()
            process.wait()


def ingest(command):
    start = time.perf_counter()
    child = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    out, err = child.stdout.read(), child.stderr.read()
    _, status, usage = os.wait4(child.pid, 0)
    if os.waitstatus_to_exitcode(status):
        sys.exit(f"{command[:3]}… failed: {err.decode()[-2000:]}")
    return time.perf_counter() - start, usage.ru_utime + usage.ru_stime, json.loads(out)


def keys(binary, table):
    import pyarrow.parquet as parquet
    files = subprocess.run([binary, "files", table], check=True, capture_output=True, text=True).stdout.split("\n")
    ids = sorted(id for file in files if file for id in parquet.read_table(file, columns=["event_id"])["event_id"].to_pylist())
    return len(ids), len(set(ids)), hashlib.sha256("\n".join(ids).encode()).hexdigest()


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("dedupe")
    parser.add_argument("cluster")
    parser.add_argument("--rows", type=int, default=10_000_000)
    parser.add_argument("--files", type=int, default=16)
    parser.add_argument("--tasks", type=int, default=8)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--folder", default="/tmp/dedupe-cluster")
    args = parser.parse_args()
    import events
    os.makedirs(args.folder, exist_ok=True)
    landing = os.path.join(args.folder, f"landing-{args.rows}-{args.files}")
    if not os.path.exists(landing):
        events.CHUNK = -(-args.rows // args.files)
        events.parquet(landing + ".new", args.rows, duplicates=0.2)
        os.rename(landing + ".new", landing)
    files = sorted(glob.glob(os.path.join(landing, "*.parquet")))
    clusters = {executors: Cluster(args.cluster, executors, args.folder) for executors in (1, 2)}
    found, first = {0: [], 1: [], 2: []}, None
    try:
        for _ in range(args.runs):
            for executors in found:
                table = os.path.join(args.folder, f"table-{executors}")
                shutil.rmtree(table, ignore_errors=True)
                command = [args.dedupe, "ingest", *files, "--into", table, "--key", "event_id", "--output", "json", "--threads", "1"]
                before = 0
                if executors:
                    before = clusters[executors].cpu()
                    command += ["--cluster", f"http://127.0.0.1:{clusters[executors].port}", "--cluster-tasks", str(args.tasks)]
                wall, cpu, report = ingest(command)
                if executors:
                    cpu += clusters[executors].cpu() - before
                held = keys(args.dedupe, table)
                first = first or held
                if held != first or held[0] != held[1] or held[0] != report["accepted"]:
                    sys.exit(f"with {executors} executors the table holds {held}, and with the first {first}")
                found[executors].append((wall, cpu))
                print(f"{executors} executors: {wall:.1f} s wall, {cpu:.1f} s CPU, {report['accepted']:,} of {report['read']:,} rows", flush=True)
    finally:
        for cluster in clusters.values():
            cluster.close()
    print("| | wall s | CPU s |\n|---|--:|--:|")
    for executors, name in ((0, "one process, one thread"), (1, "one executor"), (2, "two executors")):
        middle = lambda at: statistics.median(run[at] for run in found[executors])
        print(f"| {name} | {middle(0):.1f} | {middle(1):.1f} |")


if __name__ == "__main__":
    main()
