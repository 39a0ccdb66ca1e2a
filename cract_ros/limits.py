"""What a message may hold: checked before its elements become Python objects, which cost a hundred times its bytes.

docs/security.md lists every bound.
"""
from __future__ import annotations

import struct
import unicodedata

from rclpy.serialization import deserialize_message

TEXT = 128  # characters of an id or a frame's name
HEADER = 4  # bytes before the fields; the second says the byte order (OMG DDSI-RTPS 10.2)


def check_text(what: str, text: str) -> str:
    """Raise ValueError, one sentence, for a text that is too long, or breaks or hides what stands beside it."""
    if len(text) > TEXT:
        raise ValueError(f'{what} may have at most {TEXT} characters, got {len(text)}')
    if any(unicodedata.category(character) in ('Cc', 'Cf', 'Cs', 'Zl', 'Zp') for character in text):
        raise ValueError(f'{what} may have no control characters, got {text!r}')
    return text


def read(data: bytes, kind, most: int):
    """The message of type `kind` in a serialized one of at most `most` bytes. Raises ValueError, one sentence."""
    if len(data) > most:
        raise ValueError(f'a {kind.__name__} message may have at most {most} bytes, got {len(data)}')
    try:
        return deserialize_message(data, kind)
    except Exception as error:  # the middleware's own types
        raise ValueError(f'a {kind.__name__} message of {len(data)} bytes cannot be read: {error}') from error


def read_first(data: bytes, kind, most: int, count: int):
    """As `read`, of a message of a header and a list, with the first `count` of its elements at most; and their number."""
    if len(data) > most:
        return read(data, kind, most), 0
    try:
        order = '<' if data[1] & 1 else '>'
        length, = struct.unpack_from(order + 'I', data, HEADER + 8)  # of frame_id, after the stamp
        at = HEADER + 12 + length
        at += (HEADER - at) % 4
        number, = struct.unpack_from(order + 'I', data, at)
    except (IndexError, struct.error):
        raise ValueError(f'a {kind.__name__} message of {len(data)} bytes is cut off') from None
    if number > count:  # what follows the last element is not looked at
        data = data[:at] + struct.pack(order + 'I', count) + data[at + 4:]
    return read(data, kind, most), number
