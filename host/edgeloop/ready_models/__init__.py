"""Models that are used as they are: other formats converted or compiled, programs packed, M1 given as a file."""
