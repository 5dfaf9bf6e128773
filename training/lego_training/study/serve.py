"""The page on the network: files of the study's public folder, and votes taken in."""

from __future__ import annotations

import json
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

from lego_core.errors import LegoError

from lego_training.study.design import Study, public
from lego_training.study.votes import RATER, Votes

_MOST_BYTES = 4096  # of a vote
_TYPES = {".html": "text/html", ".js": "text/javascript", ".css": "text/css", ".json": "application/json",
          ".jpg": "image/jpeg"}  # fmt: skip
_HEADERS = {
    "Content-Security-Policy": "default-src 'self'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
}


def open_server(folder: Path, host: str, port: int) -> ThreadingHTTPServer:
    """Returns a server that listens; call `serve_forever`.

    Raises:
        LegoError: The folder holds no study, or the address cannot be listened on.
    """
    study = Study.load(folder)
    votes = Votes(folder, study)
    # Only what there is at the start can be asked for: no path leads out of the folder.
    files = {
        "/" + path.relative_to(public(folder)).as_posix(): path for path in public(folder).rglob("*") if path.is_file()
    }
    files["/"] = files["/index.html"]
    try:
        return ThreadingHTTPServer((host, port), _handler(study, votes, files))
    except OSError as error:
        raise LegoError(f"{host}:{port} cannot be listened on ({error.strerror}); choose another --port") from error


def _handler(study: Study, votes: Votes, files: dict[str, Path]) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        timeout = 20  # seconds for a request to come
        server_version, sys_version = "lego-study", ""

        def do_GET(self) -> None:  # the library's name
            url = urlsplit(self.path)
            if url.path == "/left":
                rater = parse_qs(url.query).get("rater", [""])[0]
                if not RATER.fullmatch(rater):
                    self._tell(HTTPStatus.BAD_REQUEST, {"error": "rater must be 3 to 40 letters, digits, - or _"})
                else:
                    self._tell(HTTPStatus.OK, {"items": votes.left_for(rater, study.raters)})
            elif url.path == "/favicon.ico":  # browsers ask for it; there is none
                self._send(HTTPStatus.NO_CONTENT, b"", "image/jpeg")
            elif url.path in files:
                path = files[url.path]
                self._send(HTTPStatus.OK, path.read_bytes(), _TYPES.get(path.suffix, "application/octet-stream"))
            else:
                self._tell(HTTPStatus.NOT_FOUND, {"error": "there is no such page"})

        def do_POST(self) -> None:  # the library's name
            length = self.headers.get("Content-Length", "")
            if self.path != "/votes":
                self._tell(HTTPStatus.NOT_FOUND, {"error": "votes are sent to /votes"})
            elif self.headers.get("Content-Type", "").partition(";")[0] != "application/json":
                # A form of another site cannot send this type, so it cannot vote in a rater's name.
                self._tell(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, {"error": "a vote is application/json"})
            elif not length.isdecimal() or int(length) > _MOST_BYTES:
                self._tell(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, {"error": f"a vote has at most {_MOST_BYTES} bytes"})
            else:
                self._take(self.rfile.read(int(length)))

        def _take(self, body: bytes) -> None:
            try:
                vote = votes.check(json.loads(body))
            except (ValueError, LegoError) as error:
                self._tell(HTTPStatus.BAD_REQUEST, {"error": str(error)})
                return
            try:
                votes.add([vote])
            except LegoError as error:
                self._tell(HTTPStatus.INSUFFICIENT_STORAGE, {"error": str(error)})
                return
            self._tell(HTTPStatus.OK, {"votes": len(votes)})

        def _tell(self, status: HTTPStatus, values: dict[str, Any]) -> None:
            self._send(status, json.dumps(values).encode(), "application/json")

        def _send(self, status: HTTPStatus, body: bytes, kind: str) -> None:
            self.send_response(status)
            for name, value in _HEADERS.items():
                self.send_header(name, value)
            self.send_header("Content-Type", f"{kind}; charset=utf-8" if kind != "image/jpeg" else kind)
            self.send_header("Content-Length", str(len(body)))
            self.send_header("Cache-Control", "max-age=3600" if kind == "image/jpeg" else "no-store")
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: Any) -> None:
            """Says nothing: a log would tell who voted when."""

    return Handler
