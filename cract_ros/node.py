"""The tracker as a lifecycle node: camera images in; detection, state, bearing and an overlay picture out.

How data flow: the image callback puts every image into a history and wakes the worker, which takes the newest; those
that came while it was busy are passed over, but stay in the history for a target that was drawn in one of them. Every
call into the tracker, from images, services, topics and parameters alike, runs on the one worker thread in the order
of asking: a new target or a new parameter is applied between two images, images never run out of order, and the
networks always see the same thread. Images, targets by topic, the tracker's services and the rest (parameters,
lifecycle, diagnostics) have a callback group each, so none of them waits for more than the work at hand; of targets by
topic, as of images, only the newest waits.
"""
from __future__ import annotations

import functools
import signal
import threading
import time
import traceback
from concurrent.futures import Future, ThreadPoolExecutor

import rclpy
from diagnostic_msgs.msg import DiagnosticArray
from geometry_msgs.msg import PointStamped
from rcl_interfaces.msg import SetParametersResult
from rclpy.callback_groups import MutuallyExclusiveCallbackGroup
from rclpy.clock import Clock, ClockType
from rclpy.lifecycle import LifecycleNode, LifecycleState, TransitionCallbackReturn
from rclpy.parameter import Parameter
from rclpy.qos import QoSProfile, ReliabilityPolicy, qos_policy_name_from_kind
from rclpy.qos_overriding_options import QoSOverridingOptions
from rclpy.signals import SignalHandlerOptions
from rclpy.subscription import Subscription
from sensor_msgs.msg import CameraInfo, CompressedImage, Image
from std_srvs.srv import Trigger
from vision_msgs.msg import Detection2D, Detection2DArray, Point2D

from cract_core.encodings import Bounds
from cract_ros import bearing, conversions, diagnostics, distro, limits, parameters, publishers, transport
from cract_ros.choice import Choice, choose
from cract_ros.executor import CallbackPool
from cract_ros.follower import LOST, Answer, Follower, load_tracker
from cract_ros.history import FrameHistory
from cract_ros.monitor import FrameMonitor
from cract_ros.outputs import THROTTLE, Outputs
from cract_ros.srv import InitTarget

NO_IMAGE = 'no image'  # every refusal of init for want of an image begins so
CALLBACK_GROUPS = 4
SIGNAL_LATENCY = 0.2  # seconds: Python sees a signal when waiting for callbacks comes back to it
BURST = 5  # images that may wait for the image callback, which is quick
REFUSAL = 1.0  # seconds between two warnings of refused targets
DEPTHS = 30  # depth images that are kept: the tracker may be that many behind


def _transition(callback):
    """A lifecycle callback that logs what it raises: rclpy goes to error processing without a word."""
    @functools.wraps(callback)
    def logged(self, state: LifecycleState) -> TransitionCallbackReturn:
        try:
            return callback(self, state)
        except Exception as error:
            self._fail(f'{callback.__name__} failed', error)
            raise
    return logged


