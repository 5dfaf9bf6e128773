"""`python -m lego_training` is `lego-train`."""

from lego_training.cli import main

main()
