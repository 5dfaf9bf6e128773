"""The one exception type whose message is written for the person at the keyboard."""


class LegoError(ValueError):
    """Something a person can put right. The message names the value at fault and the cure."""
