"""Keeps the libraries' own progress bars and remarks off the screen."""

from __future__ import annotations


def quieten() -> None:
    """Silences diffusers and transformers; our commands show their progress themselves."""
    # Imported here: a command that loads no model need not wait for them.
    from diffusers.utils import logging as diffusers_logging
    from transformers.utils import logging as transformers_logging

    for library in (diffusers_logging, transformers_logging):
        library.disable_progress_bar()
        library.set_verbosity_error()
