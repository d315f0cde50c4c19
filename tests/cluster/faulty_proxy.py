"""An HTTP proxy that spoils chosen replies of a real server: faults that none makes on demand."""

import re
import socket
import struct
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from enum import Enum, auto
from http.client import HTTPConnection, HTTPException
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit


class Fault(Enum):
    """What happens to one reply."""

    LOSE_REPLY = auto()  # the server does the work, the client hears nothing
    CUT_BODY = auto()  # the connection ends after half the body
    RESET_BODY = auto()  # the connection is reset after half the body
    SHORT_BODY = auto()  # half the body arrives, and the header says that this is all
    EMPTY_BODY = auto()  # no byte of the body arrives, and the header says that this is all
    FLIP_BIT = auto()  # the body arrives with one bit changed
    SLOW_BODY = auto()  # the body comes in small pieces with pauses
    RESET_UPLOAD = auto()  # the connection is reset after half of the client's body
    FLIP_UPLOAD = auto()  # the server gets the client's body with one bit changed
    SLOW_UPLOAD = auto()  # the client's body is taken in small pieces with pauses
    SLOW_DOWN = auto()  # 503 SlowDown; the server is not asked
    CONFLICT = auto()  # 409 ConditionalRequestConflict; the server is not asked
    NOT_IMPLEMENTED = auto()  # 501; the server is not asked
    NO_SUCH_UPLOAD = auto()  # 404 NoSuchUpload; the server is not asked


READ_FAULTS = (
    Fault.SLOW_DOWN,
    Fault.RESET_BODY,
    Fault.CUT_BODY,
    Fault.SHORT_BODY,
    Fault.FLIP_BIT,
    Fault.SLOW_BODY,
    Fault.LOSE_REPLY,
)
"""What can happen to a GET that a client must cure."""
WRITE_FAULTS = (
    Fault.SLOW_DOWN,
    Fault.RESET_UPLOAD,
    Fault.FLIP_UPLOAD,
    Fault.SLOW_UPLOAD,
    Fault.LOSE_REPLY,
)
"""The same for a PUT."""
_REFUSALS = {
    Fault.SLOW_DOWN: (503, "SlowDown"),
    Fault.CONFLICT: (409, "ConditionalRequestConflict"),
    Fault.NOT_IMPLEMENTED: (501, "NotImplemented"),
    Fault.NO_SUCH_UPLOAD: (404, "NoSuchUpload"),
}
PIECE_PAUSE_S, NUM_PIECES = 0.02, 25


