"""Recognisers of speech, for whoever listens: the wearer's own device, or a server that is asked to.

Nothing here opens a connection, downloads anything or writes sound to disk.
"""
