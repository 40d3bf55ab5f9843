"""An S3 server on loopback that counts what it sends and can be told to refuse."""

from __future__ import annotations

import http.client
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from moto.server import DomainDispatcherApplication, create_backend_app
from werkzeug.serving import WSGIRequestHandler, make_server

Before = Callable[[str, str], int]
"""Told the method and the path of a request; returns a status to refuse it with, or 0."""


_ANYBODY = "AWS4-HMAC-SHA256 Credential=key/20260101/us-east-1/s3/aws4_request"


class _Quiet(WSGIRequestHandler):
    def log(self, type: str, message: str, *args: Any) -> None:
        pass


@dataclass
class Bucket:
    """One bucket.

    Attributes:
        port: of the server.
        name: of the bucket.
        requests: (method, path, bytes of the answer) since the last `clear`.
        before: see `Before`.
    """

    port: int
    name: str
    requests: list[tuple[str, str, int]] = field(default_factory=list)
    before: Before = field(default=lambda method, path: 0)

    @property
    def url(self) -> str:
        return f"s3://{self.name}/stores/one"

    def gets(self, part: str = "") -> list[int]:
        """Bytes of every answer to a GET of an object whose key holds `part`."""
        return [size for method, path, size in self.requests if method == "GET" and part in path and "?" not in path]

    def call(self, method: str, key: str, body: bytes = b"") -> bytes:
        """An object, past all that is counted and refused; `key` is relative to the store."""
        former, self.before = self.before, lambda method, path: 0
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=10)
        try:
            connection.request(method, f"/{self.name}/stores/one/{key}", body)
            answer = connection.getresponse()
            content = answer.read()
            assert answer.status < 300, (answer.status, content[:300])
            return content
        finally:
            connection.close()
            self.before = former


class Server:
    """Moto's S3 in a thread."""

    def __init__(self) -> None:
        self._inner = DomainDispatcherApplication(create_backend_app)
        self._server = make_server("127.0.0.1", 0, self._serve, threaded=True, request_handler=_Quiet)
        self.port = self._server.server_port
        self._buckets: dict[str, Bucket] = {}
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        self._thread.start()

    def bucket(self) -> Bucket:
        """A new bucket."""
        made = Bucket(self.port, f"bucket-{len(self._buckets)}")
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=10)
        connection.request("PUT", f"/{made.name}")
        assert connection.getresponse().status == 200
        connection.close()
        self._buckets[made.name] = made
        return made

    def stop(self) -> None:
        self._server.shutdown()
        self._thread.join()

    def _serve(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        method, path = environ["REQUEST_METHOD"], environ["PATH_INFO"]
        bucket = self._buckets.get(path.split("/")[1])
        status = bucket.before(method, path) if bucket is not None else 0
        if status:
            environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
            body = b"<Error><Code>AccessDenied</Code><Message>Access Denied</Message></Error>"
            start_response(f"{status} refused", [("Content-Length", str(len(body))), ("Content-Type", "text/xml")])
            return [body]
        environ.setdefault("HTTP_AUTHORIZATION", _ANYBODY)
        content = list(self._inner(environ, start_response))
        if bucket is not None:
            where = path + ("?" if environ.get("QUERY_STRING") else "")
            bucket.requests.append((method, where, sum(map(len, content))))
        return content


@contextmanager
def serve() -> Iterator[Server]:
    server = Server()
    try:
        yield server
    finally:
        server.stop()
