"""A MAVLink camera that tracks: the standard's camera and command protocols without ROS, sockets or a clock.

Bytes that came in go to `TrackingCamera.receive`, the passing of time to `tick`, the tracker's word to `show` and
`finish`; what is to be sent is fetched with `take`. Times are seconds of one monotonic clock. The messages and their
fields: https://mavlink.io/en/services/camera.html and common.xml.

What is believed: a message whose checksum, and with a key whose signature, is right; a command that names this camera,
from the ground station that may give some. Everything else changes nothing and is counted. Each sender of commands has an
allowance of its own, so that none can use up another's.
"""
from __future__ import annotations

import enum
import hashlib
import hmac
import math
import struct
import time
from collections import OrderedDict, deque
from dataclasses import dataclass, field
from pathlib import Path
from typing import Callable, Hashable, NamedTuple
from urllib.parse import urlsplit

from pymavlink.dialects.v20 import common as mavlink

NAN = math.nan
HEARTBEAT = 1.0           # seconds between two heartbeats
ANSWER = 10.0             # seconds that the tracker may take for a request
REPEAT = 3.0              # seconds in which a command that was repeated gets the answer of the first
SHORTEST, LONGEST = 0.02, 60.0  # seconds between two statuses that may be asked for
PROGRESS = 1.0            # seconds between two acknowledgements "in progress"
PEERS = 32                # senders of commands that have an allowance of their own; all others share one
SILENCE = 60.0            # seconds after which a silent one gives its place to another, where there is none left
REQUESTS_A_SECOND, REQUESTS = 4.0, 8   # tracking commands of one sender: the rate that is kept up, how many at once
ANSWERS_A_SECOND, ANSWERS = 50.0, 100  # answers to its commands, likewise
TEXTS_A_SECOND, TEXTS = 0.5, 3         # reasons for refusals that it is told in words, likewise
TEXT_CHUNK = 50           # bytes of a STATUSTEXT
LONGEST_TEXT = 4 * TEXT_CHUNK
SIGNING_EPOCH = 1420070400  # 2015-01-01, seconds of Unix time from which signatures count
OLDEST_STREAM = 6_000_000   # tens of microseconds, one minute: how old the first signature of a stream may be
STREAMS = 64              # senders whose latest signature is remembered

STREAM_TYPES = {'rtsp': mavlink.VIDEO_STREAM_TYPE_RTSP, 'rtsps': mavlink.VIDEO_STREAM_TYPE_RTSP,
                'udp': mavlink.VIDEO_STREAM_TYPE_RTPUDP, 'rtp': mavlink.VIDEO_STREAM_TYPE_RTPUDP,
                'tcp': mavlink.VIDEO_STREAM_TYPE_TCP_MPEG, 'mpegts': mavlink.VIDEO_STREAM_TYPE_MPEG_TS}
TRACKING_COMMANDS = (mavlink.MAV_CMD_CAMERA_TRACK_POINT, mavlink.MAV_CMD_CAMERA_TRACK_RECTANGLE,
                     mavlink.MAV_CMD_CAMERA_STOP_TRACKING)
# The commands that were there before MAV_CMD_REQUEST_MESSAGE; ground stations still try them
OLD_REQUESTS = {mavlink.MAV_CMD_REQUEST_CAMERA_INFORMATION: mavlink.MAVLINK_MSG_ID_CAMERA_INFORMATION,
                mavlink.MAV_CMD_REQUEST_CAMERA_SETTINGS: mavlink.MAVLINK_MSG_ID_CAMERA_SETTINGS,
                mavlink.MAV_CMD_REQUEST_STORAGE_INFORMATION: mavlink.MAVLINK_MSG_ID_STORAGE_INFORMATION,
                mavlink.MAV_CMD_REQUEST_CAMERA_CAPTURE_STATUS: mavlink.MAVLINK_MSG_ID_CAMERA_CAPTURE_STATUS,
                mavlink.MAV_CMD_REQUEST_VIDEO_STREAM_INFORMATION: mavlink.MAVLINK_MSG_ID_VIDEO_STREAM_INFORMATION,
                mavlink.MAV_CMD_REQUEST_VIDEO_STREAM_STATUS: mavlink.MAVLINK_MSG_ID_VIDEO_STREAM_STATUS}
