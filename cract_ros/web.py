"""The selection page over HTTP: its files, pictures, and the operator's requests, with what keeps others out.

One thread serves all connections. What a client may send, how long it may take and how many there may be is bounded:
`HTTPServer` of tornado cuts headers and bodies by size and time, `Server` the number of connections and slow readers.

A page of somebody else's in the operator's browser is kept out by the name under which this one is asked for (a name of
its own that leads here: DNS rebinding), by Origin and Sec-Fetch-Site, by a header and a content type that browsers do
not let it send, and by Cross-Origin-Resource-Policy.
"""
from __future__ import annotations

import asyncio
import hmac
import ipaddress
import json
import math
import socket
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from tornado.httpserver import HTTPServer
from tornado.iostream import StreamClosedError
from tornado.netutil import bind_sockets
from tornado.web import Application, HTTPError, RequestHandler

if TYPE_CHECKING:
    from cract_ros.selector import Selector

CONNECTIONS = 128  # at once; beyond, the one that has been without a request for the longest gives way
IDLE = 10.0  # seconds for the head of a request, and between two requests
BODY = 5.0  # seconds for the rest of it
READING = 10.0  # seconds that a client may take to read an answer
LONGEST_WAIT = 1.0  # seconds that a request waits for the next picture
LARGEST_HEAD = 16384  # bytes
LARGEST_BODY = 4096  # bytes
LONGEST_ID = 128  # characters
SHORTEST_TOKEN = 8  # characters
WRONG_TOKEN = 0.5  # seconds that the answer to a wrong token takes
WIDTHS = (320, 640, 960, 1280, 1920, 2560)  # pixels: a picture is sent in the first that is enough, or as it is
FILES = {'/': ('selector.html', 'text/html; charset=utf-8'), '/selector.css': ('selector.css', 'text/css'),
         '/selector.js': ('selector.js', 'text/javascript'), '/selector.svg': ('selector.svg', 'image/svg+xml')}
HEADERS = {
    'Cache-Control': 'no-store', 'X-Content-Type-Options': 'nosniff', 'X-Frame-Options': 'DENY',
    'Referrer-Policy': 'no-referrer', 'Cross-Origin-Resource-Policy': 'same-origin',
    'Cross-Origin-Opener-Policy': 'same-origin',
    'Content-Security-Policy': "default-src 'none'; connect-src 'self'; script-src 'self'; style-src 'self'; "
                               "img-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"}


@dataclass(frozen=True)
class Choice:
    """What the operator chose in the picture of that stamp, in its pixels: a box (x, y, w, h) or a point (x, y)."""

    stamp: tuple[int, int]  # seconds, nanoseconds
    box: tuple[float, ...] | None
    point: tuple[float, ...] | None
    target_id: str


def parse_choice(body: bytes) -> Choice:
    """ValueError, one sentence, for what is no choice."""
    expected = 'expected {"stamp": "seconds.nanoseconds", "box": [x, y, w, h] or "point": [x, y], "id": "name"}'
    try:
        given = json.loads(body)
        seconds, _, nanoseconds = given['stamp'].partition('.')
        stamp = int(seconds), int(nanoseconds)
        box, point = (tuple(float(value) for value in given[name]) if name in given else None
                      for name in ('box', 'point'))
        target_id = given.get('id', '')
        fits = -2**31 <= stamp[0] < 2**31 and 0 <= stamp[1] < 10**9 and isinstance(target_id, str)
    except (KeyError, TypeError, AttributeError, OverflowError, RecursionError, ValueError):
        raise ValueError(expected) from None
    place, size = (box, 4) if point is None else (point, 2)
    if not fits or (box is None) == (point is None) or len(place) != size or not all(map(math.isfinite, place)):
        raise ValueError(expected)
    if len(target_id) > LONGEST_ID or not target_id.isprintable():
        raise ValueError(f'a name has at most {LONGEST_ID} characters, all of them printable')
    return Choice(stamp, box, point, target_id)


