"""A small web server on the loopback interface that answers range requests and counts them."""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path


@dataclass
class Served:
    """What was asked of the server."""

    address: str
    requests: list[str] = field(default_factory=list)
    sent: int = 0


@contextmanager
def serve(folder: Path) -> Iterator[Served]:
    """Serve the files of ``folder`` at the address given, until the block ends."""
    served = Served("")
    lock = threading.Lock()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def _answer(self, *, body: bool) -> None:
            file = folder / self.path.split("?")[0].lstrip("/")
            wanted = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
            with lock:
                served.requests.append(f"{self.command} {self.path} {self.headers.get('Range', '')}".strip())
            if not file.is_file():
                self.send_response(404)
                self.send_header("Content-Length", "0")
                self.end_headers()
                return
            content = file.read_bytes()
            start, stop = 0, len(content)
            if wanted:
                start = int(wanted[1])
                stop = min(stop, int(wanted[2]) + 1) if wanted[2] else stop
            self.send_response(206 if wanted else 200)
            self.send_header("Accept-Ranges", "bytes")
            self.send_header("Content-Length", str(stop - start))
            if wanted:
                self.send_header("Content-Range", f"bytes {start}-{stop - 1}/{len(content)}")
            self.end_headers()
            if body:
                self.wfile.write(content[start:stop])
                with lock:
                    served.sent += stop - start

        def do_GET(self) -> None:
            self._answer(body=True)

        def do_HEAD(self) -> None:
            self._answer(body=False)

        def log_message(self, format: str, *args: object) -> None:  # the base class's name
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    served.address = f"127.0.0.1:{server.server_address[1]}"
    try:
        yield served
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
