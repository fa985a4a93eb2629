"""Networks: the families that ship with edgeloop, a user's own factory, and what a network costs.

Training, quantizing and converting are left to others. torch is imported by the modules of this room only, so
that this package's names can be had without it.
"""

FAMILIES = ("ds_cnn", "resnet", "conv1d", "mlp", "autoencoder")
"""Names for `[reference] family`."""
