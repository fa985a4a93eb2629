"""The commands, one file each. Python callers and the command line call the same functions."""
