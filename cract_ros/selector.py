"""A web page on which the target is chosen: the live picture, a box drawn with mouse or finger, state and score.

    ros2 run cract_ros select [--ros-args -p host:=127.0.0.1 -p port:=8080 -p tracker:=tracker]

The picture is the tracker's overlay: what it has worked on, with its answer drawn in; the tracker draws it only while
a page is open. While a box is being drawn the picture stands still, and its stamp goes to `init_target` with the box.

Whoever reaches the port can choose the target: nothing but this machine does unless `host` says otherwise.
"""
from __future__ import annotations

import ipaddress
import json
import math
import sys
import threading
import time
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import cv2
import rclpy
from rcl_interfaces.msg import IntegerRange, ParameterDescriptor
from rclpy.executors import ExternalShutdownException
from rclpy.node import Node
from rclpy.qos import QoSProfile
from sensor_msgs.msg import Image
from std_srvs.srv import Trigger

from cract_ros import transport
from cract_ros.conversions import box_to_message, to_bgr
from cract_ros.msg import TrackState
from cract_ros.srv import InitTarget

STATES = {TrackState.NO_TARGET: 'no target', TrackState.TRACKING: 'tracking', TrackState.UNCERTAIN: 'uncertain',
          TrackState.LOST: 'lost', TrackState.PAUSED: 'paused'}
LONGEST_WAIT = 1.0  # seconds that a request waits for the next picture
UNWATCHED = 5.0  # seconds without a request after which the overlay is not asked for any more
ANSWER = 60.0  # seconds that a service may take
SILENCE = 2.0  # seconds without a word from the tracker after which the page says so
LARGEST_SIDE = 1280  # pixels: larger pictures are sent smaller
LARGEST_BODY = 4096  # bytes of a request


