"""The web page on which the target is chosen: its server over HTTP, and the whole of it in a real browser."""
from __future__ import annotations

import http.client
import itertools
import json
import re
import shutil
import socket
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import numpy as np
import pytest

pytest.importorskip('rclpy', reason='ROS 2 is not installed')

import rclpy
from node_harness import PATIENCE, Peer, image, launch_tracker, weights  # noqa: F401  (fixtures)
from rclpy.qos import QoSProfile

from cract_core.evaluation.metrics import overlaps
from cract_core.synthetic import generate
from cract_ros import web
from cract_ros.conversions import box_from_message
from cract_ros.history import text
from cract_ros.msg import TrackState
from cract_ros.selector import box_around

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
        self._heard = text(state.header.stamp)
        if state.state in (TrackState.TRACKING, TrackState.UNCERTAIN):
            self.boxes[self._heard] = box_from_message(state.bbox)


class Page:
    """The selector as a process."""

    def __init__(self, log, **parameters):
        words = [word for name, value in {'port': 0, **parameters}.items() for word in ('-p', f'{name}:={value}')]
        self._log = log
        self.process = subprocess.Popen([sys.executable, '-m', 'cract_ros.selector', '--ros-args', *words],
                                        stdout=log.open('wb'), stderr=subprocess.STDOUT)

    @property
    def log(self) -> str:
        return self._log.read_text()

    @property
    def port(self) -> int:
        deadline = time.monotonic() + PATIENCE
        while not (found := re.search(r'http://\S+:(\d+)/', self.log)):
            assert self.process.poll() is None and time.monotonic() < deadline, self.log
            time.sleep(0.1)
        return int(found[1])

    def stop(self) -> None:
        self.process.terminate()
        assert self.process.wait(PATIENCE) == 0
        assert 'Traceback' not in self.log and 'ERROR' not in self.log


@pytest.fixture(scope='module')
def page(tmp_path_factory):
    """Its port, without a tracker at first."""
    page = Page(tmp_path_factory.mktemp('selector') / 'log.txt')
    yield page.port
    page.stop()


@pytest.fixture(scope='module')
def open_page(tmp_path_factory):
    """The page on every network, with a token and a name."""
    page = Page(tmp_path_factory.mktemp('selector') / 'log.txt', host='0.0.0.0', token='open-sesame', names='drone.example')
    yield page.port
    page.stop()


def ask(port: int, method: str, path: str, body: bytes = b'', **headers: str) -> SimpleNamespace:
    """The answer to a request such as the page sends; a header that is None is left out."""
    connection = http.client.HTTPConnection('127.0.0.1', port, timeout=PATIENCE)
    names = {name.replace('_', '-'): value for name, value in headers.items()}
    names = {'Host': f'127.0.0.1:{port}', 'Content-Type': 'application/json', 'Seen': '0', **names}
    connection.putrequest(method, path, skip_host=True)
    for name, value in {'Content-Length': str(len(body)), **names}.items():
        if value is not None:
            connection.putheader(name, value)
    connection.endheaders(body)
    answer = connection.getresponse()
    return SimpleNamespace(status=answer.status, headers=answer.headers, body=answer.read())


def raw(port: int, request: bytes, seconds: float = PATIENCE) -> bytes:
    """All that comes back on a connection until it is closed."""
    with socket.create_connection(('127.0.0.1', port), seconds) as connection:
        try:
            connection.sendall(request)
            return b''.join(iter(lambda: connection.recv(65536), b''))
        except ConnectionError:
            return b''


def test_the_page_asks_nothing_of_other_machines(page):
    answer = ask(page, 'GET', '/')
    assert answer.status == 200 and b'<canvas' in answer.body
    for path in ('/', *re.findall(r'(?:src|href)="([^"]+)"', answer.body.decode())):
        part = ask(page, 'GET', path if path.startswith('/') else f'/{path}')
        assert part.status == 200 and part.body
        assert not re.search(rb'(src|href)="?(https?:)?//', part.body) and b'eval(' not in part.body
        policy = part.headers['Content-Security-Policy']
        assert "default-src 'none'" in policy and 'unsafe' not in policy and "frame-ancestors 'none'" in policy
        assert part.headers['Cross-Origin-Resource-Policy'] == 'same-origin'
        assert part.headers['X-Content-Type-Options'] == 'nosniff' and part.headers['X-Frame-Options'] == 'DENY'


