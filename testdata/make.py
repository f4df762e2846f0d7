#!/usr/bin/env python3
"""Makes the files of this folder, always the same bytes for the same libraries (.ci/requirements.txt).

    python testdata/make.py            write all files, then truth.json
    python testdata/make.py --check    recompute truth.json from the committed files and compare

The truth is computed from the written files alone, never from what the generator knew when it made them.
"""

import gzip
import io
import json
import random
import sys
import uuid
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import zstandard

HERE = Path(__file__).resolve().parent
DAY_ZERO_MS = 1_772_323_200_000  # 2026-03-01T00:00:00Z; no clock is read anywhere


# ---- writing -----------------------------------------------------------------------------------------------


def parquet(path, table, compression="snappy", row_group=None):
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(
        table,
        path,
        compression=compression,
        row_group_size=row_group or max(1, table.num_rows),
        write_page_index=True,
    )


def compressed(name, data):
    if name.endswith(".gz"):
        buffer = io.BytesIO()
        with gzip.GzipFile(filename="", mode="wb", fileobj=buffer, mtime=0) as file:
            file.write(data)
        return buffer.getvalue()
    return zstandard.ZstdCompressor(level=9).compress(data) if name.endswith(".zst") else data


def raw(path, data):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(compressed(path.name, data))


def lines(path, rows):
    raw(path, b"".join(json.dumps(row, ensure_ascii=False).encode() + b"\n" for row in rows))


# ---- orders: an at-least-once delivery ---------------------------------------------------------------------

ORDER = pa.schema(
    [
        ("event_id", pa.string()),
        ("order_id", pa.int64()),
        ("customer", pa.string()),
        ("status", pa.string()),
        ("amount", pa.float64()),
        ("gift", pa.bool_()),
        ("event_ms", pa.int64()),
        ("items", pa.list_(pa.struct([("sku", pa.string()), ("quantity", pa.int64())]))),
        ("ship", pa.struct([("city", pa.string()), ("zip", pa.string())])),
        ("note", pa.string()),
        ("delivery", pa.int64()),
    ]
)


def order_events(count):
    """Distinct events, in the order in which the producer made them."""
    rng = random.Random(20260301)
    customers = [f"customer-{n:03}" for n in range(60)]
    cities = ["Łódź", "Köln", "São Paulo", "東京", "Reykjavík", "Nairobi"]
    for n in range(count):
        yield {
            "event_id": str(uuid.UUID(int=rng.getrandbits(128), version=4)),
            "order_id": 1000 + n // 3,
            "customer": rng.choice(customers),
            "status": ["placed", "paid", "shipped"][n % 3],
            "amount": rng.randrange(100, 100_000) / 100,
            "gift": rng.random() < 0.1,
            "event_ms": DAY_ZERO_MS + n * 1_700,
            "items": [
                {"sku": f"sku-{rng.randrange(40):02}", "quantity": rng.randrange(1, 5)}
                for _ in range(rng.randrange(0, 3))
            ],
            "ship": None
            if n % 11 == 5
            else {"city": rng.choice(cities), "zip": f"{rng.randrange(10**5):05}"},
            "note": "leave at the door" if n % 13 == 0 else None,
        }


def make_orders():
    events = list(order_events(900))
    deliveries = iter(range(1, 10_000))

    def sent(
        *parts,
    ):  # each event as delivered now: its place in the broker's log is new, all else is the event's
        return [{**event, "delivery": next(deliveries)} for part in parts for event in part]

    def retried(
        part, at, times=1
    ):  # the producer sends the events `at` once more, right behind the first time
        return [event for n, event in enumerate(part) for _ in range(1 + times * (n in at))]

    def table(rows):
        return pa.Table.from_pylist(rows, schema=ORDER)

    def sparse(rows):  # a producer that leaves null members out in every second row
        return [
            row if n % 2 else {k: v for k, v in row.items() if v is not None} for n, row in enumerate(rows)
        ]

    folder = HERE / "orders"
    parquet(folder / "part-1.parquet", table(sent(events[:200])), "snappy", 100)
    second = sent(events[200:300], retried(events[300:350], {7, 8, 40}), events[150:197])
    parquet(folder / "part-2.parquet", table(second), "zstd", 100)
    parquet(folder / "part-3.parquet", table(sent(events[:100], events[350:450])), "snappy", 100)
    lines(
        folder / "part-4.ndjson",
        sparse(sent(retried(events[450:550], {3, 50, 99}, times=2), events[340:360])),
    )
    lines(folder / "part-5.ndjson.gz", sparse(sent(events[550:650], events[500:560])))
    lines(folder / "part-6.ndjson.zst", sparse(sent(events[650:800], events[:20])))
    (folder / "part-7-replay.parquet").write_bytes((folder / "part-2.parquet").read_bytes())
    lines(folder / "part-8.jsonl", sent(events[800:900], reversed(events[800:900])))


