"""The MAVLink side of the camera, by its bytes: a ground station's conversation, refusals, signing, floods and noise."""
from __future__ import annotations

import math
import random

import pytest

pytest.importorskip('pymavlink', reason='pymavlink is not installed: pip install pymavlink')

from pymavlink.dialects.v20 import common as mavlink

from cract_ros.mavlink_protocol import (ANSWER, PEERS, CameraConfig, Status, Tracking, TrackingCamera, read_key)

KEY = bytes(range(32))
BOX = (0.25, 0.125, 0.5, 0.375)
IMAGE_STATUS = mavlink.MAVLINK_MSG_ID_CAMERA_TRACKING_IMAGE_STATUS
ACCEPTED, DENIED, IN_PROGRESS = mavlink.MAV_RESULT_ACCEPTED, mavlink.MAV_RESULT_DENIED, mavlink.MAV_RESULT_IN_PROGRESS


class Station:
    """A ground station that reads and writes with pymavlink's own parser, and hears what is sent to its address."""

    def __init__(self, camera: TrackingCamera, address='ground', system: int = 255, key: bytes | None = None):
        self.camera, self.address = camera, address
        self.link = mavlink.MAVLink(None, system, 190)
        self.link.robust_parsing = True
        self.heard = []
        if key:
            self.link.signing.secret_key, self.link.signing.sign_outgoing = key, True
            self.link.signing.timestamp = 50_000_000_000

    def packet(self, message) -> bytes:
        data = message.pack(self.link)
        self.link.seq = (self.link.seq + 1) % 256
        return bytes(data)

    def command(self, command: int, *values: float, target=(1, 100), confirmation: int = 0) -> bytes:
        values = [*values, *[0.0] * (7 - len(values))]
        return self.packet(mavlink.MAVLink_command_long_message(*target, command, confirmation, *values))

    def say(self, packet: bytes, now: float = 0.0) -> list:
        """What comes back at once."""
        self.camera.receive(packet, self.address, now)
        return self.listen()

    def ask(self, command: int, *values: float, now: float = 0.0, **rest) -> list:
        return self.say(self.command(command, *values, **rest), now)

    def listen(self) -> list:
        messages = []
        for sending in self.camera.take():
            if sending.to in (None, self.address):
                messages += self.link.parse_buffer(sending.packet) or []
        assert not [m for m in messages if m.get_type() == 'BAD_DATA']
        self.heard += messages
        return messages


def kinds(messages: list) -> list[str]:
    return [message.get_type() for message in messages]


def results(messages: list) -> list[int]:
    return [message.result for message in messages if message.get_type() == 'COMMAND_ACK']


def texts(messages: list) -> str:
    return ''.join(message.text for message in messages if message.get_type() == 'STATUSTEXT')


def make(requests: list | None = None, key: bytes | None = None, **config) -> TrackingCamera:
    config.setdefault('ground_system', 0)
    return TrackingCamera(CameraConfig(**config), [].append if requests is None else requests.append, key,
                          unix=lambda: 1420070400 + 500_000)


def test_a_ground_station_learns_at_connection_what_the_camera_can():
    """The order of QGroundControl: it hears the heartbeat, then asks for one message after the other."""
    camera = make(video_url='rtsp://10.0.0.2:8554/camera', resolution=(640, 480), video_fov=60.0)
    station = Station(camera)
    camera.tick(0.0)
    beat, = station.listen()
    assert (beat.type, beat.get_srcSystem(), beat.get_srcComponent()) == (mavlink.MAV_TYPE_CAMERA, 1, 100)
    information, answer = station.ask(mavlink.MAV_CMD_REQUEST_MESSAGE, mavlink.MAVLINK_MSG_ID_CAMERA_INFORMATION)
    assert answer.result == ACCEPTED and (answer.target_system, answer.target_component) == (255, 190)
    assert information.flags == (mavlink.CAMERA_CAP_FLAGS_HAS_TRACKING_POINT | mavlink.CAMERA_CAP_FLAGS_HAS_VIDEO_STREAM
                                 | mavlink.CAMERA_CAP_FLAGS_HAS_TRACKING_RECTANGLE)
    assert (information.resolution_h, information.resolution_v) == (640, 480)
    assert bytes(information.vendor_name).rstrip(b'\0') == b'CRACT' and math.isnan(information.focal_length)
    for number, kind in ((mavlink.MAVLINK_MSG_ID_CAMERA_SETTINGS, 'CAMERA_SETTINGS'),
                         (mavlink.MAVLINK_MSG_ID_CAMERA_CAPTURE_STATUS, 'CAMERA_CAPTURE_STATUS'),
                         (mavlink.MAVLINK_MSG_ID_STORAGE_INFORMATION, 'STORAGE_INFORMATION'),
                         (mavlink.MAVLINK_MSG_ID_VIDEO_STREAM_STATUS, 'VIDEO_STREAM_STATUS')):
        assert kinds(station.ask(mavlink.MAV_CMD_REQUEST_MESSAGE, number)) == [kind, 'COMMAND_ACK']
    stream, _ = station.ask(mavlink.MAV_CMD_REQUEST_VIDEO_STREAM_INFORMATION, 1)  # the older way to ask
    assert (stream.type, stream.uri, stream.hfov) == (mavlink.VIDEO_STREAM_TYPE_RTSP, 'rtsp://10.0.0.2:8554/camera', 60)


