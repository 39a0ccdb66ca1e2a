"""ROS 2 bags: their images, and detections as a new bag. No ROS is needed: the library rosbags reads and writes them.

The detections are those that the tracker node would publish, had it seen every image: one for each image after the
one on which it was started, with the image's header.
"""
from __future__ import annotations

import os
import shutil
import sqlite3
import tempfile
from collections import Counter
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from typing import Any, Iterator, NamedTuple
from urllib.parse import quote_from_bytes

import numpy as np

from .files import check_place

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
        message: Any
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
                    and found.recorded >= begin + round(self._start * 1e9):    # a float holds no time in ns
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
            there: Counter[tuple[str, str]] = Counter()
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
        self._path, self._id = path, target_id
        self._folder: Path | None = None    # until the first detection
        self._writer: Any = None
        self._topic: Any = None

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