# ---- clicks: instants, to be partitioned by day ------------------------------------------------------------


def make_clicks():
    rng = random.Random(7)
    schema = pa.schema(
        [("click_id", pa.int32()), ("at", pa.timestamp("us", tz="UTC")), ("country", pa.string())]
    )
    day_us = 86_400_000_000
    rows = [
        {
            "click_id": n,
            "at": None if n == 17 else DAY_ZERO_MS * 1000 + n * day_us // 20,
            "country": rng.choice(["DE", "PL", "a b/c=d%", "", None]),
        }
        for n in range(60)
    ]
    parquet(HERE / "clicks/day-1-2.parquet", pa.Table.from_pylist(rows[:40], schema=schema), "zstd", 20)
    parquet(HERE / "clicks/day-2-3.parquet", pa.Table.from_pylist(rows[30:], schema=schema), "zstd", 20)


# ---- drift: the same stream while its producers change -----------------------------------------------------


def make_drift():
    def write(name, schema, rows):
        parquet(HERE / "drift" / name, pa.Table.from_pylist(rows, schema=pa.schema(schema)))

    base = [("id", pa.int32()), ("amount", pa.float32()), ("note", pa.string())]
    wide = [("id", pa.int64()), ("amount", pa.float64()), ("note", pa.string())]
    write("1-base.parquet", base, [{"id": n, "amount": n + 0.5, "note": f"n{n}"} for n in range(10)])
    write(
        "2-new-column.parquet",
        base + [("channel", pa.string())],
        [{"id": n, "amount": 1.25, "note": "x", "channel": "web"} for n in range(8, 14)],
    )
    write(
        "3-wider.parquet", wide, [{"id": n, "amount": 0.1, "note": None} for n in (12, 13, 14, 2**31, 2**40)]
    )
    write("4-missing-column.parquet", [("id", pa.int64())], [{"id": n} for n in (14, 15, 16)])
    write("5-other-order.parquet", wide[::-1], [{"id": n, "amount": 2.0, "note": "o"} for n in (16, 17)])
    lines(
        HERE / "drift/6-new-field.ndjson",
        [{"id": 17, "note": "seen"}, {"id": 18, "amount": 3, "note": "i", "device": {"os": "x", "v": 2}}],
    )
    lines(
        HERE / "drift/incompatible.ndjson",
        [
            {"id": 100, "note": "fits"},
            {"id": 101, "note": 5},
            {"id": 102, "amount": "12"},
            {"id": 1.5},
            {"id": "103"},
            {"id": 104, "amount": 1.5},
        ],
    )
    write("incompatible.parquet", [("id", pa.int64()), ("note", pa.int64())], [{"id": 200, "note": 5}])
    write(
        "incompatible-key.parquet", [("id", pa.string()), ("note", pa.string())], [{"id": "1", "note": "n1"}]
    )


# ---- bad: what must never crash, hang or vanish ------------------------------------------------------------

MALFORMED = [  # (line, the reason why it is kept out; None = a good row)
    (b'{"id":1,"v":"good"}', None),
    (b'{"id":2,"v":"cut off', "ends in the middle"),
    (b'{"id":3,"v":"good"}', None),
    (b"not json", "not JSON"),
    (b"[1,2,3]", "not an object"),
    (b'"text"', "not an object"),
    (b'{"id":7,"v":"a"}{"id":8,"v":"b"}', "two values in one line"),
    (b'{"id":9,"v":"first","v":"second"}', "a member twice"),
    (b"", None),
    (b'{"id":10,"v":"\\ud800"}', "lone surrogate"),
    (b'{"id":11,"v":"\xff\xfe"}', "invalid UTF-8"),
    (b"{'id':12}", "not JSON"),
    (b'{"id":13,"v":"trailing comma",}', "not JSON"),
    (b'{"id":NaN,"v":"x"}', "not JSON"),
    (b'{"id":015,"v":"leading zero"}', "not JSON"),
    (b'{"id":16,"v":"control \x01 character"}', "unescaped control character"),
    (b"\xef\xbb\xbf{}", "not JSON: a byte order mark belongs at the start of a file only"),
    (b'{"id":17,"v":"good, and the last line has no newline"}', None),
]