class Guard:
    """Who may ask: this machine's browsers under its own names and, if one is set, with the token."""

    def __init__(self, sockets: list[socket.socket], names: str, token: str):
        if token and (len(token) < SHORTEST_TOKEN or not token.isascii() or not token.isprintable() or ' ' in token):
            raise ValueError(f'the token must have at least {SHORTEST_TOKEN} ASCII characters, none of them a space')
        self.is_local = all(is_loopback(one.getsockname()[0]) for one in sockets)
        self.token = token
        self._names = {'localhost', *names.lower().replace(',', ' ').split()}
        if not self.is_local:
            own = socket.gethostname().lower()
            self._names |= {own, f'{own}.local'}

    def knows(self, host: str) -> bool:
        """Whether a Host header names this machine. An address does: no other page can have it for its own."""
        try:
            parts = urlsplit(f'//{host}')
            name = parts.hostname or ''
            _ = parts.port  # raises for what is no port
        except ValueError:
            return False
        if parts.netloc != host or '@' in host:
            return False
        return name in self._names or (is_loopback(name) if self.is_local else is_address(name))

    def refusal(self, request) -> str:
        """Why a request is refused for the page that it comes from; '' if it is not.

        A link of another page may open ours.
        """
        host = request.headers.get('Host', '')
        if not self.knows(host):
            return 'this page is not known under that name: the parameter names of the page lists further ones'
        origin = request.headers.get('Origin')
        if origin is not None and place(origin) != host:
            return 'another page asked'
        site = request.headers.get('Sec-Fetch-Site', 'same-origin')
        opened = request.method == 'GET' and request.path == '/' and request.headers.get('Sec-Fetch-Mode') == 'navigate'
        if site not in ('same-origin', 'none') and not opened:
            return 'another page asked'
        return ''

    def admits(self, authorization: str) -> bool:
        """Whether an Authorization header has the token, or none is needed."""
        return not self.token or hmac.compare_digest(authorization.encode('latin-1', 'replace'),
                                                     f'Bearer {self.token}'.encode())


def place(url: str) -> str | None:
    """Host and port of a web address; None for what is none."""
    try:
        parts = urlsplit(url)
    except ValueError:
        return None
    return parts.netloc if parts.scheme in ('http', 'https') else None


def is_address(host: str) -> bool:
    try:
        return bool(ipaddress.ip_address(host))
    except ValueError:
        return False


def is_loopback(host: str) -> bool:
    return is_address(host) and ipaddress.ip_address(host).is_loopback


class Handler(RequestHandler):
    """One request, looked at before it is worked on."""

    needs_token = True

    @property
    def server(self) -> 'Server':
        return self.application.settings['server']

    def set_default_headers(self) -> None:
        self.clear_header('Server')
        for name, value in HEADERS.items():
            self.set_header(name, value)

    async def prepare(self) -> None:
        if reason := self.server.guard.refusal(self.request):
            raise HTTPError(403, reason=reason)
        if self.needs_token and not self.server.guard.admits(self.request.headers.get('Authorization', '')):
            await asyncio.sleep(WRONG_TOKEN)
            raise HTTPError(401, reason='the token of this page is needed')
        self.server.begin(self._stream)  # until here the connection may have to give way to others

    def on_finish(self) -> None:
        self.server.end(self._stream)

    @property
    def _stream(self):
        return self.request.connection.stream

    async def send(self, kind: str, body: bytes) -> None:
        """The answer; the connection is closed if the client does not read it in time."""
        self.set_header('Content-Type', kind)
        stream = self._stream
        try:
            await asyncio.wait_for(self.finish(body), READING)
        except (asyncio.TimeoutError, StreamClosedError):
            stream.close()

    def compute_etag(self) -> None:
        """Nothing is kept by the browser."""

    def write_error(self, status: int, **kwargs) -> None:
        self.set_header('Content-Type', 'text/plain; charset=utf-8')
        self.set_header('Connection', 'close')
        stream = self._stream
        self.finish(self._reason).add_done_callback(lambda _: stream.close())

    def log_exception(self, kind, error, trace) -> None:
        if not isinstance(error, (HTTPError, StreamClosedError)):
            self.server.selector.get_logger().error(f'{self.request.path}: {kind.__name__}: {error}')


class Page(Handler):
    """The page and what belongs to it: nothing secret."""

    needs_token = False

    async def get(self) -> None:
        name, kind = FILES[self.request.path]
        await self.send(kind, self.server.files[name])


class Pictures(Handler):
    """GET /picture with `Seen: NUMBER` of the latest picture and `Width: PIXELS` that there is room for.

    Answers with the next one as a JPEG file, or with nothing if none comes; `Tracker` has state, stamp and size.
    """

    async def get(self) -> None:
        if 'Seen' not in self.request.headers:  # a foreign page cannot send it
            raise HTTPError(403, reason='the header Seen is missing')
        seen, width = self._number('Seen'), self._number('Width') or WIDTHS[-1]
        picture = await self.server.next_picture(seen)
        report, jpeg = self.server.selector.report(picture), b''
        if picture is not None:
            jpeg = await asyncio.get_running_loop().run_in_executor(None, self.server.selector.encode, picture, width)
        self.set_header('Tracker', json.dumps(report))
        await self.send('image/jpeg', jpeg)

    def _number(self, header: str) -> int:
        text = self.request.headers.get(header, '')
        return int(text) if text.isascii() and text.isdecimal() and len(text) < 10 else 0


