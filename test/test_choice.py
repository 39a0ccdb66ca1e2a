"""What a request for a target means, without a node: boxes, points, candidates, and refusals in a sentence."""
from __future__ import annotations

import math

import numpy as np
import pytest

pytest.importorskip('rclpy', reason='ROS 2 is not installed')

from builtin_interfaces.msg import Time
from vision_msgs.msg import Detection2D, Detection2DArray, ObjectHypothesisWithPose, Point2D

from cract_ros.choice import choose
from cract_ros.history import FrameHistory
from cract_ros.srv import InitTarget
from node_harness import bounding_box, image

BOX, POINT, CANDIDATE = InitTarget.Request.BOX, InitTarget.Request.POINT, InitTarget.Request.CANDIDATE


def history(*seconds: int) -> FrameHistory:
    kept = FrameHistory(10, 2**20)
    for second in seconds:
        message = image(np.zeros((48, 64, 3), np.uint8))
        message.header.stamp.sec = second
        kept.add(message)
    return kept


def candidates(second: int, *boxes, nanosecond: int = 0, ids: tuple[str, ...] = ()) -> Detection2DArray:
    message = Detection2DArray()
    message.header.stamp = Time(sec=second, nanosec=nanosecond)
    for place, box in enumerate(boxes):
        result = ObjectHypothesisWithPose()
        result.hypothesis.score = 0.75
        message.detections.append(Detection2D(bbox=bounding_box(*box), results=[result], id=ids[place] if ids else ''))
    return message


def request(kind: int, second: int = 0, **rest) -> InitTarget.Request:
    asked = InitTarget.Request(kind=kind, **rest)
    asked.header.stamp.sec = second
    return asked


def test_a_request_as_it_was_before_means_its_box():
    choice = choose(InitTarget.Request(bbox=bounding_box(10, 20, 30, 8)), history(1, 2), Detection2DArray(), None)
    assert choice.box.tolist() == [10, 20, 30, 8] and (choice.score, choice.header.stamp.sec) == (1.0, 2)


def test_a_box_may_be_told_in_parts_of_the_image():
    asked = request(BOX, bbox=bounding_box(0.25, 0.5, 0.5, 0.25), normalized=True)
    choice = choose(asked, history(1), Detection2DArray(), None)
    assert choice.box.tolist() == pytest.approx([16, 24, 32, 12])


@pytest.mark.parametrize('normalized', [False, True])
def test_a_point_takes_the_smallest_candidate_around_it(normalized):
    boxes = (0, 0, 60, 40), (20, 10, 20, 20), (40, 30, 8, 8)
    point = Point2D(x=30 / 64, y=20 / 48) if normalized else Point2D(x=30.0, y=20.0)
    choice = choose(request(POINT, point=point, normalized=normalized), history(1, 2), candidates(2, *boxes), None)
    assert choice.box.tolist() == [20, 10, 20, 20] and choice.score == 0.75


def test_candidates_of_an_image_about_the_same_time_do_for_a_point_there():
    choice = choose(request(POINT, 2, point=Point2D(x=5.0, y=5.0)), history(1, 2), candidates(2, (0, 0, 9, 9)), None)
    assert choice.header.stamp.sec == 2


class NoNets:
    """Of a point that comes to the networks."""

    def as_array(self, phi):
        return phi

    def features(self, crop):
        raise LookupError('looked into the picture')


@pytest.mark.parametrize('given', [candidates(1, (0, 0, 60, 40)),                  # of another time
                                   candidates(2, (0, 0, 60, 40), nanosecond=10**8),  # of an image that is not kept
                                   candidates(2, (40, 30, 8, 8)),                    # elsewhere
                                   candidates(2, (0, 0, 0, 0), (math.nan, 0, 60, 40)), Detection2DArray()])
def test_without_a_candidate_there_the_picture_tells(given, monkeypatch):
    monkeypatch.setattr('cract_core.point.load_head', lambda: None)
    with pytest.raises(LookupError):
        choose(request(POINT, point=Point2D(x=20.0, y=20.0)), history(1, 2), given, NoNets())


def test_a_candidate_is_chosen_by_its_id_or_its_place():
    boxes = (0, 0, 60, 40), (20, 10, 20, 20)
    named, unnamed = candidates(2, *boxes, ids=('7', 'car')), candidates(2, *boxes)
    assert choose(request(CANDIDATE, candidate='car'), history(2), named, None).box.tolist() == [20, 10, 20, 20]
    assert choose(request(CANDIDATE, candidate='7'), history(2), named, None).box.tolist() == [0, 0, 60, 40]
    assert choose(request(CANDIDATE, 2, candidate='1'), history(2), unnamed, None).box.tolist() == [20, 10, 20, 20]


@pytest.mark.parametrize('asked, given, reason', [
    (request(CANDIDATE, candidate='x'), candidates(2, (0, 0, 9, 9), ids=('a',)), "no candidate 'x' among a"),
    (request(CANDIDATE, candidate='0'), Detection2DArray(), 'there are no candidates'),
    (request(CANDIDATE, 1, candidate='0'), candidates(2, (0, 0, 9, 9)), 'belong to the image stamped 2.000000000'),
    (request(CANDIDATE, candidate='0'), candidates(9, (0, 0, 9, 9)), 'stamped 9.000000000 has not arrived'),
    (request(CANDIDATE, candidate='0'), candidates(2, (0, 0, 0, 9)), 'at least 1 pixel wide'),
    (request(3), Detection2DArray(), 'got kind 3'),
    (request(POINT, point=Point2D(x=65.0, y=1.0)), Detection2DArray(), 'outside the 64 x 48 image'),
    (request(POINT, point=Point2D(x=math.nan, y=1.0)), Detection2DArray(), 'outside the 64 x 48 image'),
    (request(POINT, point=Point2D(x=1.0, y=-0.1), normalized=True), Detection2DArray(), 'outside the 64 x 48 image'),
    (request(BOX, bbox=bounding_box(70, 10, 9, 9), propose=True), Detection2DArray(), 'outside the 64 x 48 frame'),
    (request(BOX, bbox=bounding_box(math.nan, 10, 9, 9), propose=True), Detection2DArray(), 'must be finite'),
    (request(CANDIDATE, candidate='0', propose=True), candidates(2, (70, 0, 9, 9)), 'outside the 64 x 48 frame'),
    (request(POINT, 7), Detection2DArray(), 'has not arrived')])
def test_what_cannot_be_is_refused_with_the_reason(asked, given, reason):
    with pytest.raises(ValueError, match=reason):
        choose(asked, history(1, 2), given, None)


def test_a_proposal_is_the_box_that_would_be_followed():
    asked = request(CANDIDATE, candidate='0', propose=True)
    choice = choose(asked, history(1, 2), candidates(2, (20, 10, 20, 20)), None)
    confirmed = InitTarget.Request(header=choice.header, bbox=bounding_box(*choice.box))
    again = choose(confirmed, history(1, 2, 3), Detection2DArray(), None)
    assert again.box.tolist() == choice.box.tolist() == [20, 10, 20, 20] and again.header.stamp.sec == 2
