"""ROS parameters made from the one table of the tracker, `cract_core.config.TrackerConfig`.

Every field becomes a parameter with its text, unit and range. Those marked live can be set while a target is
followed; the others are read-only and take their value from the launch file or the command line.
"""
from __future__ import annotations

import dataclasses

from rcl_interfaces.msg import FloatingPointRange, IntegerRange, ParameterDescriptor
from rclpy.exceptions import InvalidParameterTypeException, InvalidParameterValueException
from rclpy.node import Node
from rclpy.parameter import Parameter

from cract_core.config import TrackerConfig, field_type

FIELDS = {field.name: field for field in dataclasses.fields(TrackerConfig)}
AUTOSTART = 'autostart'


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
    and combinations are not looked at here: `read` checks them.
    """
    refused = {}
    for field in FIELDS.values():
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


def read(node: Node, **changes) -> TrackerConfig:
    """The node's parameters, some changed, as a checked config. Raises ValueError for what does not fit."""
    return TrackerConfig(**{name: node.get_parameter(name).value for name in FIELDS} | changes)


def changes(parameters: list[Parameter]) -> dict:
    """name -> value of those that belong to the tracker; a node has parameters of its own beside them."""
    return {parameter.name: parameter.value for parameter in parameters if parameter.name in FIELDS}
