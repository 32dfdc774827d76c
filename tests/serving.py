"""A web server on this machine, for tests of what fetches and of what is shown."""

import contextlib
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


@contextmanager
def serving(handler: Callable) -> Iterator[str]:
    """Answer by this handler while the block runs; yields the address."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class Place:
    """What a server offers, how it behaves, and what it was asked for."""

    def __init__(self, content: bytes = b""):
        self.content = content
        self.limits: list[int] = []  # bytes after which each answer breaks off
        self.status: int | None = None
        self.announce = True
        self.halt: threading.Event | None = None  # in the middle of the first answer
        self.asked: list[str] = []


@contextmanager
def offering(place: Place) -> Iterator[str]:
    """Serve one file, whatever is asked for, while the block runs; yields the address."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            place.asked.append(self.path)
            if place.status:
                self.send_error(place.status)
                return
            self.send_response(200)
            if place.announce:
                self.send_header("Content-Length", str(len(place.content)))
            self.end_headers()
            limit = place.limits.pop(0) if place.limits else len(place.content)
            start = 0
            if place.halt:
                start = len(place.content) // 2
                self.wfile.write(place.content[:start])
                self.wfile.flush()
                place.halt.wait(30)
            with contextlib.suppress(ConnectionError):  # who asked was killed
                self.wfile.write(place.content[start:limit])

        def do_HEAD(self):
            self.send_response(place.status or 200)
            self.end_headers()

        def log_message(self, *_):
            pass

    with serving(Handler) as address:
        yield address
