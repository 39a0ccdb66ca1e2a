import numpy as np
import pytest
import torch

from cract_core.boxes import iou
from cract_core.proposals import change_penalty, cosine_window, select_proposals, vote


def random_scene(seed, count=400):
    random = np.random.default_rng(seed)
    centers, sizes = random.uniform(60, 200, (count, 2)), random.uniform(20, 90, (count, 2))
    boxes = np.concatenate([centers - sizes / 2, centers + sizes / 2], 1).astype(np.float32)
    last = (boxes[random.integers(count)] + random.normal(0, 2, 4)).astype(np.float32)
    return boxes, random.random(count).astype(np.float32), last


def test_penalty_is_one_without_change_and_falls_with_it():
    boxes = np.array([[0, 0, 40, 20], [5, 5, 85, 45], [0, 0, 20, 40.0]])
    same, larger, turned = change_penalty(boxes, np.array([40.0, 20.0]), 0.05)
    assert same == pytest.approx(1) and larger == pytest.approx(2.718281828 ** -0.05, rel=1e-5)  # twice the scale
    assert turned < larger


def test_window_is_one_in_the_middle():
    window = cosine_window().reshape(5, 27, 27)
    assert window[2, 13, 13] == pytest.approx(1) and window[0, 0, 0] == 0


def test_one_place_is_kept_for_the_box_near_the_last_one():
    last = np.array([100.0, 100, 160, 160])
    boxes = np.stack([last + (s, 0, s, 0) for s in (20.0, 60.0, 120.0, 3.0)])
    scores = np.array([0.9, 0.8, 0.7, 0.1])
    kept = select_proposals(boxes, scores, scores, last, 2, 0.3, 0.3)
    assert len(kept.boxes) == 2 and kept.scores[0] == 0.9
    assert (iou(kept.boxes, last) > 0.8).any()


def greedy(boxes, scores, overlap, taken):
    """In the order of the scores, whoever overlaps nobody that was taken by more than `overlap`; `taken` grows."""
    for index in np.argsort(-scores)[:96]:
        if all(iou(boxes[index], boxes[other]) <= overlap for other in taken):
            taken.append(index)
    return taken


@pytest.mark.parametrize('kind', [np.asarray, torch.from_numpy])
def test_a_single_proposal_is_the_best_one_also_far_from_the_last_box(kind):
    boxes = np.float32([[10, 10, 60, 60], [100, 100, 160, 160]])
    scores = np.float32([0.9, 0.3])
    found = select_proposals(kind(boxes), kind(scores), kind(scores), kind(boxes[1]), 1, 0.5, 0.8)
    assert found.boxes.tolist() == boxes[:1].tolist()


@pytest.mark.parametrize('seed', range(5))
def test_suppression_is_greedy_and_places_that_are_left_go_to_further_views(seed):
    boxes, scores, last = random_scene(seed)
    far = last + 500  # no place is kept
    distinct = greedy(boxes, scores, 0.3, [])
    taken, few = greedy(boxes, scores, 0.6, list(distinct)), len(distinct)
    assert len(taken) >= few + 5
    for count in (few - 2, few, few + 5):
        kept = select_proposals(boxes, scores, scores, far, count, 0.3, 0.6)
        assert np.array_equal(kept.boxes, boxes[taken[:count]]) and np.array_equal(kept.scores, scores[taken[:count]])
    assert np.array_equal(select_proposals(boxes, scores, scores, far, few + 3, 0.3, 0.3).boxes[few:],
                          np.tile(boxes[distinct[0]], (3, 1)))


def test_the_best_fills_the_places_that_nobody_takes():
    boxes = np.tile(np.array([[10.0, 10, 60, 60]]), (20, 1)) + np.linspace(0, 1, 20)[:, None]
    scores = np.linspace(0.1, 0.9, 20)
    kept = select_proposals(boxes, scores, scores, np.array([500.0, 500, 550, 550]), 4, 0.5, 0.75)
    assert np.array_equal(kept.boxes, np.tile(boxes[-1], (4, 1)))


def test_tensors_give_what_arrays_give():
    boxes, scores, last = random_scene(7)
    tensors = [torch.from_numpy(array) for array in (boxes, scores, scores, last)]
    assert np.array_equal(select_proposals(boxes, scores, scores, last, 30, 0.5, 0.75).boxes,
                          select_proposals(*tensors, 30, 0.5, 0.75).boxes.numpy())


def test_boxes_that_agree_with_the_best_are_averaged_and_others_have_no_voice():
    boxes = np.array([[10.0, 10, 60, 60], [12, 10, 62, 60], [200, 200, 250, 250], [11, 9, 61, 59]])
    scores = np.array([0.9, 0.45, 0.8, 0.0])
    np.testing.assert_allclose(vote(boxes, scores, 0.6), (8 * boxes[0] + boxes[1]) / 9)
    np.testing.assert_array_equal(vote(boxes, scores, 1.0), boxes[0])
    np.testing.assert_array_equal(vote(boxes, np.zeros(4), 0.6), boxes[0])
