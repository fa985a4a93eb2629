"""Users' own Python files: loaded and called here alone. Their exceptions become UserErrors."""
