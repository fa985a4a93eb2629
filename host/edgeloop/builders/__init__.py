"""Trained network -> artifact. Each toolchain runs in a child process of its own."""
