"""`python -m lego_server`."""

from lego_server.cli import main

if __name__ == "__main__":
    main()
