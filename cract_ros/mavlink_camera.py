"""The tracker as a MAVLink camera: a target drawn in a ground station is followed, and its box is told there.

    ros2 run cract_ros mavlink_camera --ros-args -p url:=udpin:0.0.0.0:14540

`mavlink_protocol` is what the ground station sees; here it is connected to the tracker's services and to `~/state`.
"""
from __future__ import annotations

import math
import stat
import threading
import time
import traceback
from collections import deque
from pathlib import Path

from builtin_interfaces.msg import Time
from rclpy.node import Node
from rclpy.qos import QoSProfile
from sensor_msgs.msg import NavSatFix
from std_srvs.srv import Trigger

from cract_ros import small_nodes
from cract_ros.mavlink_link import open_link
from cract_ros.mavlink_protocol import (LONGEST, SHORTEST, CameraConfig, Place, Request, Status, Tracking, TrackingCamera,
                                        mavlink, read_key)
from cract_ros.msg import TrackState
from cract_ros.srv import InitTarget

SILENCE = 2.0     # seconds without a word from the tracker after which its target counts as lost
FRESH = 1.0       # seconds for which the target's place on the globe is told
THROTTLE = 5.0    # seconds between two reports of one kind
TICK = 0.01       # seconds between two looks at what is due
KEPT = 10.0       # seconds of stamps that are kept for delayed video
FOLLOWED = (TrackState.TRACKING, TrackState.UNCERTAIN)

# name -> default, what it is, and its range
PARAMETERS = {
    'url': ('udpin:127.0.0.1:14540', 'where MAVLink comes from: udpin:HOST:PORT, udpout:HOST:PORT, tcp:HOST:PORT, '
                                     'tcpin:HOST:PORT or serial:DEVICE:BAUD', None),
    'tracker': ('tracker', 'name of the tracker node', None),
    'system': (1, 'MAVLink system of the vehicle', (1, 255)),
    'component': (100, 'MAVLink component of the camera: 100 to 105', (1, 255)),
    'ground_system': (255, 'the only system whose commands are followed: 255 is that of most ground stations; 0: any',
                      (0, 255)),
    'key_file': ('', 'file with the key of message signing, 32 bytes or their 64 hexadecimal digits; commands that are not '
                     'signed with it are then refused', None),
    'vendor': ('CRACT', 'vendor that the ground station shows', None),
    'model': ('tracking camera', 'model that the ground station shows', None),
    'video_url': ('', 'where the ground station finds the video: rtsp://..., udp://HOST:PORT (RTP), tcp://..., '
                      'mpegts://HOST:PORT; empty where there is none', None),
    'video_rate': (30.0, 'frames a second of the video', (0.0, 1000.0)),
    'video_fov': (0.0, 'horizontal field of view, degrees; 0 where it is not known', (0.0, 360.0)),
    'video_delay': (0.0, 'seconds by which the operator sees the video late: a box belongs to the image of then', (0.0, KEPT)),
    'interval': (0.5, 'seconds between two statuses while there is a target, unless the ground station asks for another',
                 (SHORTEST, LONGEST)),
    'geo': (False, 'tell the place on the globe, from ~/target_fix of the tracker (node target_pose)', None),
    'gimbal_device': (0, "component or number of the camera's gimbal, 0: none", (0, 255)),
}