class Selector(Node):
    """What the page shows and asks for, on the side of ROS. Its methods may be called from any thread."""

    def __init__(self, **kwargs):
        super().__init__('select', **kwargs)
        self.declare_parameter('host', '127.0.0.1', ParameterDescriptor(
            description='address that the page is served on; 0.0.0.0 is every network', read_only=True))
        self.declare_parameter('port', 8080, ParameterDescriptor(
            description='port of the page; 0 takes a free one', read_only=True,
            integer_range=[IntegerRange(from_value=0, to_value=65535, step=1)]))
        self.declare_parameter('tracker', 'tracker', ParameterDescriptor(
            description='name of the tracker node', read_only=True))
        tracker = self.get_parameter('tracker').value
        self._topic = f'{tracker}/overlay'
        self._init = self.create_client(InitTarget, f'{tracker}/init_target')
        self._reset = self.create_client(Trigger, f'{tracker}/reset')
        self.create_subscription(TrackState, f'{tracker}/state', self._on_state, QoSProfile(depth=1))
        self._overlays = None  # the subscription, while someone looks
        self.create_timer(0.2, self._watch)
        self._news = threading.Condition()
        self._watched = -math.inf  # time of the latest request
        self._image: Image | None = None  # the latest, while someone looks
        self._jpeg = ('', b'')  # stamp and file
        self._encoding = threading.Lock()
        self._state: TrackState | None = None
        self._heard = -math.inf

    def picture(self, seen: str) -> tuple[dict, bytes]:
        """The newest picture as a JPEG file, waiting a while for another than that stamped `seen`; b'' if none comes.

        With it, for the page: the stamp, the size in pixels, and the tracker's state.
        """
        with self._news:
            self._watched = time.monotonic()
            self._news.wait_for(lambda: self._image is not None and stamp_text(self._image) != seen, LONGEST_WAIT)
            image, state = self._image, self._state
            silent = time.monotonic() - self._heard > SILENCE
        report = dict(state='silent' if silent else STATES[state.state])
        if not silent and state.state not in (TrackState.NO_TARGET, TrackState.PAUSED):
            report |= dict(id=state.id, score=round(state.score, 3))
        if image is None or stamp_text(image) == seen:
            return report, b''
        return report | dict(stamp=stamp_text(image), width=image.width, height=image.height), self._encode(image)

    def init(self, stamp: str, box: list[float]) -> tuple[bool, str]:
        """Ask the tracker to follow a box (x, y, w, h) of the picture with that stamp: success and its answer."""
        request = InitTarget.Request(bbox=box_to_message(box))
        seconds, _, nanoseconds = stamp.partition('.')
        request.header.stamp.sec, request.header.stamp.nanosec = int(seconds), int(nanoseconds)
        return self._call(self._init, request)

    def reset(self) -> tuple[bool, str]:
        """Ask the tracker to forget its target: success and its answer."""
        return self._call(self._reset, Trigger.Request())

    def _call(self, client, request) -> tuple[bool, str]:
        if not client.service_is_ready():
            return False, f'there is no service {client.srv_name}: is the tracker running?'
        answered = threading.Event()
        future = client.call_async(request)
        future.add_done_callback(lambda _: answered.set())
        if not answered.wait(ANSWER):
            client.remove_pending_request(future)
            return False, f'{client.srv_name} gave no answer within {ANSWER:.0f} s'
        return future.result().success, future.result().message

    def _encode(self, image: Image) -> bytes:
        with self._encoding:
            if self._jpeg[0] != stamp_text(image):
                frame = to_bgr(image)
                shrink = LARGEST_SIDE / max(frame.shape[:2])
                if shrink < 1:
                    frame = cv2.resize(frame, None, fx=shrink, fy=shrink, interpolation=cv2.INTER_AREA)
                self._jpeg = stamp_text(image), cv2.imencode('.jpg', frame, (cv2.IMWRITE_JPEG_QUALITY, 85))[1].tobytes()
            return self._jpeg[1]

    def _watch(self) -> None:
        """Subscribe the overlay while someone looks; drawing it costs the tracker time."""
        watched = time.monotonic() - self._watched < UNWATCHED
        if watched and self._overlays is None:
            self._overlays = self.create_subscription(Image, self._topic, self._on_overlay, QoSProfile(depth=1))
        elif not watched and self._overlays is not None:
            self.destroy_subscription(self._overlays)
            self._overlays = None
            self._image = None  # whoever looks next shall not draw a box on an old picture

    def _on_overlay(self, message: Image) -> None:
        with self._news:
            self._image = message
            self._news.notify_all()

    def _on_state(self, message: TrackState) -> None:
        with self._news:
            self._state, self._heard = message, time.monotonic()


def stamp_text(message) -> str:
    """The stamp of a message as the page keeps it."""
    return f'{message.header.stamp.sec}.{message.header.stamp.nanosec:09d}'


def parse_choice(body: bytes) -> tuple[str, list[float]]:
    """Stamp and box (x, y, w, h) from the page; ValueError, one sentence, for what is neither."""
    try:
        choice = json.loads(body)
        seconds, _, nanoseconds = choice['stamp'].partition('.')
        box = [float(value) for value in choice['box']]
        fits = -2**31 <= int(seconds) < 2**31 and 0 <= int(nanoseconds) < 10**9
    except (KeyError, TypeError, AttributeError, OverflowError, RecursionError, ValueError):
        fits = False
    if not fits or len(box) != 4 or not all(map(math.isfinite, box)):
        raise ValueError('expected {"stamp": "seconds.nanoseconds", "box": [x, y, w, h]}')
    return choice['stamp'], box


