"""The tracker as a lifecycle node: camera images in, Detection2D and an overlay picture out.

How data flow: the image subscription keeps only the newest frame (depth 1) and its callback waits for the tracker,
so a frame that comes meanwhile replaces the one that waits. Every call into the tracker, from images, services and
parameters alike, runs on one worker thread in the order of asking: a new target or a new parameter is applied between
two frames, and the networks always see the same thread. Images, the tracker's services and the rest (parameters,
lifecycle) have a callback group each, so none of them waits for more than the frame at hand.
"""
from __future__ import annotations

import functools
import signal
import threading
import time
import traceback
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import numpy as np
import rclpy
from rcl_interfaces.msg import ParameterDescriptor, SetParametersResult
from rclpy.callback_groups import MutuallyExclusiveCallbackGroup
from rclpy.clock import Clock, ClockType
from rclpy.executors import MultiThreadedExecutor
from rclpy.lifecycle import LifecycleNode, LifecycleState, TransitionCallbackReturn
from rclpy.parameter import Parameter
from rclpy.qos import QoSProfile, ReliabilityPolicy
from rclpy.qos_overriding_options import QoSOverridingOptions
from rclpy.signals import SignalHandlerOptions
from sensor_msgs.msg import Image
from std_msgs.msg import Header
from std_srvs.srv import Trigger
from vision_msgs.msg import Detection2D

from cract_ros import conversions, overlay, parameters, transport
from cract_ros.monitor import FrameMonitor
from cract_ros.srv import InitTarget

NO_IMAGE = 'no image'  # every refusal of init for want of an image begins so
CALLBACK_GROUPS = 3
SIGNAL_LATENCY = 0.2  # seconds: Python sees a signal when waiting for callbacks comes back to it
THROTTLE = 5.0  # seconds between two warnings of one kind


class Frame(NamedTuple):
    header: Header
    image: np.ndarray  # (H, W, 3) uint8 BGR


def _transition(callback):
    """A lifecycle callback that logs what it raises: rclpy goes to error processing without a word."""
    @functools.wraps(callback)
    def logged(self, state: LifecycleState) -> TransitionCallbackReturn:
        try:
            return callback(self, state)
        except Exception:
            self.get_logger().error(traceback.format_exc())
            raise
    return logged


