"""LightTrack, FEAR-XS and VitTrack: their geometry by hand around networks that are not there, their tracks on real
frames."""
from __future__ import annotations

import sys

import numpy as np
import pytest

from cract_core.evaluation import metrics, peers, runner, sequences, siamese
from cract_core.evaluation.fear import Fear
from cract_core.evaluation.lighttrack import LightTrack
from cract_core.evaluation.vittrack import VitTrack
from cract_core.tracker import State


class Spot(siamese.Networks):
    """In place of the networks: the target is the bright spot. Each point of the map tells its exact box."""

    def __init__(self, size):
        self.size, self.template_crops = size, []

    def template(self, crop):
        self.template_crops.append(crop)
        return crop

    def match(self, template, crop):
        rows, columns = np.nonzero(crop[..., 0] > 127)
        low, high = np.array([columns.min(), rows.min()]), np.array([columns.max(), rows.max()]) + 1
        points = np.stack(np.meshgrid(*[(np.arange(16) - 8) * 16 + 128.0] * 2))
        distances = np.concatenate([points - low[:, None, None], high[:, None, None] - points])
        score = np.full((16, 16), 0.01)
        middle = ((low + high) / 2 / 16).round().astype(int)
        score[middle[1], middle[0]] = 0.9
        return score, distances


def spot_at(x, y, w, h):
    frame = np.zeros((240, 320, 3), np.uint8)
    frame[y:y + h, x:x + w] = 255
    return frame


@pytest.mark.parametrize('kind', [LightTrack, Fear])
def test_the_box_follows_the_spot_and_the_size_follows_by_the_rate(kind):
    tracker = kind(Spot(40))
    with pytest.raises(RuntimeError, match='update before init'):
        tracker.update(spot_at(100, 80, 40, 40))
    with pytest.raises(RuntimeError, match='update before init'):
        tracker.locate(spot_at(100, 80, 40, 40), np.array([100.0, 80.0, 40.0, 40.0]))
    tracker.init(spot_at(100, 80, 40, 40), (100, 80, 40, 40))
    for i in range(1, 8):
        estimate = tracker.update(spot_at(100 + 6 * i, 80 + 3 * i, 40, 40))
        assert estimate.box == pytest.approx([100 + 6 * i, 80 + 3 * i, 40, 40], abs=1.5)
        assert estimate.score == pytest.approx(0.9) and estimate.state is State.TRACKING
    grown = spot_at(130, 91, 60, 60)
    located = tracker.locate(grown, np.array([142.0, 101.0, 40.0, 40.0]))
    assert located == pytest.approx([130, 91, 60, 60], abs=1.5)     # the size as it is seen, and nothing is followed
    assert tracker.locate(grown, np.array([142.0, 101.0, 40.0, 40.0])).tolist() == located.tolist()
    # size: 40 -> 60; a change of scale of 1.5 costs exp(-0.062 * 0.5); the rate of the new one is 0.765 of that and 0.9
    estimate, rate = tracker.update(grown), 0.765 * 0.9 * np.exp(-0.062 * 0.5)
    assert estimate.box[2:] == pytest.approx([40 + rate * 20] * 2, abs=1)
    assert estimate.box[:2] + estimate.box[2:] / 2 == pytest.approx([160, 121], abs=1)


def test_lighttrack_sees_the_target_with_as_much_context_as_siamfc():
    networks = Spot(40)
    LightTrack(networks).init(spot_at(100, 80, 40, 40), (100, 80, 40, 40))
    crop = networks.template_crops[0]
    assert crop.shape == (128, 128, 3) and (crop > 127).mean() == pytest.approx(1 / 4, abs=0.01)   # 40 of 80, squared


def test_fear_stretches_the_box_and_a_fifth_more_on_each_side_to_a_square():
    networks = Spot(40)
    Fear(networks).init(spot_at(100, 80, 80, 20), (100, 80, 80, 20))
    crop = networks.template_crops[0]
    bright = crop[..., 0] > 127
    assert crop.shape == (128, 128, 3)
    assert bright.any(axis=0).mean() == pytest.approx(1 / 1.4, abs=0.02) == bright.any(axis=1).mean()


def test_fear_keeps_the_part_of_a_box_inside_of_the_frame():
    fear, limits = Fear(Spot(40)), np.array([100.0, 80.0])

    def fitted(x, y, w, h):
        center, size = fear.fit(np.array([x + w / 2, y + h / 2]), np.array([w, h], float), limits)
        return [*(center - size / 2), *size]

    assert fitted(10, 20, 30, 40) == [10, 20, 30, 40]
    assert fitted(-10, 60, 30, 40) == [0, 60, 20, 20]
    assert fitted(200, -50, 30, 20) == [97, 0, 3, 3]


class Cell:
    """VitTrack's network: one cell has the score, its centre lies a quarter right and a half below its corner."""

    def __init__(self, row, column, score):
        self.crops, self.row, self.column, self.score = [], row, column, score

    def __call__(self, template, crop):
        self.crops.append((template, crop))
        scores, sizes, offsets = np.full((1, 1, 16, 16), 0.01), np.full((1, 2, 16, 16), 0.9), np.zeros((1, 2, 16, 16))
        scores[0, 0, self.row, self.column] = self.score
        sizes[0, :, self.row, self.column] = 0.25, 0.125
        offsets[0, :, self.row, self.column] = 0.25, 0.5
        return scores, sizes, offsets


