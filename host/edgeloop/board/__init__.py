"""One board: the link to it, its job, wheels, power meter and doctor; virtual boards."""
