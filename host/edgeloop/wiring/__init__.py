"""The composition root: the only room that constructs adapters."""