def test_without_a_tracker_the_page_says_so(page):
    answer = ask(page, 'GET', '/picture')
    assert json.loads(answer.headers['Tracker']) == {'state': 'silent'} and not answer.body
    for path, body in (('/init', b'{"stamp": "1.0", "box": [1, 2, 30, 40]}'), ('/reset', b'{}'), ('/pause', b'{}'),
                       ('/resume', b'')):
        told = json.loads(ask(page, 'POST', path, body).body)
        assert not told['success'] and 'is the tracker running?' in told['message']
    told = json.loads(ask(page, 'POST', '/propose', b'{"stamp": "1.0", "point": [1, 2]}').body)
    assert told == dict(success=False, message='there is no picture yet')


@pytest.mark.parametrize('body', [b'', b'[]', b'{"stamp": "1.0"}', b'{"stamp": "1", "box": [1, 2, 3, 4]}', b'\xff',
                                  b'{"stamp": "1.0", "box": [1, 2, 3, NaN]}', b'{"stamp": "1.0", "box": [1, 2, 3]}',
                                  b'{"stamp": "1.0", "box": [1, 2, 3, 4], "point": [1, 2]}', b'[' * 4000,
                                  b'{"stamp": "1.0", "point": [1, 2]}', b'{"stamp": "1.0", "box": 7}',
                                  b'{"stamp": "1.0", "box": [1, 2, 3, 4], "id": 5}',
                                  b'{"stamp": "' + b'1' * 4050 + b'.0", "box": [1, 2, 3, 4]}'])
def test_what_is_no_box_is_refused(page, body):
    told = json.loads(ask(page, 'POST', '/init', body).body)
    assert not told['success'] and told['message'].startswith('expected')


@pytest.mark.parametrize('name', ['a' * 129, 'a\\nb', 'a\\u0000', '\\u202eabc', '\\ud800'])
def test_a_name_that_could_not_be_shown_is_refused(page, name):
    told = json.loads(ask(page, 'POST', '/init', f'{{"stamp": "1.0", "box": [1, 2, 3, 4], "id": "{name}"}}'.encode()).body)
    assert not told['success'] and told['message'].startswith('a name has at most 128 characters')


def test_a_box_around_a_tap_is_inside_of_the_picture():
    for x, y in ((320, 240), (0, 0), (640, 480), (639, 3), (1e9, -1e9)):
        left, top, w, h = box_around((x, y), 640, 480)
        assert w == h == 48 and 0 <= left <= 640 - w and 0 <= top <= 480 - h
        if (x, y) == (320, 240):
            assert (left + w / 2, top + h / 2) == (320, 240)


FOREIGN = ('evil.example', 'evil.example:{port}', '', 'evil@127.0.0.1', '127.0.0.1/evil', '127.0.0.1:x', '[::1',
           'localhost.evil.example', '127.0.0.1.evil.example', 'evil.example,127.0.0.1')


@pytest.mark.parametrize('host', [*FOREIGN, '192.0.2.1'])
def test_under_a_foreign_name_nothing_is_to_be_had(page, host):
    host = host.format(port=page)
    for method, path in (('GET', '/'), ('GET', '/picture'), ('POST', '/reset'), ('POST', '/init'), ('GET', '/none')):
        assert ask(page, method, path, b'{}' if method == 'POST' else b'', Host=host).status in (400, 403)


@pytest.mark.parametrize('host', ['localhost', 'localhost:{port}', '127.0.0.1', '127.1.2.3:{port}', '[::1]:9000',
                                  'LOCALHOST:{port}'])
def test_the_names_of_this_machine_are_known(page, host):
    assert ask(page, 'GET', '/', Host=host.format(port=page)).status == 200