STATUSES = (mavlink.MAVLINK_MSG_ID_CAMERA_TRACKING_IMAGE_STATUS, mavlink.MAVLINK_MSG_ID_CAMERA_TRACKING_GEO_STATUS)


@dataclass(frozen=True)
class CameraConfig:
    """Who the camera is. Every value is checked on construction (ValueError, one sentence)."""
    system: int = 1            # that of the vehicle
    component: int = 100       # MAV_COMP_ID_CAMERA; 100 to 105 are cameras
    ground_system: int = 255   # the only system whose commands are followed; 0: any
    vendor: str = 'CRACT'
    model: str = 'tracking camera'
    resolution: tuple[int, int] = (0, 0)  # width, height in pixels; 0 where it is not known yet
    video_url: str = ''        # rtsp://..., udp://:PORT, tcp://..., mpegts://:PORT; '' where there is no stream
    video_rate: float = 30.0   # frames a second
    video_fov: float = 0.0     # horizontal, degrees; 0 where it is not known
    interval: float = 0.5      # seconds between two statuses while there is a target, where nobody asked for another
    geo: bool = False          # whether the target's place on the globe is known
    gimbal_device: int = 0     # component id of the camera's gimbal, or its number, 1 to 6

    def __post_init__(self):
        for name, low, high in (('system', 1, 255), ('component', 1, 255), ('ground_system', 0, 255),
                                ('gimbal_device', 0, 255), ('video_rate', 0, 1000), ('video_fov', 0, 360),
                                ('interval', SHORTEST, LONGEST)):
            value = getattr(self, name)
            if not low <= value <= high:
                raise ValueError(f'{name} must lie between {low} and {high}, got {value}')
        for name, size in (('vendor', 32), ('model', 32), ('video_url', 160)):
            value = getattr(self, name)
            if not value.isascii() or len(value) >= size:
                raise ValueError(f'{name} must be ASCII and shorter than {size} characters, got {value!r}')
        if self.video_url and urlsplit(self.video_url).scheme not in STREAM_TYPES:
            raise ValueError(f'video_url must begin with {", ".join(f"{name}://" for name in STREAM_TYPES)}, '
                             f'got {self.video_url!r}')
        if self.video_url:
            try:
                _ = self.stream
            except ValueError as error:
                raise ValueError(f'video_url {self.video_url!r}: {error}') from None

    @property
    def stream(self) -> tuple[int, str]:
        """VIDEO_STREAM_TYPE and uri: a port where the ground station listens, else the address."""
        url = urlsplit(self.video_url)
        kind = STREAM_TYPES[url.scheme]
        listens = kind in (mavlink.VIDEO_STREAM_TYPE_RTPUDP, mavlink.VIDEO_STREAM_TYPE_MPEG_TS)
        return kind, str(url.port) if listens and url.port else self.video_url


def read_key(path: str | Path) -> bytes:
    """A signing key of 32 bytes, from a file that holds those or their 64 hexadecimal digits. OSError or ValueError."""
    content = Path(path).read_bytes()
    if len(content) == 32:
        return content
    try:
        key = bytes.fromhex(content.decode('ascii').strip())
    except ValueError:
        key = b''
    if len(key) != 32:
        raise ValueError(f'{path} must hold a signing key: 32 bytes, or their 64 hexadecimal digits')
    return key


class Tracking(enum.Enum):
    """What the tracker says of its target."""
    IDLE = mavlink.CAMERA_TRACKING_STATUS_FLAGS_IDLE
    ACTIVE = mavlink.CAMERA_TRACKING_STATUS_FLAGS_ACTIVE
    LOST = mavlink.CAMERA_TRACKING_STATUS_FLAGS_ERROR


class Place(NamedTuple):
    """Of the target on the globe: degrees, metres above mean sea level; accuracies, distance and velocity or NaN."""
    latitude: float
    longitude: float
    altitude: float
    horizontal: float = NAN  # accuracy, metres
    vertical: float = NAN
    distance: float = NAN    # from the camera, metres