def piece_sizes(size: int) -> list[int]:
    """Cut a length into pieces."""
    piece = max(1, size // NUM_PIECES)
    return [min(piece, size - start) for start in range(0, size, piece)]


class FaultyProxy:
    """Where the proxy listens, what it has seen and what it will spoil.

    Attributes:
        url: What AWS_ENDPOINT_URL must be.
        num_requests: How many of each method have come.
        num_unanswered: How many came while the server did not answer.
        ranges: The Range headers that have come, in order.
        spoiled_paths: The regular expression of the paths that are spoiled.
    """

    def __init__(self, upstream_url: str) -> None:
        self.upstream = urlsplit(upstream_url).netloc
        self.num_requests: Counter[str] = Counter()
        self.num_unanswered = 0
        self.ranges: list[str] = []
        self.spoiled_paths = ""
        self.reply_delay_s = 0.0
        self._faults: deque[tuple[str, Fault | Callable[[], None]]] = deque()
        self._lock = threading.Lock()
        self.url = ""

    def spoil(self, method: str, *faults: Fault | Callable[[], None]) -> None:
        """Spoil the next replies to this method, in this order; a function is called instead."""
        self._faults.extend((method, fault) for fault in faults)

    def next_fault(self, method: str, path: str) -> Fault | Callable[[], None] | None:
        """Count a request; take the fault that waits for it."""
        with self._lock:
            self.num_requests[method] += 1
            is_meant = re.search(self.spoiled_paths, path) is not None
            if is_meant and self._faults and self._faults[0][0] == method:
                return self._faults.popleft()[1]
            return None

    @property
    def all_faults_happened(self) -> bool:
        """Whether no fault waits any more."""
        return not self._faults


@contextmanager
def faulty_proxy(upstream_url: str) -> Iterator[FaultyProxy]:
    """Run a proxy before a server on 127.0.0.1."""
    proxy = FaultyProxy(upstream_url)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def forward(self) -> None:
            fault = proxy.next_fault(self.command, self.path)
            if callable(fault):
                fault()
                fault = None
            if wanted := self.headers.get("Range"):
                proxy.ranges.append(wanted)
            size = int(self.headers.get("Content-Length", 0))
            is_chunked = "chunked" in self.headers.get("Transfer-Encoding", "")
            if fault is Fault.RESET_UPLOAD:
                self.rfile.read(size // 2)
                self.reset()
                return
            if fault is Fault.SLOW_UPLOAD:
                pieces = [self.take_slowly(n) for n in piece_sizes(size)]
                body = b"".join(pieces)
            else:
                body = self.take_chunks() if is_chunked else self.rfile.read(size)
            if fault is Fault.FLIP_UPLOAD:
                body = body[:-1] + bytes([body[-1] ^ 1])
            if fault in _REFUSALS:
                status, code = _REFUSALS[fault]
                error = f"<Error><Code>{code}</Code><Message>asked for</Message></Error>".encode()
                self.answer(status, [("Content-Type", "application/xml")], error)
                return
            upstream = HTTPConnection(proxy.upstream, timeout=30)
            try:
                upstream.putrequest(self.command, self.path, True, True)
                for name, value in self.headers.items():
                    if name.lower() not in ("expect", "transfer-encoding"):
                        upstream.putheader(name, value)
                if is_chunked:
                    upstream.putheader("Content-Length", str(len(body)))
                upstream.endheaders(body or None)
                reply = upstream.getresponse()
                data, headers = reply.read(), reply.getheaders()
            except (OSError, HTTPException):
                proxy.num_unanswered += 1
                self.close_connection = True
                return
            finally:
                upstream.close()
            time.sleep(proxy.reply_delay_s)
            if fault is Fault.LOSE_REPLY:
                self.close_connection = True
            elif self.command == "HEAD":
                self.answer(reply.status, headers, None)
            else:
                self.answer(reply.status, headers, data, fault)

        do_GET = do_PUT = do_POST = do_HEAD = do_DELETE = forward  # noqa: N815 - http.server looks for these names

        def take_chunks(self) -> bytes:
            """Read a body of unknown length, as pyarrow sends it."""
            body = b""
            while size := int(self.rfile.readline().partition(b";")[0], 16):
                body += self.rfile.read(size)
                self.rfile.readline()
            while self.rfile.readline().strip():  # trailers
                pass
            return body

        def take_slowly(self, size: int) -> bytes:
            time.sleep(PIECE_PAUSE_S)
            return self.rfile.read(size)

        def reset(self) -> None:
            """End the connection by RST, as a crash or a firewall does, and not by FIN."""
            no_linger = struct.pack("ii", 1, 0)
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, no_linger)
            self.close_connection = True
            # The reply's file object keeps the socket alive, so both are closed here.
            self.rfile.close()
            self.connection.close()

        def answer(
            self,
            status: int,
            headers: list[tuple[str, str]],
            data: bytes | None,
            fault: Fault | None = None,
        ) -> None:
            self.send_response_only(status)
            ours = {"transfer-encoding", "connection"} | (
                set() if data is None else {"content-length"}
            )
            for name, value in headers:
                if name.lower() not in ours:
                    self.send_header(name, value)
            if data and fault in (Fault.SHORT_BODY, Fault.EMPTY_BODY):
                data = data[: len(data) // 2] if fault is Fault.SHORT_BODY else b""
            if data is not None:
                self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            data = data or b""
            if fault is Fault.FLIP_BIT:
                data = bytes([data[0] ^ 1]) + data[1:]
            if fault in (Fault.CUT_BODY, Fault.RESET_BODY):
                data = data[: len(data) // 2]
                self.close_connection = True
            if fault is Fault.SLOW_BODY:
                for size in piece_sizes(len(data)):
                    self.wfile.write(data[:size])
                    data = data[size:]
                    time.sleep(PIECE_PAUSE_S)
                return
            self.wfile.write(data)
            if fault is Fault.RESET_BODY:
                time.sleep(0.05)  # what was sent is read before the reset discards it
                self.reset()

        def log_message(self, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    proxy.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield proxy
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