class MavlinkCamera(Node):
    """Node `mavlink_camera`. Its thread owns the link; what the camera knows is guarded by a lock.

    Raises ValueError or OSError for parameters that cannot be used.
    """

    def __init__(self, **kwargs):
        super().__init__('mavlink_camera', **kwargs)
        try:
            given = small_nodes.declare(self, PARAMETERS)
            config = CameraConfig(**{name: given[name] for name in CameraConfig.__dataclass_fields__ if name in given})
            self._camera = TrackingCamera(config, self._ask, self._key(given['key_file']))
            self._link = open_link(given['url'])
        except (OSError, ValueError):
            super().destroy_node()
            raise
        self._delay = given['video_delay']
        self._lock = threading.RLock()
        tracker = given['tracker']
        self._init = self.create_client(InitTarget, f'{tracker}/init_target')
        self._reset = self.create_client(Trigger, f'{tracker}/reset')
        self.create_subscription(TrackState, f'{tracker}/state', self._on_state, QoSProfile(depth=10))
        if given['geo']:
            self.create_subscription(NavSatFix, f'{tracker}/target_fix', self._on_fix, QoSProfile(depth=1))
        self._place, self._placed = None, -math.inf
        self._heard = time.monotonic()
        self._stamps: deque[tuple[float, Time]] = deque()
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._serve, name='mavlink', daemon=True)
        self._thread.start()
        self.get_logger().info(f'camera {config.component} of system {config.system} on {given["url"]}, '
                               f'{"signed" if given["key_file"] else "not signed"}')

    @property
    def address(self) -> tuple:
        """Of the link."""
        return self._link.address

    @property
    def counts(self):
        """What came in so far."""
        return self._camera.counts

    def destroy_node(self) -> None:
        self._stopped.set()
        self._thread.join()
        self._link.close()
        super().destroy_node()

    def _key(self, path: str) -> bytes | None:
        if not path:
            return None
        key = read_key(path)
        if Path(path).stat().st_mode & (stat.S_IRGRP | stat.S_IROTH):
            self.get_logger().warning(f'{path} can be read by others than its owner: chmod 600')
        return key

    # The link's thread

    def _serve(self) -> None:
        while not self._stopped.is_set():
            try:
                self._turn()
            except Exception:  # whatever came: the camera stays
                self.get_logger().error(traceback.format_exc(), throttle_duration_sec=THROTTLE)

    def _turn(self) -> None:
        chunks = self._link.receive(TICK)
        with self._lock:
            now = time.monotonic()
            for data, end, stream in chunks:
                if stream and not data:
                    self._camera.forget(end)
                elif self._camera.receive(data, end, now, stream):
                    self._link.keep(end)
            self._watch(now)
            self._camera.tick(now)
            sendings = self._camera.take()
        for packet, end in sendings:
            self._link.send(packet, end)

    def _watch(self, now: float) -> None:
        """A tracker that says nothing any more follows nothing."""
        if now - self._heard > SILENCE and self._camera.status.tracking is Tracking.ACTIVE:
            self._camera.show(Status(Tracking.LOST))
            self._camera.say('no answer from the tracker: the target counts as lost', mavlink.MAV_SEVERITY_WARNING)

    def _ask(self, request: Request) -> None:
        """Hand the request on; the answer goes back to the camera."""
        if request.command == mavlink.MAV_CMD_CAMERA_STOP_TRACKING:
            client, question = self._reset, Trigger.Request()
        else:
            client, question = self._init, InitTarget.Request(normalized=True)
            question.header.stamp = self._seen_stamp()
            if request.command == mavlink.MAV_CMD_CAMERA_TRACK_POINT:
                question.kind = InitTarget.Request.POINT
                question.point.x, question.point.y = request.values[:2]
            else:
                left, top, right, bottom = request.values
                question.kind = InitTarget.Request.BOX
                question.bbox.size_x, question.bbox.size_y = right - left, bottom - top
                question.bbox.center.position.x, question.bbox.center.position.y = (left + right) / 2, (top + bottom) / 2
        if not client.service_is_ready():
            self._finish(request, False, f'there is no service {client.srv_name}: is the tracker running?')
            return
        future = client.call_async(question)
        future.add_done_callback(lambda done: self._finish(request, done.result().success, done.result().message))

    def _finish(self, request: Request, success: bool, message: str) -> None:
        result = mavlink.MAV_RESULT_ACCEPTED if success else mavlink.MAV_RESULT_DENIED
        with self._lock:
            self._camera.finish(request.number, result, message, time.monotonic())

    def _seen_stamp(self) -> Time:
        """Of the image that the operator saw; zero means the latest."""
        if not self._delay:
            return Time()
        then = time.monotonic() - self._delay
        return next((stamp for heard, stamp in reversed(self._stamps) if heard <= then), Time())

    # The executor's thread

    def _on_state(self, message: TrackState) -> None:
        now = time.monotonic()
        status, size = to_status(message), (message.image_width, message.image_height)
        with self._lock:
            self._heard = now
            self._stamps.append((now, message.header.stamp))
            while now - self._stamps[0][0] > KEPT + 1:
                self._stamps.popleft()
            before = self._camera.status.tracking
            if status.tracking is Tracking.ACTIVE and now - self._placed < FRESH:
                status = status._replace(place=self._place)
            self._camera.show(status, size)
            if status.tracking is Tracking.LOST and before is Tracking.ACTIVE:
                self._camera.say('target lost', mavlink.MAV_SEVERITY_WARNING)
            elif status.tracking is Tracking.ACTIVE and before is Tracking.LOST:
                self._camera.say('target found again')

    def _on_fix(self, message: NavSatFix) -> None:
        where = message.latitude, message.longitude, message.altitude
        if not all(map(math.isfinite, where)) or abs(where[0]) > 90 or abs(where[1]) > 180:
            return
        east, north, up = (message.position_covariance[place] for place in (0, 4, 8))
        with self._lock:
            self._place = Place(*where, math.sqrt(max(east, north, 0.0)), math.sqrt(max(up, 0.0)))
            self._placed = time.monotonic()


def to_status(message: TrackState) -> Status:
    """What the ground station is told: the box in terms of the picture's size, none for a target that is lost."""
    if message.state == TrackState.LOST:
        return Status(Tracking.LOST)
    if message.state not in FOLLOWED or not message.image_width or not message.image_height:
        return Status()
    centre, box = message.bbox.center.position, message.bbox
    return Status(Tracking.ACTIVE, ((centre.x - box.size_x / 2) / message.image_width,
                                    (centre.y - box.size_y / 2) / message.image_height,
                                    (centre.x + box.size_x / 2) / message.image_width,
                                    (centre.y + box.size_y / 2) / message.image_height))


def main(args: list[str] | None = None) -> int:
    """Serve until SIGINT or SIGTERM."""
    return small_nodes.run(MavlinkCamera, 'mavlink_camera', args)


if __name__ == '__main__':
    raise SystemExit(main())
