"""Rows of Arrow tables as plain, comparable Python values, the same whoever read the file.

A value is a tuple that begins with its kind, so that 1, 1.0, true and "1" are four values. Widths, units,
dictionaries and views are encodings of a value, not part of it.
"""

import math
from collections import Counter
from decimal import Decimal

import pyarrow as pa
from pyarrow import types

UNITS = {"s": 10**9, "ms": 10**6, "us": 10**3, "ns": 1}


def rows(table):
    """The rows of an Arrow table, each a dict from column name to plain value; null is None."""
    names = table.column_names
    columns = [plain(table.column(n)) for n in range(table.num_columns)]
    return [dict(zip(names, values)) for values in zip(*columns)] if names else []


def plain(column):
    """The values of an array or chunked array, plain."""
    if isinstance(column, pa.ChunkedArray):
        return [value for chunk in column.chunks for value in plain(chunk)]
    kind = column.type
    if isinstance(kind, pa.BaseExtensionType):
        return plain(column.storage)
    if types.is_dictionary(kind):
        return plain(column.dictionary_decode())
    if types.is_struct(kind):
        members = [plain(column.field(n)) for n in range(kind.num_fields)]
        names = [kind.field(n).name for n in range(kind.num_fields)]
        values = zip(*members) if members else [()] * len(column)
        return masked(column, [("struct", tuple(zip(names, value))) for value in values])
    if types.is_map(kind):
        keys, items = plain(column.keys), plain(column.items)
        return sliced(column, list(zip(keys, items)), "map")
    if types.is_fixed_size_list(kind):
        return sliced(column.cast(pa.list_(kind.value_field)), None, "list")
    if types.is_list(kind) or types.is_large_list(kind):
        return sliced(column, None, "list")
    return [None if value is None else scalar(value) for value in simple(column)]


def sliced(column, values, kind):
    """A list-like array cut at its offsets."""
    if values is None:
        values = plain(column.values)
    ends = column.offsets.to_pylist()
    return masked(column, [(kind, tuple(values[a:b])) for a, b in zip(ends, ends[1:])])


def masked(column, values):
    valid = column.is_valid().to_pylist()
    return [value if ok else None for value, ok in zip(values, valid)]


def simple(column):
    """Values of a flat array, times as whole numbers of nanoseconds."""
    kind = column.type
    if types.is_timestamp(kind) or types.is_time(kind) or types.is_duration(kind):
        width = pa.int32() if types.is_time32(kind) else pa.int64()
        name = (
            ("instant" if kind.tz else "timestamp")
            if types.is_timestamp(kind)
            else "time"
            if types.is_time(kind)
            else "duration"
        )
        return [None if v is None else (name, v * UNITS[kind.unit]) for v in column.cast(width).to_pylist()]
    if types.is_date(kind):
        return [
            None if v is None else ("date", v) for v in column.cast(pa.date32()).cast(pa.int32()).to_pylist()
        ]
    return column.to_pylist()


def scalar(value):
    if isinstance(value, tuple):
        return value
    if isinstance(value, bool):
        return ("boolean", value)
    if isinstance(value, int):
        return ("integer", value)
    if isinstance(value, float):
        return ("float", "NaN" if math.isnan(value) else repr(value))
    if isinstance(value, Decimal):
        sign, digits, exponent = value.normalize().as_tuple()
        return ("decimal", sign if any(digits) else 0, digits, exponent if any(digits) else 0)
    if isinstance(value, str):
        return ("text", value)
    if isinstance(value, bytes):
        return ("binary", value)
    raise TypeError(f"no plain form of {value!r}")


# ---- the oracle --------------------------------------------------------------------------------------------


def key_of(row, columns):
    """A row's key by the table's rules; None if all key columns are null."""
    values = tuple(token(at(row, name)) for name in columns)
    return None if all(value is None for value in values) else values


def at(row, name):
    """A column by its literal name, else by a path into structs."""
    if name in row:
        return row[name]
    head, _, rest = name.partition(".")
    value = row.get(head)
    return at(dict(value[1]), rest) if rest and value is not None else None


def token(value):
    """What a token tells apart: -0.0 is 0.0, a null member of a struct is none, a map has no order."""
    if value is None:
        return None
    if value == ("float", "-0.0"):
        return ("float", "0.0")
    if value[0] == "struct":
        return ("struct", tuple(sorted((name, token(v)) for name, v in value[1] if v is not None)))
    if value[0] == "list":
        return ("list", tuple(token(v) for v in value[1]))
    if value[0] == "map":
        return ("map", tuple(sorted(((token(k), token(v)) for k, v in value[1]), key=repr)))
    return value


def first_wins(given, columns, seen=None):
    """The rows that are the first of their key, in order; rows without a key stay out. `seen` is kept up."""
    seen = set() if seen is None else seen
    kept = []
    for row in given:
        key = key_of(row, columns)
        if key is not None and key not in seen:
            seen.add(key)
            kept.append(row)
    return kept


def widened(value):
    """The value as it reads after its struct types grew: a null member is the same as none."""
    if value is None or value[0] not in ("struct", "list", "map"):
        return value
    if value[0] == "struct":
        return ("struct", tuple(sorted((name, widened(v)) for name, v in value[1] if v is not None)))
    if value[0] == "list":
        return ("list", tuple(widened(v) for v in value[1]))
    return ("map", tuple((widened(k), widened(v)) for k, v in value[1]))


def difference(expected, found, names, ordered):
    """None if both hold the same rows (absent columns are null), else a sentence with the first."""
    expected, found = (
        [tuple(widened(row.get(name)) for name in names) for row in side] for side in (expected, found)
    )
    if expected == found if ordered else Counter(expected) == Counter(found):
        return None
    lost, extra = Counter(expected) - Counter(found), Counter(found) - Counter(expected)
    if not lost and not extra:
        n = next(n for n, pair in enumerate(zip(expected, found)) if pair[0] != pair[1])
        return f"same rows, another order from row {n} on"
    told = f"{sum(lost.values())} rows lost, {sum(extra.values())} rows too many of {len(expected)}"
    if len(expected) == len(found) and ordered:
        n = next(n for n, pair in enumerate(zip(expected, found)) if pair[0] != pair[1])
        cells = [
            f"{name} {b!r} instead of {a!r}" for name, a, b in zip(names, expected[n], found[n]) if a != b
        ]
        return f"{told}; first in row {n}: {', '.join(cells)[:500]}"
    show = [
        f"{what} {dict(zip(names, row))}"[:300]
        for what, side in (("lost", lost), ("too many", extra))
        for row in list(side)[:1]
    ]
    return f"{told}; {'; '.join(show)}"