class Status(NamedTuple):
    """What is told of the target. box: left, top, right, bottom in terms of the picture's size, where one is known."""
    tracking: Tracking = Tracking.IDLE
    box: tuple[float, float, float, float] | None = None
    place: Place | None = None


class Request(NamedTuple):
    """What a ground station asks of the tracker; it is answered with `TrackingCamera.finish(number, ...)`.

    values: x, y and radius of a point, left, top, right and bottom of a rectangle, in terms of the picture's size;
    nothing for a stop.
    """
    number: int
    command: int
    values: tuple[float, ...]


class Sending(NamedTuple):
    """A packet, for the link's end `to`, or for all that are known."""
    packet: bytes
    to: Hashable | None


class Sender(NamedTuple):
    """Where a command came from."""
    system: int
    component: int
    address: Hashable


@dataclass
class Counts:
    """What came in."""
    messages: int = 0      # well formed, and signed where a key is set
    malformed: int = 0     # no MAVLink, or a wrong checksum
    unsigned: int = 0      # refused for want of a right signature
    foreign: int = 0       # commands for others, or from somebody who may not give any
    too_many: int = 0      # refused because they came too fast


class Refusal(Exception):
    """A command that is not followed: a MAV_RESULT, and the reason for the operator."""

    def __init__(self, result: int, reason: str = ''):
        super().__init__(reason)
        self.result = result


class Allowance:
    """So many at once, and so many a second from then on."""

    def __init__(self, rate: float, most: int):
        self._rate, self._most, self._left, self._at = rate, most, float(most), -math.inf

    def take(self, now: float) -> bool:
        self._left = min(self._left + (now - self._at) * self._rate, self._most)
        self._at = now
        if self._left < 1:
            return False
        self._left -= 1
        return True


class Parser(mavlink.MAVLink):
    """pymavlink's reader and writer, with a signature check that a forger cannot turn against the true sender.

    pymavlink notes a packet's time before it looks at the signature: one forged packet from the future would lock the
    true sender out.
    """

    def __init__(self, system: int, component: int, key: bytes | None):
        super().__init__(None, system, component)
        self.robust_parsing = True
        self.signing.secret_key = key
        self.signing.sign_outgoing = key is not None
        self._streams: OrderedDict[tuple, int] = OrderedDict()

    def check_signature(self, msgbuf, srcSystem: int, srcComponent: int) -> bool:
        """Whether the packet was signed with the key, later than all before it from the same sender."""
        low, high = struct.unpack('<IH', msgbuf[-12:-6])
        stamp, stream = low + (high << 32), (msgbuf[-13], srcSystem, srcComponent)
        digest = hashlib.sha256(self.signing.secret_key + bytes(msgbuf[:-6])).digest()[:6]
        oldest = self._streams.get(stream, self.signing.timestamp - OLDEST_STREAM - 1)
        if not hmac.compare_digest(digest, bytes(msgbuf[-6:])) or stamp <= oldest:
            return False
        self._streams[stream] = stamp
        self._streams.move_to_end(stream)
        if len(self._streams) > STREAMS:
            self._streams.popitem(last=False)
        self.signing.timestamp = max(self.signing.timestamp, stamp)
        return True

    def read(self, data: bytes) -> tuple[list, bytes]:
        """The messages in `data`, and the beginning of one that is not whole at its end. Nothing is kept between two calls,
        whoever sent what."""
        self.buf, self.buf_index, self.expected_length = bytearray(), 0, mavlink.HEADER_LEN_V1 + 2
        self.have_prefix_error = False
        messages = self.parse_buffer(data) or []
        return messages, bytes(self.buf[self.buf_index:])

    def write(self, message) -> bytes:
        """The packet of a message."""
        packet = bytes(message.pack(self))
        self.seq = (self.seq + 1) % 256
        return packet

    def set_time(self, unix: float) -> None:
        """What signatures count from: never back."""
        self.signing.timestamp = max(self.signing.timestamp, int((unix - SIGNING_EPOCH) * 1e5))


