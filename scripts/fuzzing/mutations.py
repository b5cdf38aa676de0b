"""Damage done to bytes, to trees of JSON and YAML, and to pickles; all of it drawn from one generator."""

from __future__ import annotations

import copy
import json
import pickletools
import struct
from collections.abc import Sequence
from random import Random
from typing import Any

_INTEGERS = (
    *(0, 1, 2, 3, 7, 8, 16, 63, 64, 127, 128, 255, 256, 1000, 4096, 32767, 32768, 65535, 65536),
    *(2**20, 2**24, 2**31 - 1, 2**31, 2**32 - 1, 2**32, 2**40, 2**62, 2**63 - 1, 2**63, 2**64 - 1),
)
_FLOATS = (0.0, -0.0, 1.0, -1.0, 1e-320, 1e-30, 1e30, 1e38, 1e39, 1e300, float('nan'), float('inf'))

_TEXTS = (
    *('', ' ', '.', '..', '/', '../../etc/passwd', 'left', 'right', 'a/b/c', '\0', '\ud800', '\u202e', '☃'),
    *('NaN', 'nan', 'inf', '1e999', '-1', '0x10', 'null', 'true', '%s', '{}', 'x' * 5000, '\n', '2001-99-99'),
)


def integer(random: Random) -> int:
    """A whole number that programs are likely to stumble over, or one near to it."""
    return random.choice(_INTEGERS) * random.choice((1, 1, 1, -1)) + random.choice((0, 0, 0, 1, -1))


def number(random: Random) -> float:
    """A float that programs are likely to stumble over."""
    return random.choice((*_FLOATS, random.uniform(-1e3, 1e3))) * random.choice((1.0, -1.0))


def text(random: Random) -> str:
    """A text that programs are likely to stumble over."""
    return random.choice(_TEXTS)


def damaged(content: bytes, other: bytes, random: Random) -> bytes:
    """``content`` after one to four changes; ``other`` is a file of the same kind, to splice with."""
    changed = bytearray(content)
    for _ in range(random.choice((1, 1, 1, 2, 3, 4))):
        random.choice(_BYTE_CHANGES)(changed, other, random)
    return bytes(changed)


def _place(content: bytearray, random: Random) -> int:
    """A place in it, in half of all cases near to an end: there files have their headers."""
    near = min(len(content), 256)
    if not near:
        return 0
    kind = random.randrange(4)
    if kind == 0:
        return random.randrange(near)
    return len(content) - 1 - random.randrange(near) if kind == 1 else random.randrange(len(content))


def _flip(content: bytearray, other: bytes, random: Random) -> None:
    for _ in range(random.choice((1, 1, 2, 8, 32))):
        if content:
            content[_place(content, random)] ^= 1 << random.randrange(8)


def _overwrite(content: bytearray, other: bytes, random: Random) -> None:
    place = _place(content, random)
    content[place : place + random.choice((1, 4, 16))] = random.randbytes(random.choice((1, 4, 16)))


def _set_number(content: bytearray, other: bytes, random: Random) -> None:
    """Lengths, counts and sizes in headers are such numbers."""
    size, form = random.choice(((1, 'B'), (2, 'H'), (4, 'I'), (4, 'I'), (8, 'Q')))
    place = _place(content, random) & ~(random.choice((1, size)) - 1)
    value = integer(random) % (1 << 8 * size)
    content[place : place + size] = struct.pack(random.choice('<>') + form, value)


def _truncate(content: bytearray, other: bytes, random: Random) -> None:
    del content[_place(content, random) :]


def _duplicate(content: bytearray, other: bytes, random: Random) -> None:
    start = _place(content, random)
    piece = content[start : start + random.choice((1, 8, 64, 1024))]
    place = random.choice((start, _place(content, random)))
    content[place:place] = piece * random.choice((1, 1, 2, 50))


def _remove(content: bytearray, other: bytes, random: Random) -> None:
    start = _place(content, random)
    del content[start : start + random.choice((1, 4, 64, 1024))]


def _splice(content: bytearray, other: bytes, random: Random) -> None:
    if other:
        place = _place(content, random)
        content[place:] = other[random.choice((min(place, len(other)), random.randrange(len(other)))) :]


_BYTE_CHANGES = (_flip, _flip, _overwrite, _set_number, _set_number, _truncate, _duplicate, _remove, _splice)


