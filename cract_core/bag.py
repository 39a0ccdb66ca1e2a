"""`cract bag`: follow an object through the images of a ROS 2 bag. No ROS is needed: the library rosbags reads it.

The detections are those that the tracker node would publish, had it seen every image: one for each image after the
one on which it was started, with the image's header.
"""
from __future__ import annotations

import argparse
import os
import shutil
import sqlite3
import sys
import tempfile
from collections import Counter
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from typing import Iterator, NamedTuple
from urllib.parse import quote_from_bytes

import numpy as np

from . import options
from .files import ResultLines, check_place

DESCRIPTION = """\
Follow one object through the images of a ROS 2 bag (sqlite3 or MCAP, also compressed by zstd), raw or compressed, each
image in turn. BAG is the folder of the bag or a single .mcap or .db3 file. No ROS installation is needed. --output
writes a new bag with the topic /tracker/detection: a vision_msgs/Detection2D for each image after the first, with the
image's header and the time at which the image was recorded. An image that cannot be read is left out and counted. Of a
bag without its end or its metadata.yaml, as after a power failure, what is there is read. Where something is missing the
exit status is 2."""

TOPIC = '/tracker/detection'
CLASS_ID = 'target'  # as the node writes it
STORAGES = ('.mcap', '.db3')
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
    header: object  # None: not even that could be read
    frame: np.ndarray | None  # (H, W, 3) uint8 BGR; None: it could not be read
    reason: str  # why not


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of `cract bag`, but for the tracker's."""
    parser.add_argument('bag', type=Path, metavar='BAG', help='folder of a ROS 2 bag, or its .mcap or .db3 file')
    parser.add_argument('--topic', metavar='TOPIC', help='topic of the images; may be left out if the bag has one only')
    parser.add_argument('--box', required=True, type=options.box, metavar='X,Y,W,H', help='the object in the first image')
    parser.add_argument('--start', type=options.seconds, default=0.0, metavar='SECONDS',
                        help='begin with the first image recorded so long after the beginning of the bag (default: 0)')
    parser.add_argument('--output', type=Path, metavar='OUT_BAG', help='folder to make: a bag with the detections')
    parser.add_argument('--results', type=Path, metavar='OUT.txt',
                        help='write one line x,y,w,h an image; the first is the given box, a lost target has the '
                             'place where it is supposed, an image that cannot be read has nan')
    parser.add_argument('--id', default='1', metavar='TEXT', help="the target's id in the detections (default: 1)")


def run(args: argparse.Namespace, config) -> int:
    """`cract bag` with a `TrackerConfig`."""
    try:
        import mcap.stream_reader  # noqa: F401
        import rosbags.highlevel  # noqa: F401
    except ModuleNotFoundError as error:
        raise ValueError(f'bags are read with the packages rosbags and mcap, and {error.name} is not installed: '
                         'pip install "cract_ros[bag]"') from error
    from tqdm import tqdm

    from .tracker import MIN_SIZE, Tracker
    if args.results and args.output and args.output.resolve() in args.results.resolve().parents:
        raise ValueError(f'--results names {args.results}, which lies in the bag that --output makes')
    unreadable: list[str] = []
    with ExitStack() as stack:
        images = stack.enter_context(open_images(args.bag, args.topic, args.start))
        writer = stack.enter_context(DetectionWriter(args.output, args.bag, args.id)) if args.output else None
        lines = stack.enter_context(ResultLines(args.results)) if args.results else None
        tracker = Tracker(config)
        count = lost = 0
        try:
            for image in tqdm(images, total=images.total, unit='image', disable=None):
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
                    lines.write(','.join(f'{value:.4f}' for value in box))
        except KeyboardInterrupt:
            print('interrupted', file=sys.stderr)
            images.complaints.clear()
            if not count:
                return 130
    if not count:
        raise ValueError(next(iter(images.complaints), '')
                         or f'{args.bag} has no image {args.start:g} s or more after its beginning')
    followed = count - 1 - len(unreadable)
    print(f'{count} images on {tracker.device}' + (f', the target lost in {lost / followed:.1%}' if followed else ''))
    if min(args.box[2:]) < MIN_SIZE:
        print(f'the box is smaller than {MIN_SIZE:g} pixels, the least size of a target that is followed',
              file=sys.stderr)
    complaints = list(images.complaints)
    if unreadable:
        complaints.append(f'{len(unreadable)} images could not be read; the first: {unreadable[0]}')
    for complaint in complaints:
        print(f'cract bag: {complaint}', file=sys.stderr)
    return 2 if complaints else 0


