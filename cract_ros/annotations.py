"""The target's box and score for the image panel of Foxglove, drawn there on the camera's own image."""
from __future__ import annotations

from foxglove_msgs.msg import Color, ImageAnnotations, Point2, PointsAnnotation, TextAnnotation

from cract_ros import overlay

THICKNESS, FONT_SIZE = 2.0, 14.0  # pixels of the image


def to_annotations(answer) -> ImageAnnotations:
    """Of a `follower.Answer`, in the colours of the overlay; empty without a target.

    Only fields that every version of foxglove_msgs has are filled in. Its origin is the corner of the first pixel, as
    that of the boxes.
    """
    message = ImageAnnotations()
    if answer.estimate is None:
        return message
    x, y, w, h = (float(value) for value in answer.estimate.box)
    blue, green, red = (value / 255 for value in overlay.COLOURS[answer.state])
    colour, stamp = Color(r=red, g=green, b=blue, a=1.0), answer.header.stamp
    corners = [Point2(x=x, y=y), Point2(x=x + w, y=y), Point2(x=x + w, y=y + h), Point2(x=x, y=y + h)]
    message.points.append(PointsAnnotation(timestamp=stamp, type=PointsAnnotation.LINE_LOOP, points=corners,
                                           outline_color=colour, thickness=THICKNESS))
    message.texts.append(TextAnnotation(timestamp=stamp, position=corners[0], font_size=FONT_SIZE, text_color=colour,
                                        text=overlay.label(answer.state, answer.estimate.score, answer.target_id)))
    return message
