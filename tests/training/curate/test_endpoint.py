"""An endpoint that fails in every way endpoints do, and what is made of each."""

from __future__ import annotations

import asyncio
import gzip
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest
from lego_core.errors import LegoError
from lego_training.curate.endpoint import ChatEndpoint, Halted, Patience, Reply, Unanswered, check_address

from tests.training.curate.chat_server import Answer, Chat, fails, says, serve

BODY = {"model": "m", "messages": [{"role": "user", "content": "?"}]}
QUICK = Patience(tries=3, first_wait=0.01, longest_wait=0.02, timeout=5)
GOOD = says("Fine.")


async def ask(*answers: Answer, patience: Patience = QUICK, key: str | None = None, first: bool = True) -> Reply:
    """Asks an endpoint that gives these answers in turn; not as its first request if so wanted."""
    script = list(answers) if first else [GOOD, *answers]
    with serve(Chat(lambda body, number: script[min(number, len(script)) - 1])) as chat:
        async with ChatEndpoint(chat.address, key, patience) as endpoint:
            if not first:
                await endpoint.complete(BODY)
            return await endpoint.complete(BODY)


async def test_a_completion_is_its_text_its_end_and_its_tokens() -> None:
    assert await ask(says("Fine.", "length")) == Reply("Fine.", "length", 1000, 20)


async def test_tokens_that_the_endpoint_does_not_count_are_none() -> None:
    answer = Answer({"choices": [{"message": {"content": "Fine."}}]})

    assert await ask(answer) == Reply("Fine.", "stop", None, None)


async def test_the_request_is_sent_whole_with_its_key_to_the_path_of_chat_completions() -> None:
    with serve(Chat(lambda body, number: GOOD)) as chat:
        async with ChatEndpoint(f"{chat.address}/", "sk-right", QUICK) as endpoint:
            await endpoint.complete(BODY)

    ((path, headers, body, _),) = chat.requests
    assert (path, headers["authorization"], body) == ("/v1/chat/completions", "Bearer sk-right", BODY)


@pytest.mark.parametrize(
    "trouble",
    [
        fails(500), fails(503), fails(408), fails(429), fails(429, Retry_After="0"), fails(503, Retry_After="soon"),
        Answer(b"{"), Answer(b"\xff\xfe"), Answer([]), Answer({}), Answer({"choices": []}), Answer({"choices": [{}]}),
        Answer({"choices": [{"message": {"content": 3}}]}), Answer({"error": {"message": "upstream died"}}),
        says("Fine.", cut=20), Answer(b"not gzip", headers={"Content-Encoding": "gzip"}),
        Answer(b" " * (2 << 20)), Answer(gzip.compress(b" " * (64 << 20)), headers={"Content-Encoding": "gzip"}),
    ],
)  # fmt: skip
async def test_what_may_pass_is_tried_again(trouble: Answer) -> None:
    assert (await ask(trouble, trouble, GOOD)).text == "Fine."


@pytest.mark.parametrize(
    ("trouble", "message"),
    [
        (fails(500, "out of memory"), r"status 500 \(out of memory\), 3 times"),
        (Answer(b"<html>", 502), r"status 502 \(<html>\), 3 times"),
        (Answer(b"{"), "the answer is no JSON, 3 times"),
        (Answer({"choices": []}), "the answer has no choice, 3 times"),
        (says("Fine.", cut=20), r"the connection broke \(.*\), 3 times"),
        (says("Fine.", cut=0), r"the connection broke \(.*\), 3 times"),
    ],
)
async def test_what_does_not_pass_is_given_up_with_its_reason(trouble: Answer, message: str) -> None:
    with pytest.raises(Unanswered, match=f"^{message}$"):
        await ask(trouble)


@pytest.mark.parametrize("slow", [says("Fine.", after=2), says("Fine.", drip=0.05)])
async def test_an_answer_that_takes_too_long_in_all_is_given_up(slow: Answer) -> None:
    patience = Patience(tries=2, first_wait=0.01, timeout=0.2)

    with pytest.raises(Unanswered, match=r"no whole answer within 0\.2 s, 2 times"):
        await ask(slow, patience=patience)


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (
            fails(401, "bad key sk-secret"),
            r"denies access with status 401 \(bad key \[key\]\); the API key was refused",
        ),
        (fails(403), "denies access with status 403"),
        (fails(404, "The model `m` does not exist"), r"knows no such model or path \(The model `m`.*check --model"),
        (fails(402, "pay"), r"has no credit left \(pay\)"),
        (fails(429, "quota", "insufficient_quota"), "has no credit left"),
        (fails(429, "slow down", Retry_After="90000"), r"asks to wait 90000 s .*run the same command again later"),
        (fails(400, "max_tokens is not supported"), r"refused with status 400 \(max_tokens.*--request KEY=null"),
        (Answer(b"", 301, {"Location": "https://other/v1"}), "redirects to https://other/v1; give the address"),
    ],
)
async def test_what_will_not_pass_stops_at_once_in_a_sentence(answer: Answer, message: str) -> None:
    with serve(Chat(lambda body, number: answer)) as chat:
        async with ChatEndpoint(chat.address, "sk-secret", QUICK) as endpoint:
            with pytest.raises(LegoError, match=message) as error:
                await endpoint.complete(BODY)

    assert len(chat.requests) == 1
    assert "sk-secret" not in str(error.value) and "\n" not in str(error.value)