@pytest.mark.parametrize('host', FOREIGN)
def test_serving_every_network_the_page_still_has_names_of_its_own(open_page, host):
    """DNS rebinding: a page of evil.example whose name leads to this address."""
    host, token = host.format(port=open_page), 'Bearer open-sesame'
    for method, path in (('GET', '/'), ('GET', '/picture'), ('POST', '/reset'), ('POST', '/init')):
        body = b'{}' if method == 'POST' else b''
        assert ask(open_page, method, path, body, Host=host, Authorization=token).status in (400, 403)


@pytest.mark.parametrize('host', ['192.0.2.1:{port}', '[fe80::1]:{port}', 'drone.example', socket.gethostname(),
                                  f'{socket.gethostname()}.local:{{port}}'])
def test_addresses_and_names_that_were_given_are_known(open_page, host):
    host, token = host.format(port=open_page), 'Bearer open-sesame'
    assert ask(open_page, 'GET', '/picture', Host=host, Authorization=token, Origin=f'http://{host}').status == 200


def test_names_are_known_in_any_case_and_whole():
    with socket.socket() as there:
        there.bind(('127.0.0.1', 0))
        guard = web.Guard([there], 'drone.example, ground.example', '')
    assert guard.knows('DRONE.example:80') and guard.knows('ground.example') and not guard.knows('example')


@pytest.mark.parametrize('headers', [
    dict(Origin='http://evil.example'), dict(Origin='null'), dict(Origin='http://127.0.0.1:1'), dict(Origin='http://['),
    dict(Origin='file://'), dict(Sec_Fetch_Site='cross-site'), dict(Sec_Fetch_Site='same-site')])
def test_pages_of_others_in_the_users_browser_reach_nothing(page, headers):
    for method, path in (('GET', '/picture'), ('POST', '/reset'), ('POST', '/init'), ('POST', '/propose')):
        assert ask(page, method, path, b'{}' if method == 'POST' else b'', **headers).status == 403
    ours = dict(Origin=f'http://127.0.0.1:{page}', Sec_Fetch_Site='same-origin')
    assert ask(page, 'POST', '/reset', b'{}', **ours).status == 200


def test_what_browsers_let_foreign_pages_send_is_refused(page):
    """Over plain HTTP from another machine a browser adds no Sec-Fetch-Site, and no Origin for a picture."""
    assert ask(page, 'GET', '/picture', Seen=None).status == 403
    for kind in ('text/plain', 'application/x-www-form-urlencoded', None):
        assert ask(page, 'POST', '/reset', b'{}', Content_Type=kind).status == 403
    assert ask(page, 'OPTIONS', '/reset').status == 405


def test_a_link_of_another_page_may_open_ours(page):
    link = dict(Sec_Fetch_Site='cross-site', Sec_Fetch_Mode='navigate', Seen=None, Content_Type=None)
    assert ask(page, 'GET', '/', **link).status == 200
    assert ask(page, 'GET', '/picture', **link).status == 403


def test_a_token_is_asked_for(open_page):
    assert ask(open_page, 'GET', '/').status == 200  # it says nothing but that there is a token
    wrong = ({}, dict(Authorization='Bearer open-sesamf'), dict(Authorization='open-sesame'), dict(Authorization='Bearer '),
             dict(Authorization='Bearer öpen'))
    for headers in wrong:
        assert ask(open_page, 'GET', '/picture', **headers).status == 401
    for path in ('/reset', '/init', '/pause', '/resume', '/propose'):
        assert ask(open_page, 'POST', path, b'{}').status == 401
        assert ask(open_page, 'POST', path, b'{}', Authorization='Bearer open-sesame').status == 200


@pytest.mark.parametrize('parameters, reason', [
    (dict(token='short'), 'the token must have at least 8 ASCII characters'),
    (dict(token='"with a blank"'), 'none of them a space'),
    (dict(token=12345678), "token"), (dict(port=99999), 'port'), (dict(port='http'), 'port'),
    (dict(tracker='"a b"'), 'a b'), (dict(tracker=7), 'tracker'),
    (dict(host='192.0.2.1'), 'Cannot assign requested address'),
    (dict(host='none.invalid'), 'not known')])
