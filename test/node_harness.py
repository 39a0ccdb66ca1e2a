"""The tracker node as a process of its own, and a small node that talks to it."""
from __future__ import annotations

import array
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import cv2
import numpy as np
import pytest

pytest.importorskip('rclpy', reason='ROS 2 is not installed')

import rclpy
from lifecycle_msgs.msg import Transition
from lifecycle_msgs.srv import ChangeState, GetState
from rcl_interfaces.srv import DescribeParameters, GetParameters, ListParameters, SetParameters
from rclpy.node import Node
from rclpy.parameter import Parameter, parameter_value_to_python
from rclpy.qos import QoSProfile
from sensor_msgs.msg import Image
from std_srvs.srv import Trigger
from vision_msgs.msg import BoundingBox2D, Detection2D

from cract_ros import transport
from cract_ros.msg import TrackState
from cract_ros.srv import InitTarget

transport.use_profile()  # before the first rclpy.init

PATIENCE = 120.0  # seconds; the machine may be busy with other things
BOX = (140.0, 100.0, 48.0, 40.0)
TRANSITIONS = {'configure': Transition.TRANSITION_CONFIGURE, 'cleanup': Transition.TRANSITION_CLEANUP,
               'activate': Transition.TRANSITION_ACTIVATE, 'deactivate': Transition.TRANSITION_DEACTIVATE}


def scene() -> np.ndarray:
    """A (240, 320, 3) picture with a textured object in BOX."""
    rng = np.random.default_rng(5)
    picture = cv2.resize(rng.integers(60, 140, (15, 20, 3), np.uint8), (320, 240), interpolation=cv2.INTER_CUBIC)
    x, y, w, h = (int(value) for value in BOX)
    picture[y:y + h, x:x + w] = cv2.resize(rng.integers(0, 256, (5, 6, 3), np.uint8), (w, h),
                                           interpolation=cv2.INTER_NEAREST)
    return picture


def image(frame: np.ndarray, encoding: str = 'bgr8', padding: int = 0) -> Image:
    """An image message of an (H, W, 3) frame, each row followed by `padding` bytes of noise."""
    noise = np.random.default_rng(0).integers(0, 256, (len(frame), padding), np.uint8)
    rows = np.concatenate([frame.reshape(len(frame), -1), noise], axis=1)
    message = Image(height=frame.shape[0], width=frame.shape[1], encoding=encoding, step=rows.shape[1],
                    data=array.array('B', rows.tobytes()))
    message.header.frame_id = 'gimbal'
    return message


def bounding_box(x, y, w, h) -> BoundingBox2D:
    """x, y, w, h as the service takes it."""
    message = BoundingBox2D(size_x=float(w), size_y=float(h))
    message.center.position.x, message.center.position.y = x + w / 2, y + h / 2
    return message


class TrackerProcess:
    """`python -m cract_ros.node` with its log in a file.

    The types of message fields are checked on every assignment, as Humble always does.
    """

    def __init__(self, log: Path, parameters: dict):
        words = [word for name, value in parameters.items() for word in ('-p', f'{name}:={value}')]
        self._log = log
        self.process = subprocess.Popen([sys.executable, '-m', 'cract_ros.node', '--ros-args', *words],
                                        stdout=log.open('ab'), stderr=subprocess.STDOUT,
                                        env=os.environ | {'ROS_PYTHON_CHECK_FIELDS': '1'})

    @property
    def log(self) -> str:
        return self._log.read_text()

    def stop(self, number: int = signal.SIGTERM) -> int:
        """Send a signal and return the exit status."""
        self.process.send_signal(number)
        return self.process.wait(PATIENCE)

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()