class BagImages:
    """The images on one topic from `start` seconds on, in the order of recording; iterate over it once.

    total: how many the bag says it has on the topic, None if it does not say. complaints: a sentence for each thing that
    the bag has lost, complete after the last image.
    """

    def __init__(self, bag: Path, files: list[Path], reader, topic: str, total: int | None, start: float,
                 complaints: list[str]):
        self.total, self.complaints = total, complaints
        self._bag, self._files, self._reader, self._topic, self._start = bag, files, reader, topic, start

    def __iter__(self) -> Iterator[BagImage]:
        from . import encodings
        contrast, count = encodings.Contrast(), 0
        for recorded, kind, message in self._messages():
            count += 1
            if isinstance(message, Exception):
                yield BagImage(recorded, None, None, f'a message is damaged: {_text(message)}')
                continue
            try:
                yield BagImage(recorded, message.header, getattr(encodings, DECODERS[kind])(message, contrast), '')
            except ValueError as error:
                yield BagImage(recorded, message.header, None, str(error))
        if self.total is not None and not self._start and count < self.total and not self.complaints:
            self.complaints.append(f'{self._bag} announces {self.total} images on {self._topic}, but has {count}')

    def _messages(self) -> Iterator[tuple[int, str, object]]:
        """Time of recording, type, and the message or why it cannot be deserialised."""
        latest = -1
        if self._reader is not None:
            connections = [one for one in self._reader.connections if one.topic == self._topic]
            messages = self._reader.messages(connections, start=self._reader.start_time + round(self._start * 1e9))
            try:
                for connection, latest, data in messages:
                    yield latest, connection.msgtype, _attempt(self._reader.deserialize, data, connection.msgtype)
                return
            except Exception as error:  # rosbags and its storages raise anything at a damaged bag
                self.complaints.append(f'{self._bag} is damaged ({_text(error)}): what is whole is read')
        from rosbags.typesys import Stores, get_typestore
        types, begin = get_typestore(Stores.LATEST), None
        for found in _salvage(self._files):
            if isinstance(found, str):
                if found not in self.complaints:
                    self.complaints.append(found)
                continue
            begin = found.recorded if begin is None else begin
            if found.topic == self._topic and found.kind in DECODERS and found.recorded > latest \
                    and found.recorded >= begin + self._start * 1e9:
                yield found.recorded, found.kind, _attempt(types.deserialize_cdr, found.data, found.kind)


@contextmanager
def open_images(bag: Path, topic: str | None, start: float) -> Iterator[BagImages]:
    """The images on the topic of a bag, from `start` seconds on.

    `topic` may be None where the bag has one topic of images. What is damaged is read as far as it goes. Raises
    ValueError or FileNotFoundError, one sentence, for what is no bag, where nothing of it can be read, and for a topic
    that has no images; it names the topics that have.
    """
    from rosbags.highlevel import AnyReader
    from rosbags.typesys import Stores, get_typestore
    if not bag.exists():
        raise FileNotFoundError(f'no bag {bag}: expected the folder of a ROS 2 bag, or its .mcap or .db3 file')
    files = sorted(one for one in bag.iterdir() if one.suffix in STORAGES and one.is_file()) if bag.is_dir() else [bag]
    whole = not bag.is_dir() or (bag / 'metadata.yaml').is_file()
    if not whole and not files:
        raise FileNotFoundError(f'{bag} is no ROS 2 bag: it has no metadata.yaml and no {" or ".join(STORAGES)} file')
    with ExitStack() as stack:
        reader, complaints = None, []
        try:
            reader = stack.enter_context(AnyReader([bag] if whole else files,
                                                   default_typestore=get_typestore(Stores.LATEST)))
            there = Counter()
            for one in reader.connections:
                there[one.topic, one.msgtype] += one.msgcount
        except Exception as error:  # as above
            complaints.append(f'cannot read {bag} as a whole ({_text(error)}): what is whole in it is read')
            there = Counter((one.topic, one.kind) for one in _salvage(files) if not isinstance(one, str))
            if not there:
                raise ValueError(f'cannot read {bag}: {_text(error)}') from error
        images = dict(sorted((name, kind) for name, kind in there if kind in DECODERS))
        listed = ', '.join(f'{name} ({kind.rpartition("/")[2]})' for name, kind in images.items())
        if not images:
            raise ValueError(f'{bag} has no images; its topics are '
                             f'{", ".join(sorted({name for name, _ in there})) or "none"}')
        if topic is None and len(images) > 1:
            raise ValueError(f'{bag} has several topics of images: choose by --topic one of {listed}')
        chosen = next(iter(images)) if topic is None else '/' + topic.lstrip('/')
        if chosen not in images:
            raise ValueError(f'{bag} has no images on {chosen}; images are on {listed}')
        total = sum(count for (name, _), count in there.items() if name == chosen) if reader else None
        yield BagImages(bag, files, reader, chosen, total, start, complaints)


