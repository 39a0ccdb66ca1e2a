"""Property-based fuzzing of what is read from files: what a file holds is read right, refused in a sentence, or counted.

CRACT_FUZZ is the number of examples, as in `test_fuzz.py`; tests of whole commands run a part of it.
"""
from __future__ import annotations

import json
import math
import os
import re
import string
from pathlib import Path

import cv2
import numpy as np
import pytest

pytest.importorskip('hypothesis', reason='hypothesis is not installed')

from hypothesis import given
from hypothesis import strategies as st

from cract_core import TrackerConfig, cli
from cract_core.evaluation import against, protocols
from cract_core.evaluation.benchmarks import read_benchmark
from cract_core.evaluation.sequences import read_boxes, read_folders
from cract_core.files import read_yaml
from cract_core.video import IMAGE_SUFFIXES, FrameSource, list_images, read_image
from fuzzing import fuzzed, refusal
from test_benchmarks import write_got10k, write_lasot, write_nfs, write_vot
from test_cli import QUICK, weights  # noqa: F401  (fixture)

FRAMES = 6
BOX = '14,10,12,12'
SIZE = (40, 30)


def picture(shift: int = 0) -> np.ndarray:
    ground = cv2.resize(np.random.default_rng(1).integers(0, 256, (6, 8, 3), np.uint8), SIZE)
    return np.roll(ground, shift, 1)


PICTURES = {f'{suffix[1:]}{bits}': (suffix, cv2.imencode(suffix, picture().astype(np.uint16) * 200 if bits == 16
                                                         else picture())[1].tobytes())
            for suffix in IMAGE_SUFFIXES for bits in (8, 16) if bits == 8 or suffix in ('.png', '.tiff')}


class Files(dict):
    """Suffix -> content; what a failing example prints does not hold it."""

    def __repr__(self) -> str:
        return f'files {", ".join(self)}'


@st.composite
def damaged(draw, data: bytes) -> bytes:
    """Cut anywhere, or with a few bytes changed, put in or taken out."""
    if draw(st.booleans()):
        return data[:draw(st.integers(0, len(data) - 1))]
    changed = bytearray(data)
    for _ in range(draw(st.integers(1, 4))):
        at, kind = draw(st.integers(0, max(len(changed) - 1, 0))), draw(st.sampled_from(['change', 'put in', 'take out']))
        if kind == 'put in':
            changed[at:at] = draw(st.binary(min_size=1, max_size=8))
        elif kind == 'take out':
            del changed[at:at + draw(st.integers(1, 20))]
        elif changed:
            changed[at] = draw(st.sampled_from([0, 1, 0x7f, 0x80, 0xff]))
    return bytes(changed)


