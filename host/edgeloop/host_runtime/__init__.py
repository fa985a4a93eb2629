"""Model files on this host: opened, counted, cut and run in the real runtime, each in a process of its own."""
