"""From a point to a box: the head's arithmetic, the choice among looks, refusals, and what it finds in real pictures."""
from __future__ import annotations

import itertools

import cv2
import numpy as np
import pytest

from cract_core import TrackerConfig
from cract_core.evaluation.sequences import read_boxes
from cract_core.point import GOOD_IOU, Head, _convolved, box_from_point, head_path, load_head, looks, most_likely, root_area
from cract_core.boxes import iou, xywh_to_xyxy
from cract_core.runtime import make_nets
from cract_core.synthetic import generate


@pytest.fixture(scope='module')
def nets():
    return make_nets(TrackerConfig(threads=1))


@pytest.fixture(scope='module')
def head() -> Head:
    if not head_path().is_file():
        pytest.skip('the weights of the head, cract_core/weights/point.npz, are not in this checkout')
    return load_head()


@pytest.fixture(scope='module')
def scenes() -> list:
    """The first frames of rendered scenes."""
    return [next(generate(1, seed)) for seed in range(3)]


@pytest.mark.parametrize('size, stride', [(1, 1), (3, 1), (3, 2)])
def test_the_convolution_is_that_of_its_definition(size, stride):
    rng = np.random.default_rng(0)
    x, weight = rng.normal(size=(2, 7, 7)), rng.normal(size=(3, 2, size, size))
    padded = np.pad(x, ((0, 0), (size // 2,) * 2, (size // 2,) * 2))
    found = _convolved(x, weight, stride)
    for m, i, j in itertools.product(range(3), range(found.shape[1]), range(found.shape[2])):
        patch = padded[:, stride * i:stride * i + size, stride * j:stride * j + size]
        assert found[m, i, j] == pytest.approx((patch * weight[m]).sum())
    assert found.shape[1] == (7 + stride - 1) // stride


def test_the_head_computes_what_was_trained(tmp_path):
    torch = pytest.importorskip('torch', reason='torch is not installed')
    from cract_core.training.points import PointHead, save_head
    torch.manual_seed(0)
    made = PointHead(8).eval()
    for parameter in made.parameters():   # as the file holds them
        parameter.data = parameter.data.half().float()
    save_head(made.state_dict(), tmp_path / 'head.npz')
    phi = torch.randn(1, 8, 21, 21)
    corners, good, overlap = Head(tmp_path / 'head.npz')(phi.numpy())
    with torch.inference_mode():
        raw = made(phi)[0]
        distance = torch.nn.functional.softplus(raw[:4]) * 0.42
        assert corners == pytest.approx((distance * torch.tensor([-1, -1, 1, 1])).numpy(), abs=1e-4)
        assert (good, overlap) == pytest.approx(tuple(torch.sigmoid(raw[4:]).tolist()), abs=1e-4)


def test_the_loss_measures_the_overlap_of_boxes():
    torch = pytest.importorskip('torch', reason='torch is not installed')
    from cract_core.training.points import point_loss
    truth = torch.tensor([[-0.2, -0.1, 0.3, 0.2], [-0.2, -0.1, 0.3, 0.2], [float('nan')] * 4])
    sides = torch.tensor([[0.2, 0.1, 0.3, 0.2], [0.1, 0.1, 0.3, 0.3], [0.1, 0.1, 0.1, 0.1]]) / 0.42
    raw = torch.cat([torch.log(torch.expm1(sides)), torch.zeros(3, 2)], 1).requires_grad_()
    loss, overlap, there = point_loss(raw, truth)
    assert there.tolist() == [True, True, False]
    other = np.array([-0.1, -0.1, 0.3, 0.3])
    assert overlap[:2].tolist() == pytest.approx([1.0, float(iou(other, truth[1].numpy()))], abs=1e-5)
    loss.backward()
    assert torch.isfinite(raw.grad).all() and not raw.grad[2, :4].any()   # where there is no object there are no sides


def test_looks_that_agree_outvote_a_single_surer_one():
    boxes = np.array([[0, 0, 10, 10], [0, 0, 11, 10], [0, 0, 10, 11], [0, 0, 90, 90.0]])
    found = most_likely(boxes, np.array([0.6, 0.6, 0.6, 0.7]), np.full(4, 0.6))
    assert found.box == pytest.approx([0, 0, 10.33, 10.33], abs=0.01) and found.score == 0.6


@pytest.mark.parametrize('content', [b'', b'noise', None])
def test_a_file_that_is_no_head_is_refused_in_a_sentence(tmp_path, content):
    path = tmp_path / 'head.npz'
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ValueError, match='weights'):
        Head(path)


@pytest.mark.parametrize('point', [(-1, 5), (5, 49), (float('nan'), 5)])
def test_a_point_outside_the_frame_is_refused(point):
    with pytest.raises(ValueError, match='outside the 64 x 48 frame'):
        box_from_point(np.zeros((48, 64, 3), np.uint8), point, None, None)


def test_where_nothing_stands_out_the_point_is_refused(nets, head):
    plain = np.full((240, 320, 3), 120, np.uint8)
    with pytest.raises(ValueError, match='no object stands out'):
        box_from_point(plain, (160, 120), nets, head)


@pytest.mark.parametrize('off', [0.0, 0.15])
def test_a_tap_on_the_rendered_car_finds_its_box(nets, head, scenes, off):
    good = []
    for frame in scenes:
        try:
            found = box_from_point(frame.image, frame.box[:2] + frame.box[2:] * (0.5 + off), nets, head)
        except ValueError:
            continue
        good.append(iou(xywh_to_xyxy(found.box), xywh_to_xyxy(frame.box)) >= GOOD_IOU)
    assert sum(good) >= 2 and all(good)   # one may be refused


def test_a_box_does_not_hang_on_the_scale_of_the_picture(nets, head, scenes):
    frame = scenes[0]
    centre = frame.box[:2] + frame.box[2:] / 2
    one = box_from_point(frame.image, centre, nets, head).box
    small = cv2.resize(frame.image, None, fx=0.6, fy=0.6, interpolation=cv2.INTER_AREA)
    other = box_from_point(small, centre * 0.6, nets, head).box / 0.6
    assert iou(xywh_to_xyxy(one), xywh_to_xyxy(other)) > 0.7


def test_the_ladder_reaches_from_small_things_to_the_whole_frame(nets, head, scenes):
    frame = scenes[0].image
    boxes, good, overlap, sizes = looks(frame, (300, 200), nets, head)
    assert boxes.shape == (len(sizes), 4) and (np.diff(sizes) > 0).all()
    assert sizes[0] <= 12 and sizes[-1] >= 0.85 * root_area(np.array([0, 0, 640, 480]))
    assert ((0 <= good) & (good <= 1) & (0 <= overlap) & (overlap <= 1)).all() and np.isfinite(boxes).all()


def test_a_tap_in_the_middle_finds_most_objects_of_real_pictures(nets, head, cract_data):
    """First frames of the sequences for choosing."""
    overlaps = []
    folders = sorted(path.parent for root in ('val', 'tune') for path in (cract_data / root).rglob('groundtruth.txt'))
    for folder in folders:
        box, frame = read_boxes(folder / 'groundtruth.txt')[0], cv2.imread(str(sorted((folder / 'img').iterdir())[0]))
        try:
            found = box_from_point(frame, box[:2] + box[2:] / 2, nets, head)
        except ValueError:
            continue
        overlaps.append(iou(xywh_to_xyxy(found.box), xywh_to_xyxy(box)))
    assert len(overlaps) >= 0.85 * len(folders)
    assert np.mean(np.array(overlaps) >= GOOD_IOU) >= 0.75
