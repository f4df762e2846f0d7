"""A small S3 in memory that ignores If-None-Match, as some stores do: commits could overwrite each other.

    with running(lies=True) as endpoint: …

With lies=False it keeps its word, to show that nothing else about it is the reason why it is refused. Knows
PUT, GET (with ranges), HEAD, DELETE, DeleteObjects, ListObjectsV2 and uploads in parts, in one bucket of any name;
checks no signature.
"""

import contextlib
import hashlib
import itertools
import re
import threading
from datetime import datetime, timezone
from email.utils import format_datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, unquote, urlsplit
from xml.etree import ElementTree
from xml.sax.saxutils import escape

MODIFIED = datetime(2026, 3, 1, tzinfo=timezone.utc)


@contextlib.contextmanager
def running(lies):
    objects, parts, lock, uploads = {}, {}, threading.Lock(), itertools.count()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_PUT(self):
            key, query, body = self.request_parts()
            if not key:
                return self.answer(200)
            if "uploadId" in query:
                parts[query["uploadId"][0], int(query["partNumber"][0])] = body
                return self.answer(200, headers={"ETag": etag(body)})
            with lock:
                if key in objects and self.headers.get("If-None-Match") == "*" and not lies:
                    return self.fail(412, "PreconditionFailed")
                objects[key] = body
            self.answer(200, headers={"ETag": etag(body)})

        def do_GET(self):
            key, query, _ = self.request_parts()
            if not key:
                return self.list(
                    query.get("prefix", [""])[0],
                    query.get("delimiter", [""])[0],
                    query.get("start-after", [""])[0],
                )
            data = objects.get(key)
            if data is None:
                return self.fail(404, "NoSuchKey")
            headers = {
                "ETag": etag(data),
                "Last-Modified": format_datetime(MODIFIED, usegmt=True),
                "Accept-Ranges": "bytes",
            }
            wanted = re.fullmatch(r"bytes=(\d*)-(\d*)", self.headers.get("Range", ""))
            if not wanted:
                return self.answer(200, data, headers)
            first, last = wanted.groups()
            start = int(first) if first else max(0, len(data) - int(last))
            end = min(int(last) + 1, len(data)) if first and last else len(data)
            if start >= len(data):
                return self.fail(416, "InvalidRange")
            self.answer(
                206, data[start:end], headers | {"Content-Range": f"bytes {start}-{end - 1}/{len(data)}"}
            )

        do_HEAD = do_GET

        def do_DELETE(self):
            objects.pop(self.request_parts()[0], None)
            self.answer(204)

        def do_POST(self):
            key, query, body = self.request_parts()
            if "uploads" in query:
                upload = f"upload-{next(uploads)}"
                return self.answer(200, xml("R", f"<UploadId>{upload}</UploadId>"))
            if "uploadId" in query:
                ours = sorted(part for part in parts if part[0] == query["uploadId"][0])
                objects[key] = b"".join(parts.pop(part) for part in ours)
                return self.answer(200, xml("R", f"<ETag>{escape(etag(objects[key]))}</ETag>"))
            if "delete" not in query:
                return self.fail(501, "NotImplemented")
            keys = [key.text for key in ElementTree.fromstring(body).iter() if key.tag.endswith("Key")]
            for key in keys:
                objects.pop(key, None)
            self.answer(
                200,
                xml("DeleteResult", "".join(f"<Deleted><Key>{escape(key)}</Key></Deleted>" for key in keys)),
            )

        def list(self, prefix, delimiter, after):
            entries, folders = [], set()
            for key, data in sorted(objects.items()):
                rest = key[len(prefix) :]
                if not key.startswith(prefix) or key <= after:
                    continue
                if delimiter and delimiter in rest:
                    folders.add(prefix + rest.partition(delimiter)[0] + delimiter)
                else:
                    entries.append(
                        f"<Contents><Key>{escape(key)}</Key><LastModified>{MODIFIED:%Y-%m-%dT%H:%M:%S.000Z}</LastModified>"
                        f"<ETag>{escape(etag(data))}</ETag><Size>{len(data)}</Size></Contents>"
                    )
            entries += [
                f"<CommonPrefixes><Prefix>{escape(name)}</Prefix></CommonPrefixes>"
                for name in sorted(folders)
            ]
            self.answer(200, xml("ListBucketResult", "<IsTruncated>false</IsTruncated>" + "".join(entries)))

        def request_parts(self):
            url = urlsplit(self.path)
            key = unquote(url.path).lstrip("/").partition("/")[2]
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            return key, parse_qs(url.query, keep_blank_values=True), body

        def answer(self, status, data=b"", headers=None):
            self.send_response(status)
            for name, value in (headers or {}).items():
                self.send_header(name, value)
            if status != 204:
                self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            if self.command != "HEAD":
                # Clients break large answers off to ask for ranges instead.
                with contextlib.suppress(ConnectionError):
                    self.wfile.write(data)

        def fail(self, status, code):
            self.answer(status, xml("Error", f"<Code>{code}</Code><Message>{code}</Message>"))

        def log_message(self, *_):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()


def etag(data):
    return f'"{hashlib.md5(data, usedforsecurity=False).hexdigest()}"'


def xml(root, inner):
    return f'<?xml version="1.0" encoding="UTF-8"?><{root} xmlns="http://s3.amazonaws.com/doc/2006-03-01/">{inner}</{root}>'.encode()
