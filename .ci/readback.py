#!/usr/bin/env python3
"""Ingests random inputs, reads the tables back with pyarrow and DuckDB, compares every row with an oracle.

    .ci/readback.py BINARY [--seed N] [--rounds N]

A round makes one table of each shape below, in several runs of several files. The oracle is first_wins of
rows.py: a Python set. A failure names shape and seed; the same seed gives the same inputs again.
"""

import argparse
import gzip
import json
import random
import sys
import tempfile
from collections import namedtuple
from datetime import date
from decimal import Decimal
from pathlib import Path

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import zstandard
from cli import Dedupe
from rows import difference, first_wins, rows

# runs: what each run of the program gets, a list of Arrow tables, one per file.
# formats: what a file may be written as. foreign: columns that DuckDB gives back as another kind.
Shape = namedtuple("Shape", "runs key flags formats ordered foreign", defaults=([], ["parquet"], True, ()))


# ---- random rows -------------------------------------------------------------------------------------------


def maybe(rng, value, chance=0.15):
    return None if rng.random() < chance else value


def word(rng):
    return rng.choice(["", "a", "ü", "日本", "x" * 40, "NULL", "1", '"q"\n', "é", "🙂"]) + str(
        rng.randrange(9)
    )


def event(rng, n):
    """A row that both formats can carry. Row 0 has every member, so that inference sees each type."""
    none = (lambda value: value) if n == 0 else (lambda value: maybe(rng, value))
    return {
        "id": rng.randrange(120),
        "tenant": none(rng.choice("abc")),
        "amount": none(rng.uniform(-1e6, 1e6)),
        "flag": none(rng.random() < 0.5),
        "tags": none([word(rng) for _ in range(1 if n == 0 else rng.randrange(4))]),
        "at": none({"x": rng.randrange(5), "y": word(rng) if n == 0 else maybe(rng, word(rng))}),
        "name": none(word(rng)),
        "big": none(rng.choice([-(2**63), 2**63 - 1, 0, rng.getrandbits(50)])),
    }


EVENT = pa.schema(
    [
        ("id", pa.int64()),
        ("tenant", pa.string()),
        ("amount", pa.float64()),
        ("flag", pa.bool_()),
        ("tags", pa.list_(pa.string())),
        ("at", pa.struct([("x", pa.int64()), ("y", pa.string())])),
        ("name", pa.string()),
        ("big", pa.int64()),
    ]
)

ANY_FORMAT = ["parquet", "ndjson", "ndjson.gz", "ndjson.zst"]


def runs_of(rng, make, schema):
    """Two to four runs of one to three files with rows of `make(n)`; some files are empty or nearly so."""
    return [
        [
            pa.Table.from_pylist(
                [make(n) for n in range(rng.choice([0, 3, 60, 700]) if run + file else 50)], schema=schema
            )
            for file in range(rng.randrange(1, 4))
        ]
        for run in range(rng.randrange(2, 5))
    ]


# ---- shapes ------------------------------------------------------------------------------------------------


def plain_events(rng):
    key = rng.choice([["id"], ["tenant", "id"], ["at.x", "tenant"], ["name"], ["at"], ["tags", "flag"]])
    return Shape(runs_of(rng, lambda n: event(rng, n), EVENT), key, formats=ANY_FORMAT)


def partitioned_events(rng):
    shape = plain_events(rng)
    return shape._replace(
        flags=["--partition-by", rng.choice(["tenant", "flag,tenant", "name"])], ordered=False
    )


def partitioned_days(rng):
    schema = pa.schema([("id", pa.int32()), ("ts", pa.timestamp("us", "UTC")), ("v", pa.string())])

    def make(_):
        day = rng.choice([-1, 0, 19_000, 20_513])  # 1969 and 1970 too: a date before the epoch rounds down
        return {
            "id": rng.randrange(300),
            "ts": maybe(rng, day * 86_400_000_000 + rng.randrange(86_400_000_000)),
            "v": word(rng),
        }

    return Shape(runs_of(rng, make, schema), ["id"], ["--partition-by", "date(ts)"], ordered=False)


