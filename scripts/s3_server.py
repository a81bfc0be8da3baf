"""An S3-compatible server on loopback, in memory, for tests: moto's S3, with what Delta commits rely on made certain.

A Delta commit is a PUT with `If-None-Match: *`, which must succeed for exactly one of several writers. moto looks first
and stores afterwards; one lock around conditional requests makes the two one step.

Usage: s3_server.py PORT BUCKET...
"""

import logging
import sys
import threading

from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app
from moto.s3.models import s3_backends
from werkzeug.serving import run_simple


class OneWriter:
    """Lets conditional requests through one at a time."""

    def __init__(self, app):
        self.app = app
        self.lock = threading.Lock()

    def __call__(self, environ, start_response):
        if "HTTP_IF_NONE_MATCH" in environ or "HTTP_IF_MATCH" in environ:
            with self.lock:
                return list(self.app(environ, start_response))
        return self.app(environ, start_response)


def main():
    port, buckets = int(sys.argv[1]), sys.argv[2:]
    # Requests are not worth a line each; warnings are.
    logging.getLogger("werkzeug").setLevel(logging.WARNING)
    for bucket in buckets:
        s3_backends["123456789012"]["aws"].create_bucket(bucket, "us-east-1")
    app = OneWriter(DomainDispatcherApplication(create_backend_app))
    run_simple("127.0.0.1", port, app, threaded=True)


if __name__ == "__main__":
    main()
