"""Shows what the tests rely on: what was written is read back, and one of many racing creates wins."""

from concurrent.futures import ThreadPoolExecutor

import boto3
from azure_blob import Container
from botocore.config import Config
from botocore.exceptions import ClientError
from lying_s3 import running

RACES, RACERS = 25, 8


def s3(endpoint=None):
    return boto3.client(
        "s3",
        endpoint_url=endpoint,
        config=Config(max_pool_connections=RACERS, retries={"total_max_attempts": 1}),
    )


def s3_create(client, name, data):
    try:
        client.put_object(Bucket="test", Key=name, Body=data, IfNoneMatch="*")
        return True
    except ClientError as e:
        if e.response["ResponseMetadata"]["HTTPStatusCode"] not in (409, 412):
            raise
        return False


def s3_get(client, name):
    return client.get_object(Bucket="test", Key=name)["Body"].read()


def honest(create, get):
    with ThreadPoolExecutor(RACERS) as pool:
        for race in range(RACES):
            name = f"selftest/{race}"
            won = list(pool.map(lambda racer: create(name, b"%d" % racer), range(RACERS)))
            assert sum(won) == 1, f"{sum(won)} of {RACERS} racers created {name}"
            assert get(name) == b"%d" % won.index(True), f"{name} is not what its winner wrote"


client, container = s3(), Container.from_environment("test")
honest(lambda *a: s3_create(client, *a), lambda name: s3_get(client, name))
honest(lambda *a: container.put(*a, create=True), container.get)
names = sorted(f"selftest/{race}" for race in range(RACES))
assert (
    sorted(o["Key"] for o in client.list_objects_v2(Bucket="test", Prefix="selftest/")["Contents"]) == names
)
assert sorted(container.list("selftest/")) == names
print(f"moto behind its lock, azurite: {RACES} races of {RACERS} each, one winner each")

for lies in (False, True):
    with running(lies) as endpoint:
        client = s3(endpoint)
        first, second = s3_create(client, "x y/1", b"one"), s3_create(client, "x y/1", b"two")
        assert (first, second) == (True, lies) and s3_get(client, "x y/1") == (b"two" if lies else b"one")
        client.put_object(Bucket="test", Key="x y/2", Body=b"0123456789")
        assert client.get_object(Bucket="test", Key="x y/2", Range="bytes=2-4")["Body"].read() == b"234"
        assert client.head_object(Bucket="test", Key="x y/2")["ContentLength"] == 10
        assert [o["Key"] for o in client.list_objects_v2(Bucket="test", Prefix="x y/")["Contents"]] == [
            "x y/1",
            "x y/2",
        ]
        client.delete_objects(Bucket="test", Delete={"Objects": [{"Key": "x y/1"}]})
        client.delete_object(Bucket="test", Key="x y/2")
        assert "Contents" not in client.list_objects_v2(Bucket="test")
print("the small S3: honest when asked to be, else it overwrites in spite of If-None-Match")
