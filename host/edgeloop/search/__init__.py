"""Search policy, pure: which candidates there are, and which one is asked next."""