@pytest.fixture(scope='module')
def place(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp('fuzz')


@fuzzed(usual=300)
@given(st.data())
def test_a_damaged_picture_is_a_picture_or_refused(place, data):
    name = data.draw(st.sampled_from(sorted(PICTURES)))
    suffix, whole = PICTURES[name]
    path = place / f'picture{suffix}'
    path.write_bytes(data.draw(damaged(whole)))
    with refusal():
        frame = read_image(path)
        assert frame.dtype == np.uint8 and frame.ndim == 3 and frame.shape[2] == 3 and frame.size, name


@fuzzed(usual=300)
@given(st.data())
def test_a_picture_that_is_cut_anywhere_is_the_whole_one_or_refused(place, data):
    """What its end lacks may be what no decoder needs, but no pixel."""
    suffix, whole = PICTURES[data.draw(st.sampled_from(sorted(PICTURES)))]
    path = place / f'cut{suffix}'
    path.write_bytes(whole)
    expected = read_image(path)
    path.write_bytes(whole[:data.draw(st.integers(0, len(whole) - 1))])
    with refusal():
        assert np.array_equal(read_image(path), expected)


names = st.one_of(
    st.builds('{}{}{}'.format, st.integers(0, 12), st.sampled_from(['', '', '_mask', ' (1)', '.5', '²', 'é', '\udce9']),
              st.sampled_from([*IMAGE_SUFFIXES, '.JPG', '.txt', '.jpg.part', ''])),
    st.binary(min_size=1, max_size=12).map(os.fsdecode)).filter(
        lambda name: '/' not in name and '\0' not in name and name not in ('.', '..'))


@fuzzed(usual=300)
@given(st.lists(names, max_size=8, unique=True), st.sampled_from(['%d.jpg', '%02d.png', 'x%d.jpg', '%s.jpg', '%', '%%d']))
def test_the_images_of_a_folder_are_image_files_each_once_in_the_order_of_their_numbers(place, names, pattern):
    folder = place / 'folder'
    folder.mkdir(exist_ok=True)
    for path in folder.iterdir():
        path.unlink()
    for name in names:
        (folder / name).touch()
    images = [name for name in names if Path(name).suffix.lower() in IMAGE_SUFFIXES and not name.startswith('.')]
    try:
        found = [path.name for path in list_images(folder)]
    except FileNotFoundError:
        found = []
    assert len(set(found)) == len(found) and set(found) <= set(images) and bool(found) == bool(images)
    plain = [name for name in found if re.fullmatch('[0-9]+', Path(name).stem)]
    assert [int(Path(name).stem) for name in plain] == sorted(int(Path(name).stem) for name in plain)
    if all(re.fullmatch(r'[0-9]+\.[a-zA-Z]+', name) for name in images) and len({Path(name).stem for name in images}) == len(
            images):
        assert set(found) == set(images)    # nothing beside them: nothing is left out
    if pattern in names:
        return      # a file of that very name is a video
    try:
        counted = [path.name for path in FrameSource(folder / pattern)._images]
    except FileNotFoundError:
        counted = []
    if pattern in ('%d.jpg', '%02d.png'):
        assert set(counted) == {name for name in names if re.fullmatch('[0-9]+', Path(name).stem) and pattern % int(
            Path(name).stem) == name}


@pytest.fixture(scope='module')
def videos(tmp_path_factory) -> Files:
    folder, made = tmp_path_factory.mktemp('videos'), Files()
    for suffix, codec in (('.mp4', 'mp4v'), ('.avi', 'MJPG'), ('.mkv', 'mp4v')):
        writer = cv2.VideoWriter(str(folder / f'clip{suffix}'), cv2.VideoWriter_fourcc(*codec), 30, SIZE)
        for index in range(FRAMES):
            writer.write(picture(2 * index))
        writer.release()
        if writer.isOpened() or (folder / f'clip{suffix}').stat().st_size > 1000:
            made[suffix] = (folder / f'clip{suffix}').read_bytes()
    if not made:
        pytest.skip('this OpenCV writes no video')
    return made


def cut_off(whole: bytes):
    """Its first bytes, never all of them."""
    return st.integers(0, len(whole) - 1).map(lambda end: whole[:end])


def spoiled(data, place, files, how):
    """The path of one of the `files` (suffix -> bytes), written as the strategy `how(bytes)` has it."""
    suffix = data.draw(st.sampled_from(sorted(files)))
    path = place / f'spoiled{suffix}'
    path.write_bytes(data.draw(how(files[suffix])))
    return path


def frames_of(path) -> tuple[int, str]:
    """How many frames came, and what is said of the others."""
    with FrameSource(path) as source:
        count = 0
        for frame in source:
            assert frame.dtype == np.uint8 and frame.ndim == 3 and frame.shape[2] == 3
            count += 1
        complaint = source.complaint
    assert '\n' not in complaint
    return count, complaint


@fuzzed(usual=300)
@given(st.data())
def test_a_video_that_is_cut_anywhere_says_what_it_lacks(place, videos, data):
    path = spoiled(data, place, videos, cut_off)
    with refusal():
        count, complaint = frames_of(path)
        assert count == FRAMES or complaint, (path, count)


@fuzzed(usual=300)
@given(st.data())
def test_a_damaged_video_ends_nothing(place, videos, data):
    path = spoiled(data, place, videos, damaged)
    with refusal():
        frames_of(path)


@pytest.fixture(scope='module')
def bags(tmp_path_factory) -> Files:
    pytest.importorskip('rosbags', reason='rosbags is not installed')
    from rosbags.rosbag2 import StoragePlugin
    from test_bag import camera, write_bag
    made = Files()
    for storage, suffix in ((StoragePlugin.MCAP, '.mcap'), (StoragePlugin.SQLITE3, '.db3')):
        folder = tmp_path_factory.mktemp('bags') / 'bag'
        write_bag(folder, {'/camera': camera([picture(2 * index) for index in range(FRAMES)], 'png')}, storage)
        file, = folder.glob(f'*{suffix}')
        made[suffix] = file.read_bytes()
    return made


def images_of(path) -> tuple[list, list[str]]:
    """The pictures that could be read, and what is said of the others."""
    from cract_core import bag
    with bag.open_images(path, None, 0.0) as images:
        found, said = [], []
        for image in images:
            if image.frame is None:
                said.append(image.reason)
            else:
                found.append(image.frame)
        return found, said + images.complaints


@fuzzed(usual=300)
@given(st.data())
def test_a_bag_that_is_cut_anywhere_says_what_it_lacks(place, bags, data):
    path = spoiled(data, place, bags, cut_off)
    with refusal():
        found, said = images_of(path)
        whole_ones = [next(index for index in range(FRAMES) if np.array_equal(frame, picture(2 * index))) for frame in found]
        assert whole_ones == sorted(set(whole_ones))    # none is changed, none comes twice
        assert path.suffix == '.db3' or whole_ones == list(range(len(found)))    # only the end is lost
        assert len(found) == FRAMES or said


@fuzzed(usual=300)
@given(st.data())
def test_a_damaged_bag_ends_nothing(place, bags, data):
    path = spoiled(data, place, bags, damaged)
    with refusal():
        images_of(path)


yaml_values = st.one_of(st.sampled_from(['1e-3', '.5', '1_0', '0x1F', 'yes', 'null', '', '~', '[1, 2', '{a: 1}', '*x', '&x 1',
                                         '!!python/object:os.system x', '2026-02-30', '1:2', '=', '<<: 1', '"', "'", '\t']),
                        st.floats().map(str), st.integers().map(str), st.text(max_size=10))
yaml_lines = st.builds('{}: {}'.format, st.one_of(st.sampled_from(['alpha', 'num_proposals', 'weights', 'alhpa', '1', '? ', '<<', 'null']),
                                                  st.text(max_size=6)), yaml_values)


@fuzzed(usual=300)
@given(st.one_of(st.lists(yaml_lines, max_size=4).map('\n'.join).map(lambda text: text.encode('utf-8', 'surrogatepass')),
                 st.binary(max_size=60), st.text(max_size=60).map(lambda text: text.encode('utf-16'))))
def test_a_parameter_file_is_a_configuration_or_refused(place, content):
    path = place / 'tracker.yaml'
    path.write_bytes(content)
    with refusal():
        values = read_yaml(path)
        assert isinstance(values, dict) and all(isinstance(name, str) for name in values)
        config = TrackerConfig.from_mapping(values)
        assert all(getattr(config, name) == value for name, value in values.items())


@fuzzed(usual=300)
@given(st.floats(1e-9, 1e9), st.sampled_from(['{:e}', '{:.3e}', '{:g}', '{:.17g}', '{:.0e}', '{!r}', '+{:e}', '{:E}']))
def test_a_number_in_a_parameter_file_is_that_number(place, value, form):
    path = place / 'number.yaml'
    path.write_text(f'x: {form.format(value)}\n')
    assert read_yaml(path)['x'] == float(form.format(value))


cells = st.one_of(st.integers(-3, 300).map(str), st.floats(-10, 1e4).map(str), st.sampled_from(['nan', 'NaN', 'inf', '1e3', '', 'x', '1,5', '-']))
annotation_lines = st.builds(lambda cells, by, end: by.join(cells) + end, st.lists(cells, min_size=3, max_size=5) | st.lists(
    st.integers(1, 99).map(str), min_size=4, max_size=4), st.sampled_from([',', ', ', '\t', ' ', '  ', ' ,']),
    st.sampled_from(['', ',', ' ', '\r']))
annotations = st.one_of(
    st.builds(lambda front, lines, end: (front + '\n'.join(lines) + end).encode(), st.sampled_from(['', '\ufeff', '\n']),
              st.lists(annotation_lines, max_size=4), st.sampled_from(['', '\n', '\n\n', ' \n\t'])),
    st.binary(max_size=40), st.text(string.digits + ', \n.-naif', max_size=40).map(str.encode))


def boxes_by_hand(content: bytes) -> list[list[float]] | None:
    """None where it is no annotation."""
    try:
        text = content.decode()
    except UnicodeDecodeError:
        return None
    rows = []
    for line in text.removeprefix('\ufeff').rstrip().splitlines():
        line = line.strip()
        line = line[:-1].rstrip() if line.endswith(',') else line
        parts = [part.strip() for part in line.split(',')] if ',' in line else line.split()
        parts = [piece for part in parts for piece in (part.split() or [''])]
        try:
            row = [float(part) for part in parts]
        except ValueError:
            return None
        if len(row) != 4 or any(map(math.isinf, row)) or row[2] <= 0 or row[3] <= 0:
            return None
        rows.append([math.nan] * 4 if any(map(math.isnan, row)) else row)
    return rows or None


@fuzzed(usual=300)
@given(annotations)
def test_an_annotation_is_read_line_by_line_or_refused(place, content):
    path = place / 'groundtruth.txt'
    path.write_bytes(content)
    expected, boxes = boxes_by_hand(content), None
    with refusal():
        boxes = read_boxes(path)
    assert (boxes is None) == (expected is None)
    assert expected is None or np.array_equal(boxes, expected, equal_nan=True)


MINIATURES = {'nfs30': write_nfs, 'vot2018': write_vot, 'lasot': write_lasot, 'got10k-val': write_got10k}


@fuzzed(usual=300)
@given(annotations, st.sampled_from(sorted(MINIATURES)))
def test_an_annotation_of_a_benchmark_is_read_or_told(place, content, name):
    """The one sequence is there with a box a frame, or among those left out, each with a sentence."""
    root = place / name
    if not root.exists():
        MINIATURES[name](root)
    place_of = sorted(path for path in root.rglob('*.txt') if 'img' not in path.parts)
    target = place_of[len(content) % len(place_of)]
    before, left_out = target.read_bytes(), {}
    target.write_bytes(content)
    try:
        with refusal():
            sequences = read_benchmark(name, root, left_out=left_out)
            assert all(one.truth.shape == (len(one.images), 4) for one in sequences if one.annotated)
            assert all(reason and '\n' not in reason for reason in left_out.values())
    except FileNotFoundError as error:
        assert '\n' not in str(error)
    finally:
        target.write_bytes(before)


json_values = st.recursive(st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5), lambda inner: st.one_of(
    st.lists(inner, max_size=3), st.dictionaries(st.sampled_from(['trackers', 'tracker', 'peers', 'cract', 'a/b', '1', 'sequences',
                                                                  'mean', 'stages', 'frames']), inner, max_size=4)), max_leaves=12)
