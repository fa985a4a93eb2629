"""Data sets: where samples come from, how they are divided, and what is wrong with them.

Training and scoring are left to others. Nothing here imports torch, and a user's .npz is read without pickle.
"""

from edgeloop.data.files import read_measure_npz, write_board_npz
from edgeloop.data.load import load
from edgeloop.data.shapes import network_io

__all__ = ["load", "network_io", "read_measure_npz", "write_board_npz"]
