"""Keeps the libraries' own progress bars and remarks off the screen."""

from __future__ import annotations

import os


def quieten() -> None:
    """Silences diffusers, transformers and DeepSpeed; our commands show their progress themselves."""
    # Imported here: a command that loads no model need not wait for them.
    import torch
    from diffusers.utils import logging as diffusers_logging
    from transformers.utils import logging as transformers_logging

    for library in (diffusers_logging, transformers_logging):
        library.disable_progress_bar()
        library.set_verbosity_error()
    if not torch.accelerator.is_available():
        # Where DeepSpeed is installed, accelerate imports it, and it prints that it finds no GPU unless told so before.
        os.environ.setdefault("DS_ACCELERATOR", "cpu")
