"""Child processes of this host, bounded in time and memory, and files and folders that appear whole."""
