"""Asks an OpenAI-compatible endpoint for chat completions, patiently and within limits.

httpx2 is the maintained continuation of httpx, comes with the Hugging Face hub's client, and is what the openai package
itself is built on; that package would add its own models and retries, which bound Retry-After and forget it between
requests that run side by side.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from types import TracebackType
from typing import Any
from urllib.parse import urlsplit

import httpx2
from lego_core.errors import LegoError

CONTENT_FILTER = "content_filter"
_LARGEST_ANSWER = 1 << 20  # bytes; a sentence and its wrapping take a thousandth of it
# Beside every 5xx: what passes by itself.
_PASSING = (408, 409, 425, 429)


@dataclass(frozen=True)
class Reply:
    """What came back.

    Attributes:
        text: As the model wrote it; empty if a filter kept it back.
        finish: Why it ended: "stop", "length" or "content_filter", or what else the endpoint says.
        prompt_tokens: As the endpoint counted; None if it does not say.
        completion_tokens: Likewise.
    """

    text: str
    finish: str
    prompt_tokens: int | None = None
    completion_tokens: int | None = None


@dataclass(frozen=True)
class Patience:
    """How long an endpoint is waited for.

    Attributes:
        tries: Of one request, the first included.
        first_wait: Seconds after the first failure; doubled each time, less up to a half at random, so that requests
            which failed together do not come back together.
        longest_wait: Seconds that doubling ends at.
        longest_retry_after: Seconds that an endpoint may ask to wait (Retry-After) before the run stops instead.
        timeout: Seconds for one whole exchange, however slowly its parts come.
    """

    tries: int = 6
    first_wait: float = 1.0
    longest_wait: float = 60.0
    longest_retry_after: float = 900.0
    timeout: float = 120.0

    def wait(self, failures: int) -> float:
        """Returns the seconds to wait after so many failures, 1 or more."""
        return min(self.longest_wait, self.first_wait * 2 ** (failures - 1)) * random.uniform(0.5, 1.0)


class Unanswered(Exception):
    """One request got no answer after every try; another may."""


class Halted(Exception):
    """The endpoint was told to halt while a request waited for its turn."""


class ChatEndpoint:
    """A chat endpoint.

    Args:
        address: Base address, such as "http://127.0.0.1:8000/v1"; /chat/completions is added.
        key: API key, sent to this address alone: redirects are not followed.
        patience: How long it is waited for.

    Raises:
        LegoError: The address or the key has not the form of one.
    """

    def __init__(self, address: str, key: str | None = None, patience: Patience | None = None) -> None:
        check_address(address)
        if key is not None and not (key.isascii() and key.isprintable() and " " not in key and key):
            raise LegoError("the API key is empty or holds characters that no key has; check where it comes from")
        self.address = address.rstrip("/")
        self._key = key
        self._patience = patience or Patience()
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        timeout = httpx2.Timeout(None, connect=min(10.0, self._patience.timeout))  # the whole is timed below
        self._client = httpx2.AsyncClient(headers=headers, timeout=timeout, limits=httpx2.Limits())
        self._has_answered = False
        self._not_before = 0.0
        self._halting = asyncio.Event()

    async def __aenter__(self) -> ChatEndpoint:
        await self._client.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> None:
        await self._client.__aexit__(kind, error, at)

    def halt(self) -> None:
        """Ends every wait between tries; requests under way go on."""
        self._halting.set()

    async def complete(self, body: Mapping[str, Any]) -> Reply:
        """Returns the endpoint's answer to a chat completion request.

        Too many requests (429), server errors, broken connections, timeouts and answers that are no completion are
        tried again. When the endpoint says how long to wait, every request waits.

        Raises:
            Unanswered: Every try failed, or the endpoint refuses this one request.
            Halted: `halt` was called while this request waited.
            LegoError: Going on has no sense: no server, no access, no such model, no credit, too long a wait.
        """
        for failures in range(1, self._patience.tries + 1):
            await self._wait_for_turn()
            try:
                return await self._ask(body)
            except _Passing as trouble:
                if trouble.retry_after is not None:
                    self._hold_all(trouble)
                if failures == self._patience.tries:
                    raise Unanswered(f"{trouble}, {failures} times") from trouble
                await self._sleep(self._patience.wait(failures))
        raise AssertionError("patience has at least one try")

    def _hold_all(self, trouble: _Passing) -> None:
        seconds = trouble.retry_after or 0.0
        if seconds > self._patience.longest_retry_after:
            raise LegoError(
                f"{self.address} asks to wait {seconds:.0f} s ({trouble}); run the same command again later to go on"
            )
        self._not_before = max(self._not_before, asyncio.get_running_loop().time() + seconds)

    async def _wait_for_turn(self) -> None:
        while (left := self._not_before - asyncio.get_running_loop().time()) > 0:
            # Never earlier than asked, and not all in the same moment.
            await self._sleep(left + random.uniform(0, min(1.0, self._patience.first_wait)))

    async def _sleep(self, seconds: float) -> None:
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._halting.wait(), seconds)
        if self._halting.is_set():
            raise Halted

    async def _ask(self, body: Mapping[str, Any]) -> Reply:
        try:
            async with (
                asyncio.timeout(self._patience.timeout),
                self._client.stream("POST", f"{self.address}/chat/completions", json=dict(body)) as response,
            ):
                content = await _read(response)
        except TimeoutError:
            raise _Passing(f"no whole answer within {self._patience.timeout:g} s") from None
        except (httpx2.ConnectError, httpx2.ConnectTimeout) as error:
            if not self._has_answered:
                raise LegoError(
                    f"{self.address} cannot be reached ({self._words(error)}); check --endpoint and its server"
                ) from error
            raise _Passing(f"no connection ({self._words(error)})") from error
        except httpx2.RequestError as error:
            raise _Passing(f"the connection broke ({self._words(error)})") from error
        if response.status_code != 200:
            return self._refused(response, content)
        reply = self._reply(content)
        self._has_answered = True
        return reply

    def _reply(self, content: bytes) -> Reply:
        try:
            values = json.loads(content)
        except ValueError:
            raise _Passing("the answer is no JSON") from None
        if not isinstance(values, dict):
            raise _Passing("the answer is no completion")
        if values.get("error"):
            raise _Passing(f"the endpoint failed ({self._words(_error_message(values))})")
        choices = values.get("choices")
        choice = choices[0] if isinstance(choices, list) and choices else None
        message = choice.get("message") if isinstance(choice, dict) else None
        if not isinstance(choice, dict) or not isinstance(message, dict):
            raise _Passing("the answer has no choice")
        text, finish = message.get("content"), choice.get("finish_reason") or "stop"
        if text is not None and not isinstance(text, str):
            raise _Passing("the answer's content is no text")
        if message.get("refusal"):
            text, finish = "", CONTENT_FILTER
        usage = values.get("usage")
        counts = [
            _count(usage.get(key) if isinstance(usage, dict) else None)
            for key in ("prompt_tokens", "completion_tokens")
        ]
        return Reply(text or "", str(finish), *counts)

    def _refused(self, response: httpx2.Response, content: bytes) -> Reply:
        """Raises what an answer other than 200 means; only a filter's is a reply."""
        status = response.status_code
        try:
            values = json.loads(content)
        except ValueError:
            values = {}
        said = self._words(_error_message(values) or content[:200].decode("utf-8", "replace") or response.reason_phrase)
        code = str(values["error"].get("code")) if isinstance(values, dict) and _is_mapping(values.get("error")) else ""
        if code == CONTENT_FILTER:
            self._has_answered = True
            return Reply("", CONTENT_FILTER)
        if status in (401, 403):
            sent = "the API key was refused" if self._key else "give a key with --api-key-env or --api-key-file"
            raise LegoError(f"{self.address} denies access with status {status} ({said}); {sent}")
        if status == 402 or code == "insufficient_quota":
            raise LegoError(
                f"the account at {self.address} has no credit left ({said}); top it up and run the same command again"
            )
        if status == 404:
            raise LegoError(f"{self.address} knows no such model or path ({said}); check --model and --endpoint")
        if status in _PASSING or status >= 500:
            raise _Passing(f"status {status} ({said})", _retry_after(response.headers.get("Retry-After")))
        if 300 <= status < 400:
            raise LegoError(
                f"{self.address} redirects to {self._words(response.headers.get('Location', 'nowhere'))}; "
                "give the address it means with --endpoint"
            )
        # An endpoint that has answered others objects to this one request, and not to the settings they share.
        refusal = f"refused with status {status} ({said})"
        if self._has_answered:
            raise Unanswered(refusal)
        raise LegoError(f"the request to {self.address} was {refusal}; --request KEY=null leaves a setting out")

    def _words(self, error: object) -> str:
        """What was said, on one line, short, and without the key, which some endpoints echo."""
        text = str(error) or type(error).__name__
        text = text.replace(self._key, "[key]") if self._key else text
        text = "".join(letter if letter.isprintable() else " " for letter in text)
        return " ".join(text.split())[:200]


