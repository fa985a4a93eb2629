"""Contract suites: what every adapter of a port must do. Subclass one, or call it, with an adapter of your own."""
