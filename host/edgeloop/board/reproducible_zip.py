"""A zip writer with a deflate encoder (RFC 1951) of its own, whose output depends on nothing but its input.

zlib's output differs between its versions and its replacements, and the agent's bundle must have equal bytes on every
machine. Fixed codes and a greedy search are enough for a hundred kilobytes of source.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Sequence

_MATCH_MIN, _MATCH_MAX, _WINDOW, _TRIES = 3, 258, 32768, 6
_END = 256


def zip_of(entries: Sequence[tuple[str, bytes]]) -> bytes:
    """Return a zip of these files, (name, content) each, stamped with no time."""
    body, directory = bytearray(), bytearray()
    for name, content in entries:
        data = deflate(content)
        # needed version, flags, method deflate, time, date (1980-01-01), checksum, sizes, length of the name, no extra
        facts = struct.pack(
            "<HHHHHIIIHH", 20, 0, 8, 0, 0x21, zlib.crc32(content), len(data), len(content), len(name), 0
        )
        # made by Unix; no comment, first disk, no internal attributes, mode rw-r--r--, where its header is
        directory += b"PK\x01\x02" + struct.pack("<H", 0x314) + facts
        directory += struct.pack("<HHHII", 0, 0, 0, 0o100644 << 16, len(body)) + name.encode()
        body += b"PK\x03\x04" + facts + name.encode() + data
    end = struct.pack("<HHHHIIH", 0, 0, len(entries), len(entries), len(directory), len(body), 0)
    return bytes(body + directory + b"PK\x05\x06" + end)


def deflate(data: bytes) -> bytes:
    """Return `data` as one final deflate block; `zlib.decompress(..., -15)` gives it back."""
    out = bytearray()
    pending, pending_bits = 0b011, 3  # final block, fixed codes
    places: dict[bytes, list[int]] = {}
    at = 0
    while at < len(data):
        length, distance = _longest_match(data, at, places)
        if length:
            code, bits = _LENGTHS[length]
            pending |= code << pending_bits
            pending_bits += bits
            code, bits = _distance_code(distance)
        else:
            length = 1
            code, bits = _LITERALS[data[at]]
        pending |= code << pending_bits
        pending_bits += bits
        for place in range(at, at + length):
            places.setdefault(data[place : place + _MATCH_MIN], []).append(place)
        at += length
        whole = pending_bits // 8
        if whole >= 64:
            out += (pending & ((1 << 8 * whole) - 1)).to_bytes(whole, "little")
            pending >>= 8 * whole
            pending_bits -= 8 * whole
    code, bits = _LITERALS[_END]
    pending |= code << pending_bits
    pending_bits += bits
    return bytes(out + pending.to_bytes((pending_bits + 7) // 8, "little"))


def _longest_match(data: bytes, at: int, places: dict[bytes, list[int]]) -> tuple[int, int]:
    """(length, distance) of the longest of the latest matches; (0, 0) where there is none."""
    best, distance = 0, 0
    most = min(_MATCH_MAX, len(data) - at)
    if most < _MATCH_MIN:
        return 0, 0
    for place in reversed(places.get(data[at : at + _MATCH_MIN], ())[-_TRIES:]):
        if at - place > _WINDOW:
            break
        if best and data[place + best : place + best + 1] != data[at + best : at + best + 1]:
            continue
        length = _MATCH_MIN
        while length < most and data[place + length] == data[at + length]:
            length += 1
        if length > best:
            best, distance = length, at - place
            if best == most:
                break
    return best, distance


def _bits_reversed(code: int, bits: int) -> int:
    """Codes go out with their highest bit first, everything else with its lowest."""
    return int(f"{code:0{bits}b}"[::-1], 2)


def _literal(symbol: int) -> tuple[int, int]:
    if symbol < 144:
        return _bits_reversed(0x30 + symbol, 8), 8
    if symbol < 256:
        return _bits_reversed(0x190 + symbol - 144, 9), 9
    if symbol < 280:
        return _bits_reversed(symbol - 256, 7), 7
    return _bits_reversed(0xC0 + symbol - 280, 8), 8


def _length_codes() -> dict[int, tuple[int, int]]:
    """Code and extra bits of every match length, ready to be written."""
    codes, length = {}, _MATCH_MIN
    for symbol in range(257, 285):
        extra = 0 if symbol < 265 else (symbol - 261) // 4
        code, bits = _literal(symbol)
        for value in range(1 << extra):
            codes[length] = code | value << bits, bits + extra
            length += 1
    codes[_MATCH_MAX] = _literal(285)
    return codes


def _distance_code(distance: int) -> tuple[int, int]:
    value = distance - 1
    if value < 4:
        return _bits_reversed(value, 5), 5
    extra = value.bit_length() - 2
    code = _bits_reversed(2 * extra + 2 + (value >> extra & 1), 5)
    return code | (value & (1 << extra) - 1) << 5, 5 + extra


_LITERALS = [_literal(symbol) for symbol in range(257)]
_LENGTHS = _length_codes()
