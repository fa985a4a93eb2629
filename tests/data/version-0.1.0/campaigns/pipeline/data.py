"""Digits as PNG files beside the arrays that training takes: `splits` is what `[data] factory` names."""

import struct
import zlib

import numpy as np
from sklearn.datasets import load_digits


def splits() -> dict[str, dict[str, object]]:
    """1,797 digits of 8x8 pixels. The board gets the PNGs of validation and test; training needs none."""
    digits = load_digits()
    pixels = np.round(digits.images * (255 / 16)).astype(np.uint8)
    x = ((pixels.astype("float32") / 255 - 0.3053) / 0.376)[..., None]
    order = np.random.default_rng(7).permutation(len(x))
    parts = {"train": order[:1097], "validation": order[1097:1447], "test": order[1447:]}
    found: dict[str, dict[str, object]] = {}
    for name, part in parts.items():
        found[name] = {"x": x[part], "y/digit": digits.target[part]}
        if name != "train":
            found[name]["encoded"] = [png(pixels[i]) for i in part]
    return found


def png(pixels: np.ndarray) -> bytes:
    """(height, width), uint8 -> a grey PNG file; every second row filtered by the one above."""
    height, width = pixels.shape
    rows = [
        b"\2" + (pixels[y] - pixels[y - 1]).tobytes() if y % 2 else b"\0" + pixels[y].tobytes() for y in range(height)
    ]
    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    chunks = ((b"IHDR", header), (b"IDAT", zlib.compress(b"".join(rows))), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body)) for kind, body in chunks
    )
