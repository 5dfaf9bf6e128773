"""`python -m lego_client.demo`: the same as `lego-client play`."""

import sys

from lego_client.cli import run

if __name__ == "__main__":
    sys.exit(run(["play", *sys.argv[1:]]))
