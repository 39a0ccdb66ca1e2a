"""Frames in and out: video files, image folders, cameras, an MP4 writer and the drawing of one estimate.

Frames are `(H, W, 3)` uint8 BGR arrays. What cannot be read or written raises ValueError or FileNotFoundError in one
sentence that names it.
"""
from __future__ import annotations

import re
from pathlib import Path
from typing import Iterator

import cv2
import numpy as np

IMAGE_SUFFIXES = ('.jpg', '.jpeg', '.png', '.bmp', '.tif', '.tiff', '.webp')
DEFAULT_FPS = 30.0


def natural_key(path: Path) -> list:
    """Sorting key that puts `frame10` after `frame9`."""
    return [(1, int(part), '') if part.isdigit() else (0, 0, part.lower()) for part in re.split(r'(\d+)', path.name)]


def list_images(folder) -> list[Path]:
    """The image files in `folder`, sorted naturally by name; FileNotFoundError if there is none."""
    folder = Path(folder)
    if not folder.is_dir():
        raise FileNotFoundError(f'no folder {folder}: expected a folder of images')
    images = [path for path in folder.iterdir()
              if path.suffix.lower() in IMAGE_SUFFIXES and not path.name.startswith('.')]
    if not images:
        raise FileNotFoundError(f'no image in {folder}: expected files ending in {", ".join(IMAGE_SUFFIXES)}')
    return sorted(images, key=natural_key)


def read_image(path) -> np.ndarray:
    """Decode one image file to BGR."""
    frame = cv2.imread(str(path), cv2.IMREAD_COLOR)
    if frame is None:
        raise ValueError(f'cannot read {path} as an image: the file is missing, damaged or of an unknown form')
    return frame


class FrameSource:
    """Frames of a video file, an image folder (in natural order of the names) or a camera (by its index).

    `fps` is the source's rate (30 where it has none) and `length` its number of frames, None for a camera or where the
    file does not say. Iterate over it once; it closes itself at the end, or leave a `with` block.
    """

    def __init__(self, source):
        self.name = str(source)
        self.fps, self.length = DEFAULT_FPS, None
        self._images, self._capture = None, None
        path = Path(self.name)
        if path.is_dir():
            self._images = list_images(path)
            self.length = len(self._images)
            return
        is_camera = self.name.isdecimal() and not path.exists()
        if not is_camera and not path.is_file():
            raise FileNotFoundError(f'no source {self.name}: expected a video file, an image folder or the index of '
                                    'a camera')
        self._capture = cv2.VideoCapture(int(self.name) if is_camera else self.name)
        if not self._capture.isOpened():
            raise ValueError(f'cannot open camera {self.name}' if is_camera else
                             f'cannot read {self.name} as a video: the file is damaged or of an unknown form')
        rate = self._capture.get(cv2.CAP_PROP_FPS)
        self.fps = rate if 0 < rate < 1000 else DEFAULT_FPS
        count = int(self._capture.get(cv2.CAP_PROP_FRAME_COUNT))
        self.length = count if count > 0 and not is_camera else None

    def __iter__(self) -> Iterator[np.ndarray]:
        if self._images is not None:
            yield from map(read_image, self._images)
            return
        try:
            found, frame = self._capture.read()
            if not found:
                raise ValueError(f'no frame comes from {self.name}: the video or camera gives no picture')
            while found:
                yield frame
                found, frame = self._capture.read()
        finally:
            self.close()

    def close(self) -> None:
        """Release the file or camera."""
        if self._capture is not None:
            self._capture.release()

    def __enter__(self) -> 'FrameSource':
        return self

    def __exit__(self, *_) -> None:
        self.close()


class VideoWriter:
    """An MP4 file (MPEG-4 part 2) that takes its size from the first frame.

    The codec wants an even width and height: an odd one grows by repeating the last column or row. A later frame of
    another size is scaled, since a video has one size only. ValueError if OpenCV cannot write there.
    """

    def __init__(self, path, fps: float = DEFAULT_FPS):
        self.path, self.fps = Path(path), fps
        if self.path.suffix.lower() != '.mp4':
            raise ValueError(f'cannot write {path}: expected a name ending in .mp4')
        if not self.path.absolute().parent.is_dir():
            raise FileNotFoundError(f'cannot write {path}: there is no folder {self.path.absolute().parent}')
        self._writer, self._size, self._odd = None, None, None

    def write(self, frame: np.ndarray) -> None:
        """Append one frame."""
        if self._writer is None:
            self._size = width, height = frame.shape[1::-1]
            self._odd = (0, height % 2, 0, width % 2)  # rows and columns to add: top, bottom, left, right
            self._writer = cv2.VideoWriter(str(self.path), cv2.VideoWriter_fourcc(*'mp4v'), self.fps,
                                           (width + width % 2, height + height % 2))
            if not self._writer.isOpened():
                raise ValueError(f'cannot write {self.path}: OpenCV has no MP4 encoder for {width} x {height} pixels')
        if frame.shape[1::-1] != self._size:
            frame = cv2.resize(frame, self._size, interpolation=cv2.INTER_AREA)
        if any(self._odd):
            frame = cv2.copyMakeBorder(frame, *self._odd, cv2.BORDER_REPLICATE)
        self._writer.write(np.ascontiguousarray(frame))

    def close(self) -> None:
        """Finish the file."""
        if self._writer is not None:
            self._writer.release()

    def __enter__(self) -> 'VideoWriter':
        return self

    def __exit__(self, *_) -> None:
        self.close()


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
