"""`cract bag`: follow an object through the images of a ROS 2 bag. No ROS is needed: the library rosbags reads it.

The detections are those that the tracker node would publish, had it seen every image: one for each image after the
one on which it was started, with the image's header.
"""
from __future__ import annotations

import argparse
import sys
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Iterator, NamedTuple

import numpy as np

DESCRIPTION = """\
Follow one object through the images of a ROS 2 bag (sqlite3 or MCAP, also compressed by zstd), raw or compressed, each
image in turn. BAG is the folder of the bag or a single .mcap or .db3 file. No ROS installation is needed. --output
writes a new bag with the topic /tracker/detection: a vision_msgs/Detection2D for each image after the first, with the
image's header and the time at which the image was recorded. An image that cannot be read is left out and counted."""

TOPIC = '/tracker/detection'
CLASS_ID = 'target'  # as the node writes it
DECODERS = {'sensor_msgs/msg/Image': 'to_bgr', 'sensor_msgs/msg/CompressedImage': 'compressed_to_bgr'}

# vision_msgs 4.1.1, Apache License 2.0; the type hash of Detection2D is tested
DEFINITIONS = {
    'Point2D': 'float64 x\nfloat64 y\n',
    'Pose2D': 'vision_msgs/Point2D position\nfloat64 theta\n',
    'BoundingBox2D': 'vision_msgs/Pose2D center\nfloat64 size_x\nfloat64 size_y\n',
    'ObjectHypothesis': 'string class_id\nfloat64 score\n',
    'ObjectHypothesisWithPose': 'ObjectHypothesis hypothesis\ngeometry_msgs/PoseWithCovariance pose\n',
    'Detection2D': 'std_msgs/Header header\nObjectHypothesisWithPose[] results\nBoundingBox2D bbox\nstring id\n',
}


class BagImage(NamedTuple):
    """One image message of a bag."""
    recorded: int  # ns
    header: object
    frame: np.ndarray | None  # (H, W, 3) uint8 BGR; None: it could not be read
    reason: str  # why not


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of `cract bag`, but for the tracker's."""
    from .cli import parse_box
    parser.add_argument('bag', type=Path, metavar='BAG', help='folder of a ROS 2 bag, or its .mcap or .db3 file')
    parser.add_argument('--topic', metavar='TOPIC', help='topic of the images; may be left out if the bag has one only')
    parser.add_argument('--box', required=True, type=parse_box, metavar='X,Y,W,H', help='the object in the first image')
    parser.add_argument('--start', type=float, default=0.0, metavar='SECONDS',
                        help='begin with the first image recorded so long after the beginning of the bag (default: 0)')
    parser.add_argument('--output', type=Path, metavar='OUT_BAG', help='folder to make: a bag with the detections')
    parser.add_argument('--results', type=Path, metavar='OUT.txt',
                        help='write one line x,y,w,h an image; the first is the given box, a lost target keeps its '
                             'last, an image that cannot be read has nan')
    parser.add_argument('--id', default='1', metavar='TEXT', help="the target's id in the detections (default: 1)")


def run(args: argparse.Namespace, config) -> int:
    """`cract bag` with a `TrackerConfig`."""
    try:
        import rosbags.highlevel  # noqa: F401
    except ModuleNotFoundError as error:
        raise ValueError(f'bags are read with the package rosbags, and {error.name} is not installed: '
                         'pip install "cract_ros[bag]"') from error
    from tqdm import tqdm

    from .tracker import Tracker
    with ExitStack() as stack:
        total, images = stack.enter_context(open_images(args.bag, args.topic, args.start))
        writer = stack.enter_context(DetectionWriter(args.output, args.bag, args.id)) if args.output else None
        lines = stack.enter_context(open(args.results, 'w', buffering=1)) if args.results else None
        tracker = Tracker(config)
        count = lost = 0
        unreadable: list[str] = []
        try:
            for image in tqdm(images, total=total, unit='image', disable=None):
                count += 1
                box = np.full(4, np.nan)
                try:
                    if image.frame is None:
                        raise ValueError(image.reason)
                    if not tracker.initialized:
                        tracker.init(image.frame, args.box)
                        box = args.box
                    else:
                        estimate = tracker.update(image.frame)
                        box = estimate.box
                        lost += estimate.state.value == 'lost'
                        if writer is not None:
                            writer.write(image, estimate)
                except ValueError as error:
                    if not tracker.initialized:
                        raise
                    unreadable.append(str(error))
                if lines is not None:
                    print(','.join(f'{value:.4f}' for value in box), file=lines)
        except KeyboardInterrupt:
            print('interrupted', file=sys.stderr)
            if not count:
                return 130
    if not count:
        raise ValueError(f'{args.bag} has no image {args.start:g} s or more after its beginning')
    followed = count - 1 - len(unreadable)
    print(f'{count} images on {tracker.device}' + (f', the target lost in {lost / followed:.1%}' if followed else ''))
    if unreadable:
        print(f'{len(unreadable)} images could not be read; the first: {unreadable[0]}', file=sys.stderr)
    return 0


