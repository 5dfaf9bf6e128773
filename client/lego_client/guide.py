"""Guidance for a program of your own: a frame and a question in, events or one answer out."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import AsyncGenerator
from contextlib import aclosing
from pathlib import Path
from typing import Self

import numpy as np
from lego_core.errors import LegoError
from lego_core.images import decode_image, to_rgb
from numpy.typing import NDArray
from PIL import Image

from lego_client.answer import Answer
from lego_client.answer import ask as ask_client
from lego_client.backoff import Backoff
from lego_client.connection import Connection
from lego_client.encoding import LONGEST_SIDE, EncodedFrame, check_pixels, encoded_jpeg
from lego_client.errors import ServerError
from lego_client.events import Event, GuidanceOptions, ServerInfo
from lego_client.observer import SessionObserver
from lego_client.pending import SentFrame
from lego_client.session import GuidanceClient

Frame = NDArray[np.uint8] | bytes | Image.Image | str | Path
"""A view: (H, W, 3) uint8 RGB; a JPEG, PNG or WebP file's bytes; a Pillow image; or the path of such a file.

A JPEG of at most 1280 pixels a side is sent byte for byte.
"""


class Guide:
    """A wearer's session for programs. Use it as `async with Guide("localhost:50051") as guide`.

    A connection that breaks is opened again, and what was under way goes on; one that could not be brought back in time
    is opened anew by the next question. Every method belongs to the event loop in which the guide was opened, except
    `push`, which any thread may call.
    """

    def __init__(
        self,
        server: str,
        *,
        token: str = "",
        tls: bool = False,
        ca: str | Path | None = None,
        cert: str | Path | None = None,
        key: str | Path | None = None,
        model: str = "",
        connect_seconds: float = 10.0,
        reconnect_seconds: float = 60.0,
        wait_seconds: float = 0.0,
        observer: SessionObserver | None = None,
    ) -> None:
        """Names the server; nothing is sent yet.

        Args:
            server: HOST:PORT.
            token: What the server knows this program by; never sent to another machine without TLS.
            tls: Encrypt; implied by `ca` and `cert`.
            ca: PEM file of the authority that vouches for the server; None takes the public ones.
            cert: PEM file of a certificate of your own, for servers that ask for one; with `key`.
            key: PEM file of its private key.
            model: One of `info.models`; "" for the server's default.
            connect_seconds: How long the server may take to answer when connecting.
            reconnect_seconds: For how long a lost connection is tried; 0 gives up at once.
            wait_seconds: For how long to wait for a server that is not there when connecting first.
            observer: Told of everything, such as a `lego_client.recording.recorder.Recorder`.

        Raises:
            LegoError: A value is out of its range, or a token would travel in the clear.
        """
        ca, cert, key = (None if path is None else Path(path) for path in (ca, cert, key))
        connection = Connection(tls or ca is not None or cert is not None, ca, cert, key, token)
        self._new_client = lambda wait: GuidanceClient(
            server, connect_seconds, connection, model=model, backoff=Backoff(reconnect_seconds), wait_seconds=wait,
            observer=observer,
        )  # fmt: skip
        self._client = self._new_client(wait_seconds)
        self._connected = False
        self._opening = asyncio.Lock()
        self._pushed: Frame | None = None
        self._push_lock = threading.Lock()

    @property
    def info(self) -> ServerInfo:
        """What the server runs and which limits it sets; known once connected."""
        return self._client.info

    async def connect(self) -> None:
        """Opens the session; `async with` does it for you.

        Raises:
            LegoError: The server does not have the model, or a certificate file cannot be read.
            ServerError: No server answers there, or it refuses.
        """
        await self._client.__aenter__()
        self._connected = True

    async def close(self) -> None:
        """Ends the session. May be called more than once."""
        if self._connected:
            self._connected = False
            await self._client.__aexit__(None, None, None)

    async def __aenter__(self) -> Self:
        await self.connect()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    def push(self, frame: Frame) -> None:
        """Takes the newest frame of a camera, from any thread; it returns at once, and an earlier frame is forgotten.

        Nothing is decoded or sent before a question is asked about it.

        Args:
            frame: Not to be changed afterwards.
        """
        with self._push_lock:
            self._pushed = frame

    async def ask(
        self,
        frame: Frame | None,
        query: str,
        options: GuidanceOptions | None = None,
        *,
        deadline_seconds: float | None = None,
        retries: int = 3,
    ) -> AsyncGenerator[Event, None]:
        """Asks and yields events as they come; the last is a `Guidance` or a `QueryFailed`.

        A newer question takes the place of an older one that is not yet answered. Leaving the iteration early cancels
        the question on the server: with `contextlib.aclosing` at once, else when the generator is collected.

        Args:
            frame: The view asked about; None for the newest that was pushed.
            query: What the wearer asks.
            options: How to sample; None takes every default.
            deadline_seconds: From now; a later answer is worth nothing. None takes the server's own limit.
            retries: How often to ask again when the server has no room and says when it may have.

        Raises:
            LegoError: The frame is none or cannot be sent; the query or an option is not acceptable.
            ServerError: The server went away and did not come back in time.
        """
        client, sent = await self._send(frame)
        asking = client.ask(query, sent, options, deadline_seconds=deadline_seconds, retries=retries)
        async with aclosing(asking) as events:
            async for event in events:
                yield event

    async def answer(
        self,
        frame: Frame | None,
        query: str,
        options: GuidanceOptions | None = None,
        *,
        time_limit: float = 120.0,
        retries: int = 3,
    ) -> Answer:
        """Asks and waits for the guidance frame.

        Args:
            frame: The view asked about; None for the newest that was pushed.
            query: What the wearer asks.
            options: How to sample; None takes every default.
            time_limit: Seconds the answer may take; then the question is cancelled.
            retries: How often to ask again when the server has no room and says when it may have.

        Returns:
            The answer: `description`, `picture` (RGB), and `guidance` with everything that makes it again.

        Raises:
            LegoError: The frame is none or cannot be sent; the query or an option is not acceptable.
            ServerError: The server failed, is overloaded, went away or took too long.
        """
        source = str(frame) if isinstance(frame, str | Path) else "a program"
        client, sent = await self._send(frame)
        return await ask_client(
            client, query, sent, source=source, options=options or GuidanceOptions(), time_limit=time_limit,
            retries=retries,
        )  # fmt: skip

    async def _send(self, frame: Frame | None) -> tuple[GuidanceClient, SentFrame]:
        if frame is None:
            with self._push_lock:
                frame = self._pushed
            if frame is None:
                raise LegoError("no frame was pushed yet; give one to push(), or name the frame that is asked about")
        client = await self._session()
        return client, await client.send_frame(await asyncio.to_thread(prepared, frame))

    async def _session(self) -> GuidanceClient:
        """Returns the session, after opening another where the one that was is lost for good."""
        if not self._connected:
            raise LegoError("the guide is not open; use it in 'async with', or call connect() first")
        async with self._opening:
            try:
                self._client.check()
            except ServerError:
                with contextlib.suppress(ServerError):
                    await self._client.__aexit__(None, None, None)
                client = self._new_client(0.0)
                await client.__aenter__()
                self._client = client
            return self._client


def prepared(frame: Frame) -> NDArray[np.uint8] | EncodedFrame:
    """Returns a frame as `GuidanceClient.send_frame` takes it.

    Raises:
        LegoError: It is no frame, or a file that cannot be read as a picture.
    """
    match frame:
        case np.ndarray():
            return check_pixels(frame)
        case Image.Image():
            return np.asarray(to_rgb(frame))
        case bytes():
            return _from_bytes(frame)
        case str() | Path():
            try:
                return _from_bytes(Path(frame).read_bytes())
            except OSError as error:
                raise LegoError(
                    f"the frame {str(frame)!r} cannot be read ({error.strerror}); check the path"
                ) from error
            except LegoError as error:
                raise LegoError(f"the frame {str(frame)!r}: {error}") from error
    raise LegoError(
        f"the frame is of the type {type(frame).__name__}; give an array, a picture's bytes, a Pillow image or a path"
    )


def _from_bytes(data: bytes) -> NDArray[np.uint8] | EncodedFrame:
    if data[:2] == b"\xff\xd8":
        encoded = encoded_jpeg(data)
        if max(encoded.width, encoded.height) <= LONGEST_SIDE:
            return encoded
    return np.asarray(decode_image(data))
