"""Just enough of Azure Blob Storage's REST interface: make a container; put, get and list blobs; shared key.

Written against the protocol, so that what `dedupe` wrote is not judged by the library that wrote it.
"""

import base64
import hashlib
import hmac
import http.client
import os
import urllib.parse
import xml.etree.ElementTree as ElementTree
from email.utils import formatdate

# The account and key that every Azure emulator has: published, and good for nothing else.
ACCOUNT = "devstoreaccount1"
KEY = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="
VERSION = "2021-12-02"


class Container:
    def __init__(self, endpoint, name):
        self.address, self.name = urllib.parse.urlsplit(endpoint).netloc, name

    @classmethod
    def from_environment(cls, name):
        return cls(os.environ["AZURITE_BLOB_STORAGE_URL"], name)

    def create(self):
        return self._send("PUT", "", {"restype": "container"}) == (201, b"")

    def put(self, blob, data, create=False):
        """Whether it was written; with `create` only if there was none of that name."""
        headers = {"x-ms-blob-type": "BlockBlob"} | ({"If-None-Match": "*"} if create else {})
        status, answer = self._send("PUT", blob, headers=headers, data=data)
        if status not in (201, 409, 412):
            raise OSError(f"PUT {blob}: {status} {answer[:200]}")
        return status == 201

    def get(self, blob):
        status, data = self._send("GET", blob)
        if status != 200:
            raise OSError(f"GET {blob}: {status} {data[:200]}")
        return data

    def list(self, prefix):
        names, marker = [], ""
        while True:
            query = {"restype": "container", "comp": "list", "prefix": prefix} | (
                {"marker": marker} if marker else {}
            )
            status, data = self._send("GET", "", query)
            if status != 200:
                raise OSError(f"LIST {prefix}: {status} {data[:200]}")
            page = ElementTree.fromstring(data.decode("utf-8-sig"))
            names += [name.text for name in page.findall(".//Blob/Name")]
            marker = page.findtext("NextMarker")
            if not marker:
                return names

    def _send(self, method, blob, query=None, headers=None, data=b""):
        path = "/".join([f"/{ACCOUNT}/{self.name}", *([urllib.parse.quote(blob)] if blob else [])])
        headers = {"x-ms-date": formatdate(usegmt=True), "x-ms-version": VERSION, **(headers or {})}
        headers["Authorization"] = (
            f"SharedKey {ACCOUNT}:{_signature(method, path, query or {}, headers, len(data))}"
        )
        connection = http.client.HTTPConnection(self.address, timeout=30)
        try:
            url = path + ("?" + urllib.parse.urlencode(query) if query else "")
            connection.request(
                method, url, body=data or None, headers={**headers, "Content-Length": str(len(data))}
            )
            answer = connection.getresponse()
            return answer.status, answer.read()
        finally:
            connection.close()


def _signature(method, path, query, headers, length):
    unused = ""
    standard = [
        *[unused, unused],  # content encoding and language
        str(length or ""),
        *[unused, unused, unused, unused, unused],  # md5, type, date, if-modified-since, if-match
        headers.get("If-None-Match", ""),
        *[unused, unused],  # if-unmodified-since, range
    ]
    own = [f"{name}:{value}" for name, value in sorted(headers.items()) if name.startswith("x-ms-")]
    resource = [f"/{ACCOUNT}{path}"] + [f"{name}:{value}" for name, value in sorted(query.items())]
    text = "\n".join([method, *standard, *own, *resource])
    return base64.b64encode(hmac.digest(base64.b64decode(KEY), text.encode(), hashlib.sha256)).decode()
