"""The files users write, read once, checked, with all faults at once, into frozen values."""
