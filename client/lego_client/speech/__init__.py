"""Speech on the wearer's own device: microphone, recognition, corrections, a voice. Audio never leaves the machine.

Nothing here is imported before it is asked for: it needs the extra `speech`.
"""