def test_a_port_for_video_is_told_as_the_standard_wants_it():
    camera = make(video_url='udp://0.0.0.0:5600')
    stream, _ = Station(camera).ask(mavlink.MAV_CMD_REQUEST_MESSAGE, mavlink.MAVLINK_MSG_ID_VIDEO_STREAM_INFORMATION, 1)
    assert (stream.type, stream.uri) == (mavlink.VIDEO_STREAM_TYPE_RTPUDP, '5600')


def test_messages_that_are_not_there_are_unsupported():
    station = Station(make())
    for number in (mavlink.MAVLINK_MSG_ID_VIDEO_STREAM_INFORMATION, mavlink.MAVLINK_MSG_ID_ATTITUDE,
                   mavlink.MAVLINK_MSG_ID_CAMERA_TRACKING_GEO_STATUS):
        assert results(station.ask(mavlink.MAV_CMD_REQUEST_MESSAGE, number)) == [mavlink.MAV_RESULT_UNSUPPORTED]
    assert results(station.ask(mavlink.MAV_CMD_IMAGE_START_CAPTURE)) == [mavlink.MAV_RESULT_UNSUPPORTED]
    # a command for all components may be another one's: whoever does not know it is silent
    assert station.ask(mavlink.MAV_CMD_IMAGE_START_CAPTURE, target=(1, 0)) == []


def test_a_drawn_rectangle_is_in_progress_until_the_tracker_has_it():
    requests = []
    camera = make(requests)
    station = Station(camera)
    assert results(station.ask(mavlink.MAV_CMD_CAMERA_TRACK_RECTANGLE, *BOX)) == [IN_PROGRESS]
    request, = requests
    assert request.values == pytest.approx(BOX)
    camera.finish(request.number, ACCEPTED, 'following', 0.2)
    camera.show(Status(Tracking.ACTIVE, BOX), (640, 480))
    answer, status = station.listen()
    assert answer.result == ACCEPTED
    assert (status.tracking_status, status.tracking_mode) == (mavlink.CAMERA_TRACKING_STATUS_FLAGS_ACTIVE,
                                                              mavlink.CAMERA_TRACKING_MODE_RECTANGLE)
    assert [status.rec_top_x, status.rec_top_y, status.rec_bottom_x, status.rec_bottom_y] == pytest.approx(BOX)
    assert math.isnan(status.point_x) and math.isnan(status.radius)


def test_a_tap_and_a_stop_reach_the_tracker():
    requests = []
    camera = make(requests)
    station = Station(camera)
    station.ask(mavlink.MAV_CMD_CAMERA_TRACK_POINT, 0.5, 0.25, 0.1)
    camera.finish(1, ACCEPTED, '', 0.1)
    station.ask(mavlink.MAV_CMD_CAMERA_STOP_TRACKING, now=0.2)
    camera.finish(2, ACCEPTED, '', 0.3)
    assert [(r.command, len(r.values)) for r in requests] == [(mavlink.MAV_CMD_CAMERA_TRACK_POINT, 3),
                                                              (mavlink.MAV_CMD_CAMERA_STOP_TRACKING, 0)]
    station.listen()
    assert results(station.heard) == [IN_PROGRESS, ACCEPTED, IN_PROGRESS, ACCEPTED]


def test_a_command_as_integers_is_the_same():
    requests = []
    station = Station(make(requests))
    message = mavlink.MAVLink_command_int_message(1, 100, 0, mavlink.MAV_CMD_CAMERA_TRACK_RECTANGLE, 0, 0, *BOX, 0, 0, 0.0)
    assert results(station.say(station.packet(message))) == [IN_PROGRESS]
    assert requests[0].values == pytest.approx(BOX)


