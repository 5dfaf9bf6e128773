"""A stand-in for an OpenAI-compatible endpoint: real HTTP on a free port, its answers scripted request by request."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclass(frozen=True)
class Answer:
    """One HTTP answer.

    Attributes:
        body: Sent as it is if bytes, else as JSON.
        status: HTTP status.
        headers: Further ones.
        cut: Send only so many bytes of the body, then close the connection.
        after: Wait so many seconds first.
        drip: Seconds between the body's bytes.
    """

    body: Any = b""
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    cut: int | None = None
    after: float = 0.0
    drip: float = 0.0


@dataclass
class Chat:
    """What the endpoint says and what it was asked.

    Attributes:
        script: The answer to a request's body; its number, from 1, comes along.
        requests: (path, headers, body, time) of every request.
        most_at_once: Requests that were under way together.
        was_asked: Set by the first request.
    """

    script: Callable[[dict[str, Any], int], Answer]
    requests: list[tuple[str, dict[str, str], dict[str, Any], float]] = field(default_factory=list)
    most_at_once: int = 0
    was_asked: threading.Event = field(default_factory=threading.Event)
    address: str = ""

    @property
    def bodies(self) -> list[dict[str, Any]]:
        return [body for _, _, body, _ in self.requests]


def says(text: str | None, finish: str = "stop", **answer: Any) -> Answer:
    """A completion with one choice."""
    choice = {"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": finish}
    usage = {"prompt_tokens": 1000, "completion_tokens": 20, "total_tokens": 1020}
    return Answer({"object": "chat.completion", "choices": [choice], "usage": usage}, **answer)


def fails(status: int, message: str = "no", code: str | None = None, **headers: str) -> Answer:
    """An error in OpenAI's form."""
    named = {key.replace("_", "-"): value for key, value in headers.items()}
    return Answer({"error": {"message": message, "code": code}}, status, named)


@contextmanager
def serve(chat: Chat) -> Iterator[Chat]:
    """Serves on a free port of this machine."""
    lock = threading.Lock()
    under_way = 0

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_: Any) -> None:
            pass

        def do_POST(self) -> None:
            nonlocal under_way
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            headers = {key.lower(): value for key, value in self.headers.items()}
            with lock:
                chat.requests.append((self.path, headers, body, time.monotonic()))
                number = len(chat.requests)
                under_way += 1
                chat.most_at_once = max(chat.most_at_once, under_way)
            chat.was_asked.set()
            try:
                self.answer(chat.script(body, number))
            except (BrokenPipeError, ConnectionResetError):
                self.close_connection = True  # the client has left
            finally:
                with lock:
                    under_way -= 1

        def answer(self, answer: Answer) -> None:
            time.sleep(answer.after)
            content = answer.body if isinstance(answer.body, bytes) else json.dumps(answer.body).encode()
            self.send_response(answer.status)
            for key, value in {**answer.headers, "Content-Length": str(len(content))}.items():
                self.send_header(key, value)
            self.end_headers()
            if answer.drip:
                for byte in content:
                    self.wfile.write(bytes([byte]))
                    time.sleep(answer.drip)
            else:
                self.wfile.write(content[: answer.cut])
            if answer.cut is not None:
                self.close_connection = True

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    chat.address = f"http://127.0.0.1:{server.server_port}/v1"
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
    try:
        yield chat
    finally:
        server.shutdown()
        server.server_close()
