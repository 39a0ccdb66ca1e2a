"""A web page on which the target is chosen: the live picture, a tap or a box with mouse or finger, state and score.

    ros2 run cract_ros select [--ros-args -p host:=127.0.0.1 -p port:=8080 -p tracker:=tracker]

The picture is the tracker's overlay: what it has worked on, with its answer drawn in; the tracker draws it only while
a page is open. While a target is being chosen the picture stands still, and its stamp goes along with the choice.

Whoever reaches the port can choose the target: nothing but this machine does unless `host` says otherwise; then set a
`token`. What the page does against others is in `cract_ros.web`.
"""
from __future__ import annotations

import asyncio
import math
import threading
import time
from collections import OrderedDict
from dataclasses import dataclass

import cv2
import rclpy
from rcl_interfaces.msg import IntegerRange, ParameterDescriptor
from rclpy.clock import Clock, ClockType
from rclpy.exceptions import InvalidParameterTypeException, InvalidParameterValueException, NameValidationException
from rclpy.executors import ExternalShutdownException
from rclpy.logging import get_logger
from rclpy.node import Node
from rclpy.qos import QoSProfile
from sensor_msgs.msg import Image
from std_srvs.srv import Trigger
from vision_msgs.msg import Point2D

from cract_ros import transport, web
from cract_ros.conversions import box_from_message, box_to_message, to_bgr
from cract_ros.history import nanoseconds
from cract_ros.msg import TrackState
from cract_ros.srv import InitTarget

STATES = {TrackState.NO_TARGET: 'no target', TrackState.TRACKING: 'tracking', TrackState.UNCERTAIN: 'uncertain',
          TrackState.LOST: 'lost', TrackState.PAUSED: 'paused'}
UNWATCHED = 5.0  # seconds without a request after which the overlay is not asked for any more
ANSWER = 60.0  # seconds that a service may take
SILENCE = 2.0  # seconds without a word from the tracker after which the page says so
KEPT_STATES = 60  # of the latest images, to go with their pictures
PERIOD = 0.2  # seconds that a picture waits for its state
TAPPED = 0.1  # side of the box around a tapped point, as a part of the picture's shorter side


@dataclass(frozen=True)
class Picture:
    """One overlay, numbered: stamps may stand still."""

    number: int
    image: Image
    state: TrackState | None  # what the tracker said of that image