@contextmanager
def open_images(bag: Path, topic: str | None, start: float) -> Iterator[tuple[int, Iterator[BagImage]]]:
    """The number of images on the topic of a bag, and those from `start` seconds on, in the order of recording.

    `topic` may be None where the bag has one topic of images. Raises ValueError or FileNotFoundError, one sentence,
    for what is no readable bag and for a topic that has no images; it names the topics that have.
    """
    from rosbags.highlevel import AnyReader
    from rosbags.typesys import Stores, get_typestore
    if not bag.exists():
        raise FileNotFoundError(f'no bag {bag}: expected the folder of a ROS 2 bag, or its .mcap or .db3 file')
    if bag.is_dir() and not (bag / 'metadata.yaml').is_file():
        raise FileNotFoundError(f'{bag} is no ROS 2 bag: it has no metadata.yaml')
    with ExitStack() as stack:
        with _sentences(bag):
            reader = stack.enter_context(AnyReader([bag], default_typestore=get_typestore(Stores.LATEST)))
        there = {connection.topic: connection.msgtype for connection in reader.connections
                 if connection.msgtype in DECODERS}
        listed = ', '.join(f'{name} ({kind.rpartition("/")[2]})' for name, kind in sorted(there.items()))
        if not there:
            raise ValueError(f'{bag} has no images; its topics are '
                             f'{", ".join(sorted({c.topic for c in reader.connections})) or "none"}')
        if topic is None and len(there) > 1:
            raise ValueError(f'{bag} has several topics of images: choose by --topic one of {listed}')
        chosen = next(iter(there)) if topic is None else '/' + topic.lstrip('/')
        if chosen not in there:
            raise ValueError(f'{bag} has no images on {chosen}; images are on {listed}')
        connections = [connection for connection in reader.connections if connection.topic == chosen]
        yield sum(connection.msgcount for connection in connections), _images(bag, reader, connections, start)


def _images(bag: Path, reader, connections: list, start: float) -> Iterator[BagImage]:
    from . import encodings
    begin = reader.start_time + round(start * 1e9)
    messages = reader.messages(connections, start=begin)
    while True:
        with _sentences(bag):
            try:
                connection, recorded, data = next(messages)
            except StopIteration:
                return
            message = reader.deserialize(data, connection.msgtype)
        try:
            yield BagImage(recorded, message.header, getattr(encodings, DECODERS[connection.msgtype])(message), '')
        except ValueError as error:
            yield BagImage(recorded, message.header, None, str(error))


@contextmanager
def _sentences(bag: Path):
    """What rosbags and its storages raise for a damaged bag is of any kind; here it is one sentence."""
    try:
        yield
    except Exception as error:
        raise ValueError(f'cannot read {bag}: {error or type(error).__name__}') from error


class DetectionWriter:
    """A new bag of detections, in the storage of the bag of the images, closed at the end of a `with` block.

    It is made with the first detection: a run that fails before leaves nothing.
    """

    def __init__(self, path: Path, source: Path, target_id: str):
        from rosbags.rosbag2 import StoragePlugin, Writer
        from rosbags.typesys import Stores, get_types_from_msg, get_typestore
        if path.exists():
            raise ValueError(f'{path} exists: the detections are written into a new bag')
        if not path.absolute().parent.is_dir():
            raise FileNotFoundError(f'cannot write {path}: there is no folder {path.absolute().parent}')
        self._types = get_typestore(Stores.LATEST)
        for name, text in DEFINITIONS.items():
            self._types.register(get_types_from_msg(text, f'vision_msgs/msg/{name}'))
        names = [file.name for file in source.iterdir()] if source.is_dir() else [source.name]
        storage = StoragePlugin.SQLITE3 if any('.db3' in name for name in names) else StoragePlugin.MCAP
        self._writer = Writer(path, version=8, storage_plugin=storage)  # 8: read by Humble and all after it
        self._topic = None
        self._id = target_id

    def __enter__(self) -> 'DetectionWriter':
        return self

    def __exit__(self, *_) -> None:
        if self._topic is not None:
            self._writer.close()

    def write(self, image: BagImage, estimate) -> None:
        """Append the detection of one image."""
        if self._topic is None:
            self._writer.open()
            self._topic = self._writer.add_connection(TOPIC, 'vision_msgs/msg/Detection2D', typestore=self._types)
        self._writer.write(self._topic, image.recorded, self._types.serialize_cdr(
            self._detection(image.header, estimate), 'vision_msgs/msg/Detection2D'))

    def _detection(self, header, estimate):
        def make(name: str, *fields):
            return self._types.types[name](*fields)

        x, y, w, h = (float(value) for value in estimate.box)
        centre = make('vision_msgs/msg/Pose2D', make('vision_msgs/msg/Point2D', x + w / 2, y + h / 2), 0.0)
        results = []
        if estimate.state.value != 'lost':
            pose = make('geometry_msgs/msg/Pose', make('geometry_msgs/msg/Point', 0.0, 0.0, 0.0),
                        make('geometry_msgs/msg/Quaternion', 0.0, 0.0, 0.0, 1.0))
            results.append(make(
                'vision_msgs/msg/ObjectHypothesisWithPose',
                make('vision_msgs/msg/ObjectHypothesis', CLASS_ID, float(estimate.score)),
                make('geometry_msgs/msg/PoseWithCovariance', pose, np.zeros(36))))
        return make('vision_msgs/msg/Detection2D', header, results,
                    make('vision_msgs/msg/BoundingBox2D', centre, w, h), self._id)
