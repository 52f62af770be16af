"""A page served to browsers of this machine, and to no one else.

The address has a random token, so that no other user and no web page can guess it. A request must name this host, or a web
page could reach the server under a name of its own (DNS rebinding). Only GET and HEAD are answered. No part of an address is
ever used as a path.
"""

from __future__ import annotations

import errno
import hmac
import secrets
import socketserver
import threading
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from time import monotonic
from time import sleep as pause
from typing import Any
from urllib.parse import parse_qs, urlsplit

from jumar.console.signals import Stopped, stop_on_signals
from jumar.errors import JumarError, UsageError
from jumar.web.elements import data_json
from jumar.web.gathering import Gathering
from jumar.web.page import make_page, policy

HOST = "127.0.0.1"
BETWEEN_LOOKS = 1.0
"""Seconds between two looks at the logs, however many browsers ask."""
PATIENCE = 10.0
"""Seconds that a browser may take to say what it wants."""
MOST_REQUESTS = 32
"""How many requests are answered at a time."""
HEADERS = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": policy(live=True) + "; frame-ancestors 'none'",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}


class Source:
    """The page as it is now; logs are read when somebody asks, and only what was appended."""

    def __init__(self, gathering: Gathering) -> None:
        self._gathering = gathering
        self._lock = threading.Lock()
        self._looked = monotonic()
        self.version = 1
        self._page = make_page(gathering, live=True, stills=False)
        self._changed = dict.fromkeys(self._page.sections, 1)

    def html(self) -> bytes:
        """Return the whole page."""
        with self._lock:
            self._look()
            return make_page(self._gathering, live=True).html(version=self.version)

    def update(self, have: int, shape: str) -> bytes | None:
        """Return what has changed since a version, as JSON; ``None`` if nothing has."""
        with self._lock:
            self._look()
            if have == self.version and shape == self._page.shape:
                return None
            page = self._page
            anew = shape != page.shape or not 0 < have <= self.version
            sections = {name: part for name, part in page.sections.items() if anew or self._changed[name] > have}
            content = {"version": self.version, "shape": page.shape, "title": page.title, "order": list(page.sections)}
            return data_json({**content, "data": page.data, "sections": sections}).encode("ascii")

    def _look(self) -> None:
        if monotonic() - self._looked < BETWEEN_LOOKS:
            return
        changed = self._gathering.look()
        self._looked = monotonic()
        if not changed:
            return
        before, self._page = self._page, make_page(self._gathering, live=True, stills=False)
        different = [name for name, part in self._page.sections.items() if part != before.sections[name]]
        if different or self._page.data != before.data:
            self.version += 1
            self._changed |= dict.fromkeys(different, self.version)


