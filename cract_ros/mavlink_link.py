"""Where MAVLink packets come from and go to: UDP, TCP or a serial line, by a URL. Sockets never block, and a line that is
interrupted is opened again.

    udpin:HOST:PORT    wait for ground stations and autopilots, and answer each of them
    udpout:HOST:PORT   send there first
    tcp:HOST:PORT      connect there;  tcpin:HOST:PORT  wait for connections
    serial:DEVICE:BAUD such as serial:/dev/ttyACM0:57600
"""
from __future__ import annotations

import errno
import select
import socket
import time
from typing import Hashable, NamedTuple

ENDS = 16           # of a link that waits
SILENCE = 30.0      # seconds after which a silent one is not sent to any more, over UDP
RETRY = 1.0         # seconds between two attempts to open a connection
LARGEST = 65536     # bytes that are read at once
BACKLOG = 65536     # bytes that may wait to be sent over a connection: what a slow one does not take is left out
FORMS = 'udpin:HOST:PORT, udpout:HOST:PORT, tcp:HOST:PORT, tcpin:HOST:PORT or serial:DEVICE:BAUD'


class Chunk(NamedTuple):
    """Bytes from an end of the link: a datagram, or a part of a stream; b'' when a stream has ended."""
    data: bytes
    end: Hashable
    stream: bool


def open_link(url: str):
    """The link of a URL. ValueError for what is none, OSError where it cannot be opened."""
    kind, _, rest = url.partition(':')
    place, _, number = rest.removeprefix('//').rpartition(':')
    if kind not in ('udp', 'udpin', 'udpout', 'tcp', 'tcpin', 'serial') or not place or not number.isdecimal():
        raise ValueError(f'a MAVLink URL is {FORMS}, got {url!r}')
    if kind == 'serial':
        return SerialLink(place, int(number))
    if not 0 <= int(number) < 65536:
        raise ValueError(f'a port lies between 0 and 65535, got {number}')
    address = place.strip('[]'), int(number)
    if kind == 'udpout':
        return UdpLink(None, _resolve(address, socket.SOCK_DGRAM))
    if kind in ('udp', 'udpin'):
        return UdpLink(_resolve(address, socket.SOCK_DGRAM), None)
    return TcpServer(address) if kind == 'tcpin' else TcpClient(address)


def _resolve(address: tuple[str, int], kind: int) -> tuple:
    """Family and socket address."""
    family, _, _, _, place = socket.getaddrinfo(*address, type=kind)[0]
    return family, place


class UdpLink:
    """Datagrams: from a port that is bound, to all that were heard there, or to one place."""

    def __init__(self, own: tuple | None, other: tuple | None):
        self._socket = socket.socket((own or other)[0], socket.SOCK_DGRAM)
        self._socket.setblocking(False)
        self._fixed = other[1] if other else None
        self._ends: dict[tuple, float] = {}
        if own:
            try:
                self._socket.bind(own[1])
            except OSError:
                self._socket.close()
                raise

    @property
    def address(self) -> tuple:
        return self._socket.getsockname()

    def receive(self, timeout: float, most: int = 200) -> list[Chunk]:
        """What has come, at most so many datagrams; waits `timeout` seconds for the first."""
        if not select.select([self._socket], [], [], timeout)[0]:
            return []
        chunks = []
        for _ in range(most):
            try:
                data, end = self._socket.recvfrom(LARGEST)
            except (BlockingIOError, InterruptedError):
                break
            except OSError:  # the other end says that nobody listens there
                continue
            chunks.append(Chunk(data, end, False))
        return chunks

    def keep(self, end: Hashable) -> None:
        """That end has said something good: what is for all is sent there, too."""
        now = time.monotonic()
        if end not in self._ends and len(self._ends) >= ENDS:
            silent = min(self._ends, key=self._ends.get)
            if now - self._ends[silent] < SILENCE:
                return
            del self._ends[silent]
        self._ends[end] = now

    def send(self, packet: bytes, end: Hashable | None) -> None:
        """To one end, or to all."""
        if end is None:
            now = time.monotonic()
            ends = [end for end, heard in self._ends.items() if now - heard < SILENCE]
            ends += [self._fixed] if self._fixed and self._fixed not in ends else []
        else:
            ends = [end]
        for place in ends:
            try:
                self._socket.sendto(packet, place)
            except OSError:  # full, or nobody there: packets may be lost
                pass

    def close(self) -> None:
        self._socket.close()