def odd_value(random: Random) -> Any:
    """What may stand anywhere in a tree of JSON, and seldom does."""
    kind = random.randrange(10)
    if kind == 0:
        return random.choice((None, True, False))
    if kind in (1, 2):
        return integer(random)
    if kind in (3, 4):
        return number(random)
    if kind == 5:
        return random.choice((10**400, -(10**400), 10**25))
    if kind == 6:
        return nested(random.choice((3, 30, 300)))
    if kind == 7:
        return [odd_value(random) for _ in range(random.randrange(5))]
    if kind == 8:
        return {text(random): odd_value(random) for _ in range(random.randrange(4))}
    return text(random)


def nested(depth: int) -> Any:
    """Lists in lists, that deep."""
    tree: Any = []
    for _ in range(depth):
        tree = [tree]
    return tree


def changed_tree(tree: Any, random: Random) -> Any:
    """A copy of a tree of dicts and lists with some nodes replaced, left out, renamed or moved."""
    tree = copy.deepcopy(tree)
    for _ in range(random.choice((1, 1, 1, 2, 4))):
        places = list(_nodes(tree))
        if not places or random.random() < 0.01:
            return odd_value(random)
        holder, key = random.choice(places)
        kind = random.randrange(6)
        if kind == 0:
            del holder[key]
        elif kind == 1 and isinstance(holder, dict):
            holder[text(random)] = holder.pop(key)
        elif kind == 1:
            holder.insert(key, odd_value(random))
        elif kind == 2:
            other_holder, other_key = random.choice(places)
            holder[key] = copy.deepcopy(other_holder[other_key])
        else:
            holder[key] = odd_value(random)
    return tree


def _nodes(tree: Any) -> Sequence[tuple[Any, Any]]:
    """All places of a tree, as the container and the key or index in it."""
    found: list[tuple[Any, Any]] = []
    waiting = [tree]
    while waiting:
        holder = waiting.pop()
        keys = holder.keys() if isinstance(holder, dict) else range(len(holder))
        for key in keys:
            found.append((holder, key))
            if isinstance(holder[key], dict | list):
                waiting.append(holder[key])
    return found


def json_bytes(tree: Any, random: Random) -> bytes:
    """A changed tree as JSON, which is now and then damaged, deeper than any parser goes, or not UTF-8."""
    kind = random.randrange(60)
    if kind == 0:
        return b'[' * 100_000
    if kind == 1:
        return b'{"a":' * 50_000 + b'1' + b'}' * 50_000
    if kind == 2:
        return json.dumps(tree).encode().replace(b'1', b'1' * 5000, 1)
    written = json.dumps(changed_tree(tree, random), ensure_ascii=random.random() < 0.8)
    content = written.encode(random.choice(('utf-8', 'utf-8', 'utf-8-sig', 'utf-16')), 'surrogatepass')
    return damaged(content, json.dumps(tree).encode(), random) if random.random() < 0.3 else content


def damaged_pickle(content: bytes, places: Sequence[int], other: bytes, random: Random) -> bytes:
    """A pickle with its operations swapped, left out, doubled or spliced; ``places`` are where they begin."""
    if random.random() < 0.4:
        return damaged(content, other, random)
    changed = bytearray(content)
    for _ in range(random.choice((1, 1, 2, 4))):
        at = random.randrange(len(places) - 1)
        start, end = places[at], places[at + 1]
        kind = random.randrange(6)
        if kind < 2:
            changed[start : start + 1] = random.choice(_OPERATIONS)
        elif kind == 2:  # of the same length, so that the other places stay right
            changed[start:end] = b'0' * min(end - start, 64) + bytes(changed[start + 64 : end])
        elif kind == 3 and end - start > 1:
            changed[start + 1 + random.randrange(min(end - start - 1, 12))] = random.choice((0, 1, 127, 255))
        elif kind == 4:
            source = random.randrange(len(places) - 1)
            piece = content[places[source] : places[source + 1]]
            changed[start : start + len(piece)] = piece
        else:
            insertion = random.choice(_OPERATIONS) * random.choice((1, 2, 1000))
            return bytes(changed[:start]) + insertion + bytes(changed[start:])
    return bytes(changed)


_OPERATIONS = [opcode.code.encode('latin-1') for opcode in pickletools.opcodes]


def operation_places(content: bytes) -> list[int]:
    """Where the operations of a pickle begin."""
    return [place for _, _, place in pickletools.genops(content) if place is not None]
