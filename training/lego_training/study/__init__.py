"""The user studies of the paper: people choose the best of several pictures, or say whether a description is right.

`build.py` makes a folder that a page can show, `serve.py` serves it and takes votes, `votes.py` keeps them, and
`report.py` says what came out. docs/studies.md is for who runs one.
"""
