"""Users' own Python files: loaded and called here alone, and whatever they raise becomes a UserError."""
