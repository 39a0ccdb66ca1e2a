"""The node of the MAVLink camera over loopback: a ground station that drags, taps, stops, goes and comes back."""
from __future__ import annotations

import math
import os
import pty
import random
import socket
import threading
import time

import pytest

pytest.importorskip('rclpy', reason='ROS 2 is not installed')
pytest.importorskip('pymavlink', reason='pymavlink is not installed: pip install pymavlink')

import numpy as np
from pymavlink.dialects.v20 import common as mavlink
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from rclpy.parameter import Parameter
from rclpy.qos import QoSProfile
from sensor_msgs.msg import NavSatFix
from std_srvs.srv import Trigger

from cract_core.boxes import iou
from cract_ros.mavlink_camera import MavlinkCamera, to_status
from cract_ros.mavlink_link import open_link
from cract_ros.mavlink_protocol import Tracking
from cract_ros.msg import TrackState
from cract_ros.srv import InitTarget
from node_harness import BOX, bounding_box, image, launch_tracker, peer, scene, weights  # noqa: F401  (fixtures)

PATIENCE = 60.0
RECTANGLE = (0.25, 0.125, 0.5, 0.375)
IMAGE_STATUS = mavlink.MAVLINK_MSG_ID_CAMERA_TRACKING_IMAGE_STATUS
ACCEPTED, DENIED, IN_PROGRESS = mavlink.MAV_RESULT_ACCEPTED, mavlink.MAV_RESULT_DENIED, mavlink.MAV_RESULT_IN_PROGRESS