class Peer(Node):
    """Camera, operator and listener in one. The first image is stamped with the second after `stamp`."""

    def __init__(self, stamp: int = 0):
        super().__init__('peer')
        self.camera = self.create_publisher(Image, 'image', QoSProfile(depth=1))
        self.detections: list[Detection2D] = []
        self.create_subscription(Detection2D, 'tracker/detection', self.detections.append, QoSProfile(depth=100))
        self.states: list[TrackState] = []
        self.create_subscription(TrackState, 'tracker/state', self.states.append, QoSProfile(depth=100))
        self.overlays: list[Image] = []
        self._overlay = None
        self._stamp = stamp
        self._own_clients = {name: self.create_client(kind, f'tracker/{name}') for name, kind in (
            ('init_target', InitTarget), ('reset', Trigger), ('pause', Trigger), ('resume', Trigger),
            ('change_state', ChangeState), ('get_state', GetState), ('set_parameters', SetParameters),
            ('get_parameters', GetParameters), ('list_parameters', ListParameters),
            ('describe_parameters', DescribeParameters))}

    def wait(self, condition, what: str):
        """Spin until `condition()` is true and return its value."""
        deadline = time.monotonic() + PATIENCE
        while not (value := condition()):
            assert time.monotonic() < deadline, f'{what} did not come within {PATIENCE:.0f} s'
            rclpy.spin_once(self, timeout_sec=0.05)
        return value

    def call(self, name: str, request):
        """The answer of one of the tracker's services."""
        client = self._own_clients[name]
        self.wait(client.service_is_ready, f'service {name}')
        future = client.call_async(request)
        self.wait(future.done, f'the answer of {name}')
        return future.result()

    def call_until_answered(self, name: str, request):
        """Ask again and again, what may be asked twice: the first call of a client may be lost.

        A request may reach nobody before a node that was killed is known to be gone, and an answer is dropped by a
        node that has not heard of the client yet.
        """
        client = self._own_clients[name]
        self.wait(client.service_is_ready, f'service {name}')
        futures = []

        def answer():
            return next((future for future in futures if future.done()), None)

        deadline = time.monotonic() + PATIENCE
        while answer() is None:
            assert time.monotonic() < deadline, f'the answer of {name} did not come within {PATIENCE:.0f} s'
            futures.append(client.call_async(request))
            self.pause(20.0, answer)
        return answer().result()

    def serves(self, name: str) -> bool:
        return self._own_clients[name].service_is_ready()

    def init(self, box=BOX, target_id: str = 'a', **changes) -> InitTarget.Response:
        request = InitTarget.Request(bbox=bounding_box(*box), id=target_id)
        for name, value in changes.items():
            setattr(request, name, value)
        return self.call_until_answered('init_target', request)

    def reset(self) -> Trigger.Response:
        return self.call('reset', Trigger.Request())

    def change(self, transition: str) -> bool:
        return self.call('change_state', ChangeState.Request(transition=Transition(id=TRANSITIONS[transition]))).success

    def state(self) -> str:
        return self.call_until_answered('get_state', GetState.Request()).current_state.label

    def set(self, **values) -> list[tuple[bool, str]]:
        parameters = [Parameter(name, value=value).to_parameter_msg() for name, value in values.items()]
        results = self.call_until_answered('set_parameters', SetParameters.Request(parameters=parameters)).results
        return [(result.successful, result.reason) for result in results]

    def get(self, name: str):
        value = self.call_until_answered('get_parameters', GetParameters.Request(names=[name])).values[0]
        return parameter_value_to_python(value)

    def show(self, message) -> tuple[int, int]:
        """Publish an image under a stamp of its own: consecutive seconds, so that stamps tell frames apart."""
        self.wait(self.camera.get_subscription_count, 'the subscription of image')
        self._stamp += 1
        message.header.stamp.sec, message.header.stamp.nanosec = self._stamp, 7
        self.camera.publish(message)
        return self._stamp, 7

    @property
    def latest(self) -> int:
        """Stamp of the latest image shown, in seconds."""
        return self._stamp

    def state_after(self, message) -> TrackState:
        """The state after an image."""
        return self._answer(message, self.states, 'a state')

    def ask(self, message) -> Detection2D:
        """The detection in an image."""
        return self._answer(message, self.detections, 'a detection')

    def picture(self, message) -> Image:
        """The overlay of an image."""
        return self._answer(message, self.overlays, 'an overlay')

    def watch(self, on: bool) -> None:
        """Subscribe the overlay, or stop it."""
        if on and self._overlay is None:
            self._overlay = self.create_subscription(Image, 'tracker/overlay', self.overlays.append,
                                                     QoSProfile(depth=10))
        elif not on and self._overlay is not None:
            self.destroy_subscription(self._overlay)
            self._overlay = None

    def target(self, frame: np.ndarray, box=BOX, target_id: str = 'a') -> InitTarget.Response:
        """Show a frame and ask to follow the box in it."""
        return self.init(box, target_id, header=self.state_after(image(frame)).header)

    def pause(self, seconds: float, condition=lambda: False) -> None:
        """Spin for so long, or until the condition is true."""
        until = time.monotonic() + seconds
        while time.monotonic() < until and not condition():
            rclpy.spin_once(self, timeout_sec=0.05)

    def _answer(self, message, answers: list, what: str):
        """Show an image until it is answered (best effort: one may be lost), and return the first answer.

        It waits for that to the last one shown: then none is on its way any more.
        """
        stamps = []

        def found(wanted: list):
            return next((a for a in answers if (a.header.stamp.sec, a.header.stamp.nanosec) in wanted), None)

        for seconds in (2, 4, 8, 16, 32, 64):  # longer and longer, for a node that is slow
            stamps.append(self.show(message))
            self.pause(seconds, lambda: found(stamps[-1:]))
            if (first := found(stamps)) is not None:
                return first
        raise AssertionError(f'{what} did not come, though {len(stamps)} images were shown')


@pytest.fixture(scope='session')
def weights(tmp_path_factory) -> str:
    """'' for those of the package; where it has none, a file with untrained ones."""
    from cract_core.weights_file import find_weights
    try:
        find_weights()
        return ''
    except FileNotFoundError:
        pytest.importorskip('torch', reason='neither weights nor torch, which would make some')
        from cract_core.model import CractModel, save_weights
        path = tmp_path_factory.mktemp('weights') / 'untrained.pt'
        save_weights(CractModel(), path)
        return str(path)


@pytest.fixture(scope='module')
def peer():
    rclpy.init()
    node = Peer()
    yield node
    node.destroy_node()
    rclpy.try_shutdown()


@pytest.fixture(scope='module')
def launch_tracker(tmp_path_factory, weights):
    """Start tracker processes with given parameters; all are gone at the end of the module."""
    started = []
    given = {'threads': 1}  # on a busy machine threads of one node wait for each other for seconds
    if weights:
        given['weights'] = weights

    def start(**parameters) -> TrackerProcess:
        started.append(TrackerProcess(tmp_path_factory.mktemp('tracker') / 'log.txt', given | parameters))
        return started[-1]

    yield start
    for tracker in started:
        tracker.close()
