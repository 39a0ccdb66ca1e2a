"""Frames in and out: video files, image folders, cameras, streams, an MP4 writer and the drawing of one estimate.

Frames are `(H, W, 3)` uint8 BGR arrays. What cannot be read or written raises ValueError or OSError in one sentence
that names it.
"""
from __future__ import annotations

import os
import re
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Iterator

import cv2
import numpy as np

from .encodings import Contrast, file_to_bgr
from .files import check_place, utf8_path, written

IMAGE_SUFFIXES = ('.jpg', '.jpeg', '.png', '.bmp', '.tif', '.tiff', '.webp')
DEFAULT_FPS = 30.0
PATIENCE = 100          # reads of a file that may fail in a row while more frames are announced
LIVE_PATIENCE = 5       # reads of a camera or stream that may fail in a row
TIMEOUT = 10_000        # milliseconds for a stream to open, and for each of its frames
FFMPEG = 'rtsp_transport;tcp|fflags;discardcorrupt'  # OpenCV's own default, and no half frames at the end of a cut file
EXACT = (b'RIFF', b'ftyp')  # of AVI and MP4 files, at byte 0 or 4: they count their frames


def natural_key(path: Path) -> list:
    """Sorting key that puts `frame10` after `frame9`."""
    return [(1, int(part), '') if part.isdecimal() else (0, 0, part.lower())
            for part in re.split(r'(\d+)', path.name)]


