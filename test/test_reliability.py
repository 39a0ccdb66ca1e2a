"""Nothing lost, nothing silent: the cases of docs/reliability.md, run as a user runs them."""
from __future__ import annotations

import argparse
import hashlib
import importlib
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
from test_benchmarks import write_frames, write_lasot, write_lines
from test_cli import QUICK, refused, weights  # noqa: F401  (fixture)
from test_evaluation import moving_boxes, write_sequence

from cract_core import cli, options
from cract_core.commands import COMMANDS
from cract_core.config import TrackerConfig
from cract_core.encodings import Contrast
from cract_core.evaluation import runner, sequences
from cract_core.evaluation.benchmarks import read_benchmark
from cract_core.evaluation.report import interval
from cract_core.files import ResultLines, keep_apart, read_text, read_yaml, utf8_path, write_text, written
from cract_core.video import FrameSource, VideoWriter, list_images, read_image, write_image

BOX = '20,20,24,24'
LATIN = os.fsdecode(b'caf\xe9')     # no UTF-8


def picture(shift: int = 0, size=(96, 72)) -> np.ndarray:
    ground = cv2.resize(np.random.default_rng(1).integers(0, 256, (9, 12, 3), np.uint8), size)
    return np.roll(ground, shift, 1)


def folder_of(path, names, **changes) -> Path:
    path.mkdir(parents=True, exist_ok=True)
    for index, name in enumerate(names):
        (path / name).write_bytes(cv2.imencode(Path(name).suffix, picture(index, **changes))[1].tobytes())
    return path


def video_of(path: Path, codec: str, frames: int = 40) -> Path:
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*codec), 30, (96, 72))
    if not writer.isOpened():
        pytest.skip(f'this OpenCV writes no {codec}')
    for index in range(frames):
        writer.write(picture(3 * index))
    writer.release()
    return path


@pytest.fixture
def track(weights, capsys):     # noqa: F811
    """Run `cract track` with untrained networks; returns exit status, stdout and stderr."""
    def run(source, *arguments, box=BOX):
        status = cli.main(['track', str(source), '--box', box, '--weights', weights, *QUICK, *map(str, arguments)])
        return status, *capsys.readouterr()
    return run


# 1: names that are no UTF-8

@pytest.mark.parametrize('kind', ['folder of images', 'image', 'video'])
def test_a_source_whose_name_is_no_utf8_is_read(tmp_path, track, kind):
    if kind == 'video':
        source = tmp_path / f'{LATIN}.mp4'
        video_of(tmp_path / 'clip.mp4', 'mp4v', 4).rename(source)
    else:
        source = folder_of(tmp_path / (LATIN if kind != 'image' else 'plain'), ['1.png', f'{LATIN}.png', '2.png', '3.png'])
    status, out, error = track(source, '--results', tmp_path / f'{LATIN}.txt', '--output', tmp_path / f'{LATIN} out.mp4')
    assert (status, error) == (0, '') and out.startswith('4 frames')
    assert len((tmp_path / f'{LATIN}.txt').read_text().splitlines()) == 4
    with FrameSource(tmp_path / f'{LATIN} out.mp4') as written_video:
        assert len(list(written_video)) == 4


@pytest.mark.parametrize('name', ['ö', '日本', LATIN, 'plain'])
def test_an_ascii_locale_reads_and_writes_any_name(tmp_path, weights, name):  # noqa: F811
    clip = tmp_path / f'{name}.mp4'
    video_of(tmp_path / 'clip.mp4', 'mp4v', 3).rename(clip)
    output = tmp_path / name / 'out.mp4'
    output.parent.mkdir()
    done = subprocess.run(
        [sys.executable, '-m', 'cract_core.cli', 'track', clip, '--box', BOX, '--output', output, '--weights', weights,
         *QUICK], env=os.environ | dict(LC_ALL='C', PYTHONUTF8='0', PYTHONCOERCECLOCALE='0'), capture_output=True)
    assert done.returncode == 0, done.stderr
    with FrameSource(output) as source:
        assert len(list(source)) == 3


def test_sequences_and_reports_may_have_such_names(tmp_path, capsys):
    for name in (LATIN, 'b', 'c'):
        write_sequence(tmp_path / 'plain', moving_boxes(4))
        (tmp_path / 'data' / LATIN).mkdir(parents=True, exist_ok=True)
        (tmp_path / 'plain').rename(tmp_path / 'data' / LATIN / name)
    assert cli.main(['eval', str(tmp_path / 'data'), '--tracker', 'kcf', '--threads', '1', '--report',
                     str(tmp_path / LATIN), '--json', str(tmp_path / f'{LATIN}.json')]) == 0
    assert 'caf' in capsys.readouterr().out
    assert f'{LATIN}/{LATIN}' in json.loads((tmp_path / f'{LATIN}.json').read_text())['sequences']
    assert 'Evaluation of kcf' in (tmp_path / LATIN / 'report.html').read_text()


def test_a_link_stands_for_a_name_that_opencv_cannot_take(tmp_path):
    for name in (LATIN, 'plain', 'ö'):
        (tmp_path / f'{name}.bin').write_text(name.encode('utf-8', 'replace').decode())
        with utf8_path(tmp_path / f'{name}.bin') as path:
            path.encode()
            assert Path(path).read_text() == (tmp_path / f'{name}.bin').read_text() and path.endswith('.bin')


# 2: outputs

def tree(root: Path) -> dict[str, str]:
    return {str(path.relative_to(root)): hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else 'folder'
            for path in sorted(root.rglob('*'))}