@pytest.mark.parametrize('command, values, reason', [
    (mavlink.MAV_CMD_CAMERA_TRACK_RECTANGLE, (0.5, 0.1, 0.5, 0.4), 'upper left corner'),
    (mavlink.MAV_CMD_CAMERA_TRACK_RECTANGLE, (0.1, 0.1, 1.5, 0.4), 'between 0 and 1'),
    (mavlink.MAV_CMD_CAMERA_TRACK_RECTANGLE, (math.nan, 0.1, 0.5, 0.4), 'between 0 and 1'),
    (mavlink.MAV_CMD_CAMERA_TRACK_POINT, (-0.1, 0.5, 0.0), 'between 0 and 1'),
    (mavlink.MAV_CMD_CAMERA_TRACK_POINT, (math.inf, 0.5, 0.0), 'between 0 and 1'),
    (mavlink.MAV_CMD_CAMERA_TRACK_POINT, (0.5, 0.5, 0.0, 101.0), 'this is camera 100'),
    (mavlink.MAV_CMD_SET_MESSAGE_INTERVAL, (30, 1e5), 'not sent at an interval'),
    (mavlink.MAV_CMD_SET_MESSAGE_INTERVAL, (IMAGE_STATUS, 10), 'an interval lies between'),
    (mavlink.MAV_CMD_SET_MESSAGE_INTERVAL, (IMAGE_STATUS, math.nan), 'an interval lies between'),
    (mavlink.MAV_CMD_SET_MESSAGE_INTERVAL, (math.nan, 1e5), 'whole number'),
    (mavlink.MAV_CMD_REQUEST_MESSAGE, (1.5,), 'whole number')])
def test_a_wrong_command_is_denied_with_the_reason(command, values, reason):
    requests = []
    answer = Station(make(requests)).ask(command, *values)
    assert results(answer) == [DENIED] and reason in texts(answer) and not requests


def test_a_refusal_of_the_tracker_is_told_in_words_to_who_asked():
    requests = []
    camera = make(requests)
    station, other = Station(camera), Station(camera, 'other')
    station.ask(mavlink.MAV_CMD_CAMERA_TRACK_POINT, 0.5, 0.5)
    reason = 'no object was found at that place: draw a box around it, or tap nearer to its middle'
    camera.finish(1, DENIED, reason, 0.1)
    sent = camera.take()
    assert {sending.to for sending in sent} == {'ground'}
    heard = [message for sending in sent for message in station.link.parse_buffer(sending.packet)]
    assert results(heard) == [DENIED] and texts(heard) == reason
    assert other.listen() == []


def test_a_tracker_that_does_not_answer_is_a_failure():
    requests = []
    camera = make(requests)
    station = Station(camera)
    station.ask(mavlink.MAV_CMD_CAMERA_TRACK_POINT, 0.5, 0.5)
    for step in range(int(ANSWER) + 2):
        camera.tick(step + 0.5)
    answers = results(station.listen())
    assert answers[:-1] == [IN_PROGRESS] * len(answers[:-1]) and answers[-1] == mavlink.MAV_RESULT_FAILED
    camera.finish(1, ACCEPTED, '', 20.0)  # too late
    assert not camera.busy and results(station.listen()) == []


def test_a_command_that_is_repeated_is_followed_once():
    """A ground station sends it again where it missed the acknowledgement."""
    requests = []
    camera = make(requests)
    station = Station(camera)
    for _ in range(3):
        assert results(station.ask(mavlink.MAV_CMD_CAMERA_TRACK_RECTANGLE, *BOX)) == [IN_PROGRESS]
    camera.finish(1, ACCEPTED, '', 0.1)
    station.listen()
    assert results(station.ask(mavlink.MAV_CMD_CAMERA_TRACK_RECTANGLE, *BOX, now=0.5, confirmation=1)) == [ACCEPTED]
    assert len(requests) == 1
    camera.show(Status(Tracking.ACTIVE, BOX))
    camera.show(Status())  # somebody else stopped it: the same box is a new wish
    station.listen()
    assert results(station.ask(mavlink.MAV_CMD_CAMERA_TRACK_RECTANGLE, *BOX, now=0.9)) == [IN_PROGRESS]
    assert len(requests) == 2