def make_bad():
    folder = HERE / "bad"
    raw(folder / "malformed.ndjson", b"\n".join(line for line, _ in MALFORMED))
    raw(folder / "bom-crlf.ndjson", b'\xef\xbb\xbf{"id":1}\r\n\r\n{"id":2}\r\n   \r\n{"id":1}\r\n')
    raw(
        folder / "deep.ndjson",
        b"".join(
            b'{"id":%d,"deep":%s%s}\n' % (n, b"[" * depth, b"]" * depth)
            for n, depth in enumerate((1, 20, 10_000, 2))
        ),
    )
    raw(
        folder / "numbers.ndjson",
        b"".join(
            b'{"id":%d,"n":%s}\n' % (n, number)
            for n, number in enumerate(
                (
                    b"1",
                    b"1.5",
                    b'"12"',
                    b"12345678901234567890123",
                    b"1e400",
                    b"-0.0",
                    b"0.1",
                    b"9007199254740993",
                )
            )
        ),
    )
    keys = [
        {"tenant": "a", "id": 1},
        {"tenant": "a", "id": None},
        {"tenant": None, "id": None},
        {"tenant": "a"},
        {"id": 1},
        {"other": True},
        {"tenant": "", "id": 1},
        {"tenant": "a", "id": 1},
    ]
    lines(folder / "null-keys.ndjson", keys)
    schema = pa.schema([("tenant", pa.string()), ("id", pa.int64()), ("other", pa.bool_())])
    parquet(folder / "null-keys.parquet", pa.Table.from_pylist(keys, schema=schema), row_group=3)
    parquet(folder / "missing-key.parquet", pa.table({"tenant": ["a"], "other": [True]}))
    lines(folder / "missing-key.ndjson", [{"tenant": "a", "other": True}])

    good = HERE / "orders/part-1.parquet"
    data = good.read_bytes()
    raw(folder / "truncated.parquet", data[: len(data) * 3 // 5])
    raw(folder / "no-footer.parquet", data[:-200] + b"PAR1")
    spoilt = bytearray(data)
    meta = pq.read_metadata(good).row_group(1)
    for column in range(meta.num_columns):  # the footer stays whole, the second row group's pages do not
        chunk = meta.column(column)
        start = chunk.dictionary_page_offset or chunk.data_page_offset
        spoilt[start : start + chunk.total_compressed_size] = b"\xff" * chunk.total_compressed_size
    raw(folder / "spoilt-pages.parquet", bytes(spoilt))
    raw(folder / "text.parquet", b"event_id,order_id\n1,2\n")
    raw(folder / "empty.parquet", b"")
    raw(folder / "empty.ndjson", b"")
    for name in ("truncated.ndjson.gz", "truncated.ndjson.zst"):
        rows = "".join(
            json.dumps({"id": n, "v": uuid.UUID(int=n * 0x9E3779B97F4A7C15).hex}) + "\n" for n in range(500)
        )
        whole = compressed(name, rows.encode())
        (folder / name).write_bytes(whole[: len(whole) // 2])


# ---- truth: read back, count, compare ----------------------------------------------------------------------


def rows_of(path):
    """The rows of a written file as plain Python values, a member that is not there as None."""
    if path.suffix == ".parquet":
        return pq.read_table(path).to_pylist()
    data = path.read_bytes()
    if path.suffix == ".gz":
        data = gzip.decompress(data)
    elif path.suffix == ".zst":
        data = zstandard.ZstdDecompressor().decompress(data)
    return [json.loads(line) for line in data.decode("utf-8-sig").split("\n") if line.strip()]


def value_of(row, name):
    for part in [name] if name in row else name.split("."):
        row = row.get(part) if isinstance(row, dict) else None
    return row


def key_of(row, columns):
    return tuple(json.dumps(value_of(row, name), sort_keys=True, default=str) for name in columns)


def counts(rows, columns):
    keys = [key_of(row, columns) for row in rows]
    keyless = ("null",) * len(columns)
    nulls = keys.count(keyless)
    distinct = len(set(keys) - {keyless})
    return {
        "rows": len(rows),
        "distinct": distinct,
        "keyless": nulls,
        "accepted_quarantine": distinct,
        "accepted_keep": distinct + nulls,
    }


def survivors(files, columns):
    """Per file, the numbers (from 0) of the rows that are the first of their key, in input order."""
    seen, kept = {("null",) * len(columns)}, {}
    for path in files:
        kept[path.name] = []
        for number, row in enumerate(rows_of(path)):
            key = key_of(row, columns)
            if key not in seen:
                seen.add(key)
                kept[path.name].append(number)
    return kept


def counted(files, keys):
    rows = {path.name: rows_of(path) for path in files}
    return {
        "files": {name: {",".join(key): counts(rows[name], key) for key in keys} for name in rows},
        "together": {
            ",".join(key): counts([row for name in rows for row in rows[name]], key) for key in keys
        },
    }


def ranges(numbers):
    """[1, 2, 3, 7] as [[1, 3], [7, 7]]: short enough to check by hand."""
    out = []
    for n in numbers:
        if out and out[-1][1] == n - 1:
            out[-1][1] = n
        else:
            out.append([n, n])
    return out


def malformed_truth():
    data, offset, rejected = (HERE / "bad/malformed.ndjson").read_bytes().split(b"\n"), 0, []
    accepted = []
    for number, line in enumerate(data, 1):
        if reason := MALFORMED[number - 1][1]:
            rejected.append({"line": number, "offset": offset, "reason": reason})
        elif line:
            accepted.append(json.loads(line)["id"])
        offset += len(line) + 1
    return {
        "key": "id",
        "accepted_ids": accepted,
        "rejected": rejected,
        "read": len(accepted) + len(rejected),
    }


def truth():
    orders = sorted((HERE / "orders").iterdir())
    clicks = sorted((HERE / "clicks").iterdir())
    drift = sorted((HERE / "drift").glob("[0-9]-*"))
    nulls = sorted((HERE / "bad").glob("null-keys.*"))
    first_clicks = {row["click_id"]: row for path in clicks for row in reversed(rows_of(path))}
    days = [row["at"].date().isoformat() if row["at"] else None for row in first_clicks.values()]
    return {
        "orders": {
            **counted(
                orders,
                [
                    ["event_id"],
                    ["order_id", "status"],
                    ["customer"],
                    ["ship.city"],
                    ["ship"],
                    ["items"],
                    ["note"],
                ],
            ),
            "survivors_by_event_id": {
                name: ranges(rows) for name, rows in survivors(orders, ["event_id"]).items()
            },
        },
        "clicks": {
            **counted(clicks, [["click_id"], ["at"], ["country"]]),
            "survivors_per_day": {str(day): days.count(day) for day in sorted(set(days), key=str)},
        },
        "drift": {
            **counted(drift, [["id"]]),
            "survivors_by_id": {name: ranges(rows) for name, rows in survivors(drift, ["id"]).items()},
            "incompatible.ndjson": {"accepted_ids": [100, 104], "rejected_lines": [2, 3, 4, 5]},
            "refused": ["incompatible.parquet", "incompatible-key.parquet"],
        },
        "bad": {
            "malformed.ndjson": malformed_truth(),
            "bom-crlf.ndjson": {"key": "id", **counts(rows_of(HERE / "bad/bom-crlf.ndjson"), ["id"])},
            "deep.ndjson": {"key": "id", "accepted_ids": [0, 1, 3], "rejected_lines": [3]},
            "numbers.ndjson": {
                "key": "id",
                "n": [
                    line.split('"n":')[1][:-1]
                    for line in (HERE / "bad/numbers.ndjson").read_text().splitlines()
                ],
            },
            "null-keys": counted(nulls, [["id"], ["tenant"], ["tenant", "id"]]),
            "missing_key": ["missing-key.ndjson", "missing-key.parquet"],
            "unreadable": [
                "empty.parquet",
                "no-footer.parquet",
                "spoilt-pages.parquet",
                "text.parquet",
                "truncated.ndjson.gz",
                "truncated.ndjson.zst",
                "truncated.parquet",
            ],
        },
    }


def main():
    if "--check" not in sys.argv:
        for make in (make_orders, make_clicks, make_drift, make_bad):
            make()
    text = dump(truth())
    path = HERE / "truth.json"
    if "--check" in sys.argv:
        if path.read_text() != text:
            sys.exit("testdata/truth.json is not what the files of testdata hold: run testdata/make.py")
    else:
        path.write_text(text)


def dump(value):
    """JSON with one short thing a line, so that it can be read and a change of it reviewed."""

    def write(value, indent):
        flat = json.dumps(value, ensure_ascii=False)
        if len(flat) + indent <= 120 or not isinstance(value, (dict, list)):
            return flat
        pad = " " * (indent + 1)
        if isinstance(value, dict):
            inner = [f"{pad}{json.dumps(k)}: {write(v, indent + 1)}" for k, v in value.items()]
            return "{\n" + ",\n".join(inner) + "\n" + " " * indent + "}"
        return "[\n" + ",\n".join(pad + write(v, indent + 1) for v in value) + "\n" + " " * indent + "]"

    return write(value, 0) + "\n"


if __name__ == "__main__":
    main()
