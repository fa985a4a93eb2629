"""Writes a TFLite flatbuffer in which equal vectors are there once.

A FlatBuffer refers to its vectors by offset, and nothing keeps two tables from referring to the same one. The usual
writer puts each down anew: much of a small int8 file is zero points then, 8 bytes for each output channel of weights
and of biases, all 0. Readers notice nothing.
"""

from __future__ import annotations

import hashlib
from typing import Any

import flatbuffers

_IDENTIFIER = b"TFL3"
_LENGTH_BYTES = 4


def pack(model: Any) -> bytes:
    """Return the file of a `ModelT`."""
    builder = _SharingBuilder(1024)
    builder.Finish(model.Pack(builder), file_identifier=_IDENTIFIER)
    return bytes(builder.Output())


def strip(content: bytes) -> bytes:
    """Return the same model without names, signatures and metadata. Its inputs and outputs keep their order."""
    from ai_edge_litert.tools import flatbuffer_utils

    model = flatbuffer_utils.read_model_from_bytearray(bytearray(content))
    flatbuffer_utils.strip_strings(model)
    model.metadata = None
    return pack(model)


class _SharingBuilder(flatbuffers.Builder):  # type: ignore[misc]
    """Takes a vector back when an equal one was written before, as the base class does with vtables."""

    def __init__(self, size: int) -> None:
        super().__init__(size)
        self._offsets: dict[tuple[int, bytes], int] = {}
        """By alignment and hash."""
        self._before = 0
        self._element_bytes = self._alignment = 1
        self._plain = False

    def StartVector(self, elemSize: int, numElems: int, alignment: int) -> int:  # noqa: N802, N803 -- the base class's
        self._before, self._plain = self.Offset(), True
        self._element_bytes, self._alignment = elemSize, alignment
        start: int = super().StartVector(elemSize, numElems, alignment)
        return start

    def PrependUOffsetTRelative(self, off: int) -> None:  # noqa: N802
        self._plain = False  # offsets count from where they stand, so equal bytes are not equal references
        super().PrependUOffsetTRelative(off)

    def EndVector(self, numElems: int | None = None) -> int:  # noqa: N802, N803
        elements = self.vectorNumElems
        end: int = super().EndVector(numElems)
        if not self._plain or not elements:
            return end
        self._plain = False
        vector = slice(self.Head(), self.Head() + _LENGTH_BYTES + elements * self._element_bytes)
        with memoryview(self.Bytes) as content:
            key = self._alignment, hashlib.sha256(content[vector]).digest()
        first = self._offsets.setdefault(key, end)
        if first != end:
            self.head = len(self.Bytes) - self._before
        return first
