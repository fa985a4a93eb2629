"""Frozen values and their invariants: no I/O, no torch, no paramiko. Import from the module of the noun."""