class TrackerNode(LifecycleNode):
    """Node `tracker`: docs/node.md has tables of its topics, services and parameters."""

    def __init__(self, **kwargs):
        super().__init__('tracker', **kwargs)
        self._refused = parameters.declare(self)
        self.add_on_set_parameters_callback(self._on_set_parameters)
        self._worker = ThreadPoolExecutor(1, thread_name_prefix='tracker')
        self._waiting: set[str] = set()  # calls of `_once` that have not begun
        self._images = MutuallyExclusiveCallbackGroup()
        self._requests, self._drawn = MutuallyExclusiveCallbackGroup(), MutuallyExclusiveCallbackGroup()
        self._overridable = QoSOverridingOptions.with_default_policies()
        self._lifecycle, self._problem = 'unconfigured', ''  # what the diagnostics say
        self._failure = ''  # of the work on the latest image
        self._monitor = self._new_monitor()
        self._diagnostics = self.create_publisher(DiagnosticArray, diagnostics.TOPIC, QoSProfile(depth=10))
        self.create_timer(diagnostics.PERIOD, self._diagnose, clock=Clock(clock_type=ClockType.STEADY_TIME))
        # from the first on_configure
        self._config: parameters.NodeConfig | None = None
        self._topic = ''  # of the images
        self._history: FrameHistory | None = None
        self._depths: FrameHistory | None = None
        # from on_configure to on_cleanup
        self._outputs: Outputs | None = None
        self._tracker_services, self._targets = [], []
        distro.answer_wrong_transitions(self)
        # from on_activate to on_deactivate
        self._listening: dict[str, Subscription] = {}  # name as in docs/node.md -> subscription
        self._said: dict[str, str] = {}  # of `_mismatches`
        self._camera: bearing.Camera | None = None
        self._candidates = Detection2DArray()  # the latest
        self._beyond = 0  # how many more there were
        # of the worker thread
        self._follower: Follower | None = None  # from on_configure to on_cleanup
        self._active = False
        self._was_lost = False

    def start(self) -> None:
        """Configure and activate. Where that fails, the node says why and waits to be configured again."""
        if self.trigger_configure() == TransitionCallbackReturn.SUCCESS:
            self.trigger_activate()

    # Lifecycle

    @_transition
    def on_configure(self, state: LifecycleState) -> TransitionCallbackReturn:
        try:
            self._in_turn(self._load)
            self._offer()
        except Exception as error:
            self._release()
            self._fail('not configured', error)
            return TransitionCallbackReturn.FAILURE
        self._lifecycle, self._problem = 'inactive', ''
        self.get_logger().info(f'configured: {self._follower.described}')
        return TransitionCallbackReturn.SUCCESS

    @_transition
    def on_activate(self, state: LifecycleState) -> TransitionCallbackReturn:
        self._monitor = self._new_monitor()
        try:
            self._listen()
            self._in_turn(self._set_active, True)  # last: from here on images and targets are worked on
        except Exception as error:
            self._stop_listening()
            self._fail('not activated', error)
            return TransitionCallbackReturn.FAILURE
        self._lifecycle, self._problem = 'active', ''
        self.get_logger().info(f'active; waiting for images on {self._topic}')
        return TransitionCallbackReturn.SUCCESS

    @_transition
    def on_deactivate(self, state: LifecycleState) -> TransitionCallbackReturn:
        self._stop_listening()
        self._problem = ''
        return TransitionCallbackReturn.SUCCESS

    @_transition
    def on_cleanup(self, state: LifecycleState) -> TransitionCallbackReturn:
        self._release()
        self._problem = ''
        return TransitionCallbackReturn.SUCCESS

    @_transition
    def on_shutdown(self, state: LifecycleState) -> TransitionCallbackReturn:
        self._release()
        self._problem = ''
        return TransitionCallbackReturn.SUCCESS

    @_transition
    def on_error(self, state: LifecycleState) -> TransitionCallbackReturn:
        self._release()
        return TransitionCallbackReturn.SUCCESS

    def destroy_node(self) -> None:
        self._worker.shutdown()
        super().destroy_node()

    def _fail(self, what: str, error: Exception) -> None:
        self._problem = f'{what}: {diagnostics.explain(error)}'
        if not isinstance(error, (ImportError, OSError, ValueError)):
            self.get_logger().error(traceback.format_exc())
        self.get_logger().error(self._problem)

    # Images, and what comes with them

    def _offer(self) -> None:
        self._outputs = Outputs(self, self._overridable, self._config.tf_frame)
        for kind, name, callback in ((InitTarget, 'init_target', self._on_init), (Trigger, 'reset', self._on_reset),
                                     (Trigger, 'pause', self._on_pause), (Trigger, 'resume', self._on_resume)):
            self._tracker_services.append(
                self.create_service(kind, f'~/{name}', callback, callback_group=self._requests))
        for kind, name, callback in ((Detection2D, '~/init_box', self._on_box), (PointStamped, '~/init_point', self._on_point)):
            self._targets.append(self.create_subscription(
                kind, name, self._bounded(kind, callback), QoSProfile(depth=1), raw=True, callback_group=self._drawn,
                qos_overriding_options=self._overridable))

    def _bounded(self, kind, callback):
        """A raw subscription's callback, which makes a message of what is no larger than it may be."""
        def checked(data: bytes) -> None:
            try:
                message = limits.read(data, kind, self._config.message_memory * 2**10)
            except ValueError as error:
                self.get_logger().warning(f'refused: {error}', throttle_duration_sec=THROTTLE)
                return
            callback(message)
        return checked

    def _listen(self) -> None:
        def listen(name: str, kind, topic: str, callback, qos: QoSProfile, **options) -> None:
            self._listening[name] = self.create_subscription(
                kind, topic, callback, qos, callback_group=self._images, qos_overriding_options=self._overridable,
                **options)

        reliability = ReliabilityPolicy[self._config.reliability.upper()]
        kind = CompressedImage if self._config.image_transport == parameters.COMPRESSED else Image
        listen('image', kind, self._topic, distro.with_info(self._on_image),
               QoSProfile(depth=BURST, reliability=reliability),
               event_callbacks=distro.SubscriptionEventCallbacks(incompatible_qos=self._on_incompatible_qos))
        latest = QoSProfile(depth=1, reliability=ReliabilityPolicy.BEST_EFFORT)
        info = self._bounded(CameraInfo, self._on_camera_info)
        listen('camera_info', CameraInfo, 'camera_info', info, latest, raw=True)
        listen('depth', Image, 'depth', self._on_depth, latest)
        listen('candidates', Detection2DArray, 'candidates', self._on_candidates, latest, raw=True)

    def _on_image(self, message: Image | CompressedImage, info: dict) -> None:
        self._monitor.arrived(time.monotonic(), info.get('publication_sequence_number'), str(info.get('publisher_gid')))
        self._problem = ''
        try:
            limits.check_text('frame_id', message.header.frame_id)
        except ValueError as error:
            self._skip(error)
            return
        if not message.header.frame_id:
            self.get_logger().warning('the images have no frame_id: bearing, point, markers and /tf belong to no frame',
                                      once=True)
        self._history.add(message)
        self._once(self._answer)

    def _skip(self, error: ValueError) -> None:
        self._monitor.refused()
        self.get_logger().warning(f'frame skipped: {error}', throttle_duration_sec=THROTTLE)

    def _on_camera_info(self, message: CameraInfo) -> None:
        try:
            self._camera = bearing.Camera(message, self._config.rectified)
        except ValueError as error:
            self._camera = None
            self.get_logger().warning(f'no bearing: {error}', throttle_duration_sec=THROTTLE)

    def _on_depth(self, message: Image) -> None:
        self._depths.add(message)

    def _on_candidates(self, data: bytes) -> None:
        most = self._config.max_candidates
        try:
            message, count = limits.read_first(data, Detection2DArray, self._config.message_memory * 2**10, most)
        except ValueError as error:
            self.get_logger().warning(f'candidates refused: {error}', throttle_duration_sec=THROTTLE)
            return
        self._candidates, self._beyond = message, max(count - most, 0)
        self._once(self._consider)

    def _on_incompatible_qos(self, event: distro.QoSRequestedIncompatibleQoSInfo) -> None:
        policy = qos_policy_name_from_kind(event.last_policy_kind).lower()
        remedy = 'set the parameter reliability to best_effort' if policy == 'reliability' else \
            f'set qos_overrides.{self._topic}.subscription.{policy} to what the publisher offers'
        self._problem = f'a publisher of {self._topic} offers less than this node asks for in its QoS ({policy}), ' \
                        f'so none of its images can come: {remedy}'
        self.get_logger().error(self._problem)

    # Requests

    def _on_init(self, request: InitTarget.Request, response: InitTarget.Response) -> InitTarget.Response:
        try:
            limits.check_text('id', request.id)
            limits.check_text('candidate', request.candidate)
            if self._config.init_wait:
                self._history.wait(request.header.stamp, self._config.init_wait)
            choice, response.message = self._in_turn(self._init, request)
            response.success, response.score = True, choice.score
            response.header, response.bbox = choice.header, conversions.box_to_message(choice.box)
            self.get_logger().info(response.message)
        except Exception as error:
            response.message = diagnostics.explain(error)
            self.get_logger().warning(f'target refused: {response.message}', throttle_duration_sec=REFUSAL)
            if not isinstance(error, (RuntimeError, ValueError)):  # RuntimeError: the GPU
                self.get_logger().error(traceback.format_exc())
        return response

    def _on_box(self, message: Detection2D) -> None:
        request = InitTarget.Request(header=message.header, bbox=message.bbox, id=message.id)
        self._on_init(request, InitTarget.Response())

    def _on_point(self, message: PointStamped) -> None:
        point = Point2D(x=message.point.x, y=message.point.y)
        request = InitTarget.Request(kind=InitTarget.Request.POINT, header=message.header, point=point)
        self._on_init(request, InitTarget.Response())

    def _on_reset(self, request: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        had_target = self._in_turn(self._reset)
        return self._done(response, 'the target is forgotten' if had_target else 'there was no target')

    def _on_pause(self, request: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        self._in_turn(self._pause, True)
        return self._done(response, 'paused')

    def _on_resume(self, request: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        self._in_turn(self._pause, False)
        return self._done(response, 'resumed')

    def _done(self, response: Trigger.Response, message: str) -> Trigger.Response:
        self.get_logger().info(message)
        response.success, response.message = True, message
        return response

    # The rest

    def _on_set_parameters(self, changed: list[Parameter]) -> SetParametersResult:
        own = parameters.changes(changed, parameters.NODE_FIELDS)
        of_tracker = parameters.changes(changed, parameters.TRACKER_FIELDS)
        try:
            config = parameters.read_node(self, **own) if own else self._config
            if of_tracker:
                parameters.read_tracker(self, **of_tracker)
                self._in_turn(self._configure_tracker, of_tracker)
        except ValueError as error:
            return SetParametersResult(successful=False, reason=str(error))
        self._config = config
        if self._history is not None:
            self._history.tolerance = config.init_tolerance
        for name in own | of_tracker:
            self._refused.pop(name, None)
        return SetParametersResult(successful=True)

    @staticmethod
    def _new_monitor() -> FrameMonitor:
        return FrameMonitor(time.monotonic())

    def _diagnose(self) -> None:
        now = time.monotonic()
        period, seconds = self._monitor.period(now)
        facts = dict(problem=self._problem, lifecycle=self._lifecycle, autostart=self.get_parameter('autostart').value,
                     total=self._monitor.total, period=period, seconds=seconds)
        if self._follower is not None:
            facts |= dict(device=self._follower.tracker.device, target=self._follower.state,
                          target_id=self._follower.target_id, kept=len(self._history))
        if self._listening:
            count = self.count_publishers(self._topic)
            facts |= dict(topic=self._topic, publishers=count, silence=now - self._monitor.latest,
                          timeout=self._config.image_timeout)
            advice = self._monitor.judge(now, count)
            wrong = self._mismatches()
            facts['problem'] = wrong.get('image') or self._problem or self._failure
            if advice and 'image' not in wrong and not self._problem:
                self.get_logger().warning(advice)
        status = diagnostics.status(self.get_fully_qualified_name(), diagnostics.Facts(**facts))
        message = DiagnosticArray(status=[status])
        message.header.stamp = self.get_clock().now().to_msg()
        self._diagnostics.publish(message)

    def _mismatches(self) -> dict[str, str]:
        """Topics of which nothing can be heard -> why; each reason is logged when it is new."""
        wrong = publishers.mismatches(self, [publishers.listened(*pair) for pair in self._listening.items()])
        for name, sentence in wrong.items():
            if self._said.get(name) != sentence:
                self.get_logger().error(sentence)
        self._said = wrong
        return wrong

    # The worker thread

    def _in_turn(self, call, *args):
        """The result of a call that runs on the worker thread after all that were asked for before it."""
        return self._worker.submit(call, *args).result()

    def _once(self, call) -> None:
        """Let a call run there, too, unless it is waiting to begin already."""
        if call.__name__ in self._waiting:
            return
        self._waiting.add(call.__name__)

        def run():
            self._waiting.remove(call.__name__)
            call()

        self._worker.submit(run).add_done_callback(self._log_failure)

    def _log_failure(self, future: Future) -> None:
        if (error := future.exception()) is not None:
            self._failure = diagnostics.explain(error)
            self.get_logger().error(''.join(traceback.format_exception(error)), throttle_duration_sec=THROTTLE)

    # What runs there, and only there

    def _load(self) -> None:
        if self._refused:
            raise ValueError('; '.join(self._refused.values()))
        self._config = config = parameters.read_node(self)
        compressed = '/compressed' if config.image_transport == parameters.COMPRESSED else ''
        self._topic = self.resolve_topic_name('image') + compressed
        tracker = load_tracker(parameters.read_tracker(self), config.cpu_fallback, self.get_logger())
        self._history = FrameHistory(config.history_frames, config.history_memory * 2**20, config.init_tolerance)
        self._depths = FrameHistory(DEPTHS, config.history_memory * 2**20)
        self._follower = Follower(tracker, self._history, config.cpu_fallback, self.get_logger(),
                                  Bounds(config.image_memory * 2**20, config.image_scans))

    def _configure_tracker(self, changes: dict) -> None:
        if self._follower is not None:
            self._follower.tracker.configure(**changes)

    def _set_active(self, active: bool) -> None:
        self._active = active
        self._history.clear()
        self._depths.clear()
        if not active and not self._config.keep_target:
            self._reset()

    def _answer(self) -> None:
        """Work on the newest image, unless that has been done."""
        if not self._active:  # deactivated while the image was on its way
            return
        started = time.perf_counter()
        try:
            answer = self._follower.answer()
        except ValueError as error:
            self._skip(error)
            return
        if answer is not None:
            age = self._outputs.publish(answer, self._camera, self._depths)
            self._monitor.answered(time.perf_counter() - started, age)
            self._report(answer)
            self._follower.learn()
        self._failure = ''

    def _report(self, answer: Answer) -> None:
        """Log that the target was lost or found; a pause and the end of a target are neither."""
        if answer.estimate is None:
            return
        lost = answer.state == LOST
        if lost and not self._was_lost:
            self.get_logger().warning(f'target {self._follower.target_id!r} lost')
        elif self._was_lost and not lost:
            self.get_logger().info(f'target {self._follower.target_id!r} found again')
        self._was_lost = lost

    def _init(self, request: InitTarget.Request) -> tuple[Choice, str]:
        if not self._active:
            raise ValueError(f'{NO_IMAGE}: the node is not active')
        if self._history.newest() is None:
            raise ValueError(f'{NO_IMAGE} has arrived on {self._topic} yet')
        choice = choose(request, self._history, self._candidates, self._follower.tracker.nets, self._follower.picture)
        if request.propose:
            return choice, f'proposed: {choice}'
        # the answer tells how far the nearest image is from the stamp that was given
        header = request.header if request.kind == InitTarget.Request.BOX else choice.header
        message = self._follower.init(choice.box, header, request.id, self._config.catch_up)
        self._was_lost = False
        self._answer()  # the newest image, where the box was drawn in an older one
        return choice, message

    def _consider(self) -> None:
        """A lost target may be among the candidates."""
        if not self._active or self._follower.state != LOST:
            return
        candidates, beyond, left_out = self._candidates, self._beyond, []
        try:
            boxes = conversions.boxes_from_message(candidates, left_out)
            found = self._follower.consider(candidates.header, boxes, self._config.catch_up, left_out)
        except ValueError as error:
            self.get_logger().warning(f'candidates refused: {error}', throttle_duration_sec=THROTTLE)
            return
        count = len(candidates.detections) + beyond
        if beyond:
            left_out.insert(0, f'at most {len(candidates.detections)} are looked at (max_candidates)')
        if left_out:
            number = len(left_out) + max(beyond - 1, 0)
            self._monitor.left_out(number)
            self.get_logger().warning(f'{number} of {count} candidates left out: {left_out[0]}',
                                      throttle_duration_sec=THROTTLE)
        if found:
            self._was_lost = False
            self.get_logger().info(f'target {self._follower.target_id!r} found again among {count} candidates')
            self._answer()  # the newest image, where the candidates belong to an older one

    def _reset(self) -> bool:
        self._was_lost = False
        return self._follower is not None and self._follower.reset()

    def _pause(self, paused: bool) -> None:
        if self._follower is not None:  # cleaned up while the request was on its way
            self._follower.pause(paused)

    def _unload(self) -> None:
        self._follower, self._was_lost, self._failure = None, False, ''

    # Tear-down

    def _stop_listening(self) -> None:
        """All that an activation has done, or a part of one that failed, is undone here."""
        if not self._listening:
            return
        while self._listening:
            self.destroy_subscription(self._listening.popitem()[1])
        self._in_turn(self._set_active, False)
        self._camera = None
        self._lifecycle = 'inactive'
        total = self._monitor.total
        self.get_logger().info(f'{total.received} images received, {total.answered} answered, {total.missed} lost on '
                               f'the way here, {total.refused} could not be read')

    def _release(self) -> None:
        self._stop_listening()
        while self._tracker_services:
            self.destroy_service(self._tracker_services.pop())
        while self._targets:
            self.destroy_subscription(self._targets.pop())
        if self._outputs is not None:
            self._outputs.destroy()
        self._outputs = None
        self._in_turn(self._unload)
        self._lifecycle = 'unconfigured'


def main(args: list[str] | None = None) -> int:
    """Run the node until SIGINT or SIGTERM, both clean ends: the image at hand is finished and published first."""
    stopped = threading.Event()
    transport.use_profile()
    # rclpy's own handlers would pull the context from under an image that is being worked on
    rclpy.init(args=args, signal_handler_options=SignalHandlerOptions.NO)
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stopped.set())
    node = TrackerNode()
    executor = CallbackPool(CALLBACK_GROUPS)
    executor.add_node(node)
    try:
        if node.get_parameter('autostart').value:
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