@pytest.mark.parametrize('option', ['--output', '--results'])
@pytest.mark.parametrize('alias', ['itself', 'link', 'hard link', 'other way'])
def test_an_output_that_is_the_input_is_refused_and_the_input_stays(tmp_path, track, option, alias):
    clip = video_of(tmp_path / 'clip.mp4', 'mp4v', 4)
    (tmp_path / 'sub').mkdir()
    target = dict(zip(('itself', 'link', 'hard link', 'other way'), (
        clip, tmp_path / 'link.mp4', tmp_path / 'hard.mp4', tmp_path / 'sub' / '..' / 'clip.mp4')))[alias]
    if alias == 'link':
        target.symlink_to(clip)
    elif alias == 'hard link':
        os.link(clip, target)
    before = tree(tmp_path)
    status, _, error = track(clip, option, target)
    assert status == 2 and 'nothing is written over an input' in error and error.count('\n') == 1
    assert tree(tmp_path) == before


def test_a_refused_command_leaves_older_results(tmp_path, track):
    folder_of(tmp_path / 'frames', ['1.png', '2.png'])
    old = tmp_path / 'old.txt'
    old.write_text('precious')
    for arguments in (dict(box='900,900,20,20'), {}):
        if not arguments:
            (tmp_path / 'frames' / '1.png').write_bytes(b'damaged')
        assert track(tmp_path / 'frames', '--results', old, **arguments)[0] == 2
        assert old.read_text() == 'precious'
    assert track(tmp_path / 'nothing.mp4', '--results', old)[0] == 2 and old.read_text() == 'precious'
    assert sorted(path.name for path in tmp_path.iterdir()) == ['frames', 'old.txt']


@pytest.mark.parametrize('outputs, reason', [
    (['--results', 'frames/new.txt'], 'lies in'), (['--output', 'frames/new.mp4'], 'lies in'),
    (['--results', 'same', '--output', 'same'], 'same file'), (['--results', 'frames'], 'is the input'),
    (['--results', 'tracker.yaml', '--config', 'tracker.yaml'], 'is the input --config'),
    (['--results', 'folder'], 'it is a folder'), (['--results', 'nowhere/x.txt'], 'there is no folder')])
def test_outputs_have_a_place_of_their_own(tmp_path, track, monkeypatch, outputs, reason):
    monkeypatch.chdir(tmp_path)
    folder_of(Path('frames'), ['1.png', '2.png'])
    Path('folder').mkdir()
    Path('tracker.yaml').write_text('alpha: 0.5\n')
    before = tree(tmp_path)
    status, _, error = track('frames', *outputs)
    assert status == 2 and reason in error and tree(tmp_path) == before


def options_of(command: str) -> dict[str, list[argparse.Action]]:
    """Command line words -> all that follows them, subcommands apart."""
    parser = argparse.ArgumentParser()
    importlib.import_module(f'cract_core.commands.{COMMANDS[command][0]}').add_arguments(parser)
    subparsers = [one for one in parser._actions if isinstance(one, argparse._SubParsersAction)]
    if not subparsers:
        return {command: parser._actions}
    return {f'{command} {name}': sub._actions for one in subparsers for name, sub in one.choices.items()}


PLACES = [(words, action) for command in COMMANDS for words, actions in options_of(command).items() for action in actions
          if action.dest in (*options.FILES, *options.FOLDERS, *options.EITHER)]


def test_every_argument_that_names_a_place_is_known_as_an_input_or_an_output():
    known = {*options.INPUTS, *options.FILES, *options.FOLDERS, *options.EITHER}
    names = re.compile(r'ROOT|SOURCE|BAG|DATA|SHARDS|\w*(DIR|FILE|FOLDER|OUT)\w*(\.\w+)?')
    for command in COMMANDS:
        for actions in options_of(command).values():
            for action in actions:
                if action.type is Path or isinstance(action.metavar, str) and names.fullmatch(action.metavar):
                    assert action.dest in known, (command, action.dest)
    assert {words.split()[0] for words, _ in PLACES} == set(COMMANDS) - {'params', 'calibrate'}    # they write nothing


@pytest.mark.parametrize('words, action', PLACES, ids=[f'{words} {action.dest}' for words, action in PLACES])
@pytest.mark.parametrize('inside', [True, False])
def test_no_command_writes_where_an_input_lies(tmp_path, monkeypatch, words, action, inside, weights, capsys):  # noqa: F811
    """Each output of each command is pointed at each of its inputs, and into those that are folders."""
    monkeypatch.chdir(tmp_path)
    root = folder_of(Path('data/root/set/one/img'), ['1.png', '2.png']).parents[2]
    (root / 'set/one/groundtruth.txt').write_text('10,10,20,20\n' * 2)
    shutil.copy(weights, 'data/weights.pt')
    Path('data/tracker.yaml').write_text('weights: data/weights.pt\n')
    Path('data/figures.json').write_text('{}')
    Path('data/shards').mkdir()
    Path('data/shards/a.jsonl').write_text('')
    actions = options_of(words.split()[0])[words]
    value = dict(source=root / 'set/one/img', bag='data/shards', root=root, data='data/shards', config='data/tracker.yaml',
                 weights='data/weights.pt', config_weights='data/weights.pt', latency_trace='data/figures.json',
                 against='data/figures.json', peers='data/shards', nano_backbone='data/weights.pt', nano_head='data/weights.pt',
                 imagenet='data/weights.pt', start_from='data/weights.pt', box='10,10,20,20', name='proposals', set='folders')
    inputs = [one for one in actions if one.dest in options.INPUTS]
    before = tree(Path('data'))
    for given in inputs:
        target = Path(value[given.dest], 'new' if inside else '')
        if inside and not target.parent.is_dir():
            continue
        line = words.split()
        for one in actions:
            if one.dest in (action.dest, given.dest) or one.required:
                path = target if one.dest == action.dest else value[one.dest]
                line += [*one.option_strings[:1], str(path)]
        assert cli.main(line) == 2, line
        assert tree(Path('data')) == before, line
        assert 'nothing is written' in capsys.readouterr().err, line


