"""Inference engines: a row each, and what is real of a rung on it."""