traces = st.fixed_dictionaries(dict(trackers=st.dictionaries(st.text(max_size=3), json_values, max_size=2)))
figures = st.fixed_dictionaries(dict(tracker=json_values, peers=st.lists(json_values, max_size=2)), optional=dict(
    sequences=json_values, stages=json_values, mean=json_values))


@fuzzed(usual=300)
@given(st.one_of(json_values.map(json.dumps), traces.map(json.dumps), figures.map(json.dumps), st.text(max_size=20)).map(
    lambda text: text.encode('utf-8', 'surrogatepass')) | st.binary(max_size=20))
def test_figures_and_traces_of_other_runs_are_read_or_refused(place, content):
    path = place / 'run.json'
    path.write_bytes(content)
    with refusal():
        others = against.read_figures(path)
        against.check_comparable(others, ('ope', 'stages', 'camera'), [], 1, 90)
    with refusal():
        trace = protocols.read_trace(path)
        assert all(seconds >= 0 for some in trace.values() for one in some.values() for seconds in one.values())


# exit status 0 means that all of the input was used

def damage(draw, folder: Path) -> None:
    """Nothing, or one of the images damaged, cut, emptied or gone."""
    images = sorted(folder.iterdir())
    for _ in range(draw(st.integers(0, 2))):
        path = draw(st.sampled_from(images))
        path.write_bytes(draw(st.one_of(damaged(path.read_bytes()), st.just(b''), st.just(b'no picture'))))