def test_the_weights_of_a_configuration_are_an_input_too(tmp_path, capsys):
    (tmp_path / 'w.pt').write_text('weights')
    (tmp_path / 'c.yaml').write_text(f'weights: {tmp_path / "w.pt"}\n')
    folder_of(tmp_path / 'frames', ['1.png', '2.png'])
    assert 'nothing is written over an input' in refused(
        capsys, 'track', tmp_path / 'frames', '--box', BOX, '--config', tmp_path / 'c.yaml', '--results', tmp_path / 'w.pt')
    assert (tmp_path / 'w.pt').read_text() == 'weights'


def test_a_result_is_whole_or_not_there(tmp_path):
    path = tmp_path / 'result.txt'
    with pytest.raises(RuntimeError):
        with written(path) as part:
            part.write_text('half')
            assert not path.exists()
            raise RuntimeError
    assert list(tmp_path.iterdir()) == []
    path.write_text('old')
    with pytest.raises(RuntimeError), ResultLines(path) as lines:
        lines.write('half')
        raise RuntimeError
    assert path.read_text() == 'old' and list(tmp_path.iterdir()) == [path]
    with pytest.raises(KeyboardInterrupt), ResultLines(path) as lines:     # Ctrl-C keeps what was written
        lines.write('one')
        raise KeyboardInterrupt
    assert path.read_text() == 'one\n' and list(tmp_path.iterdir()) == [path]
    link = tmp_path / 'link.txt'
    link.symlink_to(path)
    write_text(link, 'through')
    assert link.is_symlink() and path.read_text() == 'through'
    with pytest.raises(RuntimeError), VideoWriter(tmp_path / 'clip.mp4') as video:
        video.write(picture())
        raise RuntimeError
    assert {one.name for one in tmp_path.iterdir()} == {'link.txt', 'result.txt'}


def test_devices_and_pipes_are_written_to_as_they_are(tmp_path, track):
    folder_of(tmp_path / 'frames', ['1.png', '2.png'])
    before = os.stat('/dev/null')
    assert track(tmp_path / 'frames', '--results', '/dev/null')[0] == 0
    after = os.stat('/dev/null')
    assert (before.st_mode, before.st_rdev, before.st_ino) == (after.st_mode, after.st_rdev, after.st_ino)


# 3: videos that stop half-way

CONTAINERS = [('MJPG', 'avi'), ('XVID', 'avi'), ('mp4v', 'mkv'), ('MJPG', 'mkv'), ('VP80', 'webm')]


@pytest.mark.parametrize('codec, suffix', CONTAINERS)
def test_a_video_that_is_cut_off_is_incomplete(tmp_path, codec, suffix):
    whole = video_of(tmp_path / f'whole.{suffix}', codec)
    source, data, counts = FrameSource(whole), whole.read_bytes(), []
    expected = list(source)
    assert len(expected) == 40 and source.complaint == ''
    for share in (0.4, 0.6, 0.8, 0.9, 0.95):
        cut = tmp_path / f'cut.{suffix}'
        cut.write_bytes(data[:int(share * len(data))])
        source = FrameSource(cut)
        frames = list(source)
        counts.append(len(frames))
        for frame, same in zip(frames, expected):     # no half frame at the end
            assert (frame == same).all()
        assert source.complaint == ('' if len(frames) == 40 else f'{len(frames)} of 40 frames of {cut} could be read')
    assert counts == sorted(counts) and counts[1] < 40


