"""What a run leaves behind: the ledger."""