def test_a_lost_target_is_an_error_without_a_place():
    camera = make()
    station = Station(camera)
    camera.show(Status(Tracking.ACTIVE, BOX))
    camera.show(Status(Tracking.LOST, BOX))
    status = station.listen()[-1]
    assert status.tracking_status == mavlink.CAMERA_TRACKING_STATUS_FLAGS_ERROR
    assert all(math.isnan(getattr(status, name)) for name in
               ('point_x', 'point_y', 'radius', 'rec_top_x', 'rec_top_y', 'rec_bottom_x', 'rec_bottom_y'))
    camera.show(Status())
    assert station.listen()[-1].tracking_status == mavlink.CAMERA_TRACKING_STATUS_FLAGS_IDLE


def statuses(camera: TrackingCamera, station: Station, begin: float, seconds: float) -> int:
    station.listen()
    for step in range(round(seconds / 0.01)):
        camera.tick(begin + step * 0.01)
    return kinds(station.listen()).count('CAMERA_TRACKING_IMAGE_STATUS')


@pytest.mark.parametrize('interval', [0.02, 0.1, 0.25, 1.0])
def test_the_status_comes_at_the_interval_that_was_asked_for(interval):
    camera = make()
    station = Station(camera)
    camera.show(Status(Tracking.ACTIVE, BOX))
    assert results(station.ask(mavlink.MAV_CMD_SET_MESSAGE_INTERVAL, IMAGE_STATUS, interval * 1e6)) == [ACCEPTED]
    assert statuses(camera, station, 0.0, 10.0) == pytest.approx(10 / interval, abs=1)
    told, _ = station.ask(mavlink.MAV_CMD_GET_MESSAGE_INTERVAL, IMAGE_STATUS, now=10.0)
    assert told.interval_us == round(interval * 1e6)
    station.ask(mavlink.MAV_CMD_SET_MESSAGE_INTERVAL, IMAGE_STATUS, -1, now=10.0)
    assert statuses(camera, station, 10.0, 5.0) == 0
    camera.show(Status(Tracking.LOST))
    assert 'CAMERA_TRACKING_IMAGE_STATUS' not in kinds(station.listen())
    assert kinds(station.ask(mavlink.MAV_CMD_REQUEST_MESSAGE, IMAGE_STATUS, now=15.0)) == \
        ['CAMERA_TRACKING_IMAGE_STATUS', 'COMMAND_ACK']


def test_of_two_stations_each_gets_at_least_what_it_asked_for():
    camera = make()
    one, two = Station(camera), Station(camera, 'two', 254)
    camera.show(Status(Tracking.ACTIVE, BOX))
    one.ask(mavlink.MAV_CMD_SET_MESSAGE_INTERVAL, IMAGE_STATUS, 1e5)
    two.ask(mavlink.MAV_CMD_SET_MESSAGE_INTERVAL, IMAGE_STATUS, 1e6)
    assert statuses(camera, one, 0.0, 10.0) == pytest.approx(100, abs=1)
    one.ask(mavlink.MAV_CMD_SET_MESSAGE_INTERVAL, IMAGE_STATUS, -1, now=10.0)
    assert statuses(camera, two, 10.0, 10.0) == pytest.approx(10, abs=1)


def test_commands_for_others_and_of_others_change_nothing():
    requests = []
    camera = TrackingCamera(CameraConfig(), requests.append)
    for system, target in ((254, (1, 100)), (255, (2, 100)), (255, (1, 101)), (1, (1, 100))):
        assert Station(camera, system=system).ask(mavlink.MAV_CMD_CAMERA_TRACK_RECTANGLE, *BOX, target=target) == []
    assert not requests and camera.counts.foreign == 4


def test_with_a_key_only_what_is_signed_with_it_is_believed():
    requests = []
    camera = make(requests, KEY)
    for station in (Station(camera), Station(camera, key=bytes(32))):
        assert station.ask(mavlink.MAV_CMD_CAMERA_TRACK_RECTANGLE, *BOX) == [] and not requests
    assert camera.counts.unsigned == 2
    station = Station(camera, key=KEY)
    packet = station.command(mavlink.MAV_CMD_CAMERA_TRACK_RECTANGLE, *BOX)
    changed = bytearray(packet)
    changed[14] ^= 1
    assert station.say(bytes(changed)) == [] and not requests
    answer, = station.say(packet)
    assert answer.result == IN_PROGRESS and answer._signed and len(requests) == 1
    camera.finish(1, ACCEPTED, '', 0.1)
    camera.show(Status(Tracking.ACTIVE, BOX))
    camera.show(Status())
    station.listen()
    assert station.say(packet, 5.0) == [] and len(requests) == 1  # replayed