def test_where_the_page_cannot_be_served_it_says_why(tmp_path, parameters, reason):
    page = Page(tmp_path / 'log.txt', **parameters)
    assert page.process.wait(PATIENCE) == 1
    assert 'cannot serve the page: ' in page.log and reason in page.log and 'Traceback' not in page.log


def test_an_open_page_without_a_token_is_warned_of(tmp_path):
    page = Page(tmp_path / 'log.txt', host='0.0.0.0')
    assert ask(page.port, 'GET', '/picture').status == 200
    assert 'everybody who reaches that address can choose the target' in page.log
    page.stop()


def test_other_requests_are_refused(page):
    assert ask(page, 'GET', '/etc/passwd').status == 404
    assert ask(page, 'GET', '/../selector.py').status == 404
    assert ask(page, 'POST', '/picture', b'{}').status == 405
    assert ask(page, 'DELETE', '/').status == 405
    assert ask(page, 'PURGE', '/').status == 405


@pytest.mark.parametrize('head', [
    b'Content-Length: -5', b'Content-Length: 1e3', b'Content-Length: ' + b'9' * 5000, b'Content-Length: \xd9\xa3',
    b'Content-Length: 5000', b'Content-Length: 1, 2', b'Content-Length: 3\r\nContent-Length: 4',
    b'Transfer-Encoding: chunked\r\nContent-Length: 3', b'Transfer-Encoding: absurd', b'no colon', b': no name',
    b' folded', b'X: \x00', b'Host: b', b'Authorization: Bearer \xff\xfe', b'Sec-Fetch-Site: \xff', b'Origin: http://[::1',
    b'Seen: \xb2', b'Content-Type: application/json; charset=' + b'x' * 4000, b'Expect: 200-ok',
    b'\r\n'.join(b'X%d: y' % number for number in range(500))])
def test_an_absurd_header_is_answered(page, head):
    request = b'POST /reset HTTP/1.1\r\nHost: 127.0.0.1\r\n' + head + b'\r\n\r\nabc'
    assert re.match(rb'HTTP/1.1 4\d\d ', raw(page, request))


@pytest.mark.parametrize('line', [b'', b'GET', b'GET / HTTP/9.9', b'GET  /  HTTP/1.1', b'\x16\x03\x01\x02\x00', b'GET /\x00 HTTP/1.1',
                                  b'GET http://[ HTTP/1.1', b'GET //evil.example/ HTTP/1.1', b'GET * HTTP/1.1',
                                  b'GET /%00%ff HTTP/1.1', b'GET /' + b'a' * 9000 + b' HTTP/1.1'])
def test_an_absurd_request_is_answered(page, line):
    assert re.match(rb'HTTP/1.1 4\d\d ', raw(page, line + b'\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n'))


def test_a_body_that_never_ends_is_cut(page):
    chunk = b'1000\r\n' + b'a' * 4096 + b'\r\n'
    head = b'POST /reset HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n'
    assert re.match(rb'HTTP/1.1 4\d\d |$', raw(page, head + 1000 * chunk))
    assert raw(page, b'GET / HTTP/1.1\r\nX: ' + b'a' * 2**20) in (b'', b'HTTP/1.1 400 Bad Request\r\n\r\n')


def trickle(port: int, head: bytes, seconds: float) -> float:
    """Send that and then a byte each half second; after how many seconds the page closes, or `seconds`."""
    begun = time.monotonic()
    with socket.create_connection(('127.0.0.1', port)) as connection:
        connection.settimeout(0.5)
        connection.sendall(head)
        while (spent := time.monotonic() - begun) < seconds:
            try:
                if not connection.recv(4096):
                    return spent
            except TimeoutError:
                pass
            except ConnectionError:
                return spent
            try:
                connection.sendall(b'a')
            except ConnectionError:
                return spent
    return seconds


def test_trickling_clients_are_cut_off(page):
    body = b'POST /init HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\nContent-Length: 900\r\n\r\n'
    heads = {b'': web.IDLE, b'GET / HT': web.IDLE, b'GET / HTTP/1.1\r\nHost: 127.0.0.1\r\nX: ': web.IDLE, body: web.BODY}
    with ThreadPoolExecutor(len(heads)) as pool:
        spent = list(pool.map(lambda head: trickle(page, head, web.IDLE + 30), heads))
    for seconds, limit in zip(spent, heads.values()):
        assert limit - 1 < seconds < limit + 15


