"""The web page's own code, run by Node.js where there is one."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import lego_client
import pytest
from lego_proto.v1 import guidance_pb2 as pb

WEB = Path(lego_client.__file__).parent / "web"

pytestmark = pytest.mark.skipif(shutil.which("node") is None, reason="there is no node command")


def evaluate(expression: str) -> Any:
    """Returns what a JavaScript expression gives; the page's modules are `fields` and `closing`."""
    program = (
        f"import * as fields from {json.dumps((WEB / 'fields.js').as_uri())};\n"
        f"import * as closing from {json.dumps((WEB / 'closing.js').as_uri())};\n"
        f"console.log(JSON.stringify({expression}));"
    )
    result = subprocess.run(["node", "--input-type=module", "-e", program], capture_output=True, text=True, timeout=60)
    assert result.returncode == 0, result.stderr
    return json.loads(result.stdout)


def test_it_reads_what_a_session_begins_with() -> None:
    server = pb.ServerInfo(model_version="nano-é-1", max_image_pixels=2**40, notice="Only a toy.", models=["a", "b"])
    started = pb.SessionStarted(session_id="abc", server=server, resume_seconds=30, frame_credits=300)
    message = pb.GuideResponse(session_started=started, sequence=2**33)
    bytes_ = f"Uint8Array.from({list(message.SerializeToString())})"
    found = evaluate(
        f"(() => {{ const message = fields.readFields({bytes_});"
        " const session = fields.readFields(message.get(1)); const server = fields.readFields(session.get(2));"
        " return [message.get(15), fields.textOf(session, 1), session.get(6), fields.textOf(server, 2), server.get(7),"
        " fields.textOf(server, 10), fields.textOf(server, 99)]; })()"
    )
    assert found == [2**33, "abc", 300, "nano-é-1", 2**40, "Only a toy.", ""]


@pytest.mark.parametrize("data", [b"\x0a\x05abc", b"\x80", b"\x0b", b"\x0d\x00"])
def test_bytes_that_are_no_message_are_an_error(data: bytes) -> None:
    attempt = f"fields.readFields(Uint8Array.from({list(data)}))"
    assert evaluate(f"(() => {{ try {{ {attempt}; }} catch (error) {{ return error.name; }} }})()") == "RangeError"


@pytest.mark.parametrize(
    ("code", "reason", "wait", "sentence"),
    [
        (4008, "retry-after-ms=5000 the server is full", 5000, "the server is full"),
        (1001, "retry-after-ms=1000 the server is shutting down", 1000, "the server is shutting down"),
        (1006, "", 1000, "the connection was lost"),
        (4013, "the server failed", 1000, "the server failed"),
        (4016, "the token is not known here", None, "the token is not known here"),
        (4010, "the session goes on in another stream", None, "the session goes on in another stream"),
        (1009, "", None, "closed (1009)"),
        (1000, "", None, "closed (1000)"),
    ],
)
def test_it_comes_back_when_the_close_says_so(code: int, reason: str, wait: int | None, sentence: str) -> None:
    arguments = f"{code}, {json.dumps(reason)}"
    assert evaluate(f"[closing.comeBackAfter({arguments}), closing.sentenceOf({arguments})]") == [wait, sentence]
