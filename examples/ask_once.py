"""Asks one question about one picture: python examples/ask_once.py localhost:50051 kitchen.jpg "how do I open it?"."""

import asyncio
import sys

from lego_client import Guide


async def main(server: str, picture: str, query: str) -> None:
    async with Guide(server) as guide:
        answer = await guide.answer(picture, query)
    print(answer.description)
    answer.picture.save("guidance.png")


asyncio.run(main(*sys.argv[1:]))