def whole_or_damaged(whole: bytes):
    return st.one_of(st.just(whole), damaged(whole))


def check_followed(command: str, source, results, weights) -> None:
    """`cract track` or `bag` ends with 0 only if it has written a box for each of the FRAMES."""
    status = cli.main([command, str(source), '--box', BOX, '--weights', weights, *QUICK, '--results', str(results)])
    assert status in (0, 2)
    if status == 0:
        lines = results.read_text().splitlines()
        assert len(lines) == FRAMES and not any('nan' in line for line in lines)



@fuzzed(0.005, usual=4)
@given(st.data())
def test_track_ends_with_0_only_if_every_frame_was_followed(tmp_path_factory, weights, videos, data):  # noqa: F811
    folder = tmp_path_factory.mktemp('track')
    if data.draw(st.booleans()):
        source = folder / 'frames'
        source.mkdir()
        for index in range(FRAMES):
            cv2.imwrite(str(source / f'{index}.png'), picture(2 * index))
        damage(data.draw, source)
    else:
        source = spoiled(data, folder, videos, whole_or_damaged)
    check_followed('track', source, folder / 'boxes.txt', weights)


@fuzzed(0.005, usual=4)
@given(st.data())
def test_bag_ends_with_0_only_if_every_image_was_followed(tmp_path_factory, weights, bags, data):  # noqa: F811
    folder = tmp_path_factory.mktemp('bag')
    check_followed('bag', spoiled(data, folder, bags, whole_or_damaged), folder / 'boxes.txt', weights)


