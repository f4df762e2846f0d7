#!/usr/bin/env python3
"""The main job on an S3 table and on an Azure table, end to end, against the emulators.

    with_emulators end_to_end.py BINARY

What the tables hold is fetched with boto3 and with our own Azure requests, never with the library that wrote
it, and compared with the oracle of rows.py.
"""

import io
import json
import os
import re
import sys
import tempfile
from pathlib import Path
from urllib.parse import urlsplit

import boto3
import pyarrow as pa
import pyarrow.parquet as pq

HERE = Path(__file__).resolve().parent
TESTDATA = HERE.parents[1] / "testdata"
sys.path[:0] = [str(HERE.parent), str(TESTDATA)]

import make  # noqa: E402  the generator of the test data: how its files are read, and their schema
from azure_blob import Container  # noqa: E402
from cli import Dedupe  # noqa: E402
from lying_s3 import running  # noqa: E402
from rows import difference, first_wins, key_of, rows  # noqa: E402

KEY = ["event_id"]
RACES = 3


# ---- the clouds, seen past dedupe --------------------------------------------------------------------------


class Cloud:
    """A bucket or container as a place of test tables."""

    def __init__(self, base):
        self.base = f"{base.rstrip('/')}/end-to-end-{os.getpid()}"
        self.scheme, self.bucket = urlsplit(base).scheme, urlsplit(base).netloc
        self.client = boto3.client("s3") if self.scheme == "s3" else Container.from_environment(self.bucket)

    def put(self, url, data):
        if self.scheme == "s3":
            self.client.put_object(Bucket=self.bucket, Key=self.name(url), Body=data)
        else:
            self.client.put(self.name(url), data)

    def get(self, url):
        if self.scheme == "s3":
            return self.client.get_object(Bucket=self.bucket, Key=self.name(url))["Body"].read()
        return self.client.get(self.name(url))

    def name(self, url):
        assert url.startswith(f"{self.scheme}://{self.bucket}/"), (
            f"{url} is not in {self.scheme}://{self.bucket}"
        )
        return url.split("/", 3)[3]


# ---- checks ------------------------------------------------------------------------------------------------


def order_rows(path):
    return rows(pa.Table.from_pylist(make.rows_of(path), schema=make.ORDER))


def said(what, summary, **expected):
    found = {name: summary[name] for name in expected}
    assert found == expected, f"{what}: {found} instead of {expected}"
    print(f"  {what}: {', '.join(f'{name} {n}' for name, n in found.items())}", flush=True)


def holds(dedupe, cloud, table, expected, ordered=True):
    complaint = dedupe.verify(table)
    assert not complaint, complaint
    found = [row for url in dedupe.files(table) for row in rows(pq.read_table(io.BytesIO(cloud.get(url))))]
    names = list(dict.fromkeys(name for row in expected for name in row))
    wrong = difference(expected, found, names, ordered)
    assert not wrong, f"{table}: {wrong}"
    print(f"  verified, and its {len(found)} rows are the expected ones")


def main_job(dedupe, cloud, clouds, truth):
    """Local files first; then the same rows from everywhere add nothing."""
    table, files = f"{cloud.base}/orders", sorted((TESTDATA / "orders").iterdir())
    total, distinct = truth["rows"], truth["distinct"]
    first = dedupe.ingest([TESTDATA / "orders"], table, KEY).summary()
    said("local files", first, read=total, accepted=distinct, duplicate=total - distinct, rejected=0)
    again = dedupe.ingest([TESTDATA / "orders"], table, KEY).summary()
    said("local files again", again, read=total, accepted=0, replayed=total)
    for source in clouds:
        copy = dedupe.ingest([f"{source.base}/in/orders"], table, KEY).summary()
        said(f"their copies in {source.scheme}://", copy, read=total, accepted=0, duplicate=total)
    holds(dedupe, cloud, table, first_wins([row for file in files for row in order_rows(file)], KEY))


def from_another_cloud(dedupe, cloud, source, truth):
    """A table in one cloud from files in the other; a glob first, then the folder that it looked into."""
    table, files = f"{cloud.base}/from-{source.scheme}", sorted((TESTDATA / "orders").iterdir())
    parquet = [file for file in files if file.suffix == ".parquet"]
    in_order = parquet + [file for file in files if file not in parquet]
    survivors = first_wins([row for file in in_order for row in order_rows(file)], KEY)
    known = sum(len(order_rows(file)) for file in parquet)
    fresh = len(first_wins([row for file in parquet for row in order_rows(file)], KEY))
    glob = dedupe.ingest([f"{source.base}/in/orders/*.parquet"], table, KEY).summary()
    said(f"a glob in {source.scheme}://", glob, read=known, accepted=fresh, duplicate=known - fresh)
    folder = dedupe.ingest([f"{source.base}/in/orders/"], table, KEY).summary()
    said("the whole folder", folder, read=truth["rows"], replayed=known, accepted=truth["distinct"] - fresh)
    holds(dedupe, cloud, table, survivors)


