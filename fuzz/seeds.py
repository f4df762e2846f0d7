#!/usr/bin/env python3
"""Seeds the fuzzer's corpora from the test data and, where it exists, the folder of real files.

    fuzz/seeds.py CORPUS [REALDATA]

Each target has a few bytes of its own in front of the data (src/fuzzing/): which are chosen here. Files are named
after their content, so that seeding twice changes nothing.
"""

import gzip
import hashlib
import json
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent.parent
LARGEST = 64 << 10


def put(corpus, target, data):
    if len(data) <= LARGEST:
        folder = corpus / target
        folder.mkdir(parents=True, exist_ok=True)
        (folder / hashlib.sha1(data).hexdigest()).write_bytes(data)


def files(folder, *suffixes):
    found = sorted(path for path in folder.rglob("*") if path.is_file()) if folder.is_dir() else []
    return [path for path in found if not suffixes or path.name.endswith(suffixes)]


def ndjson(corpus, text):
    # Block size and longest line, two bytes each.
    for head in (b"\x0f\xff\x1f\xff", b"\x00\x20\x00\x40"):
        put(corpus, "ndjson", head + text[: LARGEST - 8])


def tables(corpus):
    entry = {"format": 1, "version": 0, "id": "0" * 32, "prev": "0" * 32, "time": "", "session": "0" * 32, "writer": "w"}
    empty = {"count": 0, "sum": "0" * 32}
    zero = dict.fromkeys(["read", "accepted", "duplicate", "replayed", "conflict", "late", "rejected"], 0)
    create = entry | {"kind": "create", "table": "t", "policy": {"null_key": "quarantine"}}
    one = {"count": 1, "sum": "0" * 31 + "7"}
    name = f"{1:020}-{'0' * 32}-"
    rows = zero | {"read": 2, "accepted": 1, "duplicate": 1}
    schema = {"fields": [{"name": "id", "data_type": "Utf8", "nullable": True, "dict_id": 0, "dict_is_ordered": False,
                          "metadata": {}}], "metadata": {}}
    ingest = entry | {
        "kind": "ingest", "policy": 0, "schema": {"base": 0, "schema": schema},
        "sources": [{"url": "a", "size": 1, "modified": "m", "id": "1" * 32, "rows": rows}],
        "files": [{"name": f"data/{name}0.parquet", "rows": 1, "bytes": 9, "check": "0" * 16, "keyless": 0,
                   "tokens": one, "origin": "0:1", "key_range": [["a", "b"]]}],
        "runs": [{"name": f"_dedupe/tokens/{name}1.run", "bytes": 9, "min": "0" * 32, "max": "f" * 32, "tokens": one,
                  "check": "0" * 16}],
        "quarantine": [{"name": f"_dedupe/quarantine/{name}2.ndjson", "rows": 1, "bytes": 1}],
        "rows": rows, "keyless": 0, "added": one, "total": one, "batch": {"id": "b", "digest": "2" * 32},
    }
    compact = entry | {
        "kind": "compact", "runs_removed": [f"_dedupe/tokens/{name}1.run"],
        "runs_added": [{"name": f"_dedupe/tokens/{name}3.run", "bytes": 9, "min": "0" * 32, "max": "f" * 32,
                        "tokens": one, "check": "0" * 16}],
    }
    policy = entry | {"kind": "policy", "policy": {"null_key": "keep", "partition_by": ["date(at)"]}}
    fence = entry | {"kind": "fence", "floor": 1}
    texts = [json.dumps(value).encode() for value in (create, ingest, compact, policy, fence)]
    put(corpus, "manifest", b"\x00" + b"\x00".join(texts))
    for text in texts:
        put(corpus, "manifest", b"\x00" + texts[0] + b"\x00" + text)
    for length in (40, 200, 1000):
        put(corpus, "manifest", bytes([1]) + bytes((i * 37 + length) % 251 for i in range(length)))
    live = lambda item: [[1, item]]
    parts = lambda kind: {"entries": 33, "parts": [{"name": f"_dedupe/parts/{32:020}-{'7' * 32}.{kind}", "records": 2}]}
    state = {
        "entries": 33, "tip": "0" * 32, "table": "t", "schema": schema, "schema_version": 1,
        "policy": {"null_key": "quarantine"}, "policy_version": 0, "floor": 0, "oldest": 0,
        "runs": live(ingest["runs"][0]),
        "inline": {"1": "AAAAAAAAAAAAAAAAAAAAAA=="},
        "sources": 1, "batches": 1, "total": one, "keyless": 0, "rows": rows, "last_ingest": [1, "now"],
        "beneath": {"index": parts("index"), "lists": parts("list.zst")},
    }
    none = {"index": {"entries": 33, "parts": []}, "lists": {"entries": 33, "parts": []}}
    for state in (state, state | {"beneath": none}, state | {"beneath": none, "total": empty}):
        put(corpus, "checkpoint", b"\x01" + json.dumps({"format": 4, "state": state}).encode())
    lists = {"format": 1, "files": live(ingest["files"][0]), "quarantine": live(ingest["quarantine"][0])}
    put(corpus, "checkpoint", b"\x09" + json.dumps(lists).encode())
    for count in (1, 2, 127, 128, 129, 300):
        # Checksums are not made here: the fuzzer finds out what lies before them, a unit test what lies behind.
        head = b"dedupIX\x01" + count.to_bytes(8, "little") + bytes(16 * -(-count // 128))
        put(corpus, "checkpoint", b"\x04" + head + bytes(40 * count))


def runs(corpus):
    for head in range(0, 128, 9):
        put(corpus, "token_run", bytes([head, head % 5, 1, 44, 12]))
        put(corpus, "token_run", bytes([head | 4, head % 5, 1, 44, 12]) + bytes((i * head) % 253 for i in range(40)))
    # One in sixteen of these is large.
    for last in range(64):
        put(corpus, "token_run", bytes([0x77, last % 5, 0x23, 0x27, 12, last]))


def texts(corpus):
    lines = [
        "s3://bucket/a b/c", "file:///a%20b", "abfss://c@a.dfs.core.windows.net/k", "memory://m/k", "a/**/[ab]*.json\nx/y/a.json",
        "512MB", "1.5 GiB", "a=1,b\\,c=x", "id,payload.push_id", "retry_timeout=10s", "-12.50", "2026-01-31T23:59:59.5Z",
        "1500ms", "00112233-4455-6677-8899-aabbccddeeff", "date(at)", "zstd(3)", "xxh3-128", '{"a":[1,2.5e3,"\\u00e9"]}',
        f"data/country=DE/{1:020}-{'0' * 32}-7.parquet", f"_dedupe/ledger/{7:020}.json",
        '{"fields":[{"name":"s","type":{"struct":[{"name":"x","type":"decimal(10,2)"}]},"nullable":false}]}',
    ]
    for which in range(10):
        for line in lines:
            put(corpus, "text", bytes([which]) + line.encode())


def main():
    corpus = Path(sys.argv[1])
    real = Path(sys.argv[2]) if len(sys.argv) > 2 else Path("/nowhere")
    for path in files(HERE / "testdata", ".parquet") + files(real / "parquet", ".parquet"):
        put(corpus, "parquet", path.read_bytes())
    for path in files(HERE / "testdata", ".ndjson", ".jsonl") + files(real / "json_hostile"):
        ndjson(corpus, path.read_bytes())
    for path in files(real / "events", ".gz"):
        with gzip.open(path) as file:
            ndjson(corpus, file.read(LARGEST))
    for target in sorted((HERE / "testdata/hostile/fuzz").glob("*")):
        for path in files(target):
            put(corpus, target.name, path.read_bytes())
    tables(corpus)
    runs(corpus)
    texts(corpus)
    for path in files(HERE / "testdata/golden") + files(HERE / "testdata", ".parquet"):
        put(corpus, "token", path.read_bytes()[:4096])
    print(", ".join(f"{folder.name} {len(list(folder.iterdir()))}" for folder in sorted(corpus.iterdir())))


if __name__ == "__main__":
    main()