@dataclass
class Job:
    """A command that the tracker is working on."""
    request: Request
    key: tuple
    sender: Sender
    peer: Peer
    begun: float
    told: float


@dataclass
class Peer:
    """A sender of commands: when it was heard last, what it may still ask for, and the intervals that it asked for (message
    id -> seconds between two, None where it wants none)."""
    heard: float
    answers: Allowance = field(default_factory=lambda: Allowance(ANSWERS_A_SECOND, ANSWERS))
    requests: Allowance = field(default_factory=lambda: Allowance(REQUESTS_A_SECOND, REQUESTS))
    texts: Allowance = field(default_factory=lambda: Allowance(TEXTS_A_SECOND, TEXTS))
    intervals: dict[int, float | None] = field(default_factory=dict)


class TrackingCamera:
    """The camera. `request` is called with what the tracker is asked for; the answer may come at any later time.

    unix: the time that signatures are stamped with. Not for several threads.
    """

    def __init__(self, config: CameraConfig, request: Callable[[Request], None], key: bytes | None = None,
                 unix: Callable[[], float] = time.time):
        self.config, self.counts = config, Counts()
        self._request, self._unix = request, unix
        self._parser = Parser(config.system, config.component, key)
        self._parser.set_time(unix())
        self._key = key
        self._out: deque[Sending] = deque()
        self._begun: float | None = None
        self._beaten = -math.inf
        self._status, self._resolution = Status(), config.resolution
        self._told: dict[int, float] = dict.fromkeys(STATUSES, -math.inf)  # when each status was sent last
        self._peers: dict[Sender, Peer] = {}
        self._strangers = Peer(0.0)  # all for whom there is no place among the peers
        self._rests: dict[Hashable, bytes] = {}  # of streams: what came of a packet that is not whole yet
        self._job: Job | None = None
        self._numbers = 0
        self._done: tuple[tuple, float] | None = None  # the latest tracking command that was followed, and when
        self._texts = 0

    @property
    def status(self) -> Status:
        return self._status

    @property
    def busy(self) -> bool:
        """Whether the tracker has yet to answer."""
        return self._job is not None

    def take(self) -> list[Sending]:
        """What is to be sent, in this order; each only once."""
        sendings = list(self._out)
        self._out.clear()
        return sendings

    def receive(self, data: bytes, address: Hashable, now: float, stream: bool = False) -> bool:
        """What came from a link's end: a datagram of whole packets, or some bytes of a stream. True if any of it was good:
        that end may be answered."""
        self._start(now)
        good = False
        if stream:
            data = self._rests.pop(address, b'') + data
        messages, rest = self._parser.read(data)
        if stream and rest:
            self._rests[address] = rest
        for message in messages:
            kind = message.get_type()
            if kind == 'BAD_DATA':
                if self._key is not None and 'signature' in message.reason:
                    self.counts.unsigned += 1
                else:
                    self.counts.malformed += 1
                continue
            if kind.startswith('UNKNOWN'):  # of another dialect: neither checked nor signed
                self.counts.malformed += 1
                continue
            good = True
            self.counts.messages += 1
            sender = Sender(message.get_srcSystem(), message.get_srcComponent(), address)
            if kind in ('COMMAND_LONG', 'COMMAND_INT'):
                self._on_command(message, sender, now)
            elif kind == 'HEARTBEAT' and sender in self._peers:
                self._peers[sender].heard = now
        return good

    def forget(self, address: Hashable) -> None:
        """A link's end is gone."""
        self._rests.pop(address, None)

    def tick(self, now: float) -> None:
        """Send what is due."""
        self._start(now)
        self._parser.set_time(self._unix())
        if now - self._beaten >= HEARTBEAT:
            self._beaten = now
            self._send(mavlink.MAVLink_heartbeat_message(
                mavlink.MAV_TYPE_CAMERA, mavlink.MAV_AUTOPILOT_INVALID, 0, 0, mavlink.MAV_STATE_ACTIVE, 3))
        if self._job is not None and now - self._job.begun > ANSWER:
            self.finish(self._job.request.number, mavlink.MAV_RESULT_FAILED,
                        f'the tracker gave no answer within {ANSWER:.0f} s', now)
        elif self._job is not None and now - self._job.told >= PROGRESS:
            self._progress(now)
        for number in STATUSES:
            interval = self._interval(number)
            if interval is not None and now - self._told[number] >= interval - 1e-6:
                late = now - self._told[number] - interval
                # in step with the interval, unless steps were missed
                self._told[number] = now - late if late < interval else now
                self._send_status(number, None)

    def show(self, status: Status, resolution: tuple[int, int] | None = None) -> None:
        """What the tracker says now; `resolution` of its pictures. A change of `tracking` is sent at once."""
        if resolution is not None:
            self._resolution = resolution
        changed, self._status = status.tracking != self._status.tracking, status
        if changed and self._done is not None and (status.tracking is Tracking.ACTIVE) != \
                (self._done[0][1] != mavlink.MAV_CMD_CAMERA_STOP_TRACKING):
            self._done = None  # what it brought about has ended: the same command would be a new one
        if changed and mavlink.MAVLINK_MSG_ID_CAMERA_TRACKING_IMAGE_STATUS not in self._silenced():
            self._send_status(mavlink.MAVLINK_MSG_ID_CAMERA_TRACKING_IMAGE_STATUS, None)

    def finish(self, number: int, result: int, reason: str, now: float) -> None:
        """The tracker's answer to a request: a MAV_RESULT, and where it is a refusal the reason in words."""
        if self._job is None or self._job.request.number != number:  # given up meanwhile
            return
        job, self._job = self._job, None
        self._done = (job.key, now) if result == mavlink.MAV_RESULT_ACCEPTED else None
        self._acknowledge(job.request.command, result, job.sender)
        if result != mavlink.MAV_RESULT_ACCEPTED:
            self._explain(reason, job.sender, job.peer, now)

    def _explain(self, reason: str, sender: Sender, peer: Peer, now: float) -> None:
        """Tell who asked, and nobody else, why not; whoever asks again and again is told now and then."""
        if reason and peer.texts.take(now):
            self.say(reason, mavlink.MAV_SEVERITY_WARNING, sender.address)

    def say(self, text: str, severity: int = mavlink.MAV_SEVERITY_NOTICE, to: Hashable | None = None) -> None:
        """Show an operator, or all of them, a text, in pieces where it is long."""
        data = text.encode('ascii', 'replace')[:LONGEST_TEXT]
        pieces = [data[start:start + TEXT_CHUNK] for start in range(0, len(data), TEXT_CHUNK)]
        if not pieces:
            return
        if len(pieces) > 1 and len(pieces[-1]) == TEXT_CHUNK:
            pieces.append(b'')  # the end is told by a piece that is not full
        self._texts = self._texts % 65535 + 1
        for place, piece in enumerate(pieces):
            self._send(mavlink.MAVLink_statustext_message(severity, piece, self._texts if len(pieces) > 1 else 0, place), to)

    # Commands

    def _on_command(self, message, sender: Sender, now: float) -> None:
        for_all = message.target_component == 0
        if message.target_system not in (0, self.config.system) or \
                message.target_component not in (0, self.config.component) or \
                self.config.ground_system not in (0, sender.system) or \
                (sender.system, sender.component) == (self.config.system, self.config.component):
            self.counts.foreign += 1
            return
        peer = self._peer(sender, now)
        if not peer.answers.take(now):
            self.counts.too_many += 1
            return
        parameters = [message.param1, message.param2, message.param3, message.param4]
        parameters += [message.param5, message.param6, message.param7] if message.get_type() == 'COMMAND_LONG' else \
            [float(message.x), float(message.y), message.z]
        try:
            result = self._follow(message.command, parameters, sender, peer, now)
        except Refusal as refusal:
            result = refusal.result
            if result == mavlink.MAV_RESULT_UNSUPPORTED and for_all:  # somebody else may know it
                return
            self._explain(str(refusal), sender, peer, now)
        if result is not None:
            self._acknowledge(message.command, result, sender)

    def _peer(self, sender: Sender, now: float) -> Peer:
        peer = self._peers.get(sender)
        if peer is None and len(self._peers) >= PEERS:
            silent = min(self._peers, key=lambda other: self._peers[other].heard)
            if now - self._peers[silent].heard < SILENCE:
                return self._strangers
            del self._peers[silent]
        if peer is None:
            peer = self._peers[sender] = Peer(now)
        peer.heard = now
        return peer

    def _follow(self, command: int, parameters: list[float], sender: Sender, peer: Peer, now: float) -> int | None:
        """The MAV_RESULT of a command, None where it has been sent. Raises Refusal."""
        if command in TRACKING_COMMANDS:
            return self._track(command, parameters, sender, peer, now)
        if command == mavlink.MAV_CMD_REQUEST_MESSAGE:
            return self._emit(_whole(parameters[0], 'a message id'), parameters[1], sender)
        if command in OLD_REQUESTS:
            about_stream = command in (mavlink.MAV_CMD_REQUEST_VIDEO_STREAM_INFORMATION,
                                       mavlink.MAV_CMD_REQUEST_VIDEO_STREAM_STATUS)
            return self._emit(OLD_REQUESTS[command], parameters[0] if about_stream else 0, sender)
        if command == mavlink.MAV_CMD_SET_MESSAGE_INTERVAL:
            return self._set_interval(_whole(parameters[0], 'a message id'), parameters[1], peer)
        if command == mavlink.MAV_CMD_GET_MESSAGE_INTERVAL:
            number = _whole(parameters[0], 'a message id')
            interval = self._interval(number) if number in STATUSES else None
            self._send(mavlink.MAVLink_message_interval_message(
                number & 0xffff, -1 if interval is None else round(interval * 1e6)), sender.address)
            return mavlink.MAV_RESULT_ACCEPTED
        if command == mavlink.MAV_CMD_VIDEO_START_STREAMING and self.config.video_url:
            return mavlink.MAV_RESULT_ACCEPTED  # it always runs
        raise Refusal(mavlink.MAV_RESULT_UNSUPPORTED)

    def _track(self, command: int, parameters: list[float], sender: Sender, peer: Peer, now: float) -> int | None:
        key = sender[:2], command, tuple(parameters)
        if self._job is not None and repr(self._job.key) == repr(key):  # repr: NaN equals itself
            self._progress(now)
            return None
        if self._done is not None and repr(self._done[0]) == repr(key) and now - self._done[1] <= REPEAT:
            return mavlink.MAV_RESULT_ACCEPTED  # the acknowledgement was lost
        values = _target(command, parameters, self.config.component)
        if not peer.requests.take(now):
            self.counts.too_many += 1
            raise Refusal(mavlink.MAV_RESULT_TEMPORARILY_REJECTED)
        if self._job is not None:
            raise Refusal(mavlink.MAV_RESULT_TEMPORARILY_REJECTED, 'the tracker is still busy with another request')
        self._numbers += 1
        self._job = Job(Request(self._numbers, command, values), key, sender, peer, now, now)
        self._progress(now)
        self._request(self._job.request)
        return None

    def _progress(self, now: float) -> None:
        self._job.told = now
        self._acknowledge(self._job.request.command, mavlink.MAV_RESULT_IN_PROGRESS, self._job.sender,
                          min(round(100 * (now - self._job.begun) / ANSWER), 99))

    def _set_interval(self, number: int, microseconds: float, peer: Peer) -> int:
        if number not in STATUSES or number == mavlink.MAVLINK_MSG_ID_CAMERA_TRACKING_GEO_STATUS and not self.config.geo:
            raise Refusal(mavlink.MAV_RESULT_DENIED, f'message {number} is not sent at an interval here')
        if microseconds == -1:
            interval = None
        elif microseconds == 0:
            interval = self.config.interval
        elif SHORTEST * 1e6 <= microseconds <= LONGEST * 1e6:
            interval = microseconds / 1e6
        else:
            raise Refusal(mavlink.MAV_RESULT_DENIED, f'an interval lies between {SHORTEST * 1e6:.0f} and {LONGEST * 1e6:.0f} '
                                                     f'microseconds, got {microseconds:g}')
        if peer is self._strangers:
            raise Refusal(mavlink.MAV_RESULT_TEMPORARILY_REJECTED, f'there are {PEERS} ground stations already')
        peer.intervals[number] = interval
        return mavlink.MAV_RESULT_ACCEPTED

    def _interval(self, number: int) -> float | None:
        """Seconds between two statuses: the shortest that is asked for; else the usual one, while there is a target."""
        if number == mavlink.MAVLINK_MSG_ID_CAMERA_TRACKING_GEO_STATUS and not self.config.geo:
            return None
        asked = [peer.intervals[number] for peer in self._peers.values() if number in peer.intervals]
        wanted = [interval for interval in asked if interval is not None]
        if wanted:
            return min(wanted)
        return None if asked or self._status.tracking is Tracking.IDLE else self.config.interval

    def _silenced(self) -> set[int]:
        """Statuses that were asked for and then stopped by all who had asked."""
        return {number for number in STATUSES if self._interval(number) is None
                and any(number in peer.intervals for peer in self._peers.values())}

    # Messages

    def _emit(self, number: int, which: float, sender: Sender) -> int:
        """Send one message that was asked for; `which` of several of its kind, 0 for all. Raises Refusal."""
        if number in STATUSES:
            if number == mavlink.MAVLINK_MSG_ID_CAMERA_TRACKING_GEO_STATUS and not self.config.geo:
                raise Refusal(mavlink.MAV_RESULT_UNSUPPORTED)
            self._send_status(number, sender.address)
            return mavlink.MAV_RESULT_ACCEPTED
        makers = {mavlink.MAVLINK_MSG_ID_CAMERA_INFORMATION: self._information,
                  mavlink.MAVLINK_MSG_ID_CAMERA_SETTINGS: self._settings,
                  mavlink.MAVLINK_MSG_ID_CAMERA_CAPTURE_STATUS: self._capture_status,
                  mavlink.MAVLINK_MSG_ID_STORAGE_INFORMATION: self._storage}
        if self.config.video_url:
            makers |= {mavlink.MAVLINK_MSG_ID_VIDEO_STREAM_INFORMATION: self._stream_information,
                       mavlink.MAVLINK_MSG_ID_VIDEO_STREAM_STATUS: self._stream_status}
        if number not in makers:
            raise Refusal(mavlink.MAV_RESULT_UNSUPPORTED)
        if which not in (0, 1) and number in (mavlink.MAVLINK_MSG_ID_VIDEO_STREAM_INFORMATION,
                                              mavlink.MAVLINK_MSG_ID_VIDEO_STREAM_STATUS):
            raise Refusal(mavlink.MAV_RESULT_DENIED, f'there is one video stream, number 1, got {which:g}')
        self._send(makers[number](), sender.address)
        return mavlink.MAV_RESULT_ACCEPTED

    def _information(self):
        config = self.config
        flags = mavlink.CAMERA_CAP_FLAGS_HAS_TRACKING_POINT | mavlink.CAMERA_CAP_FLAGS_HAS_TRACKING_RECTANGLE
        flags |= mavlink.CAMERA_CAP_FLAGS_HAS_VIDEO_STREAM if config.video_url else 0
        flags |= mavlink.CAMERA_CAP_FLAGS_HAS_TRACKING_GEO_STATUS if config.geo else 0
        return mavlink.MAVLink_camera_information_message(
            self._uptime, _bytes(config.vendor, 32), _bytes(config.model, 32), 0, NAN, NAN, NAN, *self._resolution, 0, flags, 0,
            b'', config.gimbal_device)

    def _settings(self):
        return mavlink.MAVLink_camera_settings_message(self._uptime, mavlink.CAMERA_MODE_VIDEO, NAN, NAN)

    def _capture_status(self):
        return mavlink.MAVLink_camera_capture_status_message(self._uptime, 0, 0, 0.0, 0, 0.0, 0)

    def _storage(self):
        return mavlink.MAVLink_storage_information_message(
            self._uptime, 1, 0, mavlink.STORAGE_STATUS_NOT_SUPPORTED, 0.0, 0.0, 0.0, 0.0, 0.0)

    def _stream_information(self):
        kind, uri = self.config.stream
        return mavlink.MAVLink_video_stream_information_message(
            1, 1, kind, *self._stream_facts(), b'camera', uri.encode())

    def _stream_status(self):
        return mavlink.MAVLink_video_stream_status_message(1, *self._stream_facts())

    def _stream_facts(self) -> tuple:
        return (mavlink.VIDEO_STREAM_STATUS_FLAGS_RUNNING, self.config.video_rate, *self._resolution, 0, 0,
                round(self.config.video_fov))

    def _send_status(self, number: int, to: Hashable | None) -> None:
        status = self._status
        if number == mavlink.MAVLINK_MSG_ID_CAMERA_TRACKING_GEO_STATUS:
            if status.place is None:  # there is no "unknown" for a latitude
                return
            place = status.place
            self._send(mavlink.MAVLink_camera_tracking_geo_status_message(
                status.tracking.value, round(place.latitude * 1e7), round(place.longitude * 1e7), place.altitude,
                place.horizontal, place.vertical, NAN, NAN, NAN, NAN, place.distance, NAN, NAN), to)
            return
        followed = status.tracking is Tracking.ACTIVE and status.box is not None
        box = [min(max(value, 0.0), 1.0) for value in status.box] if followed else [NAN] * 4
        idle = status.tracking is Tracking.IDLE
        self._send(mavlink.MAVLink_camera_tracking_image_status_message(
            status.tracking.value, mavlink.CAMERA_TRACKING_MODE_NONE if idle else mavlink.CAMERA_TRACKING_MODE_RECTANGLE,
            mavlink.CAMERA_TRACKING_TARGET_DATA_IN_STATUS if followed else 0, NAN, NAN, NAN, *box), to)

    def _acknowledge(self, command: int, result: int, sender: Sender, progress: int = 0) -> None:
        self._send(mavlink.MAVLink_command_ack_message(command, result, progress, 0, sender.system, sender.component),
                   sender.address)

    def _send(self, message, to: Hashable | None = None) -> None:
        self._out.append(Sending(self._parser.write(message), to))

    @property
    def _uptime(self) -> int:
        return round((self._now - self._begun) * 1000) & 0xffffffff

    def _start(self, now: float) -> None:
        self._now = now
        if self._begun is None:
            self._begun = now