class Requests(Handler):
    """POST, with JSON, of what the operator asks for."""

    async def post(self) -> None:
        if self.request.headers.get('Content-Type') != 'application/json':
            raise HTTPError(403, reason='the content must be application/json')
        try:
            answer = await self.work(self.request.body)
        except ValueError as error:
            answer = dict(success=False, message=str(error))
        await self.send('application/json', json.dumps(answer).encode())

    async def work(self, body: bytes) -> dict:
        """success, message and what else the page needs; ValueError, one sentence, for a request that is none."""
        raise NotImplementedError


class Init(Requests):
    async def work(self, body: bytes) -> dict:
        return await self.server.selector.init(parse_choice(body))


class Propose(Requests):
    async def work(self, body: bytes) -> dict:
        return await self.server.selector.propose(parse_choice(body))


class Triggers(Requests):
    async def work(self, body: bytes) -> dict:
        return await self.server.selector.trigger(self.request.path.strip('/'))


class Missing(Handler):
    needs_token = False

    async def prepare(self) -> None:
        await super().prepare()
        raise HTTPError(404)


class Server(HTTPServer):
    """Serves the page of one selector. Raises OSError and ValueError, one sentence, where that cannot be.

    `tornado.util.Configurable` calls `initialize` in place of `__init__`.
    """

    def initialize(self, selector: 'Selector', sockets: list[socket.socket], guard: Guard) -> None:
        self.selector, self.guard = selector, guard
        self.files = {name: Path(__file__).with_name(name).read_bytes() for name, _ in FILES.values()}
        self._idle: dict = {}  # connections without a request, the one that has waited for the longest first
        self._news = asyncio.Event()
        super().initialize(
            Application([*((path, Page) for path in FILES), ('/picture', Pictures), ('/init', Init),
                         ('/propose', Propose), ('/(?:reset|pause|resume)', Triggers)],
                        server=self, default_handler_class=Missing, log_function=lambda handler: None),
            idle_connection_timeout=IDLE, body_timeout=BODY, max_header_size=LARGEST_HEAD, max_body_size=LARGEST_BODY,
            max_buffer_size=LARGEST_HEAD + LARGEST_BODY)
        self.add_sockets(sockets)

    async def next_picture(self, seen: int):
        """The newest picture, once it is another than number `seen`; None if none comes for a while."""
        loop = asyncio.get_running_loop()
        until = loop.time() + LONGEST_WAIT
        self.selector.look()
        while (picture := self.selector.picture) is None or picture.number == seen:
            if (left := until - loop.time()) <= 0:
                return None
            try:
                await asyncio.wait_for(self._news.wait(), left)
            except asyncio.TimeoutError:
                return None
        return picture

    def tell(self) -> None:
        """There is a new picture."""
        self._news.set()
        self._news = asyncio.Event()

    def handle_stream(self, stream, address) -> None:
        if len(self._connections) >= CONNECTIONS:
            if not self._idle:
                stream.close()
                return
            oldest = next(iter(self._idle))
            del self._idle[oldest]
            oldest.close()
        self._idle[stream] = None
        super().handle_stream(stream, address)

    def begin(self, stream) -> None:
        """A request of that connection is complete, and worked on."""
        self._idle.pop(stream, None)

    def end(self, stream) -> None:
        """It is answered."""
        if not stream.closed():
            self._idle[stream] = None

    def on_close(self, server_conn) -> None:
        self._idle.pop(server_conn.stream, None)
        super().on_close(server_conn)


def serve(selector: 'Selector', host: str, port: int, names: str, token: str) -> tuple[list[str], Guard]:
    """Serve the page in a thread of its own, until the process ends; returns its addresses.

    Raises OSError for a place that cannot be had, ValueError for a wrong token.
    """
    sockets = bind_sockets(port, host)
    guard = Guard(sockets, f'{names} {host}', token)

    async def run() -> None:
        server = Server(selector, sockets, guard)
        loop = asyncio.get_running_loop()
        selector.on_picture(lambda: loop.call_soon_threadsafe(server.tell))
        await asyncio.Event().wait()

    threading.Thread(target=asyncio.run, args=(run(),), daemon=True, name='page').start()
    places = []
    for address, number, *_ in (one.getsockname() for one in sockets):
        if ipaddress.ip_address(address).is_unspecified:
            address = socket.gethostname()
        places.append(f'http://[{address}]:{number}/' if ':' in address else f'http://{address}:{number}/')
    return list(dict.fromkeys(places)), guard