def all_types(rng):
    day, us = 86_400, 10**6
    column = {
        "bool": (pa.bool_(), lambda: rng.random() < 0.5),
        **{
            f"i{w}": (
                getattr(pa, f"int{w}")(),
                lambda w=w: rng.choice([-(2 ** (w - 1)), 2 ** (w - 1) - 1, 0, 7]),
            )
            for w in (8, 16, 32, 64)
        },
        **{
            f"u{w}": (getattr(pa, f"uint{w}")(), lambda w=w: rng.choice([2**w - 1, 0, 7]))
            for w in (8, 16, 32, 64)
        },
        "f16": (pa.float16(), lambda: rng.choice([0.5, -2.0, float("inf")])),
        "f32": (pa.float32(), lambda: rng.choice([0.5, -0.0, float("nan"), 3e38])),
        "f64": (pa.float64(), lambda: rng.choice([0.1, -0.0, float("nan"), float("-inf"), 5e-324])),
        "dec32": (pa.decimal128(7, 2), lambda: Decimal(rng.randrange(-(10**7) + 1, 10**7)).scaleb(-2)),
        "dec64": (pa.decimal128(18, 6), lambda: Decimal(rng.randrange(10**18)).scaleb(-6)),
        "dec128": (pa.decimal128(38, 10), lambda: Decimal(rng.randrange(-9, 9))),
        "text": (pa.string(), lambda: word(rng)),
        "large_text": (pa.large_string(), lambda: word(rng)),
        "text_view": (pa.string_view(), lambda: word(rng)),
        "dict": (pa.dictionary(pa.int8(), pa.string()), lambda: rng.choice("xyz")),
        "bytes": (pa.binary(), lambda: rng.randbytes(rng.randrange(4))),
        "large_bytes": (pa.large_binary(), lambda: b"\0\xff"),
        "fixed": (pa.binary(16), lambda: bytes(15) + rng.randbytes(1)),
        "date32": (pa.date32(), lambda: date(1900 + rng.randrange(200), 2, 28)),
        "date64": (pa.date64(), lambda: date(2026, 3, 1)),
        "t_s": (pa.time32("s"), lambda: rng.randrange(day)),
        "t_ms": (pa.time32("ms"), lambda: rng.randrange(day * 1000)),
        "t_us": (pa.time64("us"), lambda: rng.randrange(day * us)),
        "t_ns": (pa.time64("ns"), lambda: rng.randrange(day * us) * 1000),
        **{
            f"ts_{u}": (
                pa.timestamp(u),
                lambda u=u: rng.randrange(-3, 3) * 10 ** {"s": 6, "ms": 9, "us": 12, "ns": 15}[u],
            )
            for u in ("s", "ms", "us", "ns")
        },
        "zoned": (pa.timestamp("us", "UTC"), lambda: rng.randrange(10**15)),
        "berlin": (pa.timestamp("ms", "Europe/Berlin"), lambda: rng.randrange(10**12)),
        "span": (pa.duration("us"), lambda: rng.randrange(-5, 5)),
        "nothing": (pa.null(), lambda: None),
    }
    schema = pa.schema([("id", pa.int64())] + [(name, kind) for name, (kind, _) in column.items()])

    def make(_):
        return {"id": rng.randrange(200), **{name: maybe(rng, draw()) for name, (_, draw) in column.items()}}

    key = (
        ["id"]
        if rng.random() < 0.4
        else rng.sample([name for name in column if name != "nothing"], rng.randrange(1, 3))
    )
    return Shape(
        runs_of(rng, make, schema), key, foreign=("span",)
    )  # DuckDB has no type that Parquet would call a duration


