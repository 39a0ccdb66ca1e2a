"""Pictures of a stream as a topic: a local HTTP server that sends MJPEG, breaks off and comes back; files; errors."""
from __future__ import annotations

import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import cv2
import numpy as np
import pytest

pytest.importorskip('rclpy', reason='ROS 2 is not installed')

import rclpy
from rclpy.node import Node
from rclpy.parameter import Parameter
from rclpy.qos import QoSProfile
from sensor_msgs.msg import CameraInfo, Image

from cract_ros.conversions import to_bgr
from cract_ros.video_source import VideoSource

PATIENCE = 60.0


def picture(number: int) -> np.ndarray:
    """(48, 64, 3), as bright as its number says."""
    return np.full((48, 64, 3), 10 * (number % 20), np.uint8)


class Camera(ThreadingHTTPServer):
    """MJPEG over HTTP, 50 pictures a second; `clients` counts the connections, `cut` ends them."""

    daemon_threads, allow_reuse_address = True, True

    def __init__(self, port: int = 0):
        super().__init__(('127.0.0.1', port), _Handler)
        self.clients, self.cut = 0, threading.Event()
        threading.Thread(target=self.serve_forever, daemon=True).start()

    @property
    def url(self) -> str:
        return f'http://127.0.0.1:{self.server_address[1]}/stream.mjpg'

    def close(self) -> None:
        self.cut.set()
        self.shutdown()
        self.server_close()


class _Handler(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.server.clients += 1
        self.send_response(200)
        self.send_header('Content-Type', 'multipart/x-mixed-replace; boundary=frame')
        self.end_headers()
        for number in range(100_000):
            if self.server.cut.is_set():
                return
            data = cv2.imencode('.jpg', picture(number))[1].tobytes()
            try:
                head = b'--frame\r\nContent-Type: image/jpeg\r\nContent-Length: %d\r\n\r\n' % len(data)
                self.wfile.write(head + data + b'\r\n')
            except ConnectionError:
                return
            time.sleep(0.02)

    def log_message(self, *_) -> None:
        pass


@pytest.fixture
def start():
    """Start a node with parameters; `start.images` and `start.infos` are what it published."""
    context = rclpy.Context()
    context.init()
    listener = Node('listener', context=context)
    executor = rclpy.executors.SingleThreadedExecutor(context=context)
    executor.add_node(listener)
    nodes = []

    def make(**given) -> VideoSource:
        node = VideoSource(context=context, parameter_overrides=[Parameter(n, value=v) for n, v in given.items()])
        nodes.append(node)
        executor.add_node(node)
        return node

    def wait(condition) -> None:
        end = time.monotonic() + PATIENCE
        while not condition():
            assert time.monotonic() < end, 'it did not come'
            executor.spin_once(timeout_sec=0.05)

    make.images, make.infos, make.wait = [], [], wait
    listener.create_subscription(Image, 'image', make.images.append, QoSProfile(depth=100))
    listener.create_subscription(CameraInfo, 'camera_info', make.infos.append, QoSProfile(depth=100))
    yield make
    for node in (*nodes, listener):
        node.destroy_node()
    context.try_shutdown()


def test_a_stream_is_shown_and_opened_again_when_it_breaks_off(start):
    camera = Camera()
    node = start(source=camera.url, retry=0.2, frame_id='gimbal')
    start.wait(lambda: len(start.images) > 10)
    message = start.images[-1]
    assert (message.width, message.height, message.encoding, message.header.frame_id) == (64, 48, 'bgr8', 'gimbal')
    stamps = [m.header.stamp.sec + m.header.stamp.nanosec / 1e9 for m in start.images]
    assert all(a < b for a, b in zip(stamps, stamps[1:])) and abs(time.time() - stamps[-1]) < 5
    port = camera.server_address[1]
    camera.close()
    start.wait(lambda: True)
    shown = node.shown
    camera = Camera(port)
    start.wait(lambda: node.opened > 1 and node.shown > shown + 5)
    camera.close()


def test_a_stream_that_is_not_there_yet_is_waited_for(start):
    camera = Camera()
    port, url = camera.server_address[1], camera.url
    camera.close()
    node = start(source=url, retry=0.2)
    time.sleep(0.5)
    assert not node.ended and not node.shown
    camera = Camera(port)
    start.wait(lambda: len(start.images) > 3)
    camera.close()


def test_a_folder_is_shown_at_its_rate_and_ends(start, tmp_path):
    for number in range(6):
        cv2.imwrite(str(tmp_path / f'{number}.png'), picture(number))
    begun = time.monotonic()
    node = start(source=str(tmp_path), rate=10.0, field_of_view=90.0)
    start.wait(lambda: node.ended)
    assert 0.45 < time.monotonic() - begun and node.shown == 6
    start.wait(lambda: len(start.infos) > 2)
    assert start.infos[-1].k[0] == pytest.approx(32) and start.infos[-1].width == 64
    assert to_bgr(start.images[-1]).max() <= 50


def test_a_folder_may_be_shown_again_and_again(start, tmp_path):
    cv2.imwrite(str(tmp_path / '0.png'), picture(0))
    node = start(source=str(tmp_path), rate=50.0, loop=True)
    start.wait(lambda: node.shown > 5)
    assert not node.ended


def test_without_a_source_the_node_says_what_it_wants():
    context = rclpy.Context()
    context.init()
    with pytest.raises(ValueError, match='say what is to be shown'):
        VideoSource(context=context)
    context.try_shutdown()
