"""What differs between the rclpy of ROS 2 Humble, Jazzy and Kilted: no other file asks for the distribution."""
from __future__ import annotations

from importlib.util import find_spec
from typing import Callable

from rclpy.impl.implementation_singleton import rclpy_implementation
from rclpy.subscription import Subscription

HUMBLE = find_spec('rclpy.event_handler') is None
if HUMBLE:
    from rclpy.qos_event import QoSRequestedIncompatibleQoSInfo, SubscriptionEventCallbacks  # noqa: F401
else:
    from rclpy.event_handler import QoSRequestedIncompatibleQoSInfo, SubscriptionEventCallbacks  # noqa: F401


def with_info(callback: Callable) -> Callable:
    """A subscription's callback of (message, info). Humble hands over the message alone: there the info is empty."""
    if hasattr(Subscription, 'CallbackType'):
        return callback
    return lambda message: callback(message, {})


def answer_wrong_transitions(node) -> None:
    """Let a lifecycle node answer no to a transition that it cannot make: Humble raises, which ends the process."""
    if not HUMBLE:
        return
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