def check_address(address: str) -> None:
    """Raises LegoError if an endpoint's base address is none."""
    try:
        parts = urlsplit(address)
        valid = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        raise LegoError("the endpoint's address cannot be read; give one such as http://127.0.0.1:8000/v1") from None
    if parts.username or parts.password:
        raise LegoError("the endpoint's address holds a password; give keys with --api-key-env or --api-key-file")
    if not valid or parts.query or parts.fragment:
        raise LegoError(f"the endpoint {address!r} is no base address; give one such as http://127.0.0.1:8000/v1")
    if parts.path.rstrip("/").endswith("/chat/completions"):
        raise LegoError(f"the endpoint {address!r} must end before /chat/completions, which is added")


class _Passing(Exception):
    """Something that may pass; `retry_after` is how many seconds the endpoint says that takes, if it does."""

    def __init__(self, message: str, retry_after: float | None = None) -> None:
        super().__init__(message)
        self.retry_after = retry_after


async def _read(response: httpx2.Response) -> bytes:
    content = bytearray()
    async for part in response.aiter_bytes():
        content += part
        if len(content) > _LARGEST_ANSWER:
            raise _Passing(f"the answer is longer than {_LARGEST_ANSWER} bytes")
    return bytes(content)


def _retry_after(value: str | None) -> float | None:
    """Returns the seconds a Retry-After header asks for, in either of its forms."""
    if value is None:
        return None
    with contextlib.suppress(ValueError):
        seconds = float(value)
        return seconds if 0 <= seconds < float("inf") else None
    with contextlib.suppress(ValueError):
        moment = parsedate_to_datetime(value)
        moment = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
        return max(0.0, (moment - datetime.now(UTC)).total_seconds())
    return None


def _error_message(values: Any) -> str:
    """What an endpoint says of its error, in any of the forms in use; empty if nothing."""
    if not isinstance(values, dict):
        return ""
    error = values.get("error")
    found = error.get("message") if isinstance(error, dict) else error or values.get("message") or values.get("detail")
    return str(found) if found else ""


def _is_mapping(value: Any) -> bool:
    return isinstance(value, dict)


def _count(value: Any) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) and value >= 0 else None
