"""What can go wrong on the far side. What the user can put right is a `lego_core.errors.LegoError`."""


class ServerError(RuntimeError):
    """The server is not there, went away, or could not answer. The message is written for the wearer."""