class Station:
    """A ground station over UDP."""

    def __init__(self, port: int, system: int = 255, key: bytes | None = None):
        self.socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.socket.settimeout(0.05)
        self.place = '127.0.0.1', port
        self.link = mavlink.MAVLink(None, system, 190)
        self.link.robust_parsing = True
        if key:
            self.link.signing.secret_key, self.link.signing.sign_outgoing = key, True
            self.link.signing.timestamp = int((time.time() - 1420070400) * 1e5)
        self.heard = []

    def send(self, message) -> None:
        self.socket.sendto(message.pack(self.link), self.place)
        self.link.seq = (self.link.seq + 1) % 256

    def listen(self, seconds: float, until=lambda message: False):
        """All that comes in that time, or the first message that is waited for."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            try:
                data = self.socket.recv(2048)
            except TimeoutError:
                continue
            except ConnectionError:  # nobody there, at present
                continue
            for message in self.link.parse_buffer(data) or []:
                message.arrived = time.monotonic()
                self.heard.append(message)
                if until(message):
                    return message
        return None

    def wait(self, kind: str, seconds: float = PATIENCE, **fields):
        found = self.listen(seconds, lambda m: m.get_type() == kind
                            and all(getattr(m, name) == value for name, value in fields.items()))
        assert found is not None, f'{kind} {fields} did not come; heard {[str(m) for m in self.heard[-10:]]}'
        return found

    def command(self, command: int, *values: float) -> mavlink.MAVLink_command_ack_message:
        """The last answer to a command, which is sent again where it is lost."""
        values = [*values, *[0.0] * (7 - len(values))]
        for confirmation in range(10):
            self.send(mavlink.MAVLink_command_long_message(1, 100, command, confirmation, *values))
            answer = self.listen(PATIENCE / 10, lambda m: m.get_type() == 'COMMAND_ACK' and m.command == command
                                 and m.result != IN_PROGRESS)
            if answer is not None:
                return answer
        raise AssertionError('no answer')

    @property
    def text(self) -> str:
        return ''.join(m.text for m in self.heard if m.get_type() == 'STATUSTEXT')

    def close(self) -> None:
        self.socket.close()


class Tracker(Node):
    """What the camera needs of a tracker; `refusal`: why it takes no target."""

    def __init__(self):
        super().__init__('fake')
        self.requests, self.refusal, self.state = [], '', TrackState.NO_TARGET
        self.answers = True
        self.create_service(InitTarget, '~/init_target', self._init)
        self.create_service(Trigger, '~/reset', self._reset)
        self.publisher = self.create_publisher(TrackState, '~/state', QoSProfile(depth=10))
        self.stamp = 0
        self.create_timer(0.03, self._tell)

    def _init(self, request, response):
        self.requests.append(request)
        response.success, response.message = not self.refusal, self.refusal
        self.state = self.state if self.refusal else TrackState.TRACKING
        return response

    def _reset(self, request, response):
        self.state = TrackState.NO_TARGET
        response.success = True
        return response

    def _tell(self) -> None:
        if not self.answers:
            return
        self.stamp += 1
        message = TrackState(state=self.state, image_width=640, image_height=480)
        message.header.stamp.sec = self.stamp
        if self.state != TrackState.NO_TARGET:
            message.bbox = bounding_box(160, 60, 160, 120)
        self.publisher.publish(message)


@pytest.fixture
def spin(peer):  # noqa: F811
    """Nodes that are spun by a thread of their own, between whose rounds one may go; all are gone afterwards."""
    executor, nodes, stopped, turn = SingleThreadedExecutor(), [], threading.Event(), threading.Lock()

    def add(node: Node) -> Node:
        nodes.append(node)
        with turn:
            executor.add_node(node)
        return node

    def remove(node: Node) -> None:
        nodes.remove(node)
        with turn:
            executor.remove_node(node)
            node.destroy_node()

    def run() -> None:
        while not stopped.is_set():
            with turn:
                executor.spin_once(timeout_sec=0.01)
            time.sleep(0.001)

    add.remove = remove
    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    yield add
    stopped.set()
    thread.join()
    for node in list(nodes):
        remove(node)
    executor.shutdown()


def camera(**given) -> MavlinkCamera:
    given = dict(url='udpin:127.0.0.1:0', tracker='fake') | given
    return MavlinkCamera(parameter_overrides=[Parameter(name, value=value) for name, value in given.items()])


@pytest.fixture
def tracker(spin) -> Tracker:
    return spin(Tracker())


@pytest.fixture
def node(spin, tracker) -> MavlinkCamera:
    node = spin(camera())
    wait_for(lambda: node._init.service_is_ready() and node._reset.service_is_ready())
    return node


def wait_for(condition, what: str = 'it') -> None:
    end = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < end, f'{what} did not come'
        time.sleep(0.02)


@pytest.fixture
def station(node):
    station = Station(node.address[1])
    yield station
    station.close()


def rectangle(status) -> list[float]:
    return [status.rec_top_x, status.rec_top_y, status.rec_bottom_x, status.rec_bottom_y]


def test_an_operator_drags_watches_and_stops(station, tracker):
    answer = station.command(mavlink.MAV_CMD_REQUEST_MESSAGE, mavlink.MAVLINK_MSG_ID_CAMERA_INFORMATION)
    assert answer.result == ACCEPTED and 'CAMERA_INFORMATION' in {m.get_type() for m in station.heard}
    assert station.command(mavlink.MAV_CMD_CAMERA_TRACK_RECTANGLE, *RECTANGLE).result == ACCEPTED
    request, = tracker.requests
    assert request.kind == InitTarget.Request.BOX and request.normalized and not request.header.stamp.sec
    centre = request.bbox.center.position
    assert [centre.x, centre.y, request.bbox.size_x, request.bbox.size_y] == pytest.approx([0.375, 0.25, 0.25, 0.25])
    assert station.command(mavlink.MAV_CMD_SET_MESSAGE_INTERVAL, IMAGE_STATUS, 1e5).result == ACCEPTED
    status = station.wait('CAMERA_TRACKING_IMAGE_STATUS', tracking_status=mavlink.CAMERA_TRACKING_STATUS_FLAGS_ACTIVE)
    assert rectangle(status) == pytest.approx(RECTANGLE)
    before = len(station.heard)
    station.listen(3.0)
    times = [m.arrived for m in station.heard[before:] if m.get_type() == 'CAMERA_TRACKING_IMAGE_STATUS']
    assert 24 <= len(times) <= 33
    assert station.command(mavlink.MAV_CMD_CAMERA_STOP_TRACKING).result == ACCEPTED
    assert tracker.state == TrackState.NO_TARGET
    status = station.wait('CAMERA_TRACKING_IMAGE_STATUS', tracking_status=mavlink.CAMERA_TRACKING_STATUS_FLAGS_IDLE)
    assert all(map(math.isnan, rectangle(status)))


def test_a_tap_is_a_point_for_the_tracker(station, tracker):
    assert station.command(mavlink.MAV_CMD_CAMERA_TRACK_POINT, 0.75, 0.25, 0.05).result == ACCEPTED
    request, = tracker.requests
    assert request.kind == InitTarget.Request.POINT and request.normalized
    assert (request.point.x, request.point.y) == (0.75, 0.25)


def test_what_the_tracker_refuses_the_operator_reads(station, tracker):
    tracker.refusal = 'no object stands out at 480, 120: draw a box instead'
    assert station.command(mavlink.MAV_CMD_CAMERA_TRACK_POINT, 0.75, 0.25).result == DENIED
    wait_for(lambda: station.listen(0.05) or station.text == tracker.refusal, 'the reason')


def test_a_lost_target_is_told_and_so_is_its_return(station, tracker):
    station.command(mavlink.MAV_CMD_CAMERA_TRACK_RECTANGLE, *RECTANGLE)
    station.wait('CAMERA_TRACKING_IMAGE_STATUS', tracking_status=mavlink.CAMERA_TRACKING_STATUS_FLAGS_ACTIVE)
    tracker.state = TrackState.LOST
    status = station.wait('CAMERA_TRACKING_IMAGE_STATUS', tracking_status=mavlink.CAMERA_TRACKING_STATUS_FLAGS_ERROR)
    assert all(map(math.isnan, rectangle(status)))
    station.wait('STATUSTEXT', text='target lost')
    tracker.state = TrackState.UNCERTAIN
    station.wait('STATUSTEXT', text='target found again')
    station.wait('CAMERA_TRACKING_IMAGE_STATUS', tracking_status=mavlink.CAMERA_TRACKING_STATUS_FLAGS_ACTIVE)


def test_a_tracker_that_falls_silent_has_lost_its_target(station, tracker):
    station.command(mavlink.MAV_CMD_CAMERA_TRACK_RECTANGLE, *RECTANGLE)
    station.wait('CAMERA_TRACKING_IMAGE_STATUS', tracking_status=mavlink.CAMERA_TRACKING_STATUS_FLAGS_ACTIVE)
    tracker.answers = False
    station.wait('CAMERA_TRACKING_IMAGE_STATUS', tracking_status=mavlink.CAMERA_TRACKING_STATUS_FLAGS_ERROR)


def test_without_a_tracker_a_command_is_denied_with_the_reason(spin):
    node = spin(camera(tracker='nobody'))
    station = Station(node.address[1])
    assert station.command(mavlink.MAV_CMD_CAMERA_TRACK_RECTANGLE, *RECTANGLE).result == DENIED
    wait_for(lambda: station.listen(0.05) or station.text.startswith('there is no service'), 'the reason')
    assert 'nobody/init_target: is the tracker running?' in station.text
    station.close()


def test_either_side_may_start_again(spin, tracker, node, station):
    port = node.address[1]
    assert station.command(mavlink.MAV_CMD_CAMERA_TRACK_RECTANGLE, *RECTANGLE).result == ACCEPTED
    station.close()
    second = Station(port)
    assert second.command(mavlink.MAV_CMD_CAMERA_STOP_TRACKING).result == ACCEPTED
    spin.remove(node)
    node = spin(camera(url=f'udpin:127.0.0.1:{port}'))
    wait_for(node._init.service_is_ready)
    assert second.command(mavlink.MAV_CMD_CAMERA_TRACK_RECTANGLE, *RECTANGLE).result == ACCEPTED
    second.wait('HEARTBEAT', type=mavlink.MAV_TYPE_CAMERA)
    second.close()


def test_a_camera_may_speak_first(spin, tracker):
    """As towards a ground station that waits on port 14550."""
    station = Station(0)
    station.socket.bind(('127.0.0.1', 0))
    node = spin(camera(url=f'udpout:127.0.0.1:{station.socket.getsockname()[1]}'))
    wait_for(node._init.service_is_ready)
    station.wait('HEARTBEAT', type=mavlink.MAV_TYPE_CAMERA)
    station.place = '127.0.0.1', node.address[1]
    assert station.command(mavlink.MAV_CMD_CAMERA_TRACK_RECTANGLE, *RECTANGLE).result == ACCEPTED
    station.close()


def test_noise_and_strangers_on_the_port_change_nothing(station, tracker, node):
    assert station.command(mavlink.MAV_CMD_CAMERA_TRACK_RECTANGLE, *RECTANGLE).result == ACCEPTED
    hostile, dice = Station(node.address[1], system=66), random.Random(0)
    for number in range(3000):
        if number % 2:
            hostile.socket.sendto(dice.randbytes(dice.randrange(1, 300)), hostile.place)
        else:
            hostile.send(mavlink.MAVLink_command_long_message(1, 100, dice.choice([2004, 2005, 2010]), 0, *RECTANGLE, 0, 0, 0))
        if number % 100 == 0:
            time.sleep(0.01)
    assert station.command(mavlink.MAV_CMD_REQUEST_MESSAGE, IMAGE_STATUS).result == ACCEPTED
    status = station.wait('CAMERA_TRACKING_IMAGE_STATUS')
    assert rectangle(status) == pytest.approx(RECTANGLE) and len(tracker.requests) == 1
    assert node.counts.foreign > 100 and node.counts.malformed > 100
    hostile.close()


def test_with_a_key_file_only_signed_commands_are_followed(spin, tracker, tmp_path):
    key = bytes(range(1, 33))
    (tmp_path / 'key').write_text(key.hex())
    node = spin(camera(key_file=str(tmp_path / 'key')))
    wait_for(node._init.service_is_ready)
    unsigned, station = Station(node.address[1]), Station(node.address[1], key=key)
    unsigned.send(mavlink.MAVLink_command_long_message(1, 100, mavlink.MAV_CMD_CAMERA_TRACK_RECTANGLE, 0, *RECTANGLE, 0, 0, 0))
    assert station.command(mavlink.MAV_CMD_CAMERA_TRACK_POINT, 0.5, 0.5).result == ACCEPTED
    assert unsigned.listen(0.5) is None and not unsigned.heard
    assert [request.kind for request in tracker.requests] == [InitTarget.Request.POINT]
    assert station.wait('HEARTBEAT')._signed
    unsigned.close(), station.close()


def test_with_delayed_video_a_box_belongs_to_the_image_of_then(spin, tracker):
    node = spin(camera(video_delay=0.5))
    wait_for(node._init.service_is_ready)
    wait_for(lambda: len(node._stamps) > 30)
    station = Station(node.address[1])
    station.command(mavlink.MAV_CMD_CAMERA_TRACK_RECTANGLE, *RECTANGLE)
    stamp, now = tracker.requests[0].header.stamp.sec, tracker.stamp
    assert now - 120 < stamp <= now - 10
    station.close()


def test_the_place_on_the_globe_is_told_while_it_is_known(spin, tracker):
    node = spin(camera(geo=True))
    wait_for(node._init.service_is_ready)
    places = tracker.create_publisher(NavSatFix, '~/target_fix', QoSProfile(depth=1))
    station, number = Station(node.address[1]), mavlink.MAVLINK_MSG_ID_CAMERA_TRACKING_GEO_STATUS
    station.command(mavlink.MAV_CMD_REQUEST_MESSAGE, mavlink.MAVLINK_MSG_ID_CAMERA_INFORMATION)
    information = next(m for m in station.heard if m.get_type() == 'CAMERA_INFORMATION')
    assert information.flags & mavlink.CAMERA_CAP_FLAGS_HAS_TRACKING_GEO_STATUS
    station.command(mavlink.MAV_CMD_CAMERA_TRACK_RECTANGLE, *RECTANGLE)
    assert station.command(mavlink.MAV_CMD_SET_MESSAGE_INTERVAL, number, 1e5).result == ACCEPTED
    fix = NavSatFix(latitude=47.25, longitude=-8.5, altitude=412.0)
    fix.position_covariance[0], fix.position_covariance[8] = 4.0, 0.25
    places.publish(NavSatFix(latitude=math.nan, longitude=0.0))
    wait_for(places.get_subscription_count)
    places.publish(fix)
    told = station.wait('CAMERA_TRACKING_GEO_STATUS')
    assert (told.lat, told.lon, told.alt, told.h_acc, told.v_acc) == (472500000, -85000000, 412.0, 2.0, 0.5)
    assert told.tracking_status == mavlink.CAMERA_TRACKING_STATUS_FLAGS_ACTIVE
    station.listen(1.5)
    station.heard.clear()
    station.listen(0.5)
    assert 'CAMERA_TRACKING_GEO_STATUS' not in {m.get_type() for m in station.heard}  # nothing is known of it any more
    station.close()


@pytest.mark.parametrize('given, reason', [
    (dict(url='nonsense'), 'a MAVLink URL is'), (dict(url='udpin:127.0.0.1:99999'), 'a port lies between'),
    (dict(url='serial:/dev/none:57600'), '/dev/none'), (dict(key_file='/nowhere/key'), '/nowhere/key'),
    (dict(video_url='gopher://x'), 'video_url must begin with')])
def test_wrong_parameters_are_told_in_a_sentence(peer, given, reason):  # noqa: F811
    with pytest.raises((ValueError, OSError), match=reason):
        camera(**given)


@pytest.mark.parametrize('state, tracking', [(TrackState.NO_TARGET, Tracking.IDLE), (TrackState.PAUSED, Tracking.IDLE),
                                             (TrackState.TRACKING, Tracking.ACTIVE), (TrackState.UNCERTAIN, Tracking.ACTIVE),
                                             (TrackState.LOST, Tracking.LOST)])
def test_each_state_of_the_tracker_has_its_status(state, tracking):
    message = TrackState(state=state, image_width=640, image_height=480, bbox=bounding_box(160, 60, 160, 120))
    status = to_status(message)
    assert status.tracking is tracking
    assert status.box == (pytest.approx(RECTANGLE) if tracking is Tracking.ACTIVE else None)


def chunks_until(link, condition, seconds: float = 20.0) -> list:
    chunks, end = [], time.monotonic() + seconds
    while not condition(chunks) and time.monotonic() < end:
        chunks += link.receive(0.02)
    assert condition(chunks)
    return chunks


def test_a_connection_is_opened_again_from_either_side():
    server = open_link('tcpin:127.0.0.1:0')
    port = server.address[1]
    client = open_link(f'tcp:127.0.0.1:{port}')
    chunks_until(client, lambda _: client._open)
    chunks_until(server, lambda _: server._open)
    client.send(b'one', None)
    assert b''.join(c.data for c in chunks_until(server, lambda cs: sum(len(c.data) for c in cs) == 3)) == b'one'
    server.close()
    chunks_until(client, lambda cs: cs and cs[-1].data == b'')
    server = open_link(f'tcpin:127.0.0.1:{port}')
    chunks_until(client, lambda _: client._open)
    chunks_until(server, lambda _: server._open)
    server.send(b'two', None)
    assert b''.join(c.data for c in chunks_until(client, lambda cs: sum(len(c.data) for c in cs) == 3)) == b'two'
    client.close(), server.close()


def test_a_serial_line_carries_both_ways():
    pytest.importorskip('serial', reason='pyserial is not installed')
    master, slave = pty.openpty()
    link = open_link(f'serial:{os.ttyname(slave)}:57600')
    os.write(master, b'hello')
    assert b''.join(c.data for c in chunks_until(link, lambda cs: sum(len(c.data) for c in cs) == 5)) == b'hello'
    link.send(b'back', None)
    assert os.read(master, 10) == b'back'
    link.close()
    os.close(master), os.close(slave)


def test_a_rectangle_drawn_in_the_ground_station_is_followed_by_the_tracker(launch_tracker, peer, spin):  # noqa: F811
    launch_tracker()
    peer.wait(lambda: peer.state() == 'active', 'the active state')
    frame = scene()
    peer.state_after(image(frame))
    node = spin(camera(tracker='tracker'))
    wait_for(node._init.service_is_ready)
    station = Station(node.address[1])
    x, y, w, h = BOX
    drawn = x / 320, y / 240, (x + w) / 320, (y + h) / 240
    assert station.command(mavlink.MAV_CMD_CAMERA_TRACK_RECTANGLE, *drawn).result == ACCEPTED
    state = peer.state_after(image(frame))
    assert state.state == TrackState.TRACKING and (state.image_width, state.image_height) == (320, 240)
    status = station.wait('CAMERA_TRACKING_IMAGE_STATUS', tracking_status=mavlink.CAMERA_TRACKING_STATUS_FLAGS_ACTIVE)
    assert iou(np.array(rectangle(status)), np.array(drawn)) > 0.7
    assert station.command(mavlink.MAV_CMD_CAMERA_STOP_TRACKING).result == ACCEPTED
    assert peer.state_after(image(frame)).state == TrackState.NO_TARGET
    station.close()
