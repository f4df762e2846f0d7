"""An S3 in memory, one request at a time.

moto alone checks If-None-Match and writes in two steps, so that two racing creates can both win.

moto_locked.py PORT
"""

import io
import sys
import threading

from moto.server import DomainDispatcherApplication, create_backend_app
from werkzeug.serving import WSGIRequestHandler, run_simple

moto = DomainDispatcherApplication(create_backend_app)
one_at_a_time = threading.Lock()


def application(environ, start_response):
    length = int(environ.get("CONTENT_LENGTH") or 0)
    if length:  # read before the lock, so that a slow sender holds up nobody
        environ["wsgi.input"] = io.BytesIO(environ["wsgi.input"].read(length))
    with one_at_a_time:
        answer = moto(environ, start_response)
        try:
            return [b"".join(answer)]
        finally:
            getattr(answer, "close", lambda: None)()


class Quiet(WSGIRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_request(self, *_):
        pass


run_simple("127.0.0.1", int(sys.argv[1]), application, threaded=True, request_handler=Quiet)