def list_images(folder) -> list[Path]:
    """The image files in `folder` that are frames, sorted naturally by name; FileNotFoundError if there is none.

    Where two files differ only in their suffix, such as `1.jpg` and `1.png`, or in a word after the number, such as
    `1_mask.png`, the frames are those of the commonest suffix (jpg among equals) and without the word.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise FileNotFoundError(f'no folder {folder}: expected a folder of images')
    images = [path for path in folder.iterdir() if path.suffix.lower() in IMAGE_SUFFIXES
              and not path.name.startswith('.') and not path.is_dir()]
    if not images:
        raise FileNotFoundError(f'no image in {folder}: expected files ending in {", ".join(IMAGE_SUFFIXES)}')
    return sorted(_without_companions(images), key=natural_key)


COMPANION = re.compile(r'(.*[0-9])[ ._-][^0-9]+')   # 0001_mask stands beside 0001


def _without_companions(images: list[Path]) -> list[Path]:
    stems = {path.stem for path in images}
    images = [path for path in images if not ((found := COMPANION.fullmatch(path.stem)) and found[1] in stems)]
    kinds: dict[str, list[Path]] = {}
    for path in images:
        suffix = path.suffix.lower()
        kinds.setdefault({'.jpeg': '.jpg', '.tiff': '.tif'}.get(suffix, suffix), []).append(path)
    if len({path.stem for path in images}) == len(images):
        return images
    return max(kinds.items(), key=lambda kind: (len(kind[1]), -IMAGE_SUFFIXES.index(kind[0])))[1]


def read_image(path, contrast: Contrast | None = None) -> np.ndarray:
    """Decode one image file to BGR, its pixels as the file stores them; 16 bits as `contrast` shows them.

    ValueError for what is no whole image.
    """
    path = Path(path)
    try:
        if path.exists() and not path.is_file():
            raise ValueError('it is no file')
        return file_to_bgr(path.read_bytes(), contrast)
    except OSError as error:
        raise ValueError(f'cannot read {path} as an image: {error.strerror}') from error
    except ValueError as error:
        raise ValueError(f'cannot read {path} as an image: {error}') from error


def write_image(path, image: np.ndarray, options: tuple = ()) -> None:
    """Write (H, W) or (H, W, 3) BGR in the form that the suffix names, whole or not at all. ValueError, OSError."""
    suffix = Path(path).suffix.lower()
    if suffix not in IMAGE_SUFFIXES:
        raise ValueError(f'cannot write {path}: expected a name ending in {", ".join(IMAGE_SUFFIXES)}')
    try:
        done, data = cv2.imencode(suffix, image, options)
    except cv2.error:
        done = False
    if not done:
        raise ValueError(f'cannot write {path}: {suffix} holds no image of {image.shape[1]} x {image.shape[0]} pixels')
    with written(path) as part:
        part.write_bytes(data.tobytes())


class FrameSource:
    """Frames of a video file, an image folder (in natural order of the names), numbered images (`img%04d.jpg`), a
    camera (its index, or `/dev/video0`) or a stream (`rtsp://...`).

    `fps` is the source's rate (30 where it has none) and `length` its number of frames, None for a camera or stream
    (`live`) or where the file does not say. Iterate over it once; it closes itself at the end, or leave a `with` block.

    A frame inside that cannot be read is passed over, the first one raises ValueError. `position` is that of the latest
    frame, `given` how many came, and `complaint` says at any time what did not, in one sentence; it is empty if nothing
    is missing.
    """

    def __init__(self, source):
        self.name = str(source)
        self.fps, self.length, self.live = DEFAULT_FPS, None, False
        self.given, self.position = 0, -1
        self._reasons: list[str] = []   # why frames inside were passed over
        self._ended = False
        self._stack = ExitStack()
        self._images: list[Path] | None = None
        self._capture = None
        path = Path(self.name)
        if path.is_dir():
            self._images = list_images(path)
        elif '%' in path.name and not path.exists():
            self._images = _numbered(path)
        if self._images is not None:
            self.length = len(self._images)
            return
        self._open(path)

    def _open(self, path: Path) -> None:
        is_index = self.name.isdecimal() and not path.exists()
        is_url = re.match(r'[A-Za-z][A-Za-z0-9+.-]*://', self.name) is not None
        is_device = path.is_char_device()
        if not (is_index or is_url or is_device or path.is_file()):
            raise FileNotFoundError(f'no source {self.name}: expected a video file, an image folder, numbered images '
                                    'such as img%04d.jpg, the index of a camera or its device, or the URL of a stream')
        with _ffmpeg_options():
            if is_index:
                self._capture = cv2.VideoCapture(int(self.name)) if int(self.name) < 1000 else cv2.VideoCapture()
            elif is_url:
                self._capture = cv2.VideoCapture(self.name.encode('utf-8', 'replace').decode(), cv2.CAP_FFMPEG, [
                    cv2.CAP_PROP_OPEN_TIMEOUT_MSEC, TIMEOUT, cv2.CAP_PROP_READ_TIMEOUT_MSEC, TIMEOUT])
            else:
                self._capture = cv2.VideoCapture(self._stack.enter_context(utf8_path(path)))
        if not self._capture.isOpened():
            self.close()
            raise ValueError(f'cannot open camera {self.name}' if is_index or is_device else
                             f'cannot open the stream {self.name}: nobody answers, or it is no video' if is_url else
                             f'cannot read {self.name} as a video: the file is damaged or of an unknown form')
        rate = self._capture.get(cv2.CAP_PROP_FPS)
        self.fps = rate if 0 < rate < 1000 else DEFAULT_FPS
        count = self._capture.get(cv2.CAP_PROP_FRAME_COUNT)
        if 0 < count < 1e9 and not (is_index or is_device):
            self.length = int(count)
        self.live = is_index or is_device or is_url and self.length is None
        self._exact = False
        if not (self.live or is_url):
            with open(path, 'rb') as file:
                start = file.read(8)
            self._exact = start[:4] in EXACT or start[4:] in EXACT

    def __iter__(self) -> Iterator[np.ndarray]:
        try:
            for frame in self._from_files() if self._images is not None else self._from_capture():
                self.given += 1
                yield frame
            self._ended = True
        finally:
            self.close()

    def _from_files(self) -> Iterator[np.ndarray]:
        contrast = Contrast()
        for self.position, path in enumerate(self._images or ()):  # noqa: B020
            try:
                frame = read_image(path, contrast)
            except ValueError as error:
                if not self.position:
                    raise
                self._reasons.append(str(error))
                continue
            yield frame

    def _from_capture(self) -> Iterator[np.ndarray]:
        failed, self._steps, self._time = 0, [], 0.0
        while failed <= (LIVE_PATIENCE if self.live else PATIENCE):
            frame = self._read()
            if frame is not None:
                if not self.given and failed and not self.live:
                    raise ValueError(f'the first frame of {self.name} cannot be read')
                if self.given:  # failures before the first frame of a camera are its start
                    self._reasons += [f'a frame of {self.name} is damaged'] * failed
                    self.position += failed
                    self._steps.append(self._capture.get(cv2.CAP_PROP_POS_MSEC) - self._time)
                self._time = self._capture.get(cv2.CAP_PROP_POS_MSEC)
                self.position, failed = self.position + 1, 0
                yield frame
                continue
            failed += 1
            if not self.live and self.given and self.position + failed >= (self.length or 0):
                break
        if not self.given:
            raise ValueError(f'no frame comes from {self.name}: the video or camera gives no picture')

    def _read(self) -> np.ndarray | None:
        try:
            found, frame = self._capture.read()
        except cv2.error:
            return None
        return frame if found and frame is not None and frame.size else None

    @property
    def complaint(self) -> str:
        """What of the source has not come so far, in one sentence; empty if nothing is missing."""
        if self._reasons and self.length is None:
            return f'{len(self._reasons)} frames of {self.name} could not be read; the first: {self._reasons[0]}'
        if self._ended and self.live:
            return f'{self.name} stopped after {self.given} frames'
        if self._reasons or self._ended and self._images is None and self._too_few():
            count = self.length if self._ended else self.position + 1
            return f'{self.given} of {max(count, self.position + 1)} frames of {self.name} could be read' + (
                f'; the first that could not: {self._reasons[0]}' if self._reasons else '')
        return ''

    def _too_few(self) -> bool:
        """A file ended before its announced length. Where that comes from a duration, and frames have no steady rate,
        the time of the last frame decides."""
        if self.length is None or self.position + 1 >= self.length:
            return False
        steps = np.array(self._steps)
        if self._exact or len(steps) < 2 or np.mean(np.abs(steps / max(np.median(steps), 1e-9) - 1) < 0.25) > 0.8:
            return True
        return self._time + steps.max() < 1e3 * self.length / self.fps - 1

    def close(self) -> None:
        """Release the file or camera."""
        if self._capture is not None:
            self._capture.release()
        self._stack.close()

    def __enter__(self) -> 'FrameSource':
        return self

    def __exit__(self, *_) -> None:
        self.close()


def _numbered(path: Path) -> list[Path]:
    """The files of a pattern such as img%04d.jpg, by number."""
    if not re.fullmatch(r'[^%]*%(0?[1-9])?d[^%]*', path.name):
        raise FileNotFoundError(f'no source {path}: expected one %d or %04d where the number of an image stands')
    front, back = re.split(r'%(?:0?[1-9])?d', path.name)
    found = []
    for one in path.parent.iterdir() if path.parent.is_dir() else ():
        middle = one.name[len(front):len(one.name) - len(back)]
        if re.fullmatch(r'[0-9]+', middle) and path.name % int(middle) == one.name and not one.is_dir():
            found.append((int(middle), one))
    if not found:
        raise FileNotFoundError(f'no image {path}: expected files such as {path.name % 1}')
    return [one for _, one in sorted(found)]


@contextmanager
def _ffmpeg_options() -> Iterator[None]:
    """OpenCV takes FFmpeg's options from the environment when it opens a video; the user's own stay."""
    name = 'OPENCV_FFMPEG_CAPTURE_OPTIONS'
    if name in os.environ:
        yield
        return
    os.environ[name] = FFMPEG
    try:
        yield
    finally:
        del os.environ[name]


class VideoWriter:
    """An MP4 file (MPEG-4 part 2) that takes its size from the first frame. It takes its place when it is closed, or
    when a `with` block ends well or by an interruption; otherwise nothing is left.

    The codec wants an even width and height: an odd one grows by repeating the last column or row. A later frame of
    another size is scaled, since a video has one size only. ValueError or OSError if OpenCV cannot write there.
    """

    def __init__(self, path, fps: float = DEFAULT_FPS):
        self.path, self.fps = Path(path), fps
        if self.path.suffix.lower() != '.mp4':
            raise ValueError(f'cannot write {path}: expected a name ending in .mp4')
        check_place(self.path)
        self._stack = ExitStack()
        self._writer: cv2.VideoWriter | None = None
        self._size, self._odd, self._part, self._count = (0, 0), (0, 0, 0, 0), '', 0    # until the first frame

    def write(self, frame: np.ndarray) -> None:
        """Append one frame."""
        if self._writer is None:
            height, width = frame.shape[:2]
            self._size = width, height
            self._odd = (0, height % 2, 0, width % 2)  # rows and columns to add: top, bottom, left, right
            part = self._stack.enter_context(written(self.path))
            self._part = os.path.join(self._stack.enter_context(utf8_path(part.parent)), part.name)
            self._writer = cv2.VideoWriter(self._part, cv2.VideoWriter.fourcc(*'mp4v'), self.fps,
                                           (width + width % 2, height + height % 2))
            if not self._writer.isOpened():
                raise ValueError(f'cannot write {self.path}: OpenCV has no MP4 encoder for {width} x {height} pixels')
        if frame.shape[1::-1] != self._size:
            frame = cv2.resize(frame, self._size, interpolation=cv2.INTER_AREA)
        if any(self._odd):
            frame = cv2.copyMakeBorder(frame, *self._odd, cv2.BORDER_REPLICATE)
        self._writer.write(np.ascontiguousarray(frame))
        self._count += 1

    def close(self) -> None:
        """Finish the file. OSError if not all of it could be written."""
        if self._writer is None:
            return
        with self._stack:
            self._writer.release()
            self._writer = None
            count = cv2.VideoCapture(self._part).get(cv2.CAP_PROP_FRAME_COUNT)
            if count != self._count:
                raise OSError(f'cannot write {self.path}: only {count:g} of {self._count} frames fit')

    def __enter__(self) -> 'VideoWriter':
        return self

    def __exit__(self, kind, error, trace) -> None:
        if kind is None or issubclass(kind, KeyboardInterrupt):
            self.close()
        elif self._writer is not None:
            self._writer.release()
            self._stack.__exit__(kind, error, trace)


def draw_estimate(frame: np.ndarray, box, label: str = '', color: tuple = (0, 255, 0)) -> np.ndarray:
    """Draw `box` (x, y, w, h) and `label` above it into `frame` (contiguous BGR), in place; returns `frame`.

    Parts outside of the frame are left out; the label stays inside. `color` is BGR.
    """
    height, width = frame.shape[:2]
    thickness = max(1, round(min(height, width) / 240))
    limit = 1 << 14  # OpenCV draws with 32-bit fixed-point coordinates
    x1, y1, x2, y2 = (int(round(float(np.clip(value, -limit, limit))))
                      for value in (box[0], box[1], box[0] + box[2], box[1] + box[3]))
    cv2.rectangle(frame, (x1, y1), (x2, y2), color, thickness)
    if label:
        scale = max(0.4, min(height, width) / 900)
        (text_width, text_height), baseline = cv2.getTextSize(label, cv2.FONT_HERSHEY_SIMPLEX, scale, 1)
        left = int(np.clip(x1, 0, max(width - text_width - 4, 0)))
        bottom = int(np.clip(y1 - thickness, text_height + baseline + 2, height))
        cv2.rectangle(frame, (left, bottom - text_height - baseline - 2), (left + text_width + 4, bottom), color, -1)
        ink = (0, 0, 0) if np.dot(color, (0.114, 0.587, 0.299)) > 127 else (255, 255, 255)
        cv2.putText(frame, label, (left + 2, bottom - baseline), cv2.FONT_HERSHEY_SIMPLEX, scale, ink, 1, cv2.LINE_AA)
    return frame