def test_slow_clients_do_not_keep_others_from_the_page(page):
    """Three times as many as may be connected, silent, in mid-header or in mid-body; nobody waits for them to end."""
    heads = (b'', b'GET / HT', b'POST /init HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 100\r\n\r\n')
    slow = []
    try:
        for number in range(3 * web.CONNECTIONS):
            slow.append(socket.create_connection(('127.0.0.1', page)))
            slow[-1].sendall(heads[number % 3])
        begun = time.monotonic()
        for _ in range(5):
            assert ask(page, 'GET', '/').status == 200
        assert time.monotonic() - begun < web.BODY
    finally:
        for connection in slow:
            connection.close()


def test_who_does_not_know_the_token_does_not_keep_others_from_the_page(open_page):
    """As many guesses as there may be connections are waiting for their answer."""
    guess = f'GET /picture HTTP/1.1\r\nHost: 127.0.0.1:{open_page}\r\nSeen: 0\r\nAuthorization: Bearer guess\r\n\r\n'.encode()
    guesses = []
    try:
        for _ in range(web.CONNECTIONS + 8):
            guesses.append(socket.create_connection(('127.0.0.1', open_page)))
            guesses[-1].sendall(guess)
        assert ask(open_page, 'GET', '/picture', Authorization='Bearer open-sesame').status == 200
    finally:
        for connection in guesses:
            connection.close()


def test_a_client_that_does_not_read_its_answers_is_cut_off(page):
    """It asks on and on; what it does not read must not pile up."""
    with socket.socket() as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        connection.connect(('127.0.0.1', page))
        connection.settimeout(1.0)
        request = b'GET /selector.js HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n'
        deadline = time.monotonic() + web.READING + 60
        with pytest.raises(ConnectionError):
            while time.monotonic() < deadline:
                try:
                    connection.send(100 * request)
                except TimeoutError:
                    pass
    assert ask(page, 'GET', '/').status == 200


@pytest.fixture
def browser():
    if BROWSER is None:
        pytest.skip('needs a browser: apt-get install chromium')
    playwright = pytest.importorskip('playwright.sync_api', reason='needs playwright: pip install playwright')
    with playwright.sync_playwright() as driver:
        chromium = driver.chromium.launch(executable_path=BROWSER, args=SWITCHES, timeout=1000 * PATIENCE)
        yield chromium
        chromium.close()


@pytest.fixture(scope='module')
def flight(launch_tracker):  # noqa: F811
    """A camera and the one tracker that sees its images."""
    launch_tracker(catch_up=10.0)  # the machine may be busy
    rclpy.init()
    camera = Camera()
    yield camera
    camera.over.set()
    camera.join()
    camera.peer.destroy_node()
    rclpy.try_shutdown()


@pytest.fixture
def camera(flight, page):
    """That camera, standing still, without a target: the page comes to know of it."""
    flight.moving.clear()
    deadline = time.monotonic() + PATIENCE
    while not json.loads(ask(page, 'POST', '/reset', b'{}').body)['success']:
        assert time.monotonic() < deadline, 'no service of the tracker'
        time.sleep(0.2)
    flight.first = flight.peer.latest
    return flight


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


def on_screen(tab, x: float, y: float) -> tuple[float, float]:
    """Where a place of the picture is, in CSS pixels of the tab, by the size of canvas and picture alone."""
    place = tab.locator('canvas').bounding_box()
    width, height = tab.evaluate('[shown.width, shown.height]')
    scale = min(place['width'] / width, place['height'] / height)
    return (place['x'] + place['width'] / 2 + scale * (x - width / 2),
            place['y'] + place['height'] / 2 + scale * (y - height / 2))


def answer(tab) -> str:
    return tab.locator('#answer').text_content()


