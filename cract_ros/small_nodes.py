"""What the small nodes share: how they run, and their parameters, which are given at start."""
from __future__ import annotations

from typing import Callable

import rclpy
from rcl_interfaces.msg import FloatingPointRange, IntegerRange, ParameterDescriptor
from rclpy.executors import ExternalShutdownException
from rclpy.node import Node

from cract_ros import transport


def run(make: Callable[[], Node], name: str, args: list[str] | None) -> int:
    """Spin the node that `make` makes until SIGINT or SIGTERM, and return the exit status: 1 where it cannot be made, with
    the reason logged under `name`."""
    transport.use_profile()
    rclpy.init(args=args)
    try:
        node = make()
    except (OSError, ValueError) as error:
        rclpy.logging.get_logger(name).error(str(error))
        rclpy.try_shutdown()
        return 1
    try:
        rclpy.spin(node)
    except (KeyboardInterrupt, ExternalShutdownException):
        return 0
    finally:
        node.destroy_node()
        rclpy.try_shutdown()
    return 0


def declare(node: Node, table: dict[str, tuple]) -> dict:
    """Declare the parameters of a table, name -> (default, what it is, range or choices or None), and return their values.
    ValueError, one sentence, for one that is no choice."""
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
