"""A stand-in for the Hugging Face hub that speaks its HTTP protocol: model info, resolve, a CDN of another origin."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any
from urllib.parse import unquote, urlsplit

COMMIT = "0123456789abcdef0123456789abcdef01234567"
LARGE = 1000  # bytes from which on a file is kept outside git


@dataclass
class Hub:
    """What the hub holds and how it misbehaves.

    Attributes:
        repositories: Repository to path to content.
        token: What gated and private repositories ask for.
        gated: Repositories whose files need the token.
        private: Repositories that are shown to nobody without it.
        declared: Sizes in bytes that the hub states in place of the true ones, by path.
        damaged: Paths whose content is served with a flipped byte.
        breaks: After so many bytes of each successive answer with this path's content, the connection breaks.
        status: Answered instead of any content, if set.
        requests: (method, path, headers) of every request, the CDN's too.
    """

    repositories: dict[str, dict[str, bytes]]
    token: str = "hf_right"
    gated: set[str] = field(default_factory=set)
    private: set[str] = field(default_factory=set)
    declared: dict[str, int] = field(default_factory=dict)
    damaged: set[str] = field(default_factory=set)
    breaks: dict[str, list[int]] = field(default_factory=dict)
    status: int | None = None
    requests: list[tuple[str, str, dict[str, str]]] = field(default_factory=list)
    endpoint: str = ""
    cdn: str = ""

    def contents(self) -> list[tuple[str, dict[str, str]]]:
        """The requests for files' contents, as answered by the CDN for large ones and by the hub for small ones."""
        return [
            (path, headers) for method, path, headers in self.requests
            if method == "GET" and (path.startswith("/cdn/") or path.endswith((".json", ".txt")))
        ]  # fmt: skip


@contextmanager
def serve(hub: Hub) -> Iterator[Hub]:
    """Serves a hub on two free ports: the hub's own and its CDN's."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_: Any) -> None:
            pass

        def do_HEAD(self) -> None:
            self.do_GET()

        def do_GET(self) -> None:
            path = unquote(urlsplit(self.path).path)
            hub.requests.append((self.command, path, {key.lower(): value for key, value in self.headers.items()}))
            parts = path.strip("/").split("/")
            if parts[0] == "cdn":
                repository, name = "/".join(parts[1:3]), "/".join(parts[3:])
                self.send_content(name, hub.repositories[repository][name], {})
            elif parts[:2] == ["api", "models"]:
                self.send_info("/".join(parts[2:4]))
            else:
                self.send_file("/".join(parts[:2]), "/".join(parts[4:]))

        def knows_token(self) -> bool:
            return self.headers.get("Authorization") == f"Bearer {hub.token}"

        def send_info(self, repository: str) -> None:
            if repository not in hub.repositories or (repository in hub.private and not self.knows_token()):
                self.send_error_code(401, "RepoNotFound")
                return
            siblings = []
            for path, content in hub.repositories[repository].items():
                size = hub.declared.get(path, len(content))
                blob = hashlib.sha1(f"blob {len(content)}\0".encode() + content).hexdigest()
                sibling: dict[str, Any] = {"rfilename": path, "size": size, "blobId": blob}
                if len(content) >= LARGE:
                    digest = hashlib.sha256(content).hexdigest()
                    sibling["lfs"] = {"sha256": digest, "size": size, "pointerSize": 134}
                siblings.append(sibling)
            body = json.dumps({"_id": "1", "id": repository, "sha": COMMIT, "siblings": siblings}).encode()
            self.answer(200, body, {"Content-Type": "application/json"})

        def send_file(self, repository: str, path: str) -> None:
            if repository in hub.gated and not self.knows_token():
                self.send_error_code(401, "GatedRepo")
            elif path not in hub.repositories.get(repository, {}):
                self.send_error_code(404, "EntryNotFound")
            elif len(content := hub.repositories[repository][path]) >= LARGE:
                digest = hashlib.sha256(content).hexdigest()
                self.answer(302, b"", {
                    "Location": f"{hub.cdn}/cdn/{repository}/{path}", "X-Repo-Commit": COMMIT,
                    "X-Linked-Etag": f'"{digest}"', "X-Linked-Size": str(len(content)),
                })  # fmt: skip
            else:
                self.send_content(path, content, {"X-Repo-Commit": COMMIT})

        def send_content(self, path: str, content: bytes, headers: dict[str, str]) -> None:
            if hub.status is not None:
                self.answer(hub.status, b"", {})
                return
            if path in hub.damaged:
                content = content[:-1] + bytes([content[-1] ^ 1])
            first = (
                int(self.headers["Range"].removeprefix("bytes=").partition("-")[0]) if "Range" in self.headers else 0
            )
            if first:
                headers = {**headers, "Content-Range": f"bytes {first}-{len(content) - 1}/{len(content)}"}
            breaks = hub.breaks.get(path, [])
            until = first + breaks.pop(0) if breaks else None
            self.answer(206 if first else 200, content[first:], headers, content[first:until])
            if until is not None:
                self.close_connection = True

        def send_error_code(self, status: int, code: str) -> None:
            self.answer(status, b"{}", {"X-Error-Code": code})

        def answer(self, status: int, body: bytes, headers: dict[str, str], sent: bytes | None = None) -> None:
            self.send_response(status)
            for key, value in {**headers, "Content-Length": str(len(body))}.items():
                self.send_header(key, value)
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(body if sent is None else sent)

    servers = [ThreadingHTTPServer(("127.0.0.1", 0), Handler) for _ in range(2)]
    hub.endpoint, hub.cdn = (f"http://127.0.0.1:{server.server_port}" for server in servers)
    for server in servers:
        server.daemon_threads = True
        Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
    try:
        yield hub
    finally:
        for server in servers:
            server.shutdown()
            server.server_close()
