import numpy as np
import pytest
import torch

from cract_core.boxes import (check_box, decode, encode, from_center, iou, to_center, xywh_to_xyxy)


def random_boxes(count, seed=0):
    generator = torch.Generator().manual_seed(seed)
    low = torch.rand(count, 2, generator=generator, dtype=torch.float64) * 200
    return torch.cat([low, low + 5 + torch.rand(count, 2, generator=generator, dtype=torch.float64) * 100], 1)


def test_decode_inverts_encode():
    a, b = random_boxes(100), random_boxes(100, 1)
    torch.testing.assert_close(decode(a, encode(a, b)), b)


def test_eq4_by_hand():
    reference = torch.tensor([10.0, 20.0, 30.0, 60.0])  # centre (20, 40), size (20, 40)
    offsets = torch.tensor([0.5, -0.25, np.log(2), np.log(0.5)], dtype=torch.float32)
    torch.testing.assert_close(decode(reference, offsets), torch.tensor([10.0, 20.0, 50.0, 40.0]))


def test_huge_offsets_stay_finite():
    assert torch.isfinite(decode(torch.tensor([0.0, 0, 10, 10]), torch.full((4,), 1e4))).all()


def test_iou_matches_counting_of_pixels():
    rng = np.random.default_rng(3)
    for _ in range(50):
        boxes = rng.integers(0, 20, (2, 2))
        a, b = (np.concatenate([low, low + rng.integers(1, 15, 2)]) for low in boxes)
        masks = []
        for x1, y1, x2, y2 in (a, b):
            mask = np.zeros((40, 40), bool)
            mask[y1:y2, x1:x2] = True
            masks.append(mask)
        expected = (masks[0] & masks[1]).sum() / (masks[0] | masks[1]).sum()
        assert float(iou(torch.tensor(a).double(), torch.tensor(b).double())) == pytest.approx(expected)


def test_forms_round_trip():
    boxes = random_boxes(20)
    torch.testing.assert_close(from_center(to_center(boxes)), boxes)
    assert xywh_to_xyxy(torch.tensor([1.0, 2, 3, 4])).tolist() == [1, 2, 4, 6]


@pytest.mark.parametrize('box, word', [
    ((1, 2, 3), 'four numbers'), ('nonsense', 'four numbers'), ((1, 2, float('nan'), 4), 'finite'),
    ((1, 2, float('inf'), 4), 'finite'), ((1, 2, 0, 4), 'at least 1 pixel'), ((1, 2, 3, -4), 'at least 1 pixel'),
    ((700, 10, 20, 20), 'outside'), ((-30, 10, 20, 20), 'outside'), ((1e9, 0, 10, 10), 'million'), (None, 'four')])
def test_wrong_boxes_are_refused_in_one_sentence(box, word):
    with pytest.raises(ValueError, match=word) as caught:
        check_box(box, (640, 480))
    assert '\n' not in str(caught.value)


def test_a_box_partly_outside_is_fine():
    assert check_box([-10, -10, 50, 50], (640, 480)).tolist() == [-10, -10, 50, 50]
