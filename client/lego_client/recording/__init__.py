"""A session as one file: written while it goes on, read, played, compared and exported afterwards."""
