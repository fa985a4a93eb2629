"""edgeloop: finds a neural network that proves itself on the board."""

__version__ = "0.1.0"