class Selector(Node):
    """What the page shows and asks for, on the side of ROS. Its methods may be called from any thread."""

    def __init__(self, **kwargs):
        super().__init__('select', **kwargs)
        self.declare_parameter('host', '127.0.0.1', ParameterDescriptor(
            description='address that the page is served on; 0.0.0.0 is every network', read_only=True))
        self.declare_parameter('port', 8080, ParameterDescriptor(
            description='port of the page; 0 takes a free one', read_only=True,
            integer_range=[IntegerRange(from_value=0, to_value=65535, step=1)]))
        self.declare_parameter('names', '', ParameterDescriptor(
            description='further host names under which the page may be asked for, with commas between them; its '
            'addresses, localhost and the name of the machine need not be listed', read_only=True))
        self.declare_parameter('token', '', ParameterDescriptor(
            description=f'a secret of {web.SHORTEST_TOKEN} or more characters that the page asks the operator for; '
            'empty: none', read_only=True))
        self.declare_parameter('tracker', 'tracker', ParameterDescriptor(
            description='name of the tracker node', read_only=True))
        tracker = self.get_parameter('tracker').value
        self._topic = f'{tracker}/overlay'
        self._asked = {name: self.create_client(kind, f'{tracker}/{name}') for name, kind in (
            ('init_target', InitTarget), ('reset', Trigger), ('pause', Trigger), ('resume', Trigger))}
        self.create_subscription(TrackState, f'{tracker}/state', self._on_state, QoSProfile(depth=10))
        self._overlays = None  # the subscription, while someone looks
        # of the machine: simulated time may stand still
        self.create_timer(PERIOD, self._watch, clock=Clock(clock_type=ClockType.STEADY_TIME))
        self._lock = threading.Lock()
        self._watched = -math.inf  # time of the latest look
        self._tell = lambda: None
        self.picture: Picture | None = None  # the latest, while someone looks
        self._number = 0  # of that
        self._early: tuple[float, Image] | None = None  # an overlay that came before its state, and when
        self._files: dict[tuple[int, int], bytes] = {}  # JPEG by number and width
        self._encoding = threading.Lock()
        self._states: OrderedDict[int, TrackState] = OrderedDict()  # by stamp, ns
        self._state: TrackState | None = None  # the latest
        self._heard = -math.inf

    def on_picture(self, tell) -> None:
        """Let `tell()` be called when there is a new picture."""
        self._tell = tell

    def look(self) -> None:
        """Somebody looks: the overlay is wanted for a while."""
        self._watched = time.monotonic()

    def report(self, picture: Picture | None) -> dict:
        """What stands above a picture; without one, the latest that is known."""
        with self._lock:
            state = self._state
            silent = time.monotonic() - self._heard > SILENCE
        report = dict(state='silent' if silent else STATES[state.state])
        if picture is not None:
            stamp, state = picture.image.header.stamp, picture.state
            report |= dict(number=picture.number, stamp=f'{stamp.sec}.{stamp.nanosec:09d}',
                           width=picture.image.width, height=picture.image.height)
            if not silent and state is not None:
                report['state'] = STATES[state.state]
        if not silent and state is not None and state.state not in (TrackState.NO_TARGET, TrackState.PAUSED):
            # rounded as the overlay does it: the same number stands in both places
            report |= dict(id=state.id[:web.LONGEST_ID], score=f'{state.score:.2f}')
        return report

    def encode(self, picture: Picture, room: int) -> bytes:
        """A picture as a JPEG file of about so many pixels across as there is room for."""
        with self._encoding:
            width = next((width for width in web.WIDTHS if width >= room), web.WIDTHS[-1])
            if (picture.number, width) not in self._files:
                self._files = {key: file for key, file in self._files.items() if key[0] == picture.number}
                frame = to_bgr(picture.image)
                shrink = width / frame.shape[1]
                if shrink < 1:
                    frame = cv2.resize(frame, None, fx=shrink, fy=shrink, interpolation=cv2.INTER_AREA)
                self._files[picture.number, width] = \
                    cv2.imencode('.jpg', frame, (cv2.IMWRITE_JPEG_QUALITY, 85))[1].tobytes()
            return self._files[picture.number, width]

    async def init(self, choice: web.Choice) -> dict:
        """Ask the tracker to follow the box of a choice: success and, in plain words, what comes of it."""
        if choice.box is None:
            raise ValueError('expected a box')
        request = InitTarget.Request(bbox=box_to_message(choice.box), id=choice.target_id)
        request.header.stamp.sec, request.header.stamp.nanosec = choice.stamp
        age = self._age(choice)
        answer, _ = await self._ask('init_target', request)
        if answer['success']:
            what = f'“{choice.target_id}”' if choice.target_id else 'The target'
            answer['message'] = f'{what} is followed, since {age:.1f} s before your click.'
        elif age > 0:
            answer['message'] += f' The picture was {age:.1f} s old.'
        return answer

    async def propose(self, choice: web.Choice) -> dict:
        """The box that a tap stands for, which the operator may change before it is followed."""
        picture = self.picture
        if choice.point is None or picture is None:
            raise ValueError('expected a point' if choice.point is None else 'there is no picture yet')
        request = InitTarget.Request(kind=InitTarget.Request.POINT, propose=True, point=Point2D(
            x=float(choice.point[0]), y=float(choice.point[1])))
        request.header.stamp.sec, request.header.stamp.nanosec = choice.stamp
        answer, response = await self._ask('init_target', request)
        if answer['success']:
            return dict(success=True, message='', box=[float(part) for part in box_from_message(response.bbox)])
        return dict(success=True, message='What is meant there is not clear: fit the box to it, then Follow.',
                    box=box_around(choice.point, picture.image.width, picture.image.height))

    async def trigger(self, name: str) -> dict:
        """Call reset, pause or resume."""
        return (await self._ask(name, Trigger.Request()))[0]

    async def _ask(self, name: str, request) -> tuple[dict, object]:
        """Success and message in plain words, and the service's response where one came."""
        client = self._asked[name]
        if not client.service_is_ready():
            return dict(success=False, message=f'There is no service {client.srv_name}: is the tracker running?'), None
        loop, answered = asyncio.get_running_loop(), asyncio.Event()
        future = client.call_async(request)
        future.add_done_callback(lambda _: loop.call_soon_threadsafe(answered.set))
        try:
            await asyncio.wait_for(answered.wait(), ANSWER)
        except asyncio.TimeoutError:
            client.remove_pending_request(future)
            return dict(success=False, message=f'{client.srv_name} gave no answer within {ANSWER:.0f} s.'), None
        response = future.result()
        return dict(success=response.success, message=sentence(response.message)), response

    def _age(self, choice: web.Choice) -> float:
        """Seconds from the picture of a choice to the newest image that the tracker has worked on."""
        with self._lock:
            newest = self._state
        if newest is None or choice.stamp == (0, 0):
            return 0.0
        return max(0.0, (nanoseconds(newest.header.stamp) - choice.stamp[0] * 10**9 - choice.stamp[1]) / 1e9)

    def _watch(self) -> None:
        """Subscribe the overlay while someone looks; drawing it costs the tracker time."""
        watched = time.monotonic() - self._watched < UNWATCHED
        if watched and self._overlays is None:
            self._overlays = self.create_subscription(Image, self._topic, self._on_overlay, QoSProfile(depth=1))
        elif not watched and self._overlays is not None:
            self.destroy_subscription(self._overlays)
            self._overlays = None
            self.picture = self._early = None  # whoever looks next shall not choose in an old picture
        if self._early is not None and time.monotonic() - self._early[0] > PERIOD:
            self._show(self._early[1], None)

    def _on_overlay(self, message: Image) -> None:
        if self._early is not None:
            self._show(self._early[1], None)
        with self._lock:
            state = self._states.get(nanoseconds(message.header.stamp))
        if state is None:
            self._early = time.monotonic(), message
        else:
            self._show(message, state)

    def _on_state(self, message: TrackState) -> None:
        stamp = nanoseconds(message.header.stamp)
        with self._lock:
            self._state, self._heard = message, time.monotonic()
            self._states[stamp] = message
            while len(self._states) > KEPT_STATES:
                self._states.popitem(last=False)
        if self._early is not None and nanoseconds(self._early[1].header.stamp) == stamp:
            self._show(self._early[1], message)

    def _show(self, image: Image, state: TrackState | None) -> None:
        self._early = None
        self._number += 1
        self.picture = Picture(self._number, image, state)
        self._tell()


