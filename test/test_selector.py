"""The web page on which the target is chosen: its server over HTTP, and the whole of it in a real browser."""
from __future__ import annotations

import http.client
import itertools
import json
import re
import shutil
import subprocess
import sys
import threading
import time
from types import SimpleNamespace

import numpy as np
import pytest

pytest.importorskip('rclpy', reason='ROS 2 is not installed')

import rclpy
from node_harness import PATIENCE, Peer, image, launch_tracker, weights  # noqa: F401  (fixtures)
from rclpy.qos import QoSProfile

from cract_core.evaluation.metrics import overlaps
from cract_core.synthetic import generate
from cract_ros.conversions import box_from_message
from cract_ros.msg import TrackState
from cract_ros.selector import stamp_text

BROWSER = next(filter(None, map(shutil.which, ('chromium', 'chromium-browser', 'google-chrome'))), None)
PERIOD = 0.1  # seconds a frame takes at least
STAMPS = itertools.count(0, 100000)  # of the cameras: none takes the pictures of another for its own
# as root; and no connections of its own
SWITCHES = ['--no-sandbox', '--disable-gpu', '--disable-quic', '--no-first-run', '--disable-background-networking',
            '--disable-component-update', '--disable-sync']


class Camera(threading.Thread):
    """Plays a rendered clip to and fro, the next frame when the tracker has said its word on the one before.

    Until `moving` is set, it shows the first frame again and again.
    """

    def __init__(self):
        super().__init__(daemon=True)
        frames = list(generate(40, 5, (640, 480)))
        self._clip = [*frames, *frames[-2:0:-1]]
        self.truth: dict[str, np.ndarray] = {}  # stamp -> box
        self.boxes: dict[str, np.ndarray] = {}  # those of the tracker
        self.moving, self.over = threading.Event(), threading.Event()
        self.first = next(STAMPS)
        self.peer = Peer(self.first)
        self._heard = ''
        self.peer.create_subscription(TrackState, 'tracker/state', self._on_state, QoSProfile(depth=10))
        self.start()

    def run(self) -> None:
        frames = itertools.cycle(self._clip)
        frame = next(frames)
        while not self.over.is_set():
            if self.moving.is_set():
                frame = next(frames)
            sec, nanosec = self.peer.show(image(frame.image))
            stamp = f'{sec}.{nanosec:09d}'
            self.truth[stamp] = frame.box
            self.peer.pause(PERIOD)
            self.peer.pause(10.0, lambda: self._heard == stamp or self.over.is_set())

    def _on_state(self, state: TrackState) -> None:
        self._heard = stamp_text(state)
        if state.state in (TrackState.TRACKING, TrackState.UNCERTAIN):
            self.boxes[self._heard] = box_from_message(state.bbox)


@pytest.fixture(scope='module')
def page(tmp_path_factory):
    """The selector as a process: its port, without a tracker at first."""
    log = tmp_path_factory.mktemp('selector') / 'log.txt'
    process = subprocess.Popen([sys.executable, '-m', 'cract_ros.selector', '--ros-args', '-p', 'port:=0'],
                               stdout=log.open('wb'), stderr=subprocess.STDOUT)
    wait = threading.Event()
    while not (found := re.search(r'http://127\.0\.0\.1:(\d+)/', log.read_text())):
        assert process.poll() is None, log.read_text()
        wait.wait(0.1)
    yield int(found[1])
    process.terminate()
    assert process.wait(PATIENCE) == 0
    assert 'Traceback' not in log.read_text()


def ask(port: int, method: str, path: str, body: bytes = b'', **headers: str) -> SimpleNamespace:
    connection = http.client.HTTPConnection('127.0.0.1', port, timeout=PATIENCE)
    names = {name.replace('_', '-'): value for name, value in headers.items()}
    connection.request(method, path, body, {'Content-Type': 'application/json', **names})
    answer = connection.getresponse()
    return SimpleNamespace(status=answer.status, headers=answer.headers, body=answer.read())


def test_the_page_asks_nothing_of_other_machines(page):
    answer = ask(page, 'GET', '/')
    assert answer.status == 200 and b'<canvas' in answer.body
    assert not re.search(rb'(src|href)="?(https?:)?//', answer.body)
    assert b"default-src 'none'" in answer.body


def test_without_a_tracker_the_page_says_so(page):
    answer = ask(page, 'GET', '/picture?')
    assert json.loads(answer.headers['Tracker']) == {'state': 'silent'} and not answer.body
    for path, body in (('/init', b'{"stamp": "1.0", "box": [1, 2, 30, 40]}'), ('/reset', b'{}')):
        told = json.loads(ask(page, 'POST', path, body).body)
        assert not told['success'] and 'is the tracker running?' in told['message']


@pytest.mark.parametrize('body', [b'', b'[]', b'{"stamp": "1.0"}', b'{"stamp": "1", "box": [1, 2, 3, 4]}', b'\xff',
                                  b'{"stamp": "1.0", "box": [1, 2, 3, NaN]}', b'{"stamp": "1.0", "box": [1, 2, 3]}'])
def test_what_is_no_box_is_refused(page, body):
    told = json.loads(ask(page, 'POST', '/init', body).body)
    assert not told['success'] and told['message'].startswith('expected')


def test_pages_of_others_in_the_users_browser_reach_nothing(page):
    for host in ('evil.example', f'evil.example:{page}', '192.0.2.1', ''):
        assert ask(page, 'GET', '/picture?', Host=host).status == 403
        assert ask(page, 'POST', '/reset', b'{}', Host=host).status == 403
    assert ask(page, 'POST', '/reset', b'{}', Content_Type='text/plain').status == 403
    assert ask(page, 'GET', '/', Host=f'localhost:{page}').status == 200


