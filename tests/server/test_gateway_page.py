"""The page over HTTP: what is handed out, how, and what is not."""

from __future__ import annotations

from pathlib import Path

import pytest
from lego_core.errors import LegoError
from lego_server.gateway.page import Page, own_page

from tests.server.fake_engine import FakeEngine
from tests.server.harness import running
from tests.server.web import http

FILES = {
    "index.html": "text/html; charset=utf-8", "main.js": "text/javascript; charset=utf-8",
    "style.css": "text/css; charset=utf-8", "manifest.webmanifest": "application/manifest+json",
    "icons/icon.png": "image/png", "icons/mark.svg": "image/svg+xml", "sub/index.html": "text/html; charset=utf-8",
}  # fmt: skip


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A page, and beside it what must not be handed out."""
    root = tmp_path / "page"
    for name in (*FILES, "notes.txt", "secret.py", ".env", ".git/index.html", "noext", "two words.html"):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(f"this is {name}")
    (tmp_path / "tokens.json").write_text("nobody's business")
    return root


async def test_files_have_their_types_and_headers_that_keep_everything_else_out(folder: Path) -> None:
    async with running(FakeEngine(), web__port=0, web__page=folder) as server:
        for name, kind in FILES.items():
            answer = await http(server.server, f"/{name}")
            assert (answer.status, answer.headers["content-type"]) == (200, kind)
            assert answer.body.decode() == f"this is {name}"
            policy = answer.headers["content-security-policy"].split("; ")
            assert {"default-src 'none'", "script-src 'self'", "connect-src 'self'", "frame-ancestors 'none'"} < {
                *policy
            }
            assert "unsafe" not in answer.headers["content-security-policy"]
            assert answer.headers["x-content-type-options"] == "nosniff"
            assert answer.headers["referrer-policy"] == "no-referrer"
            assert answer.headers["permissions-policy"].startswith("camera=(self), microphone=(self)")
            assert "server" not in answer.headers
        for path, name in (("/", "index.html"), ("/sub/", "sub/index.html"), ("/?a=b", "index.html")):
            assert (await http(server.server, path)).body.decode() == f"this is {name}"


@pytest.mark.parametrize(
    "path",
    [
        "/notes.txt", "/secret.py", "/.env", "/.git/index.html", "/.git/", "/noext", "/two words.html",
        "/two%20words.html", "/tokens.json", "/../tokens.json", "/../page/index.html", "/sub/../index.html",
        "/%2e%2e/tokens.json", "/..%2ftokens.json", "/..\\tokens.json", "//index.html", "/./index.html",
        "/index.html/", "/icons", "/icons/", "/index.html%00", "/INDEX.HTML", "index.html", "", "*",
        "http://localhost/index.html", "/main.js/../index.html", "/etc/passwd", "//etc/passwd", "/health", "/guidex",
    ],
)  # fmt: skip
async def test_nothing_else_is_handed_out(folder: Path, path: str) -> None:
    async with running(FakeEngine(), warm=False, web__port=0, web__page=folder) as server:
        try:
            answer = await http(server.server, path)
        except ConnectionResetError:
            assert " " in path or not path, "only what is no request has no answer"
        else:
            assert answer.status == 404 and b"business" not in answer.body and b"this is" not in answer.body
            assert "content-security-policy" in answer.headers


async def test_what_a_browser_has_already_is_not_sent_again_and_what_is_new_is(folder: Path) -> None:
    async with running(FakeEngine(), warm=False, web__port=0, web__page=folder) as server:
        answer = await http(server.server, "/main.js")
        tag = answer.headers["etag"]
        assert answer.headers["cache-control"] == "no-cache"
        for known in (tag, f'"other", {tag}', f"W/{tag}"):
            again = await http(server.server, "/main.js", f"If-None-Match: {known}")
            assert (again.status, again.body, again.headers["etag"]) == (304, b"", tag)
        assert (await http(server.server, "/main.js", 'If-None-Match: "other"')).status == 200
    (folder / "main.js").write_text("something else")
    async with running(FakeEngine(), warm=False, web__port=0, web__page=folder) as server:
        assert (await http(server.server, "/main.js", f"If-None-Match: {tag}")).body == b"something else"


async def test_other_methods_are_refused_and_head_has_no_body(folder: Path) -> None:
    async with running(FakeEngine(), warm=False, web__port=0, web__page=folder) as server:
        head = await http(server.server, "/main.js", method="HEAD")
        assert (head.status, head.headers["content-length"], head.body) == (200, "15", b"")
        for method in ("POST", "PUT", "DELETE", "OPTIONS", "TRACE"):
            answer = await http(server.server, "/main.js", method=method)
            assert (answer.status, answer.headers["allow"]) == (405, "GET, HEAD")


async def test_health_is_told_as_it_is() -> None:
    engine = FakeEngine()
    async with running(engine, warm=False, web__port=0) as server:

        async def health() -> list[tuple[int, bytes]]:
            answers = [await http(server.server, f"/health/{name}") for name in ("live", "ready", "model")]
            assert all(answer.headers["cache-control"] == "no-store" for answer in answers)
            return [(answer.status, answer.body) for answer in answers]

        good, bad = (200, b"SERVING\n"), (503, b"NOT_SERVING\n")
        assert await health() == [good, bad, good]
        await server.server.warm_up()
        assert await health() == [good, good, good]
        for name in ("readyness", "", "lego.v1.Guidance"):
            assert (await http(server.server, f"/health/{name}")).status == 404
        for method in ("POST", "DELETE"):
            assert (await http(server.server, "/health/live", method=method)).status == 405
        assert (await http(server.server, "/health/live", method="HEAD")).body == b""


async def test_the_websocket_has_no_page() -> None:
    async with running(FakeEngine(), warm=False, web__port=0) as server:
        answer = await http(server.server, "/guide", "Sec-WebSocket-Protocol: lego.v1")
        assert answer.status == 426 and answer.headers["upgrade"] == "websocket"


async def test_the_page_that_comes_along_is_whole_and_needs_nothing_from_elsewhere() -> None:
    async with running(FakeEngine(), warm=False, web__port=0) as server:
        for name in ("", "app.js", "app.css", "sw.js", "manifest.webmanifest", "icons/icon-192.png"):
            answer = await http(server.server, f"/{name}")
            assert answer.status == 200
            assert b"http:" not in answer.body and b"https://" not in answer.body
            assert b" onclick=" not in answer.body and b"<style" not in answer.body, "the policy would not let it"


def test_a_page_that_cannot_be_served_is_refused(folder: Path, tmp_path: Path) -> None:
    assert Page(own_page())
    with pytest.raises(LegoError, match=r"there is no folder .*/nowhere; give --web-page"):
        Page(tmp_path / "nowhere")
    with pytest.raises(LegoError, match=r"there is no index.html in .*; give --web-page"):
        Page(folder / "icons")
    (folder / "leak.html").symlink_to(tmp_path / "tokens.json")
    with pytest.raises(LegoError, match=r"leak.html leads out of .*; put a copy there"):
        Page(folder)
    (folder / "leak.html").unlink()
    with (folder / "large.png").open("wb") as large:
        large.truncate(2**40)  # more than could be read to find out
    with pytest.raises(LegoError, match="it is kept in memory, at most 16777216"):
        Page(folder)
    (folder / "large.png").unlink()
    (folder / "much").mkdir()
    for number in range(10_000):
        (folder / "much" / str(number)).touch()
    with pytest.raises(LegoError, match="holds more than 10000 files; give --web-page the folder of a page alone"):
        Page(folder)


def test_a_folder_of_links_within_is_served_as_kubernetes_mounts_it(folder: Path) -> None:
    (folder / "..data").mkdir()
    (folder / "..data" / "linked.html").write_text("linked")
    (folder / "linked.html").symlink_to(folder / "..data" / "linked.html")
    Page(folder)