def follows(tab, camera, frames: int) -> float:
    """Mean overlap of the tracker's next boxes with the truth."""
    until(tab, "document.body.dataset.state === 'tracking'")
    known = len(camera.boxes)
    deadline = time.monotonic() + PATIENCE
    while len(camera.boxes) < known + frames:
        assert time.monotonic() < deadline, f'{len(camera.boxes) - known} of {frames} answers'
        tab.wait_for_timeout(100)
    latest = list(camera.boxes)[known:]
    boxes, truth = (np.array([some[one] for one in latest]) for some in (camera.boxes, camera.truth))
    return overlaps(boxes, truth).mean()


@pytest.fixture
def desk(browser):
    """A tab of a desktop's browser in which nothing may go wrong, the icon and the security policy included."""
    tab = browser.new_page(viewport=dict(width=1000, height=760))
    tab.set_default_timeout(1000 * PATIENCE)
    wrong = []
    tab.on('pageerror', lambda error: wrong.append(error))
    tab.on('console', lambda line: wrong.append(line.text) if line.type == 'error' else None)
    yield tab
    assert not wrong


def test_a_box_drawn_with_the_mouse_is_followed(page, desk, camera, tmp_path):
    desk.goto(f'http://127.0.0.1:{page}/')
    x, y, w, h = first_box(desk, camera)
    assert desk.evaluate('shown.width') == 640
    desk.locator('#name').fill('car')
    desk.mouse.move(*on_screen(desk, x, y))
    desk.mouse.down()
    stamp = desk.evaluate('shown.stamp')  # of the picture that now stands still
    camera.moving.set()
    desk.mouse.move(*on_screen(desk, x + w / 2, y + h), steps=4)
    until(desk, f"waiting.stamp !== '{stamp}'")
    desk.mouse.move(*on_screen(desk, x + w, y + h), steps=4)
    assert desk.evaluate('shown.stamp') == stamp
    desk.screenshot(path=tmp_path / 'drawing.png')
    desk.mouse.up()

    until(desk, "/is followed, since [0-9.]+ s before your click/.test(document.getElementById('answer').textContent)")
    assert answer(desk).startswith('“car” is followed')
    assert float(re.search(r'since ([\d.]+) s', answer(desk))[1]) >= 1  # one image a second by their stamps
    assert follows(desk, camera, 20) > 0.5
    desk.screenshot(path=tmp_path / 'following.png')
    assert desk.locator('#id').text_content() == 'car'
    assert 0 < float(desk.locator('#score').text_content()) <= 1

    desk.locator('#pause').click()
    until(desk, "document.body.dataset.state === 'paused'")
    assert answer(desk) == 'Paused.' and desk.locator('#pause').text_content() == 'Resume'
    desk.locator('#pause').click()
    until(desk, "document.body.dataset.state !== 'paused'")
    assert answer(desk) == 'Resumed.'
    desk.locator('#reset').click()
    until(desk, "document.getElementById('answer').textContent === 'The target is forgotten.'")
    until(desk, "document.body.dataset.state === 'no target'")


def test_the_score_on_the_page_is_that_of_its_picture(page, desk, camera):
    """The tracker says what it thinks of each image; the page shows the words on the image that it shows."""
    scores = {}
    camera.peer.create_subscription(TrackState, 'tracker/state', lambda state: scores.update(
        {text(state.header.stamp): f'{state.score:.2f}'}), QoSProfile(depth=10))
    desk.goto(f'http://127.0.0.1:{page}/')
    x, y, w, h = first_box(desk, camera)
    camera.moving.set()
    desk.mouse.move(*on_screen(desk, x, y))
    desk.mouse.down()
    desk.mouse.move(*on_screen(desk, x + w, y + h), steps=3)
    desk.mouse.up()
    until(desk, "document.body.dataset.state === 'tracking'")
    pairs = set()
    deadline = time.monotonic() + PATIENCE
    while len(pairs) < 10 and time.monotonic() < deadline:
        pairs.add(tuple(desk.evaluate("[shown.stamp, document.getElementById('score').textContent]")))
        desk.wait_for_timeout(50)
    assert len(pairs) >= 10 and len({score for _, score in pairs}) > 1
    assert all(scores[stamp] == score for stamp, score in pairs)


