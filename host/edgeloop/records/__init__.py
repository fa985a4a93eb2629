"""Records of a run: the ledger and the raw samples of its sessions."""
