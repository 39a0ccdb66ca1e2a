"""Messages of a few kilobytes that ask for much work. The structures are valid, so that a decoder would go on."""
from __future__ import annotations

import struct
import zlib

import cv2
import numpy as np

SIGNATURE = b'\x89PNG\r\n\x1a\n'
CHANNELS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack('>I', len(data)) + kind + data + struct.pack('>I', zlib.crc32(kind + data))


def png(width: int, height: int, depth: int, colour: int, extra: bytes = b'') -> bytes:
    """A picture of zeros; `extra` chunks stand before its pixels."""
    row = bytes(1 + width * CHANNELS[colour] * depth // 8)
    packer = zlib.compressobj(9)
    data = b''.join(packer.compress(row) for _ in range(height)) + packer.flush()
    head = struct.pack('>IIBBBBB', width, height, depth, colour, 0, 0, 0)
    return SIGNATURE + chunk(b'IHDR', head) + extra + chunk(b'IDAT', data) + chunk(b'IEND', b'')


def progressive(width: int, height: int, more: int = 0) -> bytes:
    """A grey picture in ten scans, the last one `more` times again."""
    data = cv2.imencode('.jpg', np.zeros((height, width, 3), np.uint8), (cv2.IMWRITE_JPEG_PROGRESSIVE, 1))[1].tobytes()
    last, end = data.rfind(b'\xff\xda'), data.rfind(b'\xff\xd9')
    return data[:end] + data[last:end] * more + data[end:]


def pictures() -> dict[str, bytes]:
    """Name -> file."""
    text = chunk(b'zTXt', b'x\0\0' + zlib.compress(bytes(7_900_000), 9))
    return {
        'JPEG, 1,000 scans': progressive(8192, 8192, 990),
        'JPEG, 1,000 scans, small': progressive(640, 480, 990),
        'JPEG, 20 scans, as large as allowed': progressive(3300, 3300, 10),
        'JPEG, a million segments': b'\xff\xd8' + b'\xff\xfe\0\2' * 1_000_000,
        'JPEG, fill bytes': b'\xff\xd8' + b'\xff' * 3_000_000 + b'\0',
        'PNG, 8192x8192, RGBA of 16 bits': png(8192, 8192, 16, 6),
        'PNG, RGBA of 16 bits, as large as allowed': png(2890, 2890, 16, 6),
        'PNG, RGB, as large as allowed': png(4725, 4725, 8, 2),
        'PNG, texts that unpack to 2 GB': png(2000, 2000, 8, 2, extra=text * 250),
        'PNG, a million chunks': png(64, 64, 8, 2, extra=chunk(b'teXt', b'') * 1_000_000)}
