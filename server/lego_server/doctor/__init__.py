"""Whether a server can run here as configured, and if not, what to do about it."""