def nested(rng):
    point = pa.struct([("x", pa.int32()), ("tag", pa.string())])
    schema = pa.schema(
        [
            ("id", pa.int64()),
            ("points", pa.list_(point)),
            ("deep", pa.struct([("in", pa.struct([("p", point), ("n", pa.int64())]))])),
            ("matrix", pa.list_(pa.list_(pa.int16()))),
            ("attributes", pa.map_(pa.string(), pa.int64())),
            ("by_name", pa.map_(pa.string(), point)),
            ("fixed", pa.list_(pa.float32(), 2)),
            ("large", pa.large_list(pa.string())),
        ]
    )

    def many(draw, most=3):
        return [draw() for _ in range(rng.randrange(most + 1))]

    def a_point():
        return maybe(rng, {"x": maybe(rng, rng.randrange(3)), "tag": maybe(rng, word(rng))})

    def make(_):
        return {
            "id": rng.randrange(200),
            "points": maybe(rng, many(a_point)),
            "deep": maybe(rng, {"in": maybe(rng, {"p": a_point(), "n": maybe(rng, rng.randrange(4))})}),
            "matrix": maybe(rng, many(lambda: maybe(rng, many(lambda: maybe(rng, rng.randrange(3)))))),
            "attributes": maybe(
                rng, [(name, maybe(rng, rng.randrange(3))) for name in rng.sample("abc", rng.randrange(4))]
            ),
            "by_name": maybe(rng, [(name, a_point()) for name in rng.sample("abc", rng.randrange(3))]),
            "fixed": maybe(rng, [rng.random(), 1.0]),
            "large": maybe(rng, many(lambda: word(rng))),
        }

    key = rng.choice([["id"], ["deep.in.n", "id"], ["deep"], ["points"], ["matrix", "deep.in.p.x"]])
    return Shape(runs_of(rng, make, schema), key)


def widening(rng):
    """Columns come, go and grow, between the files of a run and between runs; the key's kind stays."""
    steps = [
        {
            "id": pa.int8(),
            "n": pa.int16(),
            "u": pa.uint32(),
            "f": pa.float32(),
            "d": pa.decimal128(7, 2),
            "ts": pa.timestamp("ms"),
            "s": pa.struct([("a", pa.int32())]),
            "l": pa.list_(pa.int32()),
        },
        {
            "id": pa.int32(),
            "n": pa.int32(),
            "u": pa.int64(),
            "f": pa.float64(),
            "d": pa.decimal128(18, 4),
            "ts": pa.timestamp("us"),
            "s": pa.struct([("a", pa.int64()), ("b", pa.string())]),
            "l": pa.list_(pa.int64()),
            "new": pa.string(),
        },
        {"new": pa.string(), "n": pa.int64(), "id": pa.int64(), "s": pa.struct([("b", pa.string())])},
    ]

    def draw(kind):
        if pa.types.is_struct(kind):
            return {kind.field(n).name: draw(kind.field(n).type) for n in range(kind.num_fields)}
        if pa.types.is_list(kind):
            return [draw(kind.value_type) for _ in range(rng.randrange(3))]
        if pa.types.is_decimal(kind):
            return Decimal(rng.randrange(10**5)).scaleb(-2)
        return word(rng) if pa.types.is_string(kind) else rng.randrange(100)

    def table(kinds):
        made = [
            {name: draw(kind) if name == "id" else maybe(rng, draw(kind)) for name, kind in kinds.items()}
            for _ in range(rng.choice([3, 50]))
        ]
        return pa.Table.from_pylist(made, schema=pa.schema(list(kinds.items())))

    order = [0, 0, 1, 0, 1, 2, 0, 2, 1]
    cuts = sorted(rng.sample(range(1, len(order)), 2))
    runs = [order[a:b] for a, b in zip([0, *cuts], [*cuts, len(order)])]
    return Shape([[table(steps[step]) for step in run] for run in runs], ["id"])


SHAPES = [plain_events, partitioned_events, partitioned_days, all_types, nested, widening]


# ---- one table ---------------------------------------------------------------------------------------------


