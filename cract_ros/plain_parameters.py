"""Parameters of the small nodes: a table of name -> (default, what it is, range or choices or None), given at start."""
from __future__ import annotations

from rcl_interfaces.msg import FloatingPointRange, IntegerRange, ParameterDescriptor
from rclpy.node import Node


def declare(node: Node, table: dict[str, tuple]) -> dict:
    """Declare the table's parameters and return their values. ValueError, one sentence, for one that is no choice."""
    for name, (default, text, bounds) in table.items():
        descriptor = ParameterDescriptor(description=text, read_only=True)
        if isinstance(default, str):
            descriptor.additional_constraints = f'one of {", ".join(bounds)}' if bounds else ''
        elif bounds and isinstance(default, float):
            descriptor.floating_point_range = [FloatingPointRange(from_value=float(bounds[0]), to_value=float(bounds[1]))]
        elif bounds:
            descriptor.integer_range = [IntegerRange(from_value=bounds[0], to_value=bounds[1], step=1)]
        node.declare_parameter(name, default, descriptor)
    values = {name: node.get_parameter(name).value for name in table}
    for name, (default, _, choices) in table.items():
        if isinstance(default, str) and choices and values[name] not in choices:
            raise ValueError(f'{name} must be one of {", ".join(choices)}, got {values[name]!r}')
    return values
