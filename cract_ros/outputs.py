"""All that goes out for one image."""
from __future__ import annotations

from importlib.util import find_spec

from geometry_msgs.msg import PointStamped, Vector3Stamped
from rclpy.node import Node
from rclpy.qos import QoSProfile
from rclpy.qos_overriding_options import QoSOverridingOptions
from sensor_msgs.msg import Image
from std_msgs.msg import Header
from vision_msgs.msg import Detection2D, Detection2DArray
from visualization_msgs.msg import MarkerArray

from cract_ros import bearing, conversions, overlay
from cract_ros.follower import LOST, Answer
from cract_ros.history import FrameHistory, apart, nanoseconds
from cract_ros.msg import TrackState

SAME_TIME = 0.1  # seconds that a depth image may be away from the image
THROTTLE = 5.0  # seconds between two warnings of one kind


class Outputs:
    """The publishers. Each message has the header of its image. tf_frame: of the target on /tf; empty for none."""

    def __init__(self, node: Node, overridable: QoSOverridingOptions, tf_frame: str = ''):
        def publisher(kind, topic: str, depth: int = 10):
            return node.create_publisher(kind, topic, QoSProfile(depth=depth), qos_overriding_options=overridable)

        self._node = node
        self._detection = publisher(Detection2D, '~/detection')
        self._detections = publisher(Detection2DArray, '~/detections')
        self._predicted = publisher(Detection2D, '~/predicted')
        self._state = publisher(TrackState, '~/state')
        self._bearing = publisher(Vector3Stamped, '~/bearing')
        self._point = publisher(PointStamped, '~/point')
        self._markers = publisher(MarkerArray, '~/markers')
        self._overlay = publisher(Image, '~/overlay', 1)
        self._tf_frame, self._tf = tf_frame, None
        if tf_frame:
            self._tf = publisher(transform_message(), '/tf', 100)
        self._annotations = None
        if find_spec('foxglove_msgs'):
            from cract_ros import annotations
            self._to_annotations = annotations.to_annotations
            self._annotations = publisher(annotations.ImageAnnotations, '~/annotations')

    def publish(self, answer: Answer, camera: bearing.Camera | None, depths: FrameHistory) -> float:
        """Send the answer out; returns how old its image is then, in seconds of the node's clock.

        `camera` and one of the depth images, where there are some, tell where the target is.
        """
        age = (self._node.get_clock().now().nanoseconds - nanoseconds(answer.header.stamp)) / 1e9
        if answer.estimate is not None:
            self._detection.publish(conversions.to_detection(answer.estimate, answer.header, answer.target_id))
        if answer.predicted is not None:
            self._predicted.publish(conversions.to_prediction(answer))
        self._detections.publish(conversions.to_detections(answer))
        self._state.publish(conversions.to_state(answer, age))
        if answer.estimate is not None and answer.state != LOST and camera is not None:
            try:
                self._publish_place(answer, camera, depths)
            except ValueError as error:
                self._node.get_logger().warning(f'no bearing: {error}', throttle_duration_sec=THROTTLE)
        if self._overlay.get_subscription_count():
            self._overlay.publish(conversions.from_bgr(_picture(answer), answer.header))
        if self._annotations is not None and self._annotations.get_subscription_count():
            self._annotations.publish(self._to_annotations(answer))
        return age

    def destroy(self) -> None:
        for publisher in (self._detection, self._detections, self._predicted, self._state, self._tf, self._bearing, self._point, self._markers,
                          self._overlay, self._annotations):
            if publisher is not None:
                self._node.destroy_publisher(publisher)

    def _publish_place(self, answer: Answer, camera: bearing.Camera, depths: FrameHistory) -> None:
        """Direction and, with depth, point of the target in the camera's frame."""
        box = answer.estimate.box
        size = answer.image.shape[1::-1]
        rays = camera.rays(bearing.centre_and_corners(box), size)
        message = Vector3Stamped(header=answer.header)
        message.vector.x, message.vector.y, message.vector.z = rays[0].tolist()
        self._bearing.publish(message)
        distance = None
        depth = depths.nearest(answer.header.stamp)
        if depth is not None and _at_the_same_time(answer.header, depth.header):
            try:
                distance = bearing.distance_along(depth.message, box, size)
            except ValueError as error:
                self._node.get_logger().warning(f'no distance: {error}', throttle_duration_sec=THROTTLE)
        if distance is not None:
            place = PointStamped(header=answer.header)
            place.point.x, place.point.y, place.point.z = (rays[0] / rays[0, 2] * distance).tolist()
            self._point.publish(place)
        if self._tf is not None:
            self._tf.publish(self._tf.msg_type(
                transforms=[bearing.transform(answer.header, self._tf_frame, rays[0], distance)]))
        self._markers.publish(bearing.markers(answer.header, rays, answer.state, distance))


def transform_message():
    """The type of /tf. Raises ValueError where its package is not installed."""
    if find_spec('tf2_msgs') is None:
        raise ValueError('tf_frame needs the package tf2_msgs, which is not installed '
                         '(apt-get install ros-$ROS_DISTRO-tf2-msgs)')
    from tf2_msgs.msg import TFMessage
    return TFMessage


def _at_the_same_time(one: Header, other: Header) -> bool:
    return apart(one.stamp, other.stamp) <= SAME_TIME


def _picture(answer: Answer):
    if answer.estimate is None:
        return overlay.draw_message(answer.image, answer.state)
    return overlay.draw(answer.image, answer.estimate.box, answer.state, answer.estimate.score, answer.target_id)
