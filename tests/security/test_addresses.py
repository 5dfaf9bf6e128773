from __future__ import annotations

import logging
import tracemalloc

import grpc
import pytest
from lego_server.security.addresses import AddressBook, address_of
from lego_server.security.config import SecurityConfig

from tests.security.conftest import TokenFile
from tests.security.serving import Clock, calling, info, open_session, refusal, retry_ms, serving


@pytest.mark.parametrize(
    ("peer", "address"),
    [
        ("ipv4:10.0.0.7:51234", "10.0.0.7"),
        ("ipv6:[2001:db8:1:2:3:4:5:6]:51234", "2001:db8:1:2::/64"),
        ("ipv6:%5B2001:db8:1:2:9::1%5D:443", "2001:db8:1:2::/64"),
        ("ipv6:[fe80::1%25eth0]:50051", "fe80::/64"),
        ("ipv6:[::ffff:10.0.0.7]:51234", "10.0.0.7"),
        ("ipv6:%5B::1%5D:51234", "::1"),
        ("unix:/run/lego.sock", "unix"),
        ("unix:", "unix"),
    ],
)
def test_what_counts_as_one_address(peer: str, address: str) -> None:
    assert address_of(peer) == address


async def test_an_address_that_keeps_failing_is_locked_out_for_a_while(
    tokens: TokenFile, caplog: pytest.LogCaptureFixture
) -> None:
    clock = Clock()
    secret = tokens.add("anna")
    config = SecurityConfig(token_file=tokens.path, max_failures_per_address=3, lockout_seconds=60)
    async with serving(config, clock=clock) as server, calling(server) as stub:
        for wrong in ("lego_wrong", None, "lego_wrong"):
            assert (await refusal(stub, wrong)).code() is grpc.StatusCode.UNAUTHENTICATED
        clock.seconds += 20
        locked = await refusal(stub, secret)  # whoever it is now
        assert locked.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert locked.details() == ("your address is locked out after 3 calls without a good token; try again in 40 s")
        assert retry_ms(locked) == 40_000
        clock.seconds += 41
        assert (await info(stub, secret)).model_name == "fake"
    warnings = [record.message for record in caplog.records if record.levelno == logging.WARNING]
    assert len(warnings) == 1 and "is locked out for 60 s after 3 calls" in warnings[0]
    assert "lego_wrong" not in caplog.text and secret not in caplog.text


async def test_failures_of_long_ago_and_before_a_success_do_not_count(tokens: TokenFile) -> None:
    clock = Clock()
    secret = tokens.add("anna")
    config = SecurityConfig(token_file=tokens.path, max_failures_per_address=2, lockout_seconds=60)
    async with serving(config, clock=clock) as server, calling(server) as stub:
        await refusal(stub)
        clock.seconds += 61
        await refusal(stub)
        await info(stub, secret)
        await refusal(stub)
        await info(stub, secret)


async def test_an_expired_token_is_no_guess_and_locks_nobody_out(tokens: TokenFile) -> None:
    clock = Clock()
    old, good = tokens.add("old", expires=clock.now()), tokens.add("anna")
    config = SecurityConfig(token_file=tokens.path, max_failures_per_address=1)
    async with serving(config, clock=clock) as server, calling(server) as stub:
        for _ in range(3):
            assert (await refusal(stub, old)).code() is grpc.StatusCode.UNAUTHENTICATED
        await info(stub, good)


async def test_an_address_has_so_many_calls_and_no_more_whatever_its_tokens(tokens: TokenFile) -> None:
    anna, bert = tokens.add("anna"), tokens.add("bert")
    config = SecurityConfig(token_file=tokens.path, max_calls_per_address=2)
    async with serving(config) as server, calling(server) as stub:
        first = await open_session(stub, anna)
        await open_session(stub, bert)
        error = await refusal(stub, bert)
        assert error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert error.details() == "your address has 2 calls open, its limit; close some first"
        assert retry_ms(error) > 0
        counted = server.telemetry.metrics.registry.get_sample_value
        assert counted("lego_rejects_total", {"reason": "address_calls"}) == 1
        await first.call.done_writing()
        assert await first.call.read() is grpc.aio.EOF
        await info(stub, bert)


def test_memory_stays_the_same_however_many_addresses_fail() -> None:
    clock = Clock()
    book = AddressBook(10, 3, 60, clock, remembered=100)
    for number in range(10_000):
        book.failed(f"10.0.{number // 256}.{number % 256}")
        assert len(book) <= 100
    for _ in range(3):
        book.failed("192.0.2.1")
    assert book.lockout("192.0.2.1") == 60


def test_a_full_book_of_addresses_takes_less_than_2_megabytes() -> None:
    tracemalloc.start()
    try:
        book = AddressBook(10, 3, 60)
        for number in range(10_000):
            book.failed(f"2001:db8:{number:x}:2::/64")
        taken, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert len(book) == 4096
    assert taken < 2 * 2**20


def test_an_address_whose_calls_have_ended_is_forgotten() -> None:
    book = AddressBook(10, 3, 60)
    for number in range(1000):
        assert book.enter(str(number))
    for number in range(1000):
        book.leave(str(number))
    assert len(book) == 0