def test_other_requests_are_refused(page):
    assert ask(page, 'GET', '/etc/passwd').status == 404
    assert ask(page, 'POST', '/picture', b'{}').status == 404
    assert ask(page, 'POST', '/init', b' ' * 5000).status == 413
    assert ask(page, 'POST', '/init', Content_Length='-5').status == 413
    assert ask(page, 'DELETE', '/').status == 501


@pytest.fixture
def browser():
    if BROWSER is None:
        pytest.skip('needs a browser: apt-get install chromium')
    playwright = pytest.importorskip('playwright.sync_api', reason='needs playwright: pip install playwright')
    with playwright.sync_playwright() as driver:
        chromium = driver.chromium.launch(executable_path=BROWSER, args=SWITCHES, timeout=1000 * PATIENCE)
        yield chromium
        chromium.close()


@pytest.fixture
def camera(launch_tracker):  # noqa: F811
    """A camera and the one tracker that sees its images: of two, the one that has not seen them answers first."""
    tracker = launch_tracker(catch_up=10.0)  # the machine may be busy
    rclpy.init()
    camera = Camera()
    yield camera
    camera.over.set()
    camera.join()
    camera.peer.destroy_node()
    rclpy.try_shutdown()
    tracker.stop()


def until(tab, expression: str) -> None:
    """Wait for the page; playwright's own way needs eval, which the page forbids itself."""
    deadline = time.monotonic() + PATIENCE
    while not tab.evaluate(expression):
        assert time.monotonic() < deadline, f'not within {PATIENCE:.0f} s: {expression}'
        tab.wait_for_timeout(50)


def first_box(tab, camera) -> np.ndarray:
    """x, y, w, h of the target in the standing picture, when the page shows it."""
    until(tab, f"shown && parseInt(shown.stamp) > {camera.first} && document.body.dataset.state === 'no target'")
    return camera.truth[tab.evaluate('shown.stamp')]


def test_a_box_drawn_with_the_mouse_is_followed(page, browser, camera, tmp_path):
    tab = browser.new_page(viewport=dict(width=1000, height=760))
    tab.set_default_timeout(1000 * PATIENCE)
    errors = []
    tab.on('pageerror', lambda error: errors.append(error))
    tab.goto(f'http://127.0.0.1:{page}/')
    x, y, w, h = first_box(tab, camera)
    assert tab.evaluate('shown.width') == 640
    place = tab.locator('canvas').bounding_box()
    scale = place['width'] / 640

    def point(x, y):
        return place['x'] + scale * x, place['y'] + scale * y

    tab.mouse.move(*point(x, y))
    tab.mouse.down()
    stamp = tab.evaluate('shown.stamp')  # of the picture that now stands still
    camera.moving.set()
    tab.mouse.move(*point(x + w / 2, y + h), steps=4)
    until(tab, f"waiting.stamp !== '{stamp}'")
    tab.mouse.move(*point(x + w, y + h), steps=4)
    assert tab.evaluate('shown.stamp') == stamp
    tab.screenshot(path=tmp_path / 'drawing.png')
    tab.mouse.up()

    until(tab, "document.getElementById('answer').textContent.startsWith('following')")
    assert f'in the image stamped {stamp}' in tab.locator('#answer').text_content()
    until(tab, "document.body.dataset.state === 'tracking' && shown !== null")
    known = len(camera.boxes)
    deadline = time.monotonic() + PATIENCE
    while len(camera.boxes) < known + 20:
        assert time.monotonic() < deadline, f'{len(camera.boxes) - known} of 20 answers'
        tab.wait_for_timeout(100)
    tab.screenshot(path=tmp_path / 'following.png')
    latest = list(camera.boxes)[known:]
    boxes, truth = (np.array([some[one] for one in latest]) for some in (camera.boxes, camera.truth))
    assert overlaps(boxes, truth).mean() > 0.5
    assert 0 < float(tab.locator('#score').text_content()) <= 1

    tab.mouse.click(*point(320, 240))  # a click is no box: the target stays
    assert tab.locator('#answer').text_content().startswith('Draw a box')
    tab.locator('#reset').click()
    until(tab, "document.getElementById('answer').textContent === 'the target is forgotten'")
    until(tab, "document.body.dataset.state === 'no target'")
    assert not errors


def test_the_page_works_with_a_finger_on_a_phone(page, browser, camera):
    phone = browser.new_context(viewport=dict(width=390, height=780), has_touch=True, is_mobile=True)
    tab = phone.new_page()
    tab.set_default_timeout(1000 * PATIENCE)
    tab.goto(f'http://127.0.0.1:{page}/')
    box = first_box(tab, camera)
    assert tab.evaluate('document.documentElement.scrollWidth') <= 390
    place = tab.locator('canvas').bounding_box()
    touch = phone.new_cdp_session(tab)

    def send(kind: str, *points) -> None:
        touch.send('Input.dispatchTouchEvent', dict(type=kind, touchPoints=[dict(x=x, y=y) for x, y in points]))

    x, y, w, h = box * place['width'] / 640
    send('touchStart', (place['x'] + x, place['y'] + y))
    send('touchMove', (place['x'] + x + w, place['y'] + y + h))
    send('touchEnd')
    until(tab, "document.getElementById('answer').textContent.startsWith('following')")