class Salvaged(NamedTuple):
    """A message of a damaged bag."""
    topic: str
    kind: str  # such as sensor_msgs/msg/Image
    recorded: int  # ns
    data: bytes


def _salvage(files: list[Path]) -> Iterator[Salvaged | str]:
    """The messages of the whole chunks of MCAP files and the readable rows of SQLite files, and sentences on the rest."""
    for file in files:
        read = _salvage_mcap if file.suffix == '.mcap' else _salvage_sqlite
        messages = read(file)
        while True:
            try:
                yield next(messages)
            except StopIteration:
                break
            except Exception as error:  # of the libraries, at damaged data
                yield f'{file} ends early or is damaged: {_text(error)}'
                break


def _salvage_mcap(file: Path) -> Iterator[Salvaged | str]:
    from mcap.records import Channel, Chunk, Message, Schema
    from mcap.stream_reader import StreamReader, breakup_chunk
    schemas, channels = {}, {}
    with open(file, 'rb') as stream:
        for record in StreamReader(stream, emit_chunks=True).records:
            records = [record]
            if isinstance(record, Chunk):
                records = _attempt(breakup_chunk, record, True)
                if isinstance(records, Exception):
                    yield f'a chunk of {file} is damaged: {_text(records)}'
                    continue
            for one in sorted(records, key=lambda one: one.log_time if isinstance(one, Message) else -1):
                if isinstance(one, Schema):
                    schemas[one.id] = one.name
                elif isinstance(one, Channel):
                    channels[one.id] = one.topic, schemas.get(one.schema_id, '')
                elif isinstance(one, Message) and one.channel_id in channels:
                    yield Salvaged(*channels[one.channel_id], one.log_time, one.data)


def _salvage_sqlite(file: Path) -> Iterator[Salvaged]:
    name = quote_from_bytes(os.fsencode(file.absolute()))
    with closing(sqlite3.connect(f'file:{name}?mode=ro&immutable=1', uri=True)) as database:
        topics = {key: (name, kind) for key, name, kind in database.execute('SELECT id, name, type FROM topics')}
        for key, recorded, data in database.execute('SELECT topic_id, timestamp, data FROM messages'):
            if key in topics and isinstance(data, bytes) and isinstance(recorded, int):
                yield Salvaged(*topics[key], recorded, data)


def _attempt(call, *args):
    """The result, or the exception in its place: libraries raise anything at damaged data."""
    try:
        return call(*args)
    except Exception as error:
        return error


def _text(error: Exception) -> str:
    return ' '.join(str(error).split())[:300] or type(error).__name__


class DetectionWriter:
    """A new bag of detections, in the storage of the bag of the images. It takes its place at the end of a `with` block.

    A run that fails leaves nothing.
    """

    def __init__(self, path: Path, source: Path, target_id: str):
        from rosbags.rosbag2 import StoragePlugin, Writer
        from rosbags.typesys import Stores, get_types_from_msg, get_typestore
        if path.exists():
            raise ValueError(f'{path} exists: the detections are written into a new bag')
        check_place(path)
        self._types = get_typestore(Stores.LATEST)
        for name, text in DEFINITIONS.items():
            self._types.register(get_types_from_msg(text, f'vision_msgs/msg/{name}'))
        names = [file.name for file in source.iterdir()] if source.is_dir() else [source.name]
        storage = StoragePlugin.SQLITE3 if any('.db3' in name for name in names) else StoragePlugin.MCAP
        # 8: read by Humble and all after it
        self._make = lambda place: Writer(place, version=8, storage_plugin=storage)
        self._path, self._folder, self._writer, self._topic = path, None, None, None
        self._id = target_id

    def __enter__(self) -> 'DetectionWriter':
        return self

    def __exit__(self, kind, error, trace) -> None:
        if self._folder is None:
            return
        try:
            self._writer.close()
            if kind is None or issubclass(kind, KeyboardInterrupt):
                os.rename(self._folder / self._path.name, self._path)
        finally:
            shutil.rmtree(self._folder, ignore_errors=True)

    def write(self, image: BagImage, estimate) -> None:
        """Append the detection of one image."""
        if self._topic is None:
            # the names of a bag's files are made from that of its folder: the folder beside has another one above it
            self._folder = Path(tempfile.mkdtemp(prefix='.part-', dir=self._path.absolute().parent))
            self._writer = self._make(self._folder / self._path.name)
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