def test_a_forged_packet_from_the_future_does_not_lock_the_true_sender_out():
    requests = []
    camera = make(requests, KEY)
    forger = Station(camera, key=bytes(32))
    forger.link.signing.timestamp = 2**47
    forger.ask(mavlink.MAV_CMD_CAMERA_STOP_TRACKING)
    assert results(Station(camera, key=KEY).ask(mavlink.MAV_CMD_CAMERA_STOP_TRACKING)) == [IN_PROGRESS]


def test_a_recording_of_an_earlier_flight_is_too_old():
    requests = []
    station = Station(make(requests, KEY), key=KEY)
    station.link.signing.timestamp -= 7_000_000  # a minute and more
    assert station.ask(mavlink.MAV_CMD_CAMERA_STOP_TRACKING) == [] and not requests


def test_a_key_is_read_from_bytes_or_digits(tmp_path):
    (tmp_path / 'raw').write_bytes(KEY)
    (tmp_path / 'hex').write_text(KEY.hex() + '\n')
    assert read_key(tmp_path / 'raw') == read_key(tmp_path / 'hex') == KEY
    for content in (b'', b'too short', KEY + b'x', b'z' * 64):
        (tmp_path / 'bad').write_bytes(content)
        with pytest.raises(ValueError, match='32 bytes, or their 64 hexadecimal digits'):
            read_key(tmp_path / 'bad')


@pytest.mark.parametrize('values', [dict(system=0), dict(component=256), dict(vendor='x' * 32), dict(video_url='ftp://x'),
                                    dict(interval=0.0), dict(interval=math.nan), dict(model='Kamera ä'),
                                    dict(video_url='rtsp://' + 'x' * 200), dict(video_url='udp://h:99999'), dict(video_rate=math.nan),
                                    dict(video_fov=-1.0)])
def test_a_wrong_configuration_is_refused_in_a_sentence(values):
    with pytest.raises(ValueError, match=next(iter(values))):
        CameraConfig(**values)


@pytest.mark.parametrize('command, values', [
    (mavlink.MAV_CMD_CAMERA_TRACK_RECTANGLE, (0.5, 0.5, 0.1, 0.1)), (mavlink.MAV_CMD_REQUEST_MESSAGE, (259,)),
    (mavlink.MAV_CMD_CAMERA_TRACK_POINT, (0.5, 0.5)), (mavlink.MAV_CMD_SET_MESSAGE_INTERVAL, (IMAGE_STATUS, 20000))])
def test_a_flood_takes_nothing_from_the_operator(command, values):
    """Of one sender, or of ten thousand that are made up: the operator, who was there before, is still answered."""
    requests = []
    camera = make(requests)
    operator = Station(camera)
    assert results(operator.ask(mavlink.MAV_CMD_REQUEST_MESSAGE, IMAGE_STATUS)) == [ACCEPTED]
    dice, sent = random.Random(0), 0
    for number in range(2000):
        system = 7 if number % 2 else dice.randrange(1, 255)
        flood = Station(camera, f'flood {number % 500}', system)
        camera.receive(flood.command(command, *values), flood.address, 1.0)
        out = camera.take()
        sent += len(out)
        assert all(sending.to == flood.address for sending in out)
        if len(requests) and camera.busy:
            camera.finish(requests[-1].number, DENIED, 'nothing is there', 1.0)
            camera.take()
    assert results(operator.ask(mavlink.MAV_CMD_CAMERA_TRACK_RECTANGLE, *BOX, now=1.0)) == [IN_PROGRESS]
    assert requests[-1].values == pytest.approx(BOX)
    assert len(camera._peers) <= PEERS
    assert camera._interval(IMAGE_STATUS) is None or command == mavlink.MAV_CMD_SET_MESSAGE_INTERVAL


def test_refusals_of_one_sender_do_not_flood_with_texts():
    camera = make()
    station = Station(camera)
    for step in range(100):
        station.ask(mavlink.MAV_CMD_CAMERA_TRACK_POINT, 2.0, 2.0, now=1 + step * 0.05)
    assert 3 <= kinds(station.heard).count('STATUSTEXT') <= 2 * (3 + 5 * 0.5 + 1)