class _Listener(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 64

    def __init__(self, address: tuple[str, int], source: Source, token: str) -> None:
        self.source, self.token = source, token
        self._places = threading.BoundedSemaphore(MOST_REQUESTS)
        super().__init__(address, _Handler)

    def server_bind(self) -> None:
        """Bind without asking the network for this machine's name."""
        socketserver.TCPServer.server_bind(self)
        self.server_name, self.server_port = HOST, self.server_address[1]

    def process_request(self, request: Any, client_address: Any) -> None:
        """Answer in a thread of its own, if not too many are at it."""
        if not self._places.acquire(blocking=False):
            self.shutdown_request(request)
            return
        super().process_request(request, client_address)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        """Answer, and give the place back."""
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._places.release()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing: a browser that goes away is no error."""


class _Handler(BaseHTTPRequestHandler):
    server: _Listener  # type: ignore[assignment]
    server_version, sys_version = "jumar", ""
    timeout = PATIENCE

    def do_GET(self) -> None:
        """Answer with the page or with what is new."""
        port = self.server.server_port
        hosts = self.headers.get_all("Host") or []
        if len(hosts) != 1 or hosts[0].lower() not in (f"{HOST}:{port}", f"localhost:{port}"):
            return self._refuse(HTTPStatus.FORBIDDEN, f"open http://{HOST}:{port}/TOKEN/, as jumar live printed it.")
        address = urlsplit(self.path) if self.path.startswith("/") and not self.path.startswith("//") else None
        token, slash, name = (address.path[1:] if address else "").partition("/")
        if not hmac.compare_digest(token.encode("utf-8", "replace"), self.server.token.encode()) or not slash:
            return self._refuse(
                HTTPStatus.NOT_FOUND, "there is nothing here; open the address that jumar live printed."
            )
        if name == "":
            return self._answer(self.server.source.html(), "text/html; charset=utf-8")
        if name == "data" and address is not None:
            asked = parse_qs(address.query, max_num_fields=4)
            have, shape = asked.get("have", ["0"])[0], asked.get("shape", [""])[0]
            update = self.server.source.update(int(have) if have.isdecimal() and len(have) < 16 else 0, shape)
            if update is None:
                return self._answer(b"", None, HTTPStatus.NO_CONTENT)
            return self._answer(update, "application/json")
        return self._refuse(HTTPStatus.NOT_FOUND, "there is nothing here; open the address that jumar live printed.")

    do_HEAD = do_GET

    def _not_allowed(self) -> None:
        self._refuse(HTTPStatus.METHOD_NOT_ALLOWED, "only GET and HEAD are answered.", {"Allow": "GET, HEAD"})

    do_POST = do_PUT = do_DELETE = do_PATCH = do_OPTIONS = do_TRACE = do_CONNECT = _not_allowed

    def _refuse(self, status: HTTPStatus, words: str, more: dict[str, str] | None = None) -> None:
        self._answer(words.encode() + b"\n", "text/plain; charset=utf-8", status, more)

    def _answer(
        self, content: bytes, kind: str | None, status: HTTPStatus = HTTPStatus.OK, more: dict[str, str] | None = None
    ) -> None:
        self.request_version = "HTTP/1.0"  # whatever was asked for: without one, Python leaves the headers out
        self.send_response(status)
        headers = {
            **HEADERS,
            **({"Content-Type": kind, "Content-Length": str(len(content))} if kind else {}),
            **(more or {}),
        }
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def send_error(self, code: int, message: str | None = None, explain: str | None = None) -> None:
        """Answer what cannot be understood, such as an unknown method, in one plain line."""
        self.close_connection = True
        self.command = self.command or "GET"
        self._refuse(HTTPStatus(code), "the request cannot be understood.")

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing: addresses hold the token."""


class Server:
    """A page that is served; make one, print its ``url``, and let it ``serve``.

    Raises:
        UsageError: the port is taken, or may not be used.
    """

    def __init__(self, gathering: Gathering, port: int = 0) -> None:
        self._token = secrets.token_urlsafe(24)
        try:
            self._listener = _Listener((HOST, port), Source(gathering), self._token)
        except OSError as error:
            reasons = {
                errno.EADDRINUSE: "is taken by another program",
                errno.EACCES: "may not be used by this user",
                errno.EPERM: "may not be used by this user",
            }
            reason = reasons.get(error.errno or 0)
            if reason is None:
                raise JumarError(f"the page cannot be served on {HOST}: {error.strerror}.") from error
            raise UsageError(f"port {port} {reason}; give another, or leave --port out to get a free one.") from None
        self.port = self._listener.server_port

    @property
    def url(self) -> str:
        """Where the page is."""
        return f"http://{HOST}:{self.port}/{self._token}/"

    def serve(self) -> None:
        """Serve until a signal comes.

        Raises:
            Stopped: it came.
        """
        with stop_on_signals(lambda line: None) as stop, self:
            while not stop:
                pause(0.1)
        raise Stopped(stop.signal or 0, "the page is no longer served; the runs are as they were.")

    def __enter__(self) -> Server:
        """Serve from another thread within the block."""
        self._thread = threading.Thread(
            target=self._listener.serve_forever, kwargs={"poll_interval": 0.1}, name="jumar-live", daemon=True
        )
        self._thread.start()
        return self

    def __exit__(self, *words: object) -> None:
        """Stop serving, and free the port."""
        self._listener.shutdown()
        self._thread.join()
        self._listener.server_close()
