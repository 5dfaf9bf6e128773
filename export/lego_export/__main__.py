"""`python -m lego_export`."""

from lego_export.cli import main

if __name__ == "__main__":
    main()