def test_places_of_silent_senders_are_given_to_new_ones():
    requests = []
    camera = make(requests)
    for number in range(PEERS):
        Station(camera, number).ask(mavlink.MAV_CMD_REQUEST_MESSAGE, IMAGE_STATUS, now=0.0)
    late = Station(camera, 'late')
    set_interval = mavlink.MAV_CMD_SET_MESSAGE_INTERVAL, IMAGE_STATUS, 1e5
    assert results(late.ask(*set_interval, now=1.0)) == [mavlink.MAV_RESULT_TEMPORARILY_REJECTED]
    assert results(late.ask(*set_interval, now=100.0)) == [ACCEPTED]


@pytest.mark.parametrize('key', [None, KEY], ids=['unsigned', 'signed'])
def test_fifty_thousand_hostile_messages_change_nothing(key):
    """Noise, damaged packets, every message of the dialect with random content, foreign systems, forged signatures."""
    requests = []
    camera = make(requests, key, ground_system=255, video_url='rtsp://h/x')
    operator = Station(camera, key=key)
    operator.ask(mavlink.MAV_CMD_SET_MESSAGE_INTERVAL, IMAGE_STATUS, 1e6)
    camera.show(Status(Tracking.ACTIVE, BOX))
    camera.take()
    dice = random.Random(1)
    classes = [kind for kind in mavlink.mavlink_map.values() if kind.msgname not in ('COMMAND_LONG', 'COMMAND_INT')]
    forger = Station(camera, 'hostile', 255 if key else 66, key=bytes(32) if key else None)
    good = [forger.command(dice.randrange(65536), *(dice.choice([dice.random(), math.nan, math.inf, -1.0, 1e30])
                                                    for _ in range(7)), target=(dice.choice([0, 1]), dice.choice([0, 100])))
            for _ in range(300)]
    good += [forger.command(command, *BOX) for command in (2004, 2005, 2010, 511, 512)]
    header = mavlink.MAVLINK_IFLAG_SIGNED
    for number in range(50_000):
        kind = number % 5
        if kind == 0:
            data = dice.randbytes(dice.randrange(1, 300))
        elif kind == 1:
            data = bytearray(dice.choice(good))
            for _ in range(dice.randrange(1, 4)):
                data[dice.randrange(len(data))] = dice.randrange(256)
        elif kind == 2:
            data = dice.choice(good)
        elif kind == 3:
            data = dice.choice(good)[:dice.randrange(1, 40)]
        else:
            message = dice.choice(classes)
            payload = dice.randbytes(dice.randrange(1, message.unpacker.size + 1))
            head = bytes([253, len(payload), header if dice.random() < 0.1 else 0, 0, number % 256, dice.randrange(1, 255),
                          dice.randrange(256)]) + message.id.to_bytes(3, 'little')
            check = mavlink.x25crc(bytearray(head[1:] + payload + bytes([message.crc_extra])))
            data = head + payload + check.crc.to_bytes(2, 'little')
        camera.receive(bytes(data), 'hostile', 1.0 + number * 1e-4, stream=number % 3 == 0)
        assert not camera.take()
    assert not requests and camera.status == Status(Tracking.ACTIVE, BOX)
    assert camera._interval(IMAGE_STATUS) == 1.0
    assert camera.counts.malformed > 20_000 and (camera.counts.unsigned if key else camera.counts.foreign) > 8000
    assert results(operator.ask(mavlink.MAV_CMD_CAMERA_STOP_TRACKING, now=7.0)) == [IN_PROGRESS]


def test_a_stream_in_pieces_is_put_together():
    requests = []
    camera = make(requests)
    station = Station(camera)
    data = station.command(mavlink.MAV_CMD_REQUEST_MESSAGE, IMAGE_STATUS) + \
        station.command(mavlink.MAV_CMD_CAMERA_TRACK_RECTANGLE, *BOX)
    for place in range(0, len(data), 7):
        camera.receive(data[place:place + 7], station.address, 0.0, stream=True)
    assert len(requests) == 1 and results(station.listen()) == [ACCEPTED, IN_PROGRESS]
    camera.receive(data[:20], 'gone', 0.0, stream=True)
    camera.forget('gone')
    camera.receive(data[20:], 'gone', 0.0, stream=True)
    assert len(requests) == 1


def test_long_texts_come_in_pieces_that_belong_together():
    camera = make()
    station = Station(camera)
    text = 'the box lies outside the picture, ' * 4
    camera.say(text)
    pieces = station.listen()
    assert texts(pieces) == text and len({piece.id for piece in pieces}) == 1 and pieces[0].id
    assert [piece.chunk_seq for piece in pieces] == list(range(len(pieces)))
