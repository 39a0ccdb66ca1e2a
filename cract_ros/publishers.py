"""What stands on the topics that the node listens to: another type of message, or a QoS that is none for it.

DDS is silent about both: a subscription gets nothing, and its count of publishers includes those it cannot hear.
"""
from __future__ import annotations

from typing import Iterable, Mapping, NamedTuple, Sequence

from rclpy.node import Node
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy

IMAGE, COMPRESSED = 'sensor_msgs/msg/Image', 'sensor_msgs/msg/CompressedImage'
CAMERA_INFO = 'sensor_msgs/msg/CameraInfo'


class Listened(NamedTuple):
    """A topic that the node listens to. name: as the node's documentation calls it, 'image', 'depth', ..."""
    name: str
    topic: str
    kind: str  # such as sensor_msgs/msg/Image
    qos: QoSProfile


def listened(name: str, subscription) -> Listened:
    """Of a subscription of rclpy."""
    kind = subscription.msg_type
    return Listened(name, subscription.topic_name, f'{kind.__module__.partition(".")[0]}/msg/{kind.__name__}',
                    subscription.qos_profile)


def mismatches(node: Node, topics: Iterable[Listened]) -> dict[str, str]:
    """Name of each topic of which nothing can be heard as it is -> why, and what to set, in one sentence."""
    kinds = dict(node.get_topic_names_and_types())
    found = {}
    topics = list(topics)
    for one in topics:
        sentence = mismatch(one, node.get_publishers_info_by_topic(one.topic), kinds, topics)
        if sentence:
            found[one.name] = sentence
    return found


def mismatch(one: Listened, publishers: Sequence, kinds: Mapping[str, list[str]], topics: Iterable[Listened]) -> str:
    """Why nothing can come on that topic, in one sentence; empty if something can, or nobody publishes anything like it.

    publishers: rclpy's TopicEndpointInfo of the topic; kinds: topic -> types of all topics there are.
    """
    right = [info for info in publishers if info.topic_type == one.kind]
    if publishers and not right:
        there = publishers[0].topic_type
        return f'{one.topic} carries {there}, and the tracker takes {one.kind} as {one.name}: {_remedy(one, there)}'
    lacking = [_lacking(one.qos, info.qos_profile) for info in right]
    if right and all(lacking):
        policy, offered = lacking[0]
        remedy = 'set the parameter reliability to best_effort' if one.name == 'image' and policy == 'reliability' else \
            f'set qos_overrides.{one.topic}.subscription.{policy} to {offered}'
        return f'the publisher of {one.topic} offers less than the tracker asks for in its QoS ({policy}), so that ' \
               f'nothing can come: {remedy}'
    if right:
        return ''
    return _sibling(one, {topic: types[0] for topic, types in kinds.items() if types}, topics)


def _remedy(one: Listened, there: str) -> str:
    if one.name != 'image':
        return f'remap {one.name} to a topic of that type'
    if there == COMPRESSED:
        base = one.topic.removesuffix('/compressed')
        place = f'image to {base}' if base != one.topic else f'image/compressed to {one.topic}'
        return f'set the parameter image_transport to compressed, and remap {place}'
    if there == IMAGE:
        return f'set the parameter image_transport to raw, and remap image to {one.topic}'
    return 'remap image to a topic of that type'


def _lacking(asked: QoSProfile, offered: QoSProfile) -> tuple[str, str] | None:
    """The policy of which less is offered than asked for, and what is offered."""
    if asked.reliability == ReliabilityPolicy.RELIABLE and offered.reliability == ReliabilityPolicy.BEST_EFFORT:
        return 'reliability', 'best_effort'
    if asked.durability == DurabilityPolicy.TRANSIENT_LOCAL and offered.durability == DurabilityPolicy.VOLATILE:
        return 'durability', 'volatile'
    return None


def _sibling(one: Listened, kinds: Mapping[str, str], topics: Iterable[Listened]) -> str:
    """Nobody publishes the topic: what its neighbour carries."""
    if one.name == 'image' and one.kind == IMAGE and kinds.get(f'{one.topic}/compressed') == COMPRESSED:
        return f'nobody publishes {one.topic}, but {one.topic}/compressed carries {COMPRESSED}: set the parameter ' \
               'image_transport to compressed'
    if one.name == 'image' and one.kind == COMPRESSED and kinds.get(base := one.topic.removesuffix('/compressed')) == IMAGE:
        return f'nobody publishes {one.topic}, but {base} carries {IMAGE}: set the parameter image_transport to raw'
    if one.name == 'depth':
        for suffix in ('compressedDepth', 'compressed'):
            if kinds.get(f'{one.topic}/{suffix}') == COMPRESSED:
                return f'nobody publishes {one.topic}, but {one.topic}/{suffix} carries {COMPRESSED}: depth is taken as ' \
                       f'{IMAGE}; let `ros2 run image_transport republish` decode it'
    if one.name == 'camera_info':
        image = next((other.topic for other in topics if other.name == 'image'), '').removesuffix('/compressed')
        beside = image.rpartition('/')[0] + '/camera_info'
        if image and beside != one.topic and kinds.get(beside) == CAMERA_INFO:
            return f'nobody publishes {one.topic}, but {beside} carries {CAMERA_INFO}: remap camera_info to it'
    return ''
