"""A task of several steps: walked through one by one, with guidance for each."""