def test_vittrack_reads_centre_and_size_of_the_best_cell():
    network = Cell(row=10, column=6, score=0.7)
    tracker = VitTrack(network)
    with pytest.raises(RuntimeError, match='update before init'):
        tracker.update(spot_at(100, 80, 80, 20))
    frame = spot_at(100, 80, 80, 20)
    tracker.init(frame, (100, 80, 80, 20))
    estimate = tracker.update(frame)
    # the region: 4 sqrt(80 * 20) = 160 pixels around (140, 90), a cell is a sixteenth of that
    center, size = np.array([60 + 6.25 * 10, 10 + 10.5 * 10]), np.array([40, 20])
    assert estimate.box == pytest.approx([*(center - size / 2), *size])
    assert estimate.score == pytest.approx(0.7) and estimate.state is State.TRACKING
    template, crop = network.crops[0]
    assert template.shape == (1, 3, 128, 128) and crop.shape == (1, 3, 256, 256) and crop.dtype == np.float32
    # red of a white and of a black pixel, normalised as for ImageNet; a 32nd of the region is the white spot
    assert (crop[0, 0].max(), crop[0, 0].min()) == pytest.approx(((1 - 0.485) / 0.229, -0.485 / 0.229), abs=1e-5)
    assert (crop[0, 0] > 0).mean() == pytest.approx(80 * 20 / 160 ** 2, abs=0.005)


def test_vittrack_that_is_not_sure_says_lost_and_keeps_its_box():
    network = Cell(row=10, column=6, score=0.19)
    tracker, frame = VitTrack(network), spot_at(100, 80, 80, 20)
    tracker.init(frame, (100, 80, 80, 20))
    estimate = tracker.update(frame)
    assert estimate.state is State.LOST and estimate.box.tolist() == [100, 80, 80, 20]
    assert tracker.locate(frame, np.array([100.0, 80.0, 80.0, 20.0])) == pytest.approx([102.5, 105, 40, 20])


def test_vittrack_stays_in_the_frame():
    network = Cell(row=8, column=8, score=0.9)
    tracker, frame = VitTrack(network), spot_at(0, 0, 40, 40)
    tracker.init(frame, (-30, -30, 40, 40))
    x, y, w, h = tracker.update(frame).box
    assert (x, y) == (0, 0) and w >= 10 and h >= 10


@pytest.mark.parametrize('name, package', [('lighttrack', 'openvino'), ('fear', 'onnxruntime'), ('vit', 'onnxruntime')])
def test_missing_packages_and_files_are_one_sentence(name, package, tmp_path, monkeypatch):
    names = peers.NETWORK_FILES[name]
    with pytest.raises(FileNotFoundError, match=f'the tracker {name} needs the file {names[0]}: give its folder with'):
        peers.make_peer(name)
    files = [tmp_path / one for one in names]
    for path in files[:-1]:
        path.write_bytes(b'nothing')
    with pytest.raises(FileNotFoundError, match=f'the tracker {name} needs the file {names[-1]}: no file'):
        peers.make_peer(name, *files)
    files[-1].write_bytes(b'nothing')
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(ValueError, match=rf'{name} needs the package {package}: pip install "cract_ros\[peers\]"'):
        peers.make_peer(name, *files)
    monkeypatch.undo()
    pytest.importorskip(package, reason='needs the runtimes of the peers: pip install "cract_ros[peers]"')
    with pytest.raises(ValueError, match=f'cannot read .*{names[0]}'):
        peers.make_peer(name, *files)


# success AUC of the same networks with other code around them
REFERENCE = {'lighttrack': {'OTB/Car4': 0.876, 'OTB/Crossing': 0.771, 'VOT2017-19/ball1': 0.762},
             'fear': {'OTB/Car4': 0.891, 'OTB/Crossing': 0.758, 'VOT2017-19/ball1': 0.743},
             'vit': {'OTB/Car4': 0.848, 'OTB/Crossing': 0.586, 'VOT2017-19/ball1': 0.765}}


@pytest.mark.parametrize('name', REFERENCE)
def test_it_tracks_real_sequences_as_well_as_other_code_around_its_networks(cract_data, name):
    pytest.importorskip('openvino' if name == 'lighttrack' else 'onnxruntime',
                        reason='needs the runtimes of the peers: pip install "cract_ros[peers]"')
    tracker = peers.make_peer(name, *(cract_data / 'peers' / file for file in peers.NETWORK_FILES[name]), threads=1)
    found = {}
    for sequence in sequences.read_folders(cract_data / 'eval', only=tuple(REFERENCE[name])):
        run = runner.run_sequence(tracker, sequence)
        found[sequence.name] = metrics.success_auc(metrics.overlaps(run.boxes, sequence.truth))
    assert found == pytest.approx(REFERENCE[name], abs=0.02)