def test_the_wheel_zooms_and_a_tap_is_followed_where_it_points(page, desk, camera):
    desk.goto(f'http://127.0.0.1:{page}/')
    x, y, w, h = first_box(desk, camera)
    middle = on_screen(desk, x + w / 2, y + h / 2)
    desk.mouse.move(*middle)
    desk.mouse.wheel(0, -600)
    until(desk, 'view.zoom > 4 && view.zoom < 5')
    desk.mouse.click(*middle)  # what is under the pointer stays there
    until(desk, 'choice !== null')
    left, top, width, height = desk.evaluate('choice.box')  # the tracker's proposal, else a box around the point
    assert left < x + w / 2 < left + width and top < y + h / 2 < top + height
    assert 0.1 * w * h < width * height < 10 * w * h
    stamp = desk.evaluate('shown.stamp')
    desk.wait_for_timeout(500)
    assert desk.evaluate('shown.stamp') == stamp
    desk.keyboard.press('Escape')
    until(desk, f"choice === null && shown.stamp !== '{stamp}'")
    desk.locator('#whole').click()
    assert desk.evaluate('view') == dict(zoom=1, x=0.5, y=0.5)


def test_with_the_wheels_button_the_picture_is_moved(page, desk, camera):
    desk.goto(f'http://127.0.0.1:{page}/')
    first_box(desk, camera)
    for _ in range(3):
        desk.locator('#in').click()
    before = desk.evaluate('toScreen([320, 240])')
    start = desk.locator('canvas').bounding_box()
    x, y = start['x'] + start['width'] / 2, start['y'] + start['height'] / 2
    desk.mouse.move(x, y)
    desk.mouse.down(button='middle')
    desk.mouse.move(x - 60, y + 40, steps=3)
    desk.mouse.up(button='middle')
    assert np.subtract(desk.evaluate('toScreen([320, 240])'), before) == pytest.approx([-60, 40], abs=0.5)
    assert desk.evaluate('choice') is None


def touches(context, tab):
    """A function that lays fingers on the screen, moves and lifts them."""
    session = context.new_cdp_session(tab)

    def send(kind: str, *points) -> None:
        session.send('Input.dispatchTouchEvent', dict(
            type=kind, touchPoints=[dict(x=x, y=y, id=number) for number, (x, y) in enumerate(points)]))
    return send


@pytest.fixture
def phone(browser):
    return browser.new_context(viewport=dict(width=390, height=780), has_touch=True, is_mobile=True, device_scale_factor=2)


def test_on_a_phone_two_fingers_zoom_and_one_taps(page, phone, camera, tmp_path):
    tab = phone.new_page()
    tab.set_default_timeout(1000 * PATIENCE)
    tab.goto(f'http://127.0.0.1:{page}/')
    x, y, w, h = first_box(tab, camera)
    assert tab.evaluate('document.documentElement.scrollWidth') <= 390
    for button in tab.locator('button:visible').all():
        place = button.bounding_box()
        assert min(place['width'], place['height']) >= 40 and place['x'] + place['width'] <= 390  # of a finger's size
    finger = touches(phone, tab)
    px, py = on_screen(tab, x + w / 2, y + h / 2)
    finger('touchStart', (px - 10, py), (px + 10, py))
    for apart in (20, 35, 50):
        finger('touchMove', (px - apart, py), (px + apart, py))
    finger('touchEnd')
    assert tab.evaluate('view.zoom') == pytest.approx(5, abs=0.3)
    assert tab.evaluate('choice') is None
    px, py = np.add(tab.evaluate(f'toScreen([{x + w / 2}, {y + h / 2}])'),
                    [tab.locator('canvas').bounding_box()[side] for side in 'xy'])
    finger('touchStart', (px, py))
    finger('touchEnd')
    until(tab, 'choice !== null')
    assert tab.locator('#follow').is_visible() and not tab.locator('#reset').is_visible()

    origin = [tab.locator('canvas').bounding_box()[side] for side in 'xy']
    for name, (cx, cy) in ((0, (x, y)), (2, (x + w, y + h))):  # the corners to those of the target
        start = np.add(tab.evaluate(f'toScreen(corners(choice.box)[{name}])'), origin)
        end = np.add(tab.evaluate(f'toScreen([{cx}, {cy}])'), origin)
        finger('touchStart', tuple(start))
        finger('touchMove', tuple((start + end) / 2))
        finger('touchMove', tuple(end))
        finger('touchEnd')
    assert tab.evaluate('choice.box') == pytest.approx([x, y, w, h], abs=1)
    tab.screenshot(path=tmp_path / 'phone.png')
    camera.moving.set()
    tab.locator('#follow').tap()
    until(tab, "document.getElementById('answer').textContent.startsWith('The target is followed')")
    assert follows(tab, camera, 10) > 0.5