def _bytes(text: str, size: int) -> list[int]:
    return list(text.encode().ljust(size, b'\0'))


def _whole(value: float, what: str) -> int:
    if not math.isfinite(value) or value != int(value) or not 0 <= value < 2**24:
        raise Refusal(mavlink.MAV_RESULT_DENIED, f'{what} is a whole number, got {value:g}')
    return int(value)


def _target(command: int, parameters: list[float], component: int) -> tuple[float, ...]:
    """The values of a tracking command. Raises Refusal where they are none."""
    count = {mavlink.MAV_CMD_CAMERA_TRACK_POINT: 3, mavlink.MAV_CMD_CAMERA_TRACK_RECTANGLE: 4,
             mavlink.MAV_CMD_CAMERA_STOP_TRACKING: 0}[command]
    camera = parameters[count]
    if not (math.isnan(camera) or camera in (0, component)):
        raise Refusal(mavlink.MAV_RESULT_DENIED, f'this is camera {component}, not {camera:g}')
    values = tuple(parameters[:count])
    if command == mavlink.MAV_CMD_CAMERA_TRACK_POINT and math.isnan(values[2]):
        values = (*values[:2], 0.0)  # a radius that was left out
    if not all(0 <= value <= 1 for value in values):  # not for NaN, either
        raise Refusal(mavlink.MAV_RESULT_DENIED, f'places in the picture lie between 0 and 1, got '
                                                 f'{", ".join(f"{value:g}" for value in values)}')
    if command == mavlink.MAV_CMD_CAMERA_TRACK_RECTANGLE and not (values[0] < values[2] and values[1] < values[3]):
        raise Refusal(mavlink.MAV_RESULT_DENIED, 'a rectangle goes from its upper left corner to its lower right one, got '
                                                 f'{", ".join(f"{value:g}" for value in values)}')
    return values
