from __future__ import annotations

import asyncio

import pytest
from lego_server.assistant import DescriptionPiece, StepDone
from lego_server.failures import Reason
from lego_server.messages import FrameReceived, Message, QueryEvent, QueryFailed
from lego_server.outbox import Outbox


def progress(query_id: int, step: int, preview: bytes = b"") -> QueryEvent:
    return QueryEvent(query_id, 1, StepDone(step, 10, preview))


def piece(query_id: int, text: str) -> QueryEvent:
    return QueryEvent(query_id, 1, DescriptionPiece(text, done=False))


async def contents(outbox: Outbox) -> list[Message]:
    outbox.close()
    return [message async for _, message in outbox.read()]


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
    async for _ in outbox.read():
        break
    await asyncio.wait_for(waiting, 1)


async def test_an_outbox_is_full_of_few_large_pictures_too() -> None:
    outbox = Outbox(limit=256, limit_bytes=1000)
    outbox.put(progress(1, 1, b"x" * 600))
    await asyncio.wait_for(outbox.room(), 1)
    outbox.put(progress(2, 1, b"x" * 600))
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(outbox.room(), 0.02)


async def test_a_closed_outbox_takes_nothing_more() -> None:
    outbox = Outbox()
    outbox.put(piece(1, "a"))
    outbox.close()
    outbox.put(piece(1, "b"))
    assert await contents(outbox) == [piece(1, "a")]


async def take(outbox: Outbox, count: int) -> list[tuple[int, Message]]:
    taken = []
    async for item in outbox.read():
        taken.append(item)
        if len(taken) == count:
            break
    return taken


async def test_what_a_broken_stream_did_not_bring_is_taken_again_by_its_number() -> None:
    outbox = Outbox()
    for message in (piece(1, "the"), piece(1, " left"), progress(1, 1)):
        outbox.put(message)
    first = await take(outbox, 3)
    outbox.put(progress(1, 2))
    outbox.rewind(received=1)

    assert first == [(1, piece(1, "the")), (2, piece(1, " left")), (3, progress(1, 1))]
    assert await take(outbox, 3) == [*first[1:], (4, progress(1, 2))]


async def test_of_progress_only_the_newest_is_taken_again() -> None:
    outbox = Outbox()
    for step in range(1, 5):
        outbox.put(progress(1, step))
        await take(outbox, 1)
    outbox.rewind(received=0)

    assert await take(outbox, 1) == [(4, progress(1, 4))]


async def test_nothing_of_an_earlier_query_is_taken_again() -> None:
    outbox = Outbox()
    outbox.put(piece(1, "the"))
    await take(outbox, 1)
    outbox.discard(1)
    outbox.put(piece(2, "a"))
    outbox.rewind(received=0)

    assert await take(outbox, 1) == [(2, piece(2, "a"))]


async def test_a_new_reader_takes_over_from_the_old_one() -> None:
    outbox = Outbox()
    old = asyncio.create_task(take(outbox, 5))
    await asyncio.sleep(0)
    new = asyncio.create_task(take(outbox, 1))
    await asyncio.sleep(0)
    outbox.put(piece(1, "the"))

    assert await new == [(1, piece(1, "the"))]
    assert await old == []


async def test_a_frame_received_speaks_for_those_before_it() -> None:
    outbox = Outbox()
    for message in (FrameReceived(1), piece(1, "the"), FrameReceived(2)):
        outbox.put(message)

    assert await contents(outbox) == [piece(1, "the"), FrameReceived(2)]
