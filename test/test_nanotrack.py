"""NanoTrack v3 around ONNX Runtime: its geometry by hand, its track on real frames."""
from __future__ import annotations

import sys

import numpy as np
import pytest

from cract_core.evaluation import metrics, nanotrack, peers, runner, sequences, siamese


def test_the_crop_shows_the_square_around_the_target():
    frame = np.zeros((100, 200, 3), np.uint8)
    frame[40:60, 90:110] = 255                                          # a square of 20 around (100, 50)
    crop = siamese.crop_around(frame, np.array([100.0, 50.0]), 40.0, 80, (7, 8, 9))
    assert (crop[22:58, 22:58] == 255).all() and (crop[:17] == 0).all() and (crop[:, 63:] == 0).all()
    assert crop[:, :, 0].mean() / 255 == pytest.approx(0.25, abs=0.01)  # as large a part as of the square of 40
    stretched = siamese.crop_around(frame, np.array([100.0, 50.0]), np.array([80.0, 40.0]), 80, (7, 8, 9))
    assert (stretched[22:58, 32:48] == 255).all() and (stretched[:, :27] == 0).all()    # half as wide as before
    outside = siamese.crop_around(frame, np.array([0.0, 50.0]), 40.0, 80, (7, 8, 9))
    assert (outside[:, :38] == (7, 8, 9)).all() and (outside[:, 42:] == 0).all()


def test_distances_become_boxes_around_their_points():
    distances = np.zeros((4, 15, 15))
    distances[:, 7, 7] = 10, 20, 10, 20                                 # of the middle point
    distances[:, 7, 9] = 5, 5, 15, 25                                   # two points to the right of it
    centers, sizes = siamese.decode(distances)
    assert centers[:, 7, 7].tolist() == [0, 0] and sizes[:, 7, 7].tolist() == [20, 40]
    assert centers[:, 7, 9].tolist() == [37, 10] and sizes[:, 7, 9].tolist() == [20, 30]


class Networks:
    """In place of the networks: the target is the bright spot, seen at the size that the template had."""

    def template(self, crop):
        return crop[None, :, :, 0].astype(float)

    def match(self, template, crop):
        search = crop[None, :, :, 0].astype(float)
        middle = np.arange(15) * 16 + 15                                # crop pixels of the points
        score = np.array([[search[0, max(y - 32, 0):y + 32, max(x - 32, 0):x + 32].mean() for x in middle]
                          for y in middle]) / 255                       # highest where the spot fills the window
        return np.clip(score, 0, 1), np.full((4, 15, 15), 32.0)


def test_the_box_follows_and_keeps_its_size():
    tracker = nanotrack.NanoTrack(Networks())
    with pytest.raises(RuntimeError, match='update before init'):
        tracker.update(np.zeros((9, 9, 3), np.uint8))
    frames = []
    for i in range(12):
        frame = np.zeros((200, 300, 3), np.uint8)
        frame[80:112, 100 + 4 * i:132 + 4 * i] = 255
        frames.append(frame)
    tracker.init(frames[0], (100, 80, 32, 32))
    for i, frame in enumerate(frames[1:], 1):
        estimate = tracker.update(frame)
        assert abs(estimate.box[0] - 100 - 4 * i) < 9 and abs(estimate.box[1] - 80) < 9      # points are 8 px apart
        assert estimate.box[2:] == pytest.approx([32, 32], abs=2) and 0.5 < estimate.score <= 1


def test_missing_packages_and_files_are_one_sentence(tmp_path, monkeypatch):
    with pytest.raises(FileNotFoundError, match='the tracker nano3 needs the file nanotrack_v3_backbone.onnx: give its'):
        peers.make_peer('nano3')
    files = [tmp_path / name for name in peers.NETWORK_FILES['nano3']]
    for path in files:
        path.write_bytes(b'nothing')
    monkeypatch.setitem(sys.modules, 'onnxruntime', None)
    with pytest.raises(ValueError, match=r'needs the package onnxruntime: pip install "cract_ros\[peers\]"'):
        peers.make_peer('nano3', *files)
    monkeypatch.undo()
    pytest.importorskip('onnxruntime', reason='needs ONNX Runtime: pip install "cract_ros[peers]"')
    with pytest.raises(ValueError, match='ONNX Runtime cannot read .*backbone.onnx as a network'):
        peers.make_peer('nano3', *files)


def test_it_is_about_as_good_as_the_second_version_on_real_sequences(cract_data):
    pytest.importorskip('onnxruntime', reason='needs ONNX Runtime: pip install "cract_ros[peers]"')
    tracker = peers.make_peer('nano3', *(cract_data / 'peers' / name for name in peers.NETWORK_FILES['nano3']), threads=1)
    found = {}
    for sequence in sequences.read_folders(cract_data / 'eval', only=('OTB/Crossing', 'OTB/Car4', 'VOT2017-19/ball1')):
        run = runner.run_sequence(tracker, sequence)
        found[sequence.name] = metrics.success_auc(metrics.overlaps(run.boxes, sequence.truth))
    assert found == pytest.approx({'OTB/Car4': 0.863, 'OTB/Crossing': 0.714, 'VOT2017-19/ball1': 0.766}, abs=0.02)
