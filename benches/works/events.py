"""Events for the works: deterministic, any size, the same on every machine. Row i of key k is always the same row."""

import json
import os

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

ROW_GROUP = 131_072
CHUNK = 1_000_000
HEX = np.frombuffer(b"0123456789abcdef", dtype=np.uint8)


def mix(values, salt):
    """SplitMix64 of each value: looks random, costs nothing to repeat."""
    z = values.astype(np.uint64) + np.uint64((salt * 0x9E3779B97F4A7C15) & (2**64 - 1))
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))


def texts(matrix):
    """Rows of bytes, all of one width, as an Arrow string column."""
    rows, width = matrix.shape
    offsets = np.arange(rows + 1, dtype=np.int32) * width
    return pa.Array.from_buffers(pa.string(), rows, [None, pa.py_buffer(offsets), pa.py_buffer(matrix.tobytes())])


def digits(values, count):
    shifts = np.arange(count - 1, -1, -1, dtype=np.uint64) * np.uint64(4)
    return HEX[((values[:, None] >> shifts) & np.uint64(15)).astype(np.intp)]


def keys(numbers):
    """The 36-character key of each number, in the shape of a UUID."""
    both = np.concatenate([digits(mix(numbers, 1), 16), digits(mix(numbers, 2), 16)], axis=1)
    out = np.full((len(numbers), 36), ord("-"), dtype=np.uint8)
    out[:, 0:8], out[:, 9:13], out[:, 14:18] = both[:, 0:8], both[:, 8:12], both[:, 12:16]
    out[:, 19:23], out[:, 24:36] = both[:, 16:20], both[:, 20:32]
    return texts(out)


def pick(names, chosen):
    return pa.DictionaryArray.from_arrays(pa.array((chosen % np.uint64(len(names))).astype(np.int32)), names).cast(pa.string())


def table(numbers, first_row):
    """One event for each key number; what is not the key depends on the row, so that repeats can be told apart."""
    row = np.arange(first_row, first_row + len(numbers), dtype=np.uint64)
    draw = lambda salt: mix(row, salt)
    amount = (draw(5) % np.uint64(1_000_000)).astype(np.float64) / 100
    url = np.concatenate([np.tile(np.frombuffer(b"https://shop.example/product/", dtype=np.uint8), (len(row), 1)), digits(draw(7), 12)], axis=1)
    payload = np.concatenate([np.tile(np.frombuffer(b'{"trace":"', dtype=np.uint8), (len(row), 1)), digits(draw(8), 16),
                              np.tile(np.frombuffer(b'","v":1}', dtype=np.uint8), (len(row), 1))], axis=1)
    return pa.table({
        "event_id": keys(numbers),
        "user_id": pa.array((draw(3) % np.uint64(50_000)).astype(np.int64)),
        "event_type": pick(["view", "click", "add", "remove", "buy", "search", "login", "logout"], draw(4)),
        "ts": pa.array((np.int64(1_767_225_600_000_000) + (row * np.uint64(1_000)).astype(np.int64)), pa.timestamp("us", "UTC")),
        "session_id": texts(np.concatenate([np.full((len(row), 1), ord("s"), dtype=np.uint8), digits(draw(6) % np.uint64(200_000), 8)], axis=1)),
        "url": texts(url),
        "amount": pa.array(amount, mask=(draw(9) % np.uint64(10) == 0)),
        "country": pick(["DE", "FR", "US", "GB", "PL", "NL", "ES", "IT", "SE", "CZ"], draw(10)),
        "seq": pa.array((row % np.uint64(4096)).astype(np.int64)),
        "payload": texts(payload),
    })


def numbers(first_row, rows, first_key, duplicates, known):
    """Key numbers of some rows: new ones counted up from `first_key`, or, in a share of `duplicates`, one of those
    below `known` or given before in the same chunk. Returns them and the next new key."""
    row = np.arange(first_row, first_row + rows, dtype=np.uint64)
    repeat = mix(row, 11) % np.uint64(1_000_000) < np.uint64(round(duplicates * 1_000_000))
    fresh = first_key + np.cumsum(~repeat, dtype=np.int64) - 1
    reach = np.maximum(fresh + 1, known).astype(np.uint64)
    repeat &= reach > 0
    old = mix(row, 12) % np.maximum(reach, 1)
    return np.where(repeat, old, fresh.astype(np.uint64)), int(fresh[-1]) + 1


def parquet(folder, rows, first_row=0, first_key=0, duplicates=0.0, known=0):
    """Writes files of a million rows each; returns their paths and how many new keys they have."""
    os.makedirs(folder, exist_ok=True)
    paths, key = [], first_key
    for start in range(0, rows, CHUNK):
        count = min(CHUNK, rows - start)
        chosen, key = numbers(first_row + start, count, key, duplicates, known)
        path = os.path.join(folder, f"part-{start // CHUNK:05}.parquet")
        pq.write_table(table(chosen, first_row + start), path, compression="snappy", row_group_size=ROW_GROUP)
        paths.append(path)
    return paths, key - first_key


def ndjson(folder, rows, duplicates):
    os.makedirs(folder, exist_ok=True)
    path = os.path.join(folder, "events.ndjson")
    chosen, count = numbers(0, rows, 0, duplicates, 0)
    with open(path, "w") as out:
        for start in range(0, rows, 100_000):
            part = table(chosen[start:start + 100_000], start)
            part = part.set_column(3, "ts", part["ts"].cast(pa.string()))
            out.writelines(json.dumps(row) + "\n" for row in part.to_pylist())
    return path, count


def key_files(folder, count):
    """Files with nothing but keys 0..count."""
    os.makedirs(folder, exist_ok=True)
    paths = []
    for start in range(0, count, 5 * CHUNK):
        path = os.path.join(folder, f"keys-{start // CHUNK:05}.parquet")
        part = np.arange(start, min(start + 5 * CHUNK, count), dtype=np.uint64)
        pq.write_table(pa.table({"event_id": keys(part)}), path, compression="snappy", row_group_size=ROW_GROUP, use_dictionary=False)
        paths.append(path)
    return paths