def test_track_tells_of_a_cut_video_and_keeps_what_there_is(tmp_path, track):
    clip = video_of(tmp_path / 'clip.avi', 'MJPG', 10)
    clip.write_bytes(clip.read_bytes()[:clip.stat().st_size * 6 // 10])
    status, out, error = track(clip, '--results', tmp_path / 'boxes.txt', '--output', tmp_path / 'out.mp4')
    count = int(out.split()[0])
    assert status == 2 and 0 < count < 10 and f'{count} of 10 frames of {clip} could be read' in error
    assert len((tmp_path / 'boxes.txt').read_text().splitlines()) == len(list(FrameSource(tmp_path / 'out.mp4'))) == count
    assert track(clip, '--frames', '2')[0] == 0     # all that was asked for


class Reads:
    """A video capture whose reads fail where `script` has a minus, and at its end."""

    def __init__(self, script: str, count: float):
        self.script, self.count, self.at = script, count, 0

    def isOpened(self):  # noqa: N802
        return True

    def get(self, key):
        return {cv2.CAP_PROP_FPS: 25.0, cv2.CAP_PROP_FRAME_COUNT: self.count}.get(key, self.at * 40.0)

    def read(self):
        self.at += 1
        found = self.at <= len(self.script) and self.script[self.at - 1] == '+'
        return found, np.full((9, 9, 3), self.at, np.uint8) if found else None

    def release(self):
        pass


@pytest.mark.parametrize('script, count, given, position, complaint', [
    ('+' * 22 + '---' + '+' * 15, 40, 37, 39, '37 of 40 frames'),
    ('+' * 22, 40, 22, 21, '22 of 40 frames'),
    ('+' * 40, 40, 40, 39, ''),
    ('+-+-+', 5, 3, 4, '3 of 5 frames'),
    ('+++', 0, 3, 2, '')])     # the file does not say how many there are
def test_failed_reads_are_passed_over_and_counted(tmp_path, monkeypatch, script, count, given, position, complaint):
    path = tmp_path / 'clip.mkv'
    path.write_bytes(b'x')
    monkeypatch.setattr(cv2, 'VideoCapture', lambda *_: Reads(script, count))
    source = FrameSource(path)
    frames = [int(frame[0, 0, 0]) for frame in source]
    assert frames == [at for at, sign in enumerate(script, 1) if sign == '+']
    assert (source.given, source.position) == (given, position)
    assert source.complaint.startswith(complaint) and bool(source.complaint) == bool(complaint)


def test_a_camera_that_stops_is_told_and_its_slow_start_is_not(monkeypatch):
    monkeypatch.setattr(cv2, 'VideoCapture', lambda *_: Reads('---+++--++', -1))
    source = FrameSource('0')
    assert source.live and source.length is None and len(list(source)) == 5
    assert '2 frames of 0 could not be read' in source.complaint
    monkeypatch.setattr(cv2, 'VideoCapture', lambda *_: Reads('++++', -1))
    source = FrameSource('0')
    assert len(list(source)) == 4 and source.complaint == '0 stopped after 4 frames'


def test_an_unsteady_rate_is_no_missing_frame(tmp_path, monkeypatch):
    class Unsteady(Reads):
        def get(self, key):
            return float(1000 * self.at ** 1.5) if key == cv2.CAP_PROP_POS_MSEC else super().get(key)
    path = tmp_path / 'screen.webm'
    path.write_bytes(b'x')
    for count, complete in ((25 * 90, True), (25 * 900, False)):     # 20 frames in 90 seconds, in 900
        monkeypatch.setattr(cv2, 'VideoCapture', lambda *_: Unsteady('+' * 20, count))
        source = FrameSource(path)
        assert len(list(source)) == 20 and (source.complaint == '') == complete


def test_a_damaged_frame_among_images_has_its_line_and_the_rest_is_followed(tmp_path, track):
    folder_of(tmp_path / 'frames', [f'{i}.jpg' for i in range(1, 7)])
    (tmp_path / 'frames' / '3.jpg').write_bytes((tmp_path / 'frames' / '3.jpg').read_bytes()[:-300])
    (tmp_path / 'frames' / '5.jpg').write_bytes(b'')
    (tmp_path / 'frames' / '6.jpg').unlink()
    (tmp_path / 'frames' / '6.jpg').symlink_to('nowhere')
    status, out, error = track(tmp_path / 'frames', '--results', tmp_path / 'boxes.txt', '--scores')
    assert status == 2 and out.startswith('3 frames') and '3 of 6 frames' in error and '3.jpg' in error
    rows = [line.split(',') for line in (tmp_path / 'boxes.txt').read_text().splitlines()]
    assert [row[0] == 'nan' for row in rows] == [False, False, True, False, True, True]
    assert {len(row) for row in rows} == {6} and rows[2][5] == 'unread'


# 4: 16 bits

def grey(bits: int, low: int = 0) -> np.ndarray:
    """A ramp that uses so many bits, with 200 rows of the same."""
    return np.tile(np.linspace(low, 2 ** bits - 1, 256).round().astype(np.uint16), (200, 1))


@pytest.mark.parametrize('bits', [8, 10, 12, 14, 16])
def test_any_number_of_bits_keeps_its_contrast(bits):
    shown = Contrast().to_8_bits(grey(bits), colour=False)
    assert len(np.unique(shown)) > 240 and shown.min() == 0 and shown.max() == 255


def test_single_pixels_decide_nothing():
    frame = grey(10)
    expected = Contrast().to_8_bits(frame, colour=False).astype(int)
    frame[3, 3], frame[100, 7], frame[50, 200] = 65535, 65535, 0
    shown = Contrast().to_8_bits(frame, colour=False).astype(int)
    shown[[3, 100, 50], [3, 7, 200]] = expected[[3, 100, 50], [3, 7, 200]]
    assert np.abs(shown - expected).max() <= 1


def test_what_enters_a_stream_changes_its_levels_slowly_and_another_gain_at_once():
    contrast = Contrast()
    first = contrast.to_8_bits(grey(10, 500), colour=False)
    hot = grey(10, 500)
    hot[:20, :20] = 4000   # a hundredth of the frame
    second = contrast.to_8_bits(hot, colour=False)
    assert np.abs(second[100].astype(int) - first[100]).max() < 20
    for _ in range(100):
        last = contrast.to_8_bits(hot, colour=False)
    assert last[0, 0] == 255 and last[100].max() < 80      # in the end all of it is shown
    other = contrast.to_8_bits(grey(16, 30000), colour=False)
    assert len(np.unique(other)) > 200


def test_one_rule_for_every_path(tmp_path):
    rclpy = pytest.importorskip('rclpy', reason='ROS 2 is not installed')  # noqa: F841
    from sensor_msgs.msg import CompressedImage
    from test_conversions import message

    from cract_ros import conversions
    frame = grey(12, 300)
    frame[0, 0] = 65535
    png = cv2.imencode('.png', frame)[1].tobytes()
    (tmp_path / '1.png').write_bytes(png)
    (tmp_path / '2.tif').write_bytes(cv2.imencode('.tif', frame)[1].tobytes())
    expected = conversions.to_bgr(message(frame, 'mono16'))
    assert len(np.unique(expected)) > 240
    compressed = [CompressedImage(format=form, data=png) for form in ('mono16; png', '16UC1; png compressed ', '')]
    for shown in (conversions.to_bgr(message(frame, '16UC1')), conversions.to_bgr(message(frame.astype('>u2'), 'mono16', is_bigendian=1)),
                  read_image(tmp_path / '1.png'), read_image(tmp_path / '2.tif'), next(iter(FrameSource(tmp_path))),
                  *map(conversions.to_bgr, compressed)):
        np.testing.assert_array_equal(shown, expected)


def test_colours_of_16_bits_keep_their_tint(tmp_path):
    colour = np.full((40, 40, 3), (400, 1200, 2200), np.uint16)     # of 12 bits
    write_image(tmp_path / '1.png', colour)
    np.testing.assert_allclose(read_image(tmp_path / '1.png')[5, 5], np.array([400, 1200, 2200]) * 255 / 4095, atol=1)


@pytest.mark.long
def test_16_bits_are_followed_as_well_as_8(cract_data, tmp_path):
    """Car4, as cameras of 8, 10 and 12 bits would give it."""
    from cract_core.evaluation.metrics import overlaps, success_auc
    from cract_core.tracker import Tracker
    sequence, = sequences.read_folders(cract_data / 'eval', only=('OTB/Car4',))
    count, found = 120, {}
    for bits in (8, 10, 12):
        folder = tmp_path / str(bits)
        folder.mkdir()
        for index, frame in enumerate(sequence.frames()):
            if index == count:
                break
            values = cv2.cvtColor(frame, cv2.COLOR_BGR2GRAY).astype(np.uint16)
            write_image(folder / f'{index}.png', values.astype(np.uint8) if bits == 8 else values << (bits - 8))
        part = sequences.Sequence('car', tuple(list_images(folder)), sequence.truth[:count])
        run = runner.run_sequence(Tracker(TrackerConfig(threads=1)), part)
        found[bits] = success_auc(overlaps(run.boxes, part.truth))
    assert found[8] > 0.7 and min(found.values()) > found[8] - 0.05, found


# 7: images in folders

@pytest.mark.parametrize('suffix', ['.jpg', '.png', '.bmp', '.tif', '.webp'])
def test_a_picture_that_is_cut_off_is_refused(tmp_path, suffix):
    data = cv2.imencode(suffix, picture())[1].tobytes()
    path = tmp_path / f'1{suffix}'
    path.write_bytes(data)
    assert read_image(path).shape == (72, 96, 3)
    for share in (0, 0.01, 0.3, 0.6, 0.9, 0.99):
        path.write_bytes(data[:int(share * len(data))])
        with pytest.raises(ValueError, match='cannot read .* as an image'):
            read_image(path)


def with_thumbnail(data: bytes, orientation: int = 1) -> bytes:
    """A JPEG with Exif data: its orientation, and a thumbnail, which has an end of its own."""
    thumbnail = cv2.imencode('.jpg', picture(size=(16, 12)))[1].tobytes()
    exif = b'Exif\0\0MM\0*\0\0\0\x08' + b'\0\x01' + b'\x01\x12\0\x03\0\0\0\x01' + bytes([0, orientation, 0, 0]) \
        + b'\0\0\0\0' + thumbnail
    return data[:2] + b'\xff\xe1' + (len(exif) + 2).to_bytes(2, 'big') + exif + data[2:]


def test_the_end_of_a_thumbnail_is_not_that_of_the_picture(tmp_path):
    data = with_thumbnail(cv2.imencode('.jpg', picture())[1].tobytes())
    (tmp_path / '1.jpg').write_bytes(data)
    assert read_image(tmp_path / '1.jpg').shape == (72, 96, 3)
    (tmp_path / '1.jpg').write_bytes(data[:-200])
    with pytest.raises(ValueError, match='cut off'):
        read_image(tmp_path / '1.jpg')


def test_an_orientation_turns_no_picture_in_a_folder_as_in_a_message(tmp_path):
    data = with_thumbnail(cv2.imencode('.jpg', picture())[1].tobytes(), orientation=6)
    assert cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR).shape == (96, 72, 3)   # OpenCV would
    (tmp_path / '1.jpg').write_bytes(data)
    in_folder = read_image(tmp_path / '1.jpg')
    assert in_folder.shape == (72, 96, 3)
    from cract_core.encodings import compressed_to_bgr
    message = type('Message', (), dict(data=data, format='jpeg'))
    np.testing.assert_array_equal(compressed_to_bgr(message), in_folder)


@pytest.mark.parametrize('names, frames', [
    (['1.jpg', '1.png', '2.jpg', '2.png'], ['1.jpg', '2.jpg']),
    (['1.jpg', '2.jpg', '1.png'], ['1.jpg', '2.jpg']), (['1.png', '2.png', '1.jpg'], ['1.png', '2.png']),
    (['1.jpg', '1_mask.png', '2.jpg', '2_mask.png'], ['1.jpg', '2.jpg']),
    (['1.png', '1_mask.png', '2.png', '2 label.png'], ['1.png', '2.png']),
    (['1.jpg', '2.png', '3.jpeg'], ['1.jpg', '2.png', '3.jpeg']),
    (['frame_1.jpg', 'frame_2.jpg', 'frame_10.jpg'], ['frame_1.jpg', 'frame_2.jpg', 'frame_10.jpg']),
    (['2.jpg', '1²3.jpg', '²2.jpg', '10.jpg'], ['2.jpg', '10.jpg', '1²3.jpg', '²2.jpg'])])
def test_the_frames_of_a_folder_are_its_frames(tmp_path, names, frames):
    folder_of(tmp_path, names)
    (tmp_path / 'x.jpg').mkdir()
    assert sorted(path.name for path in list_images(tmp_path)) == sorted(frames)
    if '1²3.jpg' not in names:
        assert [path.name for path in list_images(tmp_path)] == frames


# 8: one odd sequence

def odd_benchmark(root: Path) -> None:
    """LaSOT with three videos: one whole, one with a frame more than lines, one with a damaged frame."""
    write_lasot(root)
    whole = root / 'airplane' / 'airplane-9'
    write_frames(whole / 'img', range(1, 5), '{:08d}.jpg')
    for name in ('airplane-1', 'airplane-13'):
        shutil.copytree(whole, root / 'airplane' / name)
    shutil.copy(whole / 'img' / '00000001.jpg', root / 'airplane' / 'airplane-1' / 'img' / '00000005.jpg')
    (root / 'airplane' / 'airplane-13' / 'img' / '00000003.jpg').write_bytes(b'\xff\xd8 damaged')
    for name in ('airplane-1', 'airplane-13', 'airplane-9'):
        write_lines(root / 'airplane' / name / 'groundtruth.txt', ['5,5,12,12'] * 4)


def test_one_odd_sequence_does_not_end_a_benchmark(tmp_path, capsys):
    odd_benchmark(tmp_path / 'data')
    assert cli.main(['eval', str(tmp_path / 'data'), '--benchmark', 'lasot', '--tracker', 'kcf', '--threads', '1',
                     '--json', str(tmp_path / 'figures.json')]) == 2
    out, error = capsys.readouterr()
    report = json.loads((tmp_path / 'figures.json').read_text())
    assert set(report['sequences']) == {'airplane-1', 'airplane-9'} and report['mean']['sequences'] == 2
    assert report['sequences']['airplane-1']['frames'] == 4
    assert set(report['left_out']) == {'airplane-1', 'airplane-13'}
    assert '2 sequences could not be measured as they should' in error
    assert 'measured on the 4 frames that have both' in error and '00000003.jpg as an image' in error
    assert [line for line in out.splitlines() if line.startswith('mean')]


@pytest.mark.parametrize('protocol', ['ope', 'absence', 'streaming', 'reset'])
def test_every_protocol_goes_on_past_a_damaged_frame(tmp_path, capsys, protocol):
    for name in ('alpha', 'beta', 'gamma'):
        write_sequence(tmp_path / 'data' / 'set' / name, moving_boxes(70, 1), shift=1, size=(160, 60))
    images = tmp_path / 'data' / 'set' / 'beta' / 'img'
    (images / '50.png').write_bytes((images / '50.png').read_bytes()[:100])
    (tmp_path / 'data' / 'set' / 'delta').mkdir()     # no sequence at all
    assert cli.main(['eval', str(tmp_path / 'data'), '--tracker', 'mil' if protocol == 'reset' else 'kcf', '--threads',
                     '1', '--protocol', protocol, '--json', str(tmp_path / 'figures.json')]) == 2
    error = capsys.readouterr().err
    assert 'set/beta' in error and '50.png' in error and 'set/delta' in error
    report = json.loads((tmp_path / 'figures.json').read_text())
    assert {'set/beta', 'set/delta'} <= set(report['left_out'])
    kept = report.get('sequences') or report['absence_sequences']
    assert 'set/beta' not in kept and 'set/gamma' in kept     # alpha may borrow frames of beta


def test_where_no_sequence_can_be_measured_the_reason_is_the_error(tmp_path, capsys):
    write_sequence(tmp_path / 'data' / 'set' / 'one', moving_boxes(4))
    (tmp_path / 'data' / 'set' / 'one' / 'img' / '2.png').write_bytes(b'')
    assert '2.png as an image' in refused(capsys, 'eval', tmp_path / 'data', '--tracker', 'kcf', '--threads', '1')


@pytest.mark.parametrize('lines, first', [(354, 6), (349, 1)])
def test_tiger1_begins_with_its_sixth_frame(tmp_path, lines, first):
    write_frames(tmp_path / 'Tiger1' / 'img', range(1, 355))
    write_lines(tmp_path / 'Tiger1' / 'groundtruth_rect.txt', [f'{n},88,76,84' for n in range(1, lines + 1)])
    sequence, = read_benchmark('otb2015', tmp_path)
    assert (sequence.images[0].name, sequence.images[-1].name, len(sequence.images)) == ('0006.jpg', '0354.jpg', 349)
    assert sequence.truth[0].tolist() == [first - 1, 87, 76, 84]


def test_a_damaged_image_does_not_end_the_packing(tmp_path, capsys):
    for name in ('one', 'two'):
        write_sequence(tmp_path / 'data' / 'set' / name, moving_boxes(8), size=(160, 120))
    for image in (tmp_path / 'data' / 'set' / 'two' / 'img').iterdir():
        image.write_bytes(b'')
    (tmp_path / 'data' / 'set' / 'three').mkdir()
    assert cli.main(['data', 'pack', 'folders', str(tmp_path / 'data'), '--output', str(tmp_path / 'shards'),
                     '--images', '12', '--threads', '1']) == 2
    out, error = capsys.readouterr()
    rows = (tmp_path / 'shards' / 'folders-000.jsonl').read_text().splitlines()
    assert out.startswith(f'{len(rows)} images') and {json.loads(row)['track'] for row in rows} == {'set/one'}
    assert 'could not be read' in error and 'set/three' in error


# 10: text of any origin

@pytest.mark.parametrize('text', [
    '1,2,3,4\n5,6,7,8\n\n', '\ufeff1,2,3,4\n5,6,7,8', '1\t2\t3\t4\n5\t6\t7\t8\n', '1,2,3,4,\n5,6,7,8,\n',
    '1 2 3 4\n5, 6, 7, 8\n\n\n', '1,2,3,4\r\n5,6,7,8\r\n\r\n', ' 1 ,\t2,3 , 4 \n5,6,7,8 , \n'])
def test_annotations_are_read_as_people_write_them(tmp_path, text):
    (tmp_path / 'groundtruth.txt').write_bytes(text.encode())
    assert sequences.read_boxes(tmp_path / 'groundtruth.txt').tolist() == [[1, 2, 3, 4], [5, 6, 7, 8]]


@pytest.mark.parametrize('content', ['1,2,3,4 # Stra\xdfe'.encode('latin-1'), '1,2,3,4'.encode('utf-16')])
def test_another_encoding_is_refused_with_the_name_of_the_file(tmp_path, content, capsys):
    write_sequence(tmp_path / 'data' / 'set' / 'one', moving_boxes(3))
    path = tmp_path / 'data' / 'set' / 'one' / 'groundtruth.txt'
    path.write_bytes(content)
    assert str(path) in refused(capsys, 'eval', tmp_path / 'data', '--tracker', 'kcf', '--threads', '1')
    (tmp_path / 'c.yaml').write_bytes(content)
    for read in (read_yaml, read_text):
        with pytest.raises(ValueError, match='c.yaml'):
            read(tmp_path / 'c.yaml')


@pytest.mark.parametrize('text, value', [('1e-3', 1e-3), ('1E-3', 1e-3), ('5e-1', 0.5), ('.5e0', 0.5), ('2e-1', 0.2),
                                         ('1.0e-2', 0.01), ('+1e-1', 0.1), ('1', 1.0), ('0.25', 0.25)])
def test_numbers_in_exponential_form_are_numbers(tmp_path, text, value):
    path = tmp_path / 'c.yaml'
    path.write_text(f'alpha: {text}\n')
    config = TrackerConfig.from_mapping(read_yaml(path))
    assert config.alpha == value
    pytest.importorskip('torch')
    from cract_core.training.loop import TrainConfig
    path.write_text(f'rate: {text}\naugmentation: {{}}\n')
    assert TrainConfig.read(path).rate == value


@pytest.mark.parametrize('content, reason', [
    ('alfa: 1', "unknown parameter 'alfa': did you mean alpha?"), ('alpha: "1e-3"', 'alpha must be of type float'),
    ('alpha: 0.1\nalpha: 0.2', "'alpha' is given twice"), ('1: 2\nb: 3', 'expected a mapping of names'),
    ('a: ' + '[' * 5000, 'is not YAML'), ('alpha: !!timestamp nonsense', 'is not YAML'), ('alpha: !!bool maybe', 'is not YAML'),
    ('[1, 2]', 'expected a mapping'), ('alpha: .inf', 'alpha must be'), ('? {a: 1}\n: 2', 'c.yaml'), ('\0', 'is not YAML')])
def test_a_wrong_parameter_file_is_one_sentence(tmp_path, capsys, content, reason):
    path = tmp_path / 'c.yaml'
    path.write_text(content)
    assert reason in refused(capsys, 'track', tmp_path, '--box', BOX, '--config', path)


# 11: the command line

@pytest.mark.parametrize('words', [['--box', '-5,10,30,30'], ['--box=-5,10,30,30'], ['--box', '-.5e1,10,30,30']])
def test_a_box_may_begin_left_of_the_frame(words):
    args = cli.parse(['track', 'x', *words, '--score-offset', '-1e-3'])
    assert args.box.tolist() == [-5, 10, 30, 30] and args.config_score_offset == -0.001


def test_the_player_and_the_demo_take_such_a_box_too():
    assert options.Parser().parse_args([]) is not None
    parser = options.Parser()
    parser.add_argument('--box', type=options.box)
    assert parser.parse_args(['--box', '-5,-1,3,3']).box.tolist() == [-5, -1, 3, 3]


@pytest.mark.parametrize('arguments', [
    ['bag', 'x', '--box', BOX, '--start', 'nan'], ['bag', 'x', '--box', BOX, '--start', '-1'],
    ['bag', 'x', '--box', BOX, '--start', 'inf'], ['synth', 'x', '--seed', '-1'], ['synth', 'x', '--seed', '1.5'],
    ['synth', 'x', '--frames', '9' * 5000], ['eval', 'x', '--protocol-seed', '-1'], ['eval', 'x', '--rate', 'nan'],
    ['data', 'pack', 'coco', 'x', '--output', 'y', '--seed', '-3'], ['data', 'show', 'x', '--output', 'y', '--seed', '-3'],
    ['tune', 'x', '--search-seed', '-1'], ['calibrate', 'x', '--rendered-seed', '-1'], ['calibrate', 'x', '--rendered', '-1'],
    ['synth', 'x', '--size', '-1x4'], ['train', 'x', '--seed', '-1']])
def test_numbers_without_sense_are_explained(capsys, arguments):
    with pytest.raises(SystemExit) as caught:
        cli.main(arguments)
    error = capsys.readouterr().err
    assert caught.value.code == 2 and 'expected' in error and 'Traceback' not in error


@pytest.mark.parametrize('pattern, names', [
    ('img%d.png', ['img2.png', 'img10.png', 'img9.png']), ('img%04d.png', ['img0002.png', 'img0009.png', 'img0010.png'])])
def test_numbered_images_are_a_source(tmp_path, track, pattern, names):
    folder_of(tmp_path, [*names, 'other1.png', 'img.png', 'img2x.png'])
    with FrameSource(tmp_path / pattern) as source:
        assert source.length == 3 and len(list(source)) == 3
        assert [path.name for path in source._images] == sorted(names, key=lambda name: int(name[3:-4]))
    assert track(tmp_path / pattern)[0] == 0
    assert 'expected files such as nothing0001.png' in track(tmp_path / 'nothing%04d.png')[2]


@pytest.mark.parametrize('source, reason', [
    ('rtsp://127.0.0.1:1/none', 'cannot open the stream rtsp://127.0.0.1:1/none'), ('/dev/null', 'cannot open camera /dev/null'),
    ('http://127.0.0.1:1/none.mp4', 'cannot open the stream'), ('99999999999999999999', 'cannot open camera'),
    ('/dev/video97', 'no source /dev/video97'), ('x%d%d.png', 'expected one %d')])
def test_a_camera_or_stream_that_is_not_there_is_one_sentence(track, source, reason):
    status, _, error = track(source)
    assert status == 2 and reason in error and error.count('\n') == 1


def test_a_stream_is_read_like_a_file(tmp_path, track):
    import http.server
    import threading
    video_of(tmp_path / 'clip.mkv', 'mp4v', 6)
    handler = type('Quiet', (http.server.SimpleHTTPRequestHandler,), dict(log_message=lambda *_: None))
    server = http.server.ThreadingHTTPServer(('127.0.0.1', 0), lambda *a: handler(*a, directory=str(tmp_path)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        status, out, error = track(f'http://127.0.0.1:{server.server_port}/clip.mkv')
    finally:
        server.shutdown()
    assert (status, error) == (0, '') and out.startswith('6 frames')


def test_a_box_below_the_least_size_is_told(tmp_path, track):
    folder_of(tmp_path, ['1.png', '2.png'])
    status, _, error = track(tmp_path, box='20,20,2,3')
    assert status == 0 and 'smaller than 4 pixels' in error


# 13: reports

def test_figures_name_the_runtime_and_precision_that_ran(tmp_path, weights):  # noqa: F811
    write_sequence(tmp_path / 'data' / 'set' / 'one', moving_boxes(3))
    assert cli.main(['eval', str(tmp_path / 'data'), '--weights', weights, *QUICK, '--json', str(tmp_path / 'f.json')]) == 0
    report = json.loads((tmp_path / 'f.json').read_text())
    assert report['config']['runtime'] in ('openvino', 'onnx', 'torch') and report['config']['precision'] in ('fp32', 'int8')
    assert report['environment']['other_load'] is None or report['environment']['other_load'] >= 0


def test_other_work_on_the_machine_is_told():
    load = runner.OtherLoad()
    other = subprocess.Popen([sys.executable, '-c', 'while True: pass'])
    try:
        import time
        time.sleep(2.5)
        if load.cores is None:
            pytest.skip('this system does not tell how busy it is')
        busy = load.sentence()
    finally:
        other.kill()
        other.wait()
    assert 'busy with other work' in busy


def test_an_interval_needs_sequences_and_a_spread():
    assert interval([0.2, 0.4], count=6) == '0.200 to 0.400'
    assert interval([0.2, 0.4], count=5) == '' and interval([1.0, 1.0], count=24) == '' and interval(None, count=9) == ''


def test_a_small_target_is_enlarged_in_its_picture(tmp_path):
    from cract_core.evaluation.report import ZOOM_SIDE, _zoom
    frame = np.zeros((480, 640, 3), np.uint8)
    frame[100:108, 80:92] = (0, 0, 250)     # a red target of 12 x 8 pixels
    picture = frame.copy()
    _zoom(picture, frame, np.array([80.0, 100, 12, 8]), [(np.array([80.0, 100, 12, 8]), (0, 255, 0))], 1.0)
    part = picture[-ZOOM_SIDE:, -ZOOM_SIDE:]
    assert (picture[:240, :320] == frame[:240, :320]).all()     # the target itself is not covered
    assert (part[..., 2] > 200).sum() > 10 * 12 * 8 and (part == (0, 255, 0)).all(axis=2).any()
    large = frame.copy()
    _zoom(large, frame, np.array([80.0, 100, 300, 200]), [], 1.0)
    assert (large == frame).all()


def test_paths_are_told_apart(tmp_path):
    (tmp_path / 'in').mkdir()
    keep_apart({'a': tmp_path / 'in', 'b': ''}, {'c': tmp_path / 'out', 'd': None, 'e': tmp_path / 'in.txt'})
    for path in (tmp_path / 'in', tmp_path / 'in' / 'x' / 'y', tmp_path / '.' / 'in' / '..' / 'in'):
        with pytest.raises(ValueError, match='nothing is written'):
            keep_apart({'a': tmp_path / 'in'}, {'c': path})
