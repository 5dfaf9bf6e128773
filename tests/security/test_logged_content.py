from __future__ import annotations

import io
import logging

import pytest
from lego_proto.v1 import guidance_pb2 as pb
from lego_server.security.config import SecurityConfig
from PIL import ExifTags, Image

from tests.security.conftest import TokenFile
from tests.security.serving import bearing, calling, open_session, serving
from tests.server.fake_engine import FakeEngine
from tests.server.harness import picture

QUERY = "how do I open the drawer at grandmother's"
DESCRIPTION = "The left hand waves at grandmother"


def photograph(title: str) -> bytes:
    """Returns a JPEG that carries a title, as cameras write places and names."""
    exif = Image.Exif()
    exif[ExifTags.Base.ImageDescription] = title
    buffer = io.BytesIO()
    Image.new("RGB", (160, 90)).save(buffer, "JPEG", exif=exif)
    return buffer.getvalue()


async def whole_life_of_a_session(config: SecurityConfig, secret: str) -> None:
    """Answers, refuses, supersedes, cancels and breaks queries."""
    engine = FakeEngine()
    engine.broken_words = {"tap"}
    async with serving(config, engine) as server, calling(server) as stub:
        client = await open_session(stub, secret)
        await client.frame()
        await client.query(1, QUERY)
        await client.result()
        await client.query(2, QUERY, description=DESCRIPTION)
        await client.result()
        await client.query(3, QUERY, steps=5000)
        await client.error()
        await client.query(4, QUERY, steps=1000)
        await client.query(5, QUERY, steps=1000)
        await client.cancel(5)
        await client.error()
        await client.query(6, f"{QUERY} tap")
        while (await client.error()).query_id != 6:
            pass
        await client.frame(2, b"not a picture of grandmother")
        await client.error()
        await client.frame(3, photograph("grandmother's kitchen"))
        await client.query(7, QUERY)
        assert (await client.result()).frame_id == 3
        request = pb.GenerateRequest(image=picture(), text=QUERY)
        assert (await stub.Generate(request, metadata=bearing(secret))).description


async def test_what_wearers_say_and_see_is_not_logged(tokens: TokenFile, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    secret = tokens.add("anna")
    await whole_life_of_a_session(SecurityConfig(token_file=tokens.path), secret)
    logged = "\n".join(logging.Formatter().format(record) for record in caplog.records)
    assert "query_answered" in logged and "the engine stumbled" in logged  # there is a log, of good and bad ends
    for trace in ("grandmother", "drawer", "PNG", "IHDR", secret, secret[5:]):
        assert trace not in logged


async def test_it_is_logged_where_the_operator_asks_for_it(tokens: TokenFile, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    secret = tokens.add("anna")
    await whole_life_of_a_session(SecurityConfig(token_file=tokens.path, log_content=True), secret)
    assert repr(QUERY) in caplog.text and repr(DESCRIPTION) in caplog.text
    assert secret not in caplog.text and "PNG" not in caplog.text
