"""A network between a client and a server that does what the test says."""

from __future__ import annotations

import queue
import socket
import ssl
import struct
import threading
import time
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Self

PIECE = 1 << 16
# So many pieces are on their way at most.
ROOM = 64
# Closed with it, a socket sends a reset.
NO_LINGER = struct.pack("ii", 1, 0)
SSL_REQUEST = struct.pack("!ii", 8, 80877103)


class Pair:
    """The two ends of a connection through the proxy."""

    def __init__(self, client: socket.socket, family: int) -> None:
        self.client, self.server = client, socket.socket(family)
        self.flows = threading.Event()
        self.flows.set()

    def end(self, linger: bytes) -> None:
        for each in (self.client, self.server):
            with suppress(OSError):
                if linger:
                    each.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
                # Whoever reads from it would keep it open.
                each.shutdown(socket.SHUT_RD if linger else socket.SHUT_RDWR)
            each.close()
        self.flows.set()


class Proxy:
    """Listens on ``address`` and forwards each connection to ``target``; a context manager.

    How it treats connections can be changed at any moment, from any thread:

    - ``latency``: the seconds that bytes take, on their way to the client;
    - ``freeze()`` keeps the connections open and forwards nothing, and does so with new ones if wished, until
      ``heal()``;
    - ``cut()`` ends those there are, and ``reset()`` does it with a TCP reset; ``reset_after(count)`` once so
      many bytes have gone by, counted over both directions;
    - ``is_refusing``: nobody listens; ``says``: an ErrorResponse with this text, as Neon's proxy writes it;
      ``is_hole``: whoever connects is not answered, and what there was stays as it is.
    """

    def __init__(self, address: str, target: tuple[str, int] | str, certificate: Path | None = None) -> None:
        """``target`` is an address or a Unix socket. With a certificate, in a file beside which lies its key
        (``.key``), the proxy speaks TLS where it says something itself.
        """
        self._address, self._target = address, target
        self._tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        if certificate is not None:
            self._tls.load_cert_chain(certificate, certificate.with_suffix(".key"))
        self.latency = 0.0
        self.says = ""
        self.is_hole = False
        # How many connected, and what has gone by.
        self.visits = 0
        self.bytes = 0
        self._reset_at: int | None = None
        self._is_frozen = False
        self._pairs: set[Pair] = set()
        self._lock = threading.Lock()
        self._listener: socket.socket | None = socket.create_server((address, 0))
        self.port: int = self._listener.getsockname()[1]

    def __enter__(self) -> Self:
        self._accept(self._listener)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.is_refusing = True
        self.cut()

    @property
    def is_refusing(self) -> bool:
        return self._listener is None

    @is_refusing.setter
    def is_refusing(self, value: bool) -> None:
        if value and self._listener is not None:
            listener, self._listener = self._listener, None
            # Else accept() would hold on to it.
            with suppress(OSError):
                listener.shutdown(socket.SHUT_RDWR)
            listener.close()
        elif not value and self._listener is None:
            self._listener = socket.create_server((self._address, self.port))
            self._accept(self._listener)

    def freeze(self, *, new_ones: bool = True) -> None:
        self._is_frozen = new_ones
        with self._lock:
            for pair in self._pairs:
                pair.flows.clear()

    def cut(self) -> None:
        self._end(b"")

    def reset(self) -> None:
        self._end(NO_LINGER)

    def reset_after(self, count: int) -> None:
        self._reset_at = self.bytes + count

    def heal(self) -> None:
        """Treat new connections well from now on, and end those that are frozen."""
        self.latency, self.says, self.is_hole, self._reset_at, self._is_frozen = 0.0, "", False, None, False
        self.is_refusing = False
        with self._lock:
            frozen = {pair for pair in self._pairs if not pair.flows.is_set()}
            self._pairs -= frozen
        for pair in frozen:
            pair.end(b"")

    def _end(self, linger: bytes) -> None:
        with self._lock:
            pairs, self._pairs = self._pairs, set()
        for pair in pairs:
            pair.end(linger)

    def _accept(self, listener: socket.socket | None) -> None:
        threading.Thread(target=self._work, args=[listener], name="proxy", daemon=True).start()

    def _work(self, listener: socket.socket) -> None:
        while True:
            try:
                client, _ = listener.accept()
            except OSError:
                return
            self.visits += 1
            threading.Thread(target=self._serve, args=[client], name="proxy-client", daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        if self.says:
            with client, suppress(OSError):
                self._refuse(client, self.says)
            return
        pair = Pair(client, socket.AF_UNIX if isinstance(self._target, str) else socket.AF_INET)
        if self._is_frozen:
            pair.flows.clear()
        with self._lock:
            self._pairs.add(pair)
        if self.is_hole:
            return
        pair.flows.wait()
        with suppress(OSError):
            pair.server.connect(self._target)
            pair.client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            threading.Thread(target=self._pass, args=[pair, True], name="proxy-back", daemon=True).start()
            self._pass(pair, False)

    def _pass(self, pair: Pair, is_answer: bool) -> None:
        source, target = (pair.server, pair.client) if is_answer else (pair.client, pair.server)
        # Bytes that are late delay none behind them.
        late: queue.Queue[tuple[float, bytes]] = queue.Queue(ROOM)
        sending = threading.Thread(target=self._send, args=[late, pair, target], daemon=True)
        sending.start()
        with suppress(OSError):
            while data := source.recv(PIECE):
                late.put((time.monotonic() + (self.latency if is_answer else 0), data))
        late.put((0, b""))
        sending.join()
        # Of the end of one, the other does not hear through a frozen line.
        pair.flows.wait()
        with self._lock:
            is_left = pair in self._pairs
            self._pairs.discard(pair)
        if is_left:
            pair.end(b"")

    def _send(self, late: queue.Queue[tuple[float, bytes]], pair: Pair, target: socket.socket) -> None:
        with suppress(OSError):
            while (due := late.get())[1]:
                time.sleep(max(0, due[0] - time.monotonic()))
                pair.flows.wait()
                if self._reset_at is not None and self.bytes + len(due[1]) >= self._reset_at:
                    self._reset_at = None
                    self.reset()
                    break
                target.sendall(due[1])
                self.bytes += len(due[1])
            else:
                return
        while late.get()[1]:
            pass

    def _refuse(self, client: socket.socket, text: str) -> None:
        # Only what comes through TLS is believed:
        # https://www.postgresql.org/docs/current/protocol-flow.html#PROTOCOL-FLOW-SSL
        if client.recv(PIECE) == SSL_REQUEST:
            client.sendall(b"S")
            client = self._tls.wrap_socket(client, server_side=True)
            client.recv(PIECE)
        fields = b"SERROR\0CXX000\0M" + text.encode() + b"\0\0"
        client.sendall(b"E" + (len(fields) + 4).to_bytes(4, "big") + fields)
        client.close()