def box_around(point: tuple[float, ...], width: int, height: int) -> list[float]:
    """x, y, w, h of a square around a point, moved into the picture of that size where need be."""
    side = TAPPED * min(width, height)
    return [min(max(place - side / 2, 0.0), size - side) for place, size in zip(point, (width, height))] + [side, side]


def sentence(message: str) -> str:
    """With a capital and a full stop."""
    message = message[:1].upper() + message[1:]
    return message if not message or message[-1] in '.!?' else f'{message}.'


def main(args: list[str] | None = None) -> int:
    """Serve the page until SIGINT or SIGTERM."""
    transport.use_profile()
    rclpy.init(args=args)
    log = get_logger('select')
    try:
        try:
            selector = Selector()
            places, guard = web.serve(selector, *(selector.get_parameter(name).value
                                                  for name in ('host', 'port', 'names', 'token')))
        except (OSError, ValueError, InvalidParameterTypeException, InvalidParameterValueException,
                NameValidationException) as error:
            log.error(f'cannot serve the page: {error}')
            return 1
        log.info(f'choose the target on {" or ".join(places)}')
        if not guard.is_local and not guard.token:
            log.warning('everybody who reaches that address can choose the target: set the parameter token, or leave '
                        'host at 127.0.0.1 and come through an SSH tunnel')
        rclpy.spin(selector)
    except (KeyboardInterrupt, ExternalShutdownException):
        return 0
    finally:
        rclpy.try_shutdown()
    return 0


if __name__ == '__main__':
    raise SystemExit(main())