def test_on_a_phone_a_box_is_drawn_with_a_finger(page, phone, camera):
    tab = phone.new_page()
    tab.set_default_timeout(1000 * PATIENCE)
    tab.goto(f'http://127.0.0.1:{page}/')
    x, y, w, h = first_box(tab, camera)
    finger = touches(phone, tab)
    finger('touchStart', on_screen(tab, x, y))
    finger('touchMove', on_screen(tab, x + w, y + h))
    finger('touchEnd')
    until(tab, "document.getElementById('answer').textContent.startsWith('The target is followed')")


def test_in_a_browser_a_foreign_page_and_a_foreign_name_choose_nothing(open_page, browser, tmp_path):
    """evil.example is a name that leads to this machine, as after DNS rebinding; its own page is on another port."""
    import http.server

    class Evil(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(200)
            self.send_header('Content-Type', 'text/html')
            self.end_headers()

        def log_message(self, *values):
            pass

    evil = http.server.ThreadingHTTPServer(('127.0.0.1', 0), Evil)
    threading.Thread(target=evil.serve_forever, daemon=True).start()
    rebound = browser.browser_type.launch(executable_path=BROWSER, args=[
        *SWITCHES, '--host-resolver-rules=MAP evil.example 127.0.0.1'], timeout=1000 * PATIENCE)
    ours, token = f'http://127.0.0.1:{open_page}', 'open-sesame'  # even if it knew the token
    post = """async ([url, mode, token]) => {
        try {
            const answer = await fetch(url, {method: 'POST', mode, body: '{}', headers:
                mode === 'no-cors' ? {} : {'Content-Type': 'application/json', Authorization: 'Bearer ' + token}});
            return answer.status;
        } catch (error) { return 'blocked'; }
    }"""
    try:
        tab = rebound.new_page()
        assert tab.goto(f'http://evil.example:{open_page}/').status == 403  # rebinding: our page under its name
        assert tab.evaluate(post, [f'http://evil.example:{open_page}/reset', 'same-origin', token]) == 403
        tab.goto(f'http://evil.example:{evil.server_address[1]}/')
        assert tab.evaluate(post, [f'{ours}/reset', 'cors', token]) == 'blocked'
        assert tab.evaluate(post, [f'{ours}/reset', 'no-cors', token]) == 'blocked'
        frame = """url => new Promise(done => {
            const image = new Image();
            image.onload = () => done('shown');
            image.onerror = () => done('blocked');
            image.src = url;
        })"""
        assert tab.evaluate(frame, f'{ours}/picture') == 'blocked'
        assert tab.evaluate(frame, f'{ours}/selector.svg') == 'blocked'
    finally:
        rebound.close()
        evil.shutdown()


def test_in_a_browser_the_token_is_typed_or_comes_with_the_link(open_page, browser):
    def tab(address: str):
        page = browser.new_context().new_page()
        page.set_default_timeout(1000 * PATIENCE)
        page.goto(f'http://127.0.0.1:{open_page}/{address}')
        return page

    typed = tab('')
    until(typed, "!document.getElementById('login').hidden")
    typed.locator('#token').fill('open-sesame')
    typed.locator('#login button').click()
    linked = tab('#open-sesame')
    for page in (typed, linked):
        until(page, "!['Connecting', 'Locked', 'No connection'].includes(document.getElementById('state').textContent)")
        assert page.locator('#login').is_hidden()
    assert '#' not in linked.url  # not left in the address bar
