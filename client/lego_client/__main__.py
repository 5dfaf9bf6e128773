"""`python -m lego_client`."""

from lego_client.cli import main

main()