class TrackerNode(LifecycleNode):
    """Node `tracker`: the README has a table of its topics, services and parameters."""

    def __init__(self, **kwargs):
        super().__init__('tracker', **kwargs)
        self.declare_parameter(parameters.AUTOSTART, True, ParameterDescriptor(
            description='configure and activate on start; false leaves both to a lifecycle manager', read_only=True))
        self._refused = parameters.declare(self)
        self.add_on_set_parameters_callback(self._on_set_parameters)
        self._worker = ThreadPoolExecutor(1, thread_name_prefix='tracker')
        self._images = MutuallyExclusiveCallbackGroup()
        self._requests = MutuallyExclusiveCallbackGroup()
        self._overridable = QoSOverridingOptions.with_default_policies()
        self._tracker = self._detections = self._overlays = None  # from on_configure to on_cleanup
        self._tracker_services = []
        self._subscription = self._timer = None  # from on_activate to on_deactivate
        self._monitor = self._new_monitor()
        # of the worker thread
        self._active = False
        self._latest: Frame | None = None
        self._target_id = self._state = ''
        self._targets = 0

    def start(self) -> None:
        """Configure and activate. Where that fails, the node says why and waits to be configured again."""
        if self.trigger_configure() == TransitionCallbackReturn.SUCCESS:
            self.trigger_activate()

    # Lifecycle

    @_transition
    def on_configure(self, state: LifecycleState) -> TransitionCallbackReturn:
        try:
            self._tracker = self._in_turn(self._load)
        except (OSError, ValueError) as error:
            self.get_logger().error(f'not configured: {error}')
            return TransitionCallbackReturn.FAILURE
        self._detections = self.create_publisher(
            Detection2D, '~/detection', QoSProfile(depth=10), qos_overriding_options=self._overridable)
        self._overlays = self.create_publisher(
            Image, '~/overlay', QoSProfile(depth=1), qos_overriding_options=self._overridable)
        self._tracker_services = [
            self.create_service(InitTarget, '~/init_target', self._on_init, callback_group=self._requests),
            self.create_service(Trigger, '~/reset', self._on_reset, callback_group=self._requests)]
        self.get_logger().info(f'configured; the networks run on {self._tracker.device}')
        return TransitionCallbackReturn.SUCCESS

    @_transition
    def on_activate(self, state: LifecycleState) -> TransitionCallbackReturn:
        self._in_turn(self._set_active, True)
        self._monitor = self._new_monitor()
        self._subscription = self.create_subscription(
            Image, 'image', self._on_image, QoSProfile(depth=1, reliability=ReliabilityPolicy.BEST_EFFORT),
            callback_group=self._images, qos_overriding_options=self._overridable)
        self._timer = self.create_timer(1.0, self._judge, clock=Clock(clock_type=ClockType.STEADY_TIME))
        self.get_logger().info(f'active; waiting for images on {self._subscription.topic_name}')
        return TransitionCallbackReturn.SUCCESS

    @_transition
    def on_deactivate(self, state: LifecycleState) -> TransitionCallbackReturn:
        self._stop_listening()
        return TransitionCallbackReturn.SUCCESS

    @_transition
    def on_cleanup(self, state: LifecycleState) -> TransitionCallbackReturn:
        self._release()
        return TransitionCallbackReturn.SUCCESS

    @_transition
    def on_shutdown(self, state: LifecycleState) -> TransitionCallbackReturn:
        self._release()
        return TransitionCallbackReturn.SUCCESS

    @_transition
    def on_error(self, state: LifecycleState) -> TransitionCallbackReturn:
        self._release()
        return TransitionCallbackReturn.SUCCESS

    def destroy_node(self) -> None:
        self._worker.shutdown()
        super().destroy_node()

    # Callbacks

    def _on_image(self, message: Image, info: dict) -> None:
        self._monitor.arrived(info.get('publication_sequence_number'), str(info.get('publisher_gid')))
        started = time.perf_counter()
        refused = False
        try:
            self._in_turn(self._track, Frame(message.header, conversions.to_bgr(message)))
        except ValueError as error:
            refused = True
            self.get_logger().warning(f'frame skipped: {error}', throttle_duration_sec=THROTTLE)
        self._monitor.done(time.perf_counter() - started, refused)

    def _on_init(self, request: InitTarget.Request, response: InitTarget.Response) -> InitTarget.Response:
        try:
            response.message = self._in_turn(self._init, request)
            response.success = True
            self.get_logger().info(response.message)
        except ValueError as error:
            response.message = str(error)
            self.get_logger().warning(f'target refused: {error}')
        return response

    def _on_reset(self, request: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        had_target = self._in_turn(self._reset)
        response.success = True
        response.message = 'the target is forgotten' if had_target else 'there was no target'
        self.get_logger().info(response.message)
        return response

    def _on_set_parameters(self, changed: list[Parameter]) -> SetParametersResult:
        changes = parameters.changes(changed)
        try:
            if changes:
                parameters.read(self, **changes)
                self._in_turn(self._configure_tracker, changes)
        except ValueError as error:
            return SetParametersResult(successful=False, reason=str(error))
        for name in changes:
            self._refused.pop(name, None)
        return SetParametersResult(successful=True)

    @staticmethod
    def _new_monitor() -> FrameMonitor:
        return FrameMonitor(time.monotonic())

    def _judge(self) -> None:
        advice = self._monitor.judge(time.monotonic(), self.count_publishers(self._subscription.topic_name))
        if advice:
            self.get_logger().warning(advice)

    # What runs on the worker thread, and only there

    def _in_turn(self, call, *args):
        """The result of a call that runs after all that were asked for before it."""
        return self._worker.submit(call, *args).result()

    def _load(self):
        if self._refused:
            raise ValueError('; '.join(self._refused.values()))
        config = parameters.read(self)
        from cract_core.tracker import Tracker  # loads torch: not before the parameters are known to be right
        return Tracker(config)

    def _configure_tracker(self, changes: dict) -> None:
        if self._tracker is not None:
            self._tracker.configure(**changes)

    def _set_active(self, active: bool) -> None:
        self._active = active
        self._latest = None

    def _track(self, frame: Frame) -> None:
        if not self._active:  # deactivated while the frame was on its way
            return
        self._latest = frame
        watched = self._overlays.get_subscription_count() > 0
        if not self._tracker.initialized:
            if watched:
                self._overlays.publish(
                    conversions.from_bgr(overlay.draw_message(frame.image, 'no target'), frame.header))
            return
        estimate = self._tracker.update(frame.image)
        self._detections.publish(conversions.to_detection(estimate, frame.header, self._target_id))
        if watched:
            picture = overlay.draw(frame.image, estimate.box, estimate.state.value, estimate.score, self._target_id)
            self._overlays.publish(conversions.from_bgr(picture, frame.header))
        self._report(estimate.state.value)

    def _report(self, state: str) -> None:
        if state == 'lost' and self._state != 'lost':
            self.get_logger().warning(f'target {self._target_id!r} lost')
        elif self._state == 'lost' and state != 'lost':
            self.get_logger().info(f'target {self._target_id!r} found again')
        self._state = state

    def _init(self, request: InitTarget.Request) -> str:
        if not self._active:
            raise ValueError(f'{NO_IMAGE}: the node is not active')
        if self._latest is None:
            raise ValueError(f'{NO_IMAGE} has arrived on {self._subscription.topic_name} yet')
        box = conversions.box_from_message(request.bbox)
        self._tracker.init(self._latest.image, box)
        self._targets += 1
        self._target_id = request.id or str(self._targets)
        self._state = ''
        used, asked = self._latest.header.stamp, request.header.stamp
        x, y, w, h = box
        message = f'following {self._target_id!r} from x {x:g}, y {y:g}, w {w:g}, h {h:g} ' \
                  f'in the image stamped {used.sec}.{used.nanosec:09d}'
        if (asked.sec or asked.nanosec) and asked != used:
            message += f', the latest one; the box was drawn in the image stamped {asked.sec}.{asked.nanosec:09d}'
        return message

    def _reset(self) -> bool:
        had_target = self._tracker.initialized
        self._tracker.reset()
        return had_target

    # Tear-down

    def _stop_listening(self) -> None:
        if self._subscription is None:
            return
        self.destroy_timer(self._timer)
        self.destroy_subscription(self._subscription)
        self._subscription = self._timer = None
        self._in_turn(self._set_active, False)
        total = self._monitor.total
        self.get_logger().info(
            f'{total.received} images received, {total.missed} missed, {total.refused} could not be read')

    def _release(self) -> None:
        self._stop_listening()
        for service in self._tracker_services:
            self.destroy_service(service)
        for publisher in (self._detections, self._overlays):
            if publisher is not None:
                self.destroy_publisher(publisher)
        self._tracker_services = []
        self._tracker = self._detections = self._overlays = None


class PromptPool(ThreadPoolExecutor):
    """Threads that have begun a call before `submit` returns.

    rclpy's executor hands a callback out again and again until it has begun, thousands of times a second, and so keeps
    the interpreter's lock from the very thread that should begin it (measured: frames waited up to 2 s).
    """

    def submit(self, call, /, *args, **kwargs):
        begun = threading.Event()

        def run():
            begun.set()
            return call(*args, **kwargs)

        future = super().submit(run)
        begun.wait()
        return future


class CallbackPool(MultiThreadedExecutor):
    """One thread a callback group, so that one is always free, and an orderly end."""

    def __init__(self):
        super().__init__(num_threads=CALLBACK_GROUPS)
        self._executor = PromptPool(CALLBACK_GROUPS)

    def shutdown(self, timeout_sec: float | None = None, *, wait_for_threads: bool = True) -> bool:
        """Finish the callbacks that have begun: rclpy takes their guard condition away first."""
        self._executor.shutdown(wait=wait_for_threads)
        return super().shutdown(timeout_sec, wait_for_threads=wait_for_threads)


def main(args: list[str] | None = None) -> int:
    """Run the node until SIGINT or SIGTERM, both clean ends: the frame at hand is finished and published first."""
    stopped = threading.Event()
    transport.use_profile()
    # rclpy's own handlers would pull the context from under a frame that is being worked on
    rclpy.init(args=args, signal_handler_options=SignalHandlerOptions.NO)
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stopped.set())
    node = TrackerNode()
    executor = CallbackPool()
    executor.add_node(node)
    try:
        if node.get_parameter(parameters.AUTOSTART).value:
            node.start()
        while not stopped.is_set():
            executor.spin_once(timeout_sec=SIGNAL_LATENCY)
    finally:
        executor.shutdown()
        node.destroy_node()
        rclpy.shutdown()
    return 0


if __name__ == '__main__':
    raise SystemExit(main())