def write(rng, path, table, suffix):
    suffix = (
        suffix if table.num_rows else "parquet"
    )  # no line, no column: NDJSON cannot say what it would hold
    path = path.with_name(path.name + "." + suffix)
    if suffix == "parquet":
        pq.write_table(
            table,
            path,
            compression=rng.choice(["snappy", "zstd", "gzip", "none", "lz4", "brotli"]),
            row_group_size=rng.choice([1, 7, 100, 1000]),
            use_dictionary=rng.random() < 0.6,
            data_page_version=rng.choice(["1.0", "2.0"]),
            write_page_index=rng.random() < 0.5,
            store_schema=True,
            version="2.6",
        )
        return path
    sparse = rng.random() < 0.5
    data = "".join(
        json.dumps(
            {k: v for k, v in row.items() if not (sparse and v is None)},
            ensure_ascii=rng.random() < 0.5,
            separators=rng.choice([(",", ":"), (", ", ": ")]),
        )
        + "\n"
        for row in table.to_pylist()
    ).encode()
    path.write_bytes(
        gzip.compress(data)
        if suffix.endswith("gz")
        else zstandard.compress(data)
        if suffix.endswith("zst")
        else data
    )
    return path


def read_pyarrow(files):
    return [row for file in files for row in rows(pq.ParquetFile(file).read())]


def read_duckdb(files):
    if not files:
        return []
    with duckdb.connect() as connection:
        connection.execute("SET TimeZone = 'UTC'; SET threads = 1")
        query = "SELECT * FROM read_parquet(?, union_by_name = true, hive_partitioning = false)"
        return rows(connection.sql(query, params=[files]).to_arrow_table())


def check(dedupe, shape, rng, folder):
    """Makes the table, run by run. Returns what is wrong."""
    table, seen, expected = folder / "table", set(), []
    names = list(dict.fromkeys(name for run in shape.runs for file in run for name in file.column_names))
    for number, run in enumerate(shape.runs):
        files = [
            write(rng, folder / f"run{number}-{n}", file, rng.choice(shape.formats))
            for n, file in enumerate(run)
        ]
        given = [row for file in run for row in rows(file)]
        fresh = first_wins(given, shape.key, seen)
        expected += fresh
        memory = rng.choice([[], ["--memory", "16MB"], ["--memory", "64MB"]])
        outcome = dedupe.ingest(files, table, shape.key, *shape.flags, *memory)
        if wrong := outcome.distress() or outcome.code and outcome.last_words():
            return f"run {number} of {[file.name for file in files]}: {wrong}"
        summary = outcome.summary()
        told, true = (summary["read"], summary["accepted"]), (len(given), len(fresh))
        if told != true:
            return f"run {number}: read and accepted {told} rows instead of {true}"
    files = dedupe.files(table)
    if wrong := difference(expected, read_pyarrow(files), names, shape.ordered):
        return f"pyarrow: {wrong}"
    names = [name for name in names if name not in shape.foreign]
    if wrong := difference(expected, read_duckdb(files), names, shape.ordered):
        return f"DuckDB: {wrong}"
    return dedupe.verify(table)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("binary")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=6)
    parser.add_argument("--keep", help="a folder for the tables, which then stay")
    args = parser.parse_args()
    dedupe, failed = Dedupe(args.binary), 0
    for seed in range(args.seed, args.seed + args.rounds):
        for make in SHAPES:
            rng = random.Random(f"{seed} {make.__name__}")
            shape = make(rng)
            with tempfile.TemporaryDirectory() as temporary:
                folder = Path(args.keep or temporary) / f"{make.__name__}-{seed}"
                folder.mkdir(parents=True)
                try:
                    wrong = check(dedupe, shape, rng, folder)
                except Exception as e:  # a file that no reader opens, an answer that is no JSON
                    wrong = f"{type(e).__name__}: {e}"
            size = sum(file.num_rows for run in shape.runs for file in run)
            title = f"{make.__name__} seed {seed} key {','.join(shape.key)}: {size} rows"
            print(f"{'FAIL' if wrong else 'ok':5}{title}", flush=True)
            if wrong:
                failed += 1
                print(f"     {wrong}")
    sys.exit(f"{failed} of {args.rounds * len(SHAPES)} tables differ" if failed else 0)


if __name__ == "__main__":
    main()
