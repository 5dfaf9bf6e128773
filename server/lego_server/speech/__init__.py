"""Speech written down by the server, for devices that cannot do it themselves; off unless an operator asks for it."""
