"""Cameras on the network, good and bad, on real sockets: HTTP with JPEG pictures, and RTSP with H.264."""

from __future__ import annotations

import base64
import io
import socket
import socketserver
import struct
import threading
import time
from collections.abc import Callable, Iterator
from fractions import Fraction
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from tests.client.scenes import scene

BOUNDARY = "frame"


def jpeg(pixels: NDArray[np.uint8], **options: Any) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG", **options)
    return buffer.getvalue()


def part(data: bytes, length: int | None = None, kind: str = "image/jpeg") -> bytes:
    """One picture of an MJPEG answer, with the length given, or none where it is below 0."""
    length = len(data) if length is None else length
    stated = f"Content-Length: {length}\r\n" if length >= 0 else ""
    return f"--{BOUNDARY}\r\nContent-Type: {kind}\r\n{stated}\r\n".encode() + data + b"\r\n"


def pictures(count: int = 10_000) -> Iterator[bytes]:
    for number in range(count):
        yield jpeg(scene(number % 20 * 10))


class HttpCamera:
    """An HTTP server whose paths are cameras. Use it as a context manager; it may be stopped and started again.

    Attributes:
        parts: What each path sends: chunks of its answer, one each hundredth of a second.
        kinds: The content type of a path's answer; an MJPEG's if none is given.
        statuses: The status of a path's answer, if not 200.
        asked: Each request's path and Authorization header.
        authorized: Says whether a header is good enough, and `challenge` what to answer if not.
    """

    def __init__(self) -> None:
        self.parts: dict[str, Callable[[], Iterator[bytes]]] = {}
        self.kinds: dict[str, str] = {}
        self.statuses: dict[str, int] = {}
        self.asked: list[tuple[str, str]] = []
        self.authorized: Callable[[str], bool] = lambda header: True
        self.challenge = 'Basic realm="camera"'
        self.port = 0
        self._connections: set[socket.socket] = set()

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def start(self) -> None:
        camera = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                camera.asked.append((self.path, self.headers.get("Authorization", "")))
                camera.answer(self)

            def log_message(self, *_: object) -> None:
                pass

        class Server(ThreadingHTTPServer):
            daemon_threads = True
            allow_reuse_address = True

            def handle_error(self, *_: object) -> None:
                pass  # the client went away

        self._server = Server(("127.0.0.1", self.port), Handler)
        self.port = self._server.server_port
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def stop(self) -> None:
        """Ends the server and every connection, as a camera does that is switched off."""
        self._server.shutdown()
        self._server.server_close()
        for connection in list(self._connections):
            connection.close()
            self._connections.discard(connection)

    def answer(self, handler: BaseHTTPRequestHandler) -> None:
        path, header = self.asked[-1]
        if not self.authorized(header):
            handler.send_response(401)
            handler.send_header("WWW-Authenticate", self.challenge)
            handler.end_headers()
            return
        if path not in self.parts:
            handler.send_error(self.statuses.get(path, 404))
            return
        self._connections.add(handler.connection)
        handler.send_response(200)
        handler.send_header("Content-Type", self.kinds.get(path, f"multipart/x-mixed-replace; boundary={BOUNDARY}"))
        handler.end_headers()
        for chunk in self.parts[path]():
            if handler.connection not in self._connections:
                return
            handler.wfile.write(chunk)
            time.sleep(0.01)


