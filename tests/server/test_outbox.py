from __future__ import annotations

import asyncio

import pytest
from lego_server.assistant import DescriptionPiece, StepDone
from lego_server.failures import Reason
from lego_server.messages import Message, QueryEvent, QueryFailed
from lego_server.outbox import Outbox


def progress(query_id: int, step: int, preview: bytes = b"") -> QueryEvent:
    return QueryEvent(query_id, 1, StepDone(step, 10, preview))


def piece(query_id: int, text: str) -> QueryEvent:
    return QueryEvent(query_id, 1, DescriptionPiece(text, done=False))


async def contents(outbox: Outbox) -> list[Message]:
    outbox.close()
    return [message async for message in outbox]


async def test_only_the_newest_progress_waits_and_it_keeps_the_newest_preview() -> None:
    outbox = Outbox()
    for message in (progress(1, 1), progress(1, 2, b"two"), progress(1, 3)):
        outbox.put(message)

    assert await contents(outbox) == [progress(1, 3, b"two")]


async def test_description_pieces_and_other_queries_progress_are_never_merged() -> None:
    outbox = Outbox()
    messages = [piece(1, "the"), piece(1, " left"), progress(1, 1), progress(2, 1), piece(2, "a"), progress(2, 2)]
    for message in messages:
        outbox.put(message)

    assert await contents(outbox) == messages


async def test_a_dropped_query_leaves_nothing_but_its_failure() -> None:
    outbox = Outbox()
    failure = QueryFailed(1, Reason.SUPERSEDED, "query 2 took its place")
    for message in (piece(1, "the"), failure, piece(2, "a"), progress(1, 1)):
        outbox.put(message)
    outbox.discard(1)

    assert await contents(outbox) == [failure, piece(2, "a")]


async def test_a_full_outbox_has_room_again_once_the_client_reads() -> None:
    outbox = Outbox(limit=2)
    outbox.put(piece(1, "a"))
    outbox.put(piece(1, "b"))
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(outbox.room(), 0.02)

    waiting = asyncio.create_task(outbox.room())
    async for _ in outbox:
        break
    await asyncio.wait_for(waiting, 1)
