"""Data of one's own: `splits` is what `[data] factory` names. Arrays are channel-last, the sample first."""

import numpy as np
from sklearn.datasets import load_digits


def splits() -> dict[str, dict[str, np.ndarray]]:
    """1,797 digits of 8x8 pixels, with four figures about each image; calibration is taken from train."""
    digits = load_digits()
    image = (digits.images[..., None] / 16).astype("float32")
    arrays = {"x/image": image, "x/metadata": metadata(image[..., 0]), "y/digit": digits.target}
    order = np.random.default_rng(7).permutation(len(image))
    parts = {"train": order[:1097], "validation": order[1097:1447], "test": order[1447:]}
    return {name: {key: array[part] for key, array in arrays.items()} for name, part in parts.items()}


def metadata(pixels: np.ndarray) -> np.ndarray:
    """Share of ink, its centre down and across, and its spread: (n, 4), each about 0 to 1."""
    ink = pixels.sum((1, 2))
    place = np.arange(8) / 7
    down = (pixels.sum(2) * place).sum(1) / ink
    across = (pixels.sum(1) * place).sum(1) / ink
    spread = np.sqrt((pixels.sum(1) * (place - across[:, None]) ** 2).sum(1) / ink)
    return np.stack([ink / 64, down, across, spread], 1).astype("float32")
