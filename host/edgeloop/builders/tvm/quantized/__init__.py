"""Quantized networks as TVM's integer functions, computed as LiteRT's kernels do."""
