"""A process that watches one source and says, line by line, what it sees: for tests with a preloaded Video4Linux."""

from __future__ import annotations

import json
import sys
import time

from lego_client.sources import open_source
from lego_core.errors import LegoError


def main() -> None:
    with open_source(sys.argv[1]) as source:
        while True:
            try:
                frames = source.newest()
            except LegoError as error:
                print(json.dumps({"error": str(error)}), flush=True)
                return
            seen = (
                {"captured": frames[-1].sequence, "size": frames[-1].pixels.shape, "age": frames[-1].age}
                if frames
                else {}
            )
            print(json.dumps({"captured": 0, "trouble": source.trouble, **seen}), flush=True)
            time.sleep(0.1)


main()