class RtspCamera:
    """An RTSP server that plays H.264 over the connection it is asked on. Use it as a context manager.

    Attributes:
        transports: What each SETUP asked for.
        playing: Whether pictures are sent; while it is not set, the connection stays and is silent.
    """

    def __init__(self, user: str = "", password: str = "") -> None:
        self.transports: list[str] = []
        self.playing = threading.Event()
        self.playing.set()
        self.authorization = f"Basic {base64.b64encode(f'{user}:{password}'.encode()).decode()}" if user else ""
        self.sets, self.groups = _h264()

    def __enter__(self) -> Self:
        camera = self

        class Handler(socketserver.StreamRequestHandler):
            def handle(self) -> None:
                try:
                    camera.serve(self)
                except OSError:
                    return

        class Server(socketserver.ThreadingTCPServer):
            daemon_threads = True
            allow_reuse_address = True

        self._server = Server(("127.0.0.1", 0), Handler)
        self.port = self._server.server_address[1]
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    def serve(self, handler: socketserver.StreamRequestHandler) -> None:
        while request := handler.rfile.readline().decode():
            method, address, _ = request.split()
            headers = {}
            while line := handler.rfile.readline().decode().strip():
                name, _, value = line.partition(": ")
                headers[name.lower()] = value
            reply = [f"CSeq: {headers['cseq']}"]
            if self.authorization and headers.get("authorization") != self.authorization:
                self._reply(handler, 401, [*reply, 'WWW-Authenticate: Basic realm="camera"'])
                continue
            match method:
                case "OPTIONS":
                    self._reply(handler, 200, [*reply, "Public: OPTIONS, DESCRIBE, SETUP, PLAY, TEARDOWN"])
                case "DESCRIBE":
                    self._reply(handler, 200, [*reply, f"Content-Base: {address}/"], self._description())
                case "SETUP":
                    self.transports.append(headers["transport"])
                    if "TCP" not in headers["transport"]:
                        self._reply(handler, 461, reply)
                        continue
                    self._reply(handler, 200, [*reply, f"Transport: {headers['transport']}", "Session: 1"])
                case "PLAY":
                    self._reply(handler, 200, [*reply, "Session: 1"])
                    self._play(handler)
                    return
                case _:
                    self._reply(handler, 200, reply)
                    return

    def _reply(
        self, handler: socketserver.StreamRequestHandler, status: int, headers: list[str], body: str = ""
    ) -> None:
        if body:
            headers = [*headers, "Content-Type: application/sdp", f"Content-Length: {len(body)}"]
        head = "\r\n".join([f"RTSP/1.0 {status} Answer", *headers])
        handler.wfile.write(f"{head}\r\n\r\n{body}".encode())

    def _description(self) -> str:
        sets = ",".join(base64.b64encode(unit).decode() for unit in self.sets)
        lines = [
            "v=0", "o=- 1 1 IN IP4 127.0.0.1", "s=camera", "c=IN IP4 0.0.0.0", "t=0 0", "m=video 0 RTP/AVP 96",
            "a=rtpmap:96 H264/90000", f"a=fmtp:96 packetization-mode=1;sprop-parameter-sets={sets}", "a=control:track1",
        ]  # fmt: skip
        return "\r\n".join([*lines, ""])

    def _play(self, handler: socketserver.StreamRequestHandler) -> None:
        sequence = moment = 0
        while True:
            for units in self.groups:
                self.playing.wait()
                for number, unit in enumerate(units):
                    marker = 0x80 if number == len(units) - 1 else 0
                    packet = struct.pack("!BBHII", 0x80, 96 | marker, sequence & 0xFFFF, moment, 1) + unit
                    handler.wfile.write(b"$\0" + struct.pack("!H", len(packet)) + packet)
                    sequence += 1
                moment += 3600
                time.sleep(0.04)


def _h264() -> tuple[list[bytes], list[list[bytes]]]:
    """Returns the parameter sets, and a second of pictures as lists of NAL units; the first is a whole picture."""
    import av

    encoder: Any = av.CodecContext.create("libx264", "w")
    encoder.width, encoder.height, encoder.pix_fmt = 320, 180, "yuv420p"
    encoder.time_base = Fraction(1, 25)
    encoder.options = {"tune": "zerolatency", "preset": "ultrafast", "g": "25"}
    groups = []
    for index in range(25):
        frame = av.VideoFrame.from_ndarray(scene(8 * index), format="rgb24")
        frame.pts = index
        groups += [_units(bytes(packet)) for packet in encoder.encode(frame)]
    sets = [unit for unit in groups[0] if unit[0] & 0x1F in (7, 8)]
    return sets, groups


def _units(data: bytes) -> list[bytes]:
    """Splits what stands between start codes."""
    return [unit for unit in (piece.rstrip(b"\0") for piece in data.split(b"\0\0\1")) if unit]


def decode(data: bytes) -> NDArray[np.uint8]:
    return cv2.cvtColor(cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR), cv2.COLOR_BGR2RGB)