@fuzzed(0.01, usual=10)
@given(st.data())
def test_eval_ends_with_0_only_if_every_sequence_was_measured_whole(tmp_path_factory, data):
    root, report = tmp_path_factory.mktemp('eval'), tmp_path_factory.mktemp('json') / 'figures.json'
    for name in 'ab':
        images = root / 'set' / name / 'img'
        images.mkdir(parents=True)
        for index in range(4):
            cv2.imwrite(str(images / f'{index}.png'), picture(2 * index))
        (images.parent / 'groundtruth.txt').write_text(''.join(f'{14 + 2 * index},10,12,12\n' for index in range(4)))
        damage(data.draw, images)
        if data.draw(st.integers(0, 3)) == 0:
            text = images.parent / 'groundtruth.txt'
            text.write_bytes(data.draw(damaged(text.read_bytes())))
    protocol = data.draw(st.sampled_from(['ope', 'streaming', 'reset']))
    status = cli.main(['eval', str(root), '--tracker', 'mil', '--protocol', protocol, '--json', str(report)])
    assert status in (0, 2)
    if status == 0:
        figures = json.loads(report.read_text())
        assert figures['left_out'] == {}
        assert {name: one['frames'] for name, one in figures['sequences'].items()} == {'set/a': 4, 'set/b': 4}
        for sequence in read_folders(root):     # and each picture that was measured on is whole
            assert all(read_image(path).shape == (*SIZE[::-1], 3) for path in sequence.images)
