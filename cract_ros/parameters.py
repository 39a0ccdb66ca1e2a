"""ROS parameters made from two tables: the tracker's, `cract_core.config.TrackerConfig`, and the node's own, below.

Every field becomes a parameter with its text, unit and range. Those marked live can be set at any time; the others
are read-only and take their value from the launch file or the command line.
"""
from __future__ import annotations

import dataclasses
from dataclasses import dataclass

from rcl_interfaces.msg import FloatingPointRange, IntegerRange, ParameterDescriptor
from rclpy.exceptions import InvalidParameterTypeException, InvalidParameterValueException
from rclpy.node import Node
from rclpy.parameter import Parameter

from cract_core.config import TrackerConfig, check_value, field_type, parameter

RAW, COMPRESSED = 'raw', 'compressed'
BEST_EFFORT, RELIABLE = 'best_effort', 'reliable'


@dataclass(frozen=True)
class NodeConfig:
    """What belongs to the node alone. Every value is checked on construction (ValueError, one sentence)."""

    autostart: bool = parameter(
        True, 'configure and activate on start; false leaves both to a lifecycle manager')
    image_transport: str = parameter(
        RAW, 'form of the images: raw is sensor_msgs/Image on `image`, compressed is sensor_msgs/CompressedImage '
        '(JPEG, PNG) on `image/compressed`', choices=(RAW, COMPRESSED))
    reliability: str = parameter(
        BEST_EFFORT, 'QoS of the image subscription; best_effort takes images of reliable publishers, too',
        choices=(BEST_EFFORT, RELIABLE))
    image_timeout: float = parameter(
        1.0, 'without an image for so long the diagnostics say that the camera has stopped', unit='seconds',
        minimum=0.1, maximum=3600.0, live=True)
    history_frames: int = parameter(
        60, 'latest images that are kept, for boxes that were drawn in one of them', unit='images',
        minimum=1, maximum=1000)
    history_memory: int = parameter(
        128, 'memory that these images may take; fewer are kept where they are large', unit='MiB',
        minimum=1, maximum=16384)
    catch_up: float = parameter(
        0.5, 'time to catch up from an older image to the newest; where it does not suffice for all images between, '
        'some are left out evenly', unit='seconds', minimum=0.0, maximum=10.0, live=True)
    keep_target: bool = parameter(
        True, 'keep the target when the node is deactivated, and go on with it when it is activated again', live=True)
    cpu_fallback: bool = parameter(
        False, 'go on with the CPU, more slowly, where CUDA was asked for and is missing, or fails or runs out of '
        'memory')
    image_memory: int = parameter(
        64, 'memory that a picture may take while it is read, unless its message is as large; others are refused unread',
        unit='MiB', minimum=1, maximum=16384)
    image_scans: int = parameter(
        20, 'scans that a JPEG may have, each of which goes over the whole picture', unit='scans', minimum=1,
        maximum=1000)
    message_memory: int = parameter(
        1024, 'size that a message of `~/init_box`, `candidates` or `camera_info` may have', unit='KiB', minimum=1,
        maximum=65536)
    max_candidates: int = parameter(
        100, 'candidates that are looked at; those beyond are left out unread', minimum=1, maximum=10000)
    init_wait: float = parameter(
        0.2, 'time to wait for the image of a stamp that is later than all images', unit='seconds', minimum=0.0,
        maximum=5.0, live=True)
    init_tolerance: float = parameter(
        0.05, 'where no image has the stamp of a box or of candidates, the nearest is taken that is so near', unit='seconds',
        minimum=0.0, maximum=10.0, live=True)
    tf_frame: str = parameter(
        '', 'name of a frame that is published on /tf with its z axis to the target; empty publishes none')
    rectified: bool = parameter(
        False, 'the images are rectified: the bearing is computed with P of camera_info, not with K and D')

    def __post_init__(self):
        for field in dataclasses.fields(self):
            if field_type(field) is not bool:  # ROS checks these
                check_value(field, getattr(self, field.name))


TRACKER_FIELDS = {field.name: field for field in dataclasses.fields(TrackerConfig)}
NODE_FIELDS = {field.name: field for field in dataclasses.fields(NodeConfig)}


def descriptor(field: dataclasses.Field) -> ParameterDescriptor:
    """What `ros2 param describe` and the sliders of rqt show for one field."""
    meta = field.metadata
    unit = f' [{meta["unit"]}]' if meta['unit'] else ''
    message = ParameterDescriptor(name=field.name, description=meta['text'] + unit, read_only=not meta['live'])
    if meta['choices']:
        message.additional_constraints = f'one of {", ".join(meta["choices"])}'
    if meta['minimum'] is not None:
        if field_type(field) is float:
            message.floating_point_range.append(
                FloatingPointRange(from_value=float(meta['minimum']), to_value=float(meta['maximum'])))
        else:
            message.integer_range.append(
                IntegerRange(from_value=meta['minimum'], to_value=meta['maximum'], step=1))
    return message


def declare(node: Node) -> dict[str, str]:
    """Declare every parameter; returns name -> reason for those whose given value was refused.

    A refused one is declared with its default, so that the node can report the reason when it is configured. Choices
    and combinations are not looked at here: `read_tracker` and `read_node` check them.
    """
    refused = {}
    for field in [*NODE_FIELDS.values(), *TRACKER_FIELDS.values()]:
        default = field.default
        try:
            node.declare_parameter(field.name, default, descriptor(field))
        except InvalidParameterTypeException as error:
            refused[field.name] = (f'{field.name} must be of type {field_type(field).__name__}'
                                   f'{", written with a decimal point" if field_type(field) is float else ""}: {error}')
        except InvalidParameterValueException as error:
            refused[field.name] = str(error)
        if field.name in refused:
            node.declare_parameter(field.name, default, descriptor(field), ignore_override=True)
    return refused


def read_tracker(node: Node, **changes) -> TrackerConfig:
    """The tracker's parameters, some changed, as a checked config. Raises ValueError for what does not fit."""
    return TrackerConfig(**{name: node.get_parameter(name).value for name in TRACKER_FIELDS} | changes)


def read_node(node: Node, **changes) -> NodeConfig:
    """The node's own parameters, some changed, as a checked config. Raises ValueError for what does not fit."""
    return NodeConfig(**{name: node.get_parameter(name).value for name in NODE_FIELDS} | changes)


def changes(parameters: list[Parameter], fields: dict[str, dataclasses.Field]) -> dict:
    """name -> value of those that are among `fields`; ROS gives a node parameters of its own, too."""
    return {parameter.name: parameter.value for parameter in parameters if parameter.name in fields}
