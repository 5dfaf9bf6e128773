"""The page's files, over HTTP: read once at the start, so that no request ever reaches the disk."""

from __future__ import annotations

import hashlib
import importlib.util
import re
from dataclasses import dataclass
from email.utils import formatdate
from http import HTTPStatus
from pathlib import Path

from lego_core.errors import LegoError
from websockets.datastructures import Headers
from websockets.http11 import Response

_TYPES = {
    ".html": "text/html; charset=utf-8", ".css": "text/css; charset=utf-8", ".js": "text/javascript; charset=utf-8",
    ".json": "application/json", ".webmanifest": "application/manifest+json", ".svg": "image/svg+xml",
    ".png": "image/png", ".jpg": "image/jpeg", ".webp": "image/webp", ".ico": "image/x-icon", ".woff2": "font/woff2",
}  # fmt: skip
_NAME = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]*")
_MAX_BYTES = 16 * 2**20
_MAX_ENTRIES = 10_000  # looked at: a whole disk is named by mistake
# Nothing from elsewhere, nothing inline, no frame around it; camera and microphone for the page itself.
_HEADERS = (
    ("Content-Security-Policy",
     "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob:; media-src 'self' blob:; "
     "font-src 'self'; connect-src 'self'; worker-src 'self'; manifest-src 'self'; base-uri 'none'; "
     "form-action 'none'; frame-ancestors 'none'"),
    ("Permissions-Policy", "camera=(self), microphone=(self), geolocation=()"),
    ("Cross-Origin-Opener-Policy", "same-origin"),
    ("Cross-Origin-Resource-Policy", "same-origin"),
    ("X-Content-Type-Options", "nosniff"),
    ("Referrer-Policy", "no-referrer"),
)  # fmt: skip


@dataclass(frozen=True)
class _File:
    content: bytes
    type: str
    tag: str


class Page:
    """Answers requests for the files of one folder, and for nothing else."""

    def __init__(self, folder: Path) -> None:
        """Reads the folder: files of known types with plain names; hidden ones and others are left out.

        Raises:
            LegoError: There is no such folder, it lacks an index.html, is too large, or a file in it lies elsewhere or
                cannot be read.
        """
        if not folder.is_dir():
            raise LegoError(f"there is no folder {folder}; give --web-page the folder of a page")
        try:
            paths = _find(folder)
            if "/index.html" not in paths:
                raise LegoError(f"there is no index.html in {folder}; give --web-page the folder of a page")
            self._files = {name: _read(path, folder) for name, path in paths.items()}
        except OSError as error:
            raise LegoError(f"the page in {folder} cannot be read ({error.strerror}); check --web-page") from error

    def respond(self, path: str, headers: Headers) -> Response:
        """Returns the answer to a GET of a path, as the request writes it."""
        file = self._files.get(f"{path}index.html" if path.endswith("/") else path)
        if file is None:
            return plain(HTTPStatus.NOT_FOUND, "there is no such file")
        kept = {
            tag.strip().removeprefix("W/") for value in headers.get_all("If-None-Match") for tag in value.split(",")
        }
        told = [("ETag", file.tag), ("Cache-Control", "no-cache")]
        if file.tag in kept or f"W/{file.tag}" in kept:  # a proxy that compresses weakens it
            return _response(HTTPStatus.NOT_MODIFIED, b"", *told)
        told += [("Content-Type", file.type), ("Content-Length", str(len(file.content)))]
        return _response(HTTPStatus.OK, file.content, *told)


def own_page() -> Path:
    """Returns the folder of the page that comes with the client; it is handed out, never imported.

    Raises:
        LegoError: It is not installed.
    """
    found = importlib.util.find_spec("lego_client")
    if found is None or not found.submodule_search_locations:
        raise LegoError("lego-client's page is not installed here; name a folder with --web-page")
    return Path(found.submodule_search_locations[0]) / "web"


def plain(status: HTTPStatus, text: str, *headers: tuple[str, str]) -> Response:
    """Returns an answer of one line of text, kept by nobody."""
    body = f"{text}\n".encode()
    told = [("Content-Type", "text/plain; charset=utf-8"), ("Content-Length", str(len(body)))]
    return _response(status, body, *told, ("Cache-Control", "no-store"), *headers)


def _response(status: HTTPStatus, body: bytes, *headers: tuple[str, str]) -> Response:
    always = [("Date", formatdate(usegmt=True)), ("Connection", "close"), *_HEADERS]
    return Response(status.value, status.phrase, Headers([*always, *headers]), body)


def _find(folder: Path) -> dict[str, Path]:
    """Returns the files to serve by the paths of their URLs; what they take is bounded before any of them is read."""
    found: dict[str, Path] = {}
    size = 0
    for count, path in enumerate(folder.rglob("*"), start=1):
        if count > _MAX_ENTRIES:
            raise LegoError(
                f"{folder} holds more than {_MAX_ENTRIES} files; give --web-page the folder of a page alone"
            )
        parts = path.relative_to(folder).parts
        if path.suffix in _TYPES and all(map(_NAME.fullmatch, parts)) and path.is_file():
            found["/" + "/".join(parts)] = path
            size += path.stat().st_size
            if size > _MAX_BYTES:
                raise LegoError(
                    f"the page in {folder} has {size} bytes or more; it is kept in memory, at most {_MAX_BYTES}"
                )
    return found


def _read(path: Path, folder: Path) -> _File:
    if not path.resolve().is_relative_to(folder.resolve()):
        raise LegoError(f"{path} leads out of {folder}; put a copy there instead of a link")
    content = path.read_bytes()
    digest = hashlib.blake2b(content, digest_size=16).hexdigest()
    return _File(content, _TYPES[path.suffix], f'"{digest}"')
