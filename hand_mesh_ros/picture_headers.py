"""What a compressed picture claims of its size and its parts, read before anything is decoded.

A picture of some kilobytes can claim, and truly hold, more pixels than there is memory for; and OpenCV takes
and fills up to 4 GB for a chunk of a PNG that says to be so long.
"""

from __future__ import annotations

import re
import struct

import cv2
import numpy as np

from hand_mesh_ros.errors import FrameError

_PNG = b'\x89PNG\r\n\x1a\n'
_JPEG = b'\xff\xd8'

#: Where a JPEG's next segment begins, as libjpeg looks for it: what lies between is passed over.
_MARKER = re.compile(rb'\xff+([^\x00\xff])', re.DOTALL)
#: Markers without a length, and those of frames, which have the size. (C4, C8 and CC are of other segments.)
_BARE = frozenset((0x01, *range(0xD0, 0xD9)))
_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}


def decoded_rgb(content: bytes, told: str, max_pixels: int) -> np.ndarray:
    """The picture of a compressed message as (H,W,3) uint8 RGB, turned as its EXIF orientation says.

    :param told: the format that the message names, for the errors.
    :raises FrameError: no JPEG, PNG or WebP, not a whole one, or one of more than ``max_pixels``.
    """
    size = claimed_size(content)
    if size is None:
        raise FrameError(f'{len(content)} bytes of format {told!r} are no whole JPEG, PNG or WebP')
    width, height = size
    if height * width > max_pixels:
        raise FrameError(f'image of size {width}x{height} has more than {max_pixels} pixels')
    try:
        bgr = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_COLOR)
    except cv2.error as error:
        raise FrameError(f'compressed image cannot be decoded: {error}') from error
    if bgr is None:
        raise FrameError(f'{len(content)} bytes of format {told!r} are no image that can be decoded')
    return cv2.cvtColor(bgr, cv2.COLOR_BGR2RGB)


def claimed_size(data: bytes) -> tuple[int, int] | None:
    """Width and height that the header of a JPEG, PNG or WebP claims; None for anything else.

    None, too, for a PNG that :func:`is_cut_png`. The rest may still be damaged, or belong to another size.
    """
    try:
        if data.startswith(_PNG):
            length, kind, width, height = struct.unpack_from('>I4sII', data, len(_PNG))
            return (width, height) if (length, kind) == (13, b'IHDR') and not is_cut_png(data) else None
        if data.startswith(_JPEG):
            return _jpeg_size(data)
        if data[:4] == b'RIFF' and data[8:12] == b'WEBP':
            return _webp_size(data)
    except (struct.error, IndexError):  # cut off within its header
        pass
    return None


def is_cut_png(data: bytes) -> bool:
    """Whether this is a PNG without pixels, without its last chunk, or that ends within a chunk."""
    if not data.startswith(_PNG):
        return False
    # Without pixels OpenCV goes on to read behind the last chunk.
    place, has_pixels = len(_PNG), False
    while place + 12 <= len(data):  # length, kind and checksum
        length, kind = struct.unpack_from('>I4s', data, place)
        place += 12 + length
        has_pixels |= kind == b'IDAT'
        if kind == b'IEND':
            return not has_pixels or place > len(data)
    return True


def _jpeg_size(data: bytes) -> tuple[int, int] | None:
    place = len(_JPEG)
    while (found := _MARKER.search(data, place)) is not None:
        marker, place = found[1][0], found.end()
        if marker in _BARE:
            continue
        if marker in _FRAMES:
            height, width = struct.unpack_from('>HH', data, place + 3)
            return width, height
        (length,) = struct.unpack_from('>H', data, place)
        place += max(length, 2)
    return None


def _webp_size(data: bytes) -> tuple[int, int] | None:
    match data[12:16]:
        case b'VP8 ':
            width, height = struct.unpack_from('<HH', data, 26)
            return width & 0x3FFF, height & 0x3FFF
        case b'VP8L':
            (bits,) = struct.unpack_from('<I', data, 21)
            return (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
        case b'VP8X':
            width, height = (int.from_bytes(data[at : at + 3], 'little') for at in (24, 27))
            return width + 1, height + 1
    return None
