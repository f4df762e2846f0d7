#!/usr/bin/env python3
"""Work A from bucket to bucket, on a store that answers each request so many milliseconds late, beside one that answers at once.

  slow.py BINARY [--late 50] [--scale 1.0] [--runs 3] [--folder /tmp/works] [--only-sources]

The store is a small S3 in memory, in a process of its own; each request waits on its own, so any number can be on their way. Walls
are compared, interleaved: what a late answer costs is time that nobody worked. With the number of requests for each run.
"""

import argparse
import http.server
import json
import multiprocessing
import os
import re
import statistics
import sys
import threading
import time
import urllib.parse
import urllib.request

import works


class Bucket(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    wbufsize = 1 << 16
    objects, parts, lock = {}, {}, threading.Lock()
    late, requests, ids = 0.0, 0, 0

    def setup(self):
        super().setup()
        self.connection.setsockopt(6, 1, 1)  # TCP_NODELAY

    def log_message(self, *_):
        pass

    def answer(self, status, body=b"", headers=()):
        time.sleep(Bucket.late)
        self.send_response_only(status)
        for name, value in [("content-length", str(len(body))), *headers]:
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)
        self.wfile.flush()

    def parsed(self):
        path, _, query = self.path.partition("?")
        query = dict(urllib.parse.parse_qsl(query, keep_blank_values=True))
        length = int(self.headers.get("content-length") or 0)
        with Bucket.lock:
            Bucket.requests += 1
        return urllib.parse.unquote(path.lstrip("/")), query, self.rfile.read(length) if length else b""

    def do_GET(self):
        key, query, _ = self.parsed()
        if key == "steer":
            # Not late, and not counted.
            seconds, requests = float(query["late"]), Bucket.requests - 1
            Bucket.late, Bucket.requests = 0.0, 0
            for name in [name for name in Bucket.objects if name.startswith("b/table")]:
                del Bucket.objects[name]
            self.answer(200, str(requests).encode())
            Bucket.late = seconds
        elif "list-type" in query:
            bucket, prefix, after = key.strip("/") + "/", query.get("prefix", ""), query.get("start-after", "")
            names = sorted(name[len(bucket):] for name in list(Bucket.objects) if name.startswith(bucket + prefix))
            listed = "".join(f"<Contents><Key>{name}</Key><Size>{len(Bucket.objects[bucket + name][0])}</Size><ETag>\"{Bucket.objects[bucket + name][1]}\"</ETag>"
                             "<LastModified>2015-10-21T07:28:00.000Z</LastModified></Contents>" for name in names if name > after)
            self.answer(200, f"<ListBucketResult>{listed}</ListBucketResult>".encode())
        elif key not in Bucket.objects:
            self.answer(404, b"<Error><Code>NoSuchKey</Code></Error>")
        else:
            whole, tag = Bucket.objects[key]
            headers = [("etag", f'"{tag}"'), ("last-modified", "Wed, 21 Oct 2015 07:28:00 GMT")]
            asked = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("range", ""))
            if not asked:
                return self.answer(200, whole, headers)
            first, last = int(asked[1]), min(int(asked[2] or len(whole)), len(whole) - 1)
            headers.append(("content-range", f"bytes {first}-{last}/{len(whole)}"))
            self.answer(206, memoryview(whole)[first:last + 1], headers)

    do_HEAD = do_GET

    def store(self, key, body, only_new=False):
        with Bucket.lock:
            if only_new and key in Bucket.objects:
                return None
            Bucket.ids += 1
            Bucket.objects[key] = (body, Bucket.ids)
            return Bucket.ids

    def do_PUT(self):
        key, query, body = self.parsed()
        if "partNumber" in query:
            Bucket.parts[query["uploadId"], int(query["partNumber"])] = body
            return self.answer(200, headers=[("etag", '"part"')])
        tag = self.store(key, body, only_new=self.headers.get("if-none-match") is not None)
        if tag is None:
            return self.answer(412, b"<Error><Code>PreconditionFailed</Code></Error>")
        self.answer(200, headers=[("etag", f'"{tag}"')])

    def do_POST(self):
        key, query, body = self.parsed()
        if "uploads" in query:
            with Bucket.lock:
                Bucket.ids += 1
            self.answer(200, f"<R><UploadId>{Bucket.ids}</UploadId></R>".encode())
        elif "uploadId" in query:
            mine = sorted(part for part in list(Bucket.parts) if part[0] == query["uploadId"])
            if mine:
                self.store(key, b"".join(Bucket.parts.pop(part) for part in mine))
            self.answer(200, b'<R><ETag>"whole"</ETag></R>')
        else:
            gone = re.findall(r"<Key>(.*?)</Key>", body.decode())
            for name in gone:
                Bucket.objects.pop(key.strip("/") + "/" + name, None)
            self.answer(200, ("<DeleteResult>" + "".join(f"<Deleted><Key>{name}</Key></Deleted>" for name in gone) + "</DeleteResult>").encode())

    def do_DELETE(self):
        key, _, _ = self.parsed()
        Bucket.objects.pop(key, None)
        self.answer(204)


def serve(files, port):
    for file in files:
        with open(file, "rb") as source:
            Bucket.objects[f"b/in/{os.path.basename(file)}"] = (source.read(), 0)
    # All connections that are begun at a time are accepted.
    http.server.ThreadingHTTPServer.request_queue_size = 128
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Bucket)
    server.daemon_threads = True
    port.put(server.server_port)
    server.serve_forever()


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("binary")
    parser.add_argument("--late", type=float, default=50, help="milliseconds")
    parser.add_argument("--scale", type=float, default=1.0)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--folder", default="/tmp/works")
    parser.add_argument("--only-sources", action="store_true", help="the table lies on the local disk")
    args = parser.parse_args()
    os.makedirs(args.folder, exist_ok=True)
    files = works.prepare("A", args, works.Dedupe(args.binary, args.folder))["files"]
    port = multiprocessing.Queue()
    server = multiprocessing.Process(target=serve, args=(files, port), daemon=True)
    server.start()
    endpoint = f"http://127.0.0.1:{port.get()}"
    steer = lambda late: int(urllib.request.urlopen(f"{endpoint}/steer?late={late}").read())
    environment = {"AWS_ENDPOINT": endpoint, "AWS_REGION": "us-east-1", "AWS_ACCESS_KEY_ID": "key", "AWS_SECRET_ACCESS_KEY": "secret", "AWS_ALLOW_HTTP": "true"}
    os.environ.update(environment)
    runs = {0.0: [], args.late / 1000: []}
    for _ in range(args.runs):
        for late, results in runs.items():
            steer(late)
            table = works.fresh(os.path.join(args.folder, "table")) if args.only_sources else "s3://b/table"
            command = [os.path.abspath(args.binary), "ingest", "s3://b/in/", "--into", table, "--key", "event_id", "--output", "json"]
            result = works.measured(command)
            result["rows"], result["requests"] = json.loads(result["out"])["accepted"], steer(0.0)
            results.append(result)
    if len({run["rows"] for results in runs.values() for run in results}) != 1:
        sys.exit("the runs do not agree")
    walls = {late: statistics.median(run["wall"] for run in results) for late, results in runs.items()}
    for late, results in runs.items():
        cpu, requests = (statistics.median(run[what] for run in results) for what in ["cpu", "requests"])
        print(f"answers {late * 1000:.0f} ms late: wall {walls[late]:.2f} s, CPU {cpu:.2f} s, {requests} requests, {max(run['rss'] for run in results):.0f} MB")
    print(f"late to prompt: {walls[args.late / 1000] / walls[0.0]:.2f}")


if __name__ == "__main__":
    main()