async def test_without_a_key_a_denial_says_how_to_give_one() -> None:
    with pytest.raises(LegoError, match=r"status 401 .*; give a key with --api-key-env or --api-key-file"):
        await ask(fails(401))


async def test_a_request_refused_by_an_endpoint_that_answers_others_is_given_up_alone() -> None:
    with pytest.raises(Unanswered, match=r"^refused with status 400 \(context too long\)$"):
        await ask(fails(400, "context too long"), first=False)


@pytest.mark.parametrize(
    "answer",
    [
        fails(400, "filtered", "content_filter"),
        says("", "content_filter"),
        Answer({"choices": [{"message": {"content": None, "refusal": "I cannot."}, "finish_reason": "stop"}]}),
    ],
)
async def test_a_filters_refusal_is_an_answer(answer: Answer) -> None:
    reply = await ask(answer)

    assert (reply.text, reply.finish) == ("", "content_filter")


async def test_an_endpoint_that_is_not_there_is_named_at_once() -> None:
    with serve(Chat(lambda body, number: GOOD)) as chat:
        gone = chat.address
    async with ChatEndpoint(gone, patience=Patience(first_wait=60)) as endpoint:
        with pytest.raises(LegoError, match=rf"{gone} cannot be reached .*; check --endpoint and its server"):
            await asyncio.wait_for(endpoint.complete(BODY), 5)


@pytest.mark.parametrize("form", ["seconds", "date"])
async def test_retry_after_is_waited_for_by_every_request(form: str) -> None:
    def script(body: object, number: int) -> Answer:
        moment = datetime.now(UTC) + timedelta(seconds=2)  # a date has no fractions: one second at least
        return fails(429, Retry_After="1" if form == "seconds" else format_datetime(moment)) if number == 1 else GOOD

    with serve(Chat(script)) as chat:
        async with ChatEndpoint(chat.address, patience=QUICK) as endpoint:
            limited = asyncio.create_task(endpoint.complete(BODY))
            await asyncio.to_thread(chat.was_asked.wait, 5)
            await asyncio.sleep(0.1)  # until the answer is read
            await asyncio.gather(limited, endpoint.complete(BODY))

    first, *others = (moment for *_, moment in chat.requests)
    assert len(others) == 2 and all(moment - first >= 0.95 for moment in others)


def test_waits_double_up_to_a_bound_and_differ() -> None:
    patience = Patience(first_wait=1, longest_wait=8)

    for failures, longest in ((1, 1), (2, 2), (3, 4), (4, 8), (9, 8)):
        waits = [patience.wait(failures) for _ in range(50)]
        assert longest / 2 <= min(waits) < max(waits) <= longest


async def test_a_request_that_waits_ends_when_the_endpoint_is_told_to_halt() -> None:
    with serve(Chat(lambda body, number: fails(500))) as chat:
        async with ChatEndpoint(chat.address, patience=Patience(first_wait=60)) as endpoint:
            waiting = asyncio.create_task(endpoint.complete(BODY))
            await asyncio.to_thread(chat.was_asked.wait, 5)
            await asyncio.sleep(0.1)  # until the answer is read
            endpoint.halt()
            with pytest.raises(Halted):
                await asyncio.wait_for(waiting, 5)


@pytest.mark.parametrize(
    ("address", "message"),
    [
        ("host:8000/v1", "is no base address"),
        ("ftp://host/v1", "is no base address"),
        ("http:///v1", "is no base address"),
        ("http://host:99999/v1", "cannot be read"),
        ("http://host/v1?key=s", "is no base address"),
        ("http://host/v1/chat/completions/", "must end before /chat/completions"),
        ("http://me:secret@host/v1", "holds a password; give keys with"),
    ],
)
def test_an_address_that_is_none_is_refused_without_its_secrets(address: str, message: str) -> None:
    with pytest.raises(LegoError, match=message) as error:
        check_address(address)
    assert "secret" not in str(error.value)


@pytest.mark.parametrize("key", ["", "two words", "line\nbreak", "ключ"])
async def test_a_key_that_is_none_is_refused_without_showing_it(key: str) -> None:
    with pytest.raises(LegoError, match=r"the API key is empty or holds characters that no key has") as error:
        ChatEndpoint("http://127.0.0.1/v1", key)
    assert not key or key not in str(error.value)