class _Streams:
    """What all links of connections have in common: each end is a number."""

    def __init__(self):
        self._open: dict[int, socket.socket] = {}
        self._waiting: dict[int, bytearray] = {}
        self._count = 0

    def _add(self, connection: socket.socket) -> None:
        connection.setblocking(False)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._count += 1
        self._open[self._count], self._waiting[self._count] = connection, bytearray()

    def _drop(self, end: int) -> Chunk:
        self._open.pop(end).close()
        del self._waiting[end]
        return Chunk(b'', end, True)

    def _read(self, readable: list) -> list[Chunk]:
        chunks = []
        for end, connection in list(self._open.items()):
            if connection not in readable:
                continue
            try:
                data = connection.recv(LARGEST)
            except (BlockingIOError, InterruptedError):
                continue
            except OSError:
                data = b''
            chunks.append(Chunk(data, end, True) if data else self._drop(end))
        return chunks

    def keep(self, end: Hashable) -> None:
        """A connection is kept as long as it is open."""

    def send(self, packet: bytes, end: Hashable | None) -> None:
        """To one end, or to all."""
        for number in list(self._open) if end is None else [end]:
            if number not in self._open:
                continue
            waiting = self._waiting[number]
            if len(waiting) + len(packet) <= BACKLOG:
                waiting += packet
            try:
                del waiting[:self._open[number].send(waiting)]
            except (BlockingIOError, InterruptedError):
                pass
            except OSError:
                pass  # reading finds the end of the connection

    def close(self) -> None:
        for end in list(self._open):
            self._drop(end)


class TcpServer(_Streams):
    """Waits for connections."""

    def __init__(self, address: tuple[str, int]):
        super().__init__()
        family, place = _resolve(address, socket.SOCK_STREAM)
        self._socket = socket.create_server(place, family=family)
        self._socket.setblocking(False)

    @property
    def address(self) -> tuple:
        return self._socket.getsockname()

    def receive(self, timeout: float) -> list[Chunk]:
        """What has come; waits `timeout` seconds for something."""
        readable, _, _ = select.select([self._socket, *self._open.values()], [], [], timeout)
        chunks = self._read(readable)
        if self._socket in readable:
            try:
                connection, _ = self._socket.accept()
            except OSError:
                return chunks
            if len(self._open) < ENDS:
                self._add(connection)
            else:
                connection.close()
        return chunks

    def close(self) -> None:
        super().close()
        self._socket.close()


class TcpClient(_Streams):
    """Connects, again and again where that is needed."""

    def __init__(self, address: tuple[str, int]):
        super().__init__()
        self._family, self.address = _resolve(address, socket.SOCK_STREAM)
        self._pending: socket.socket | None = None
        self._tried = -RETRY

    def receive(self, timeout: float) -> list[Chunk]:
        """What has come; waits `timeout` seconds for something."""
        if not self._open:
            self._connect(timeout)
            return []
        readable, _, _ = select.select(list(self._open.values()), [], [], timeout)
        return self._read(readable)

    def close(self) -> None:
        super().close()
        if self._pending is not None:
            self._pending.close()

    def _connect(self, timeout: float) -> None:
        if self._pending is None:
            if time.monotonic() - self._tried < RETRY:
                time.sleep(timeout)
                return
            self._tried = time.monotonic()
            self._pending = socket.socket(self._family, socket.SOCK_STREAM)
            self._pending.setblocking(False)
            if self._pending.connect_ex(self.address) not in (0, errno.EINPROGRESS):
                self._pending.close()
                self._pending = None
                return
        if not select.select([], [self._pending], [], timeout)[1]:
            return
        connection, self._pending = self._pending, None
        if connection.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
            connection.close()
        else:
            self._add(connection)


class SerialLink:
    """A serial line, opened again where its device comes back."""

    def __init__(self, device: str, baud: int):
        try:
            import serial
        except ImportError:
            raise ValueError('a serial line needs the package pyserial: pip install pyserial') from None
        self._serial = serial
        self.address = device, baud
        self._tried = time.monotonic()
        self._line = self._opened()

    def receive(self, timeout: float) -> list[Chunk]:
        """What has come; waits `timeout` seconds for something."""
        if self._line is None:
            if time.monotonic() - self._tried < RETRY:
                time.sleep(timeout)
                return []
            self._tried = time.monotonic()
            try:
                self._line = self._opened()
            except OSError:
                return []
        self._line.timeout = timeout
        try:
            data = self._line.read(1)
            data += self._line.read(self._line.in_waiting) if data else b''
        except (OSError, TypeError):  # TypeError: pyserial, of a line that was closed meanwhile
            return [self._lost()]
        return [Chunk(data, 0, True)] if data else []

    def keep(self, end: Hashable) -> None:
        """There is one end."""

    def send(self, packet: bytes, end: Hashable | None) -> None:
        if self._line is None:
            return
        try:
            self._line.write(packet)
        except (OSError, TypeError):  # a full buffer, or a line that is gone, which reading finds
            pass

    def close(self) -> None:
        if self._line is not None:
            self._line.close()

    def _opened(self):
        """SerialException is an OSError."""
        return self._serial.Serial(*self.address, timeout=0, write_timeout=0)

    def _lost(self) -> Chunk:
        self._line.close()
        self._line = None
        return Chunk(b'', 0, True)