class Handler(BaseHTTPRequestHandler):
    """The page, /picture for it, and its two questions /init and /reset."""

    protocol_version = 'HTTP/1.1'
    timeout = 30.0  # seconds that a client may keep a thread waiting
    server: 'Server'

    def do_GET(self) -> None:
        path, _, seen = self.path.partition('?')
        if not self._is_ours():
            self._send(HTTPStatus.FORBIDDEN)
        elif path == '/':
            self._send(HTTPStatus.OK, 'text/html; charset=utf-8', self.server.page)
        elif path == '/picture':
            report, jpeg = self.server.selector.picture(seen)
            self._send(HTTPStatus.OK, 'image/jpeg', jpeg, Tracker=json.dumps(report))
        else:
            self._send(HTTPStatus.NOT_FOUND)

    def do_POST(self) -> None:
        length = self.headers.get('Content-Length', '')
        if not self._is_ours() or self.headers.get('Content-Type') != 'application/json':
            self._send(HTTPStatus.FORBIDDEN)
        elif not length.isdecimal() or int(length) > LARGEST_BODY:
            self._send(HTTPStatus.REQUEST_ENTITY_TOO_LARGE)
        elif self.path == '/init':
            try:
                success, message = self.server.selector.init(*parse_choice(self.rfile.read(int(length))))
            except ValueError as error:
                success, message = False, str(error)
            self._answer(success, message)
        elif self.path == '/reset':
            self.rfile.read(int(length))
            self._answer(*self.server.selector.reset())
        else:
            self._send(HTTPStatus.NOT_FOUND)

    def _is_ours(self) -> bool:
        """Served to this machine only, the page is asked for by a name of this machine.

        A foreign name that leads here belongs to a page of somebody else's in the user's browser (DNS rebinding); what
        such a page sends to our own name is not of the type application/json, which browsers do not let it send.
        """
        host = self.headers.get('Host', '').rpartition(':')[0] or self.headers.get('Host', '')
        return not self.server.is_local or host == 'localhost' or is_loopback(host)

    def _answer(self, success: bool, message: str) -> None:
        self._send(HTTPStatus.OK, 'application/json', json.dumps(dict(success=success, message=message)).encode())

    def _send(self, status: HTTPStatus, kind: str = 'text/plain', body: bytes = b'', **headers: str) -> None:
        if status is not HTTPStatus.OK:
            body, self.close_connection = status.phrase.encode(), True  # a body that was sent stays unread
        self.send_response(status)
        for name, value in dict(
                {'Content-Type': kind, 'Content-Length': str(len(body)), 'Cache-Control': 'no-store',
                 'X-Content-Type-Options': 'nosniff', 'X-Frame-Options': 'DENY'}, **headers).items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, text: str, *values) -> None:
        """Not a line for every picture."""


def is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host.strip('[]')).is_loopback
    except ValueError:
        return False


class Server(ThreadingHTTPServer):
    """Serves the page of one selector."""

    daemon_threads = True

    def __init__(self, selector: Selector):
        host, port = selector.get_parameter('host').value, selector.get_parameter('port').value
        self.selector = selector
        self.is_local = host == 'localhost' or is_loopback(host)
        self.page = Path(__file__).with_name('selector.html').read_bytes()
        super().__init__((host, port), Handler)

    def handle_error(self, request, client_address) -> None:
        """A browser that goes away in mid-answer is none of ours."""
        if not isinstance(sys.exc_info()[1], (ConnectionError, TimeoutError)):
            super().handle_error(request, client_address)


def main(args: list[str] | None = None) -> int:
    """Serve the page until SIGINT or SIGTERM."""
    transport.use_profile()
    rclpy.init(args=args)
    selector = Selector()
    try:
        try:
            server = Server(selector)
        except OSError as error:
            selector.get_logger().error(f'cannot serve the page there: {error}')
            return 1
        host, port = server.server_address[:2]
        selector.get_logger().info(f'choose the target on http://{host}:{port}/')
        threading.Thread(target=server.serve_forever, daemon=True).start()
        rclpy.spin(selector)
    except (KeyboardInterrupt, ExternalShutdownException):
        return 0
    finally:
        rclpy.try_shutdown()
    return 0


if __name__ == '__main__':
    raise SystemExit(main())