def race(dedupe, cloud, scratch):
    """Two processes at once, half of their keys in common, into a new table: one row a key, whoever wins."""
    table, given, accepted = f"{cloud.base}/race", [], 0
    for lap in range(RACES):
        writers = []
        for writer in (0, 1):
            made = [{"id": lap * 3000 + writer * 1000 + n, "writer": writer} for n in range(2000)]
            path = scratch / f"{cloud.scheme}-{lap}-{writer}.ndjson"
            path.write_text("".join(json.dumps(row) + "\n" for row in made))
            given += rows(pa.Table.from_pylist(made))
            writers.append(dedupe.start("ingest", path, "--into", table, "--key", "id", "--output", "json"))
        for process in writers:
            try:
                out, err = process.communicate(timeout=dedupe.time_limit)
            finally:
                process.kill()
            assert process.returncode == 0, (
                f"a racing writer ended with {process.returncode}: {err.decode()[-500:]}"
            )
            accepted += json.loads(out)["accepted"]
    distinct = {key_of(row, ["id"]) for row in given}
    assert accepted == len(distinct), f"racing writers accepted {accepted} rows of {len(distinct)} keys"
    print(f"  {RACES} races of 2 writers: {accepted} rows accepted of {len(given)}")
    found = [row for url in dedupe.files(table) for row in rows(pq.read_table(io.BytesIO(cloud.get(url))))]
    offered = {tuple(row.items()) for row in given}
    assert all(tuple(row.items()) in offered for row in found), "the table holds a row that nobody sent"
    winners = {key_of(row, ["id"]): row for row in found}
    assert winners.keys() == distinct, "the table lacks a key"
    holds(dedupe, cloud, table, list(winners.values()), ordered=False)


def doctor(dedupe, url, expected=0):
    """What `dedupe doctor` says of a store or table. It leaves no probes behind."""
    outcome = dedupe.run("doctor", url, "--output", "json")
    assert not outcome.distress(), outcome.distress()
    assert outcome.code == expected, f"doctor {url} ended with {outcome.code}: {outcome.out[-2000:]}{outcome.err[-500:]}"
    return json.loads(outcome.out)


def certified(dedupe, cloud):
    """The emulator keeps every promise, and the tables made before are well."""
    reply = doctor(dedupe, f"{cloud.base}/orders")
    answers = {finding["promise"]: finding["answer"] for finding in reply["store"]["findings"]}
    assert len(answers) == 10 and set(answers.values()) == {"kept"}, answers
    assert reply["table"]["entries"] > 1 and not reply["problems"], reply
    race = next(finding["seen"] for finding in reply["store"]["findings"] if finding["promise"] == "race")
    print(f"  doctor: healthy, {race}")


def lying_store(binary, scratch):
    """A store that ignores conditional puts is refused before a table comes to be; its honest twin is not."""
    path = scratch / "one.ndjson"
    path.write_text('{"id":1}\n')
    for lies in (False, True):
        with running(lies) as endpoint:
            client = boto3.client("s3", endpoint_url=endpoint)
            dedupe = Dedupe(binary, env={"AWS_ENDPOINT": endpoint, "AWS_ENDPOINT_URL": endpoint})
            outcome = dedupe.ingest([path], "s3://any/table", ["id"])
            reply = doctor(dedupe, "s3://any/table", expected=1 if lies else 0)
            brave = Dedupe(binary, env={"AWS_ENDPOINT": endpoint, "AWS_ENDPOINT_URL": endpoint})
            if lies:
                broken = [f["promise"] for f in reply["store"]["findings"] if f["answer"] == "broken"]
                assert "create-once" in broken, reply["store"]["findings"]
                print(f"  doctor: {', '.join(broken)} broken")
                names = [o["Key"] for o in client.list_objects_v2(Bucket="any").get("Contents", [])]
                assert not names, f"probes stayed behind: {names}"
                marked = brave.run(
                    "ingest", path, "--into", "s3://any/brave", "--key", "id",
                    "--i-know-the-risk", "single-writer", "--output", "json",
                )
                assert marked.code == 0 and json.loads(marked.out)["accepted"] == 1, marked.last_words()
                assert "two writers" in marked.err, f"no warning: {marked.err}"
                again = brave.run("ingest", path, "--into", "s3://any/brave", "--output", "json")
                assert again.code == 0 and json.loads(again.out)["replayed"] == 1, again.last_words()
                assert "two writers" in again.err, f"no warning: {again.err}"
                doctor(brave, "s3://any/brave")
                print("  with --i-know-the-risk single-writer: created, marked, and said so")
            names = [o["Key"] for o in client.list_objects_v2(Bucket="any").get("Contents", [])]
        assert not outcome.distress(), outcome.distress()
        names = [name for name in names if not name.startswith("brave/")]
        ledger = [name for name in names if "_dedupe/ledger/" in name or "/data/" in name]
        if lies:
            assert outcome.code != 0, f"a store that ignores If-None-Match was accepted: {names}"
            words = outcome.out + outcome.err
            assert "create-once" in words and re.search(r"if-none-match", words, re.I), (
                f"the refusal does not say why: {outcome.last_words()}"
            )
            assert not ledger, f"a table was begun on it: {ledger}"
            print(f"  refused: {outcome.last_words()}")
        else:
            assert outcome.summary()["accepted"] == 1 and ledger, (
                "the honest twin of the lying store holds no table"
            )


def main():
    binary = sys.argv[1]
    dedupe = Dedupe(binary)
    truth = json.loads((TESTDATA / "truth.json").read_text())["orders"]["together"][",".join(KEY)]
    clouds = [Cloud(os.environ["DEDUPE_TEST_S3"]), Cloud(os.environ["DEDUPE_TEST_AZURE"])]
    for cloud in clouds:
        for file in (TESTDATA / "orders").iterdir():
            cloud.put(f"{cloud.base}/in/orders/{file.name}", file.read_bytes())
    with tempfile.TemporaryDirectory() as scratch:
        for cloud, other in zip(clouds, reversed(clouds)):
            print(f"{cloud.scheme}://")
            main_job(dedupe, cloud, clouds, truth)
            from_another_cloud(dedupe, cloud, other, truth)
            race(dedupe, cloud, Path(scratch))
            certified(dedupe, cloud)
        print("a store that ignores If-None-Match")
        lying_store(binary, Path(scratch))


if __name__ == "__main__":
    try:
        main()
    except AssertionError as e:
        sys.exit(f"FAILED: {e}")
