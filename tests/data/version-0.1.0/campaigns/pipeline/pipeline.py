"""What runs on the board around the network, from a PNG to probabilities: numpy and the standard library only.

It is timed end to end, each stage by itself, and the accuracy on the board is that of what `postprocess` returns.
"""

import struct
import zlib

import numpy as np


class Pipeline:
    """Grey 8-bit PNGs of one filter kind a row, as cameras' and scanners' simplest encoders write them."""

    def load(self, encoded: bytes) -> np.ndarray:
        """PNG file -> (height, width), uint8. Filters 0 (none), 1 (left) and 2 (up)."""
        at, width, height, packed = 8, 0, 0, b""
        while at < len(encoded):
            length, kind = struct.unpack(">I4s", encoded[at : at + 8])
            body = encoded[at + 8 : at + 8 + length]
            if kind == b"IHDR":
                width, height = struct.unpack(">II", body[:8])
            elif kind == b"IDAT":
                packed += body
            at += 12 + length
        rows = np.frombuffer(zlib.decompress(packed), np.uint8).reshape(height, 1 + width)
        pixels = np.zeros((height, width), np.uint8)
        for y, row in enumerate(rows):
            if row[0] == 1:
                pixels[y] = np.cumsum(row[1:], dtype=np.uint8)
            elif row[0] == 2 and y:
                pixels[y] = row[1:] + pixels[y - 1]
            else:
                pixels[y] = row[1:]
        return pixels

    def preprocess(self, decoded: np.ndarray) -> np.ndarray:
        """-> (8, 8, 1) float32, scaled as in training. It is quantized for the network where the network wants it."""
        return ((decoded.astype(np.float32) / 255 - 0.3053) / 0.376)[..., None]

    def postprocess(self, outputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Logits -> probabilities, under the name that the task's metrics know: the labels' own."""
        (logits,) = outputs.values()
        shares = np.exp(logits - logits.max())
        return {"digit": shares / shares.sum()}
