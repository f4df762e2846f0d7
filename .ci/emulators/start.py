"""Starts both emulators on free loopback ports, makes bucket and container, runs a command, stops them.

The command finds in its environment:
  DEDUPE_TEST_S3, DEDUPE_TEST_AZURE   where tables may be made
  AWS_*, AZURE_*, AZURITE_*           how a client gets there: the usual variables of the clouds' own tools
"""

import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import azure_blob

HERE = Path(__file__).resolve().parent
START_S = 60


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def launch(what, log, command):
    """Starts a server on a free port and waits until it listens."""
    port = free_port()
    server = subprocess.Popen(
        [part.replace("PORT", str(port)) for part in command],
        stdin=subprocess.DEVNULL,
        stdout=log,
        stderr=log,
        start_new_session=True,
    )
    deadline = time.monotonic() + START_S
    while time.monotonic() < deadline and server.poll() is None:
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
            return server, port
        except OSError:
            time.sleep(0.1)
    stop([server])
    log.seek(0)
    sys.exit(f"{what} did not start: {log.read().decode(errors='replace')[-2000:]}")


def stop(servers):
    for server in servers:
        try:
            os.killpg(server.pid, signal.SIGTERM)
            server.wait(5)
        except ProcessLookupError:
            pass
        except subprocess.TimeoutExpired:
            os.killpg(server.pid, signal.SIGKILL)
            server.wait(5)


def environment(s3, azure):
    local = "127.0.0.1,localhost"
    return {
        "DEDUPE_TEST_S3": "s3://test",
        "DEDUPE_TEST_AZURE": "az://test",
        "AWS_ENDPOINT": f"http://127.0.0.1:{s3}",
        "AWS_ENDPOINT_URL": f"http://127.0.0.1:{s3}",
        "AWS_ALLOW_HTTP": "true",
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_REGION": "us-east-1",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_EC2_METADATA_DISABLED": "true",
        "AZURE_STORAGE_USE_EMULATOR": "true",
        "AZURITE_BLOB_STORAGE_URL": f"http://127.0.0.1:{azure}",
        "AZURE_STORAGE_ACCOUNT_NAME": azure_blob.ACCOUNT,
        "AZURE_STORAGE_ACCOUNT_KEY": azure_blob.KEY,
        "NO_PROXY": local,
        "no_proxy": local,
    }


def main():
    import boto3

    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that the emulators stop with us
    servers = []
    with tempfile.TemporaryFile() as log:
        try:
            moto, s3 = launch("moto", log, [sys.executable, str(HERE / "moto_locked.py"), "PORT"])
            servers.append(moto)
            azurite, azure = launch(
                "azurite",
                log,
                [
                    str(HERE.parent / ".npm/node_modules/.bin/azurite-blob"),
                    "--silent",
                    "--disableTelemetry",
                    "--skipApiVersionCheck",
                    "--inMemoryPersistence",
                    "--blobHost",
                    "127.0.0.1",
                    "--blobPort",
                    "PORT",
                ],
            )
            servers.append(azurite)
            os.environ.update(environment(s3, azure))
            boto3.client("s3").create_bucket(Bucket="test")
            if not azure_blob.Container.from_environment("test").create():
                sys.exit("azurite did not make the container")
            return subprocess.run(sys.argv[1:]).returncode
        finally:
            stop(servers)


if __name__ == "__main__":
    sys.exit(main())
