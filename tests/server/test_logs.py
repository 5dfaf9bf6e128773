"""Logs for machines: one JSON object a line, and whose query each line is about."""

from __future__ import annotations

import io
import json
import logging
from collections.abc import Iterator
from typing import Any

import pytest
from lego_server.logs import JsonFormatter, TextFormatter, bind, log_event

from tests.server.fake_engine import FakeEngine
from tests.server.harness import eventually, picture, running


@pytest.fixture
def json_log() -> Iterator[io.StringIO]:
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    handler.setFormatter(JsonFormatter())
    logger = logging.getLogger("lego_server")
    level = logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    yield stream
    logger.removeHandler(handler)
    logger.setLevel(level)


def lines(stream: io.StringIO) -> list[dict[str, Any]]:
    return [json.loads(line) for line in stream.getvalue().splitlines()]


async def test_a_query_is_one_line_with_its_session_and_durations_and_without_its_words(json_log: io.StringIO) -> None:
    async with running(FakeEngine()) as server:
        call = server.stub.Guide()
        session = (await call.read()).session_started.session_id
        client = await server.open_session()
        await client.frame(3)
        await client.query(5, "how do I open the mysterious drawer")
        result = await client.result()
        await eventually(lambda: any(line.get("query") == 5 for line in lines(json_log)))
    [line] = [line for line in lines(json_log) if line.get("query") == 5]
    assert (line["event"], line["level"], line["logger"]) == ("query_answered", "info", "lego_server.telemetry")
    assert len(line["session"]) == 16 and line["session"] != session
    assert line["seconds"]["denoise"] == pytest.approx(result.timings.denoise_ms / 1000, rel=1e-4)
    assert line["time"].endswith("Z")
    assert "mysterious" not in json_log.getvalue() and result.description not in json_log.getvalue()


async def test_a_failure_is_a_line_with_its_query_and_a_traceback_beside_it(json_log: io.StringIO) -> None:
    engine = FakeEngine()
    engine.broken_words = {"lid"}
    async with running(engine) as server:
        client = await server.open_session()
        await client.frame(1, picture())
        await client.query(2, "open the lid")
        await client.error()
        await eventually(lambda: any(line["event"] == "query_failed" for line in lines(json_log)))
    [failed] = [line for line in lines(json_log) if line["event"] == "query_failed"]
    assert (failed["query"], failed["error"], failed["level"]) == (2, "RuntimeError", "error")
    assert any("stumbled" in line.get("traceback", "") for line in lines(json_log))


def test_text_has_the_same_fields_in_one_line() -> None:
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    handler.setFormatter(TextFormatter())
    logger = logging.Logger("some")
    logger.addHandler(handler)
    bind(session="abc")
    log_event(logger, logging.INFO, "query_answered", query=7, seconds={"total": 1.23456})
    assert stream.getvalue().endswith("INFO some query_answered session=abc query=7 seconds=total:1.235\n")
