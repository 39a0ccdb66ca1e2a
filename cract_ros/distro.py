"""What differs between the rclpy of ROS 2 Humble, Jazzy and Kilted: no other file asks for the distribution."""
from __future__ import annotations

import inspect
from importlib.util import find_spec
from typing import Callable

from rclpy.executors import MultiThreadedExecutor
from rclpy.impl.implementation_singleton import rclpy_implementation
from rclpy.subscription import Subscription

HUMBLE = find_spec('rclpy.event_handler') is None
if HUMBLE:
    from rclpy.qos_event import QoSRequestedIncompatibleQoSInfo, SubscriptionEventCallbacks  # noqa: F401
else:
    from rclpy.event_handler import QoSRequestedIncompatibleQoSInfo, SubscriptionEventCallbacks  # noqa: F401

# Fast DDS 3, whose settings have other names, came with the rclpy whose executors take this; ROS_DISTRO need not be set
FAST_DDS_2 = 'wait_for_threads' not in inspect.signature(MultiThreadedExecutor.shutdown).parameters


def with_info(callback: Callable) -> Callable:
    """A subscription's callback of (message, info). Humble hands over the message alone: there the info is empty."""
    if hasattr(Subscription, 'CallbackType'):
        return callback
    return lambda message: callback(message, {})


def answer_wrong_transitions(node) -> None:
    """Let a lifecycle node answer no to a transition that it cannot make.

    The rclpy of Humble and Jazzy raises, which ends the process; that of Kilted answers by itself.
    """
    service = node._service_change_state
    change_state = service.callback

    def answer(request, response):
        try:
            return change_state(request, response)
        except rclpy_implementation.RCLError as error:
            node.get_logger().error(f'no such transition now: {error}')
            response.success = False
            return response
    service.callback = answer
