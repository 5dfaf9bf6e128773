"""The web page: what is committed is what its sources make, and it speaks the protocol that is."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import lego_client
import pytest
from google.protobuf.descriptor import FieldDescriptor
from lego_proto.v1 import guidance_pb2 as pb

BUILT = Path(lego_client.__file__).parent / "web"
SOURCES = Path(__file__).parents[2] / "client" / "web"
_MOST_BYTES = 160_000  # of the page; a phone loads all of it once


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the sources with the tools that the lock file names."""
    npm = shutil.which("npm")
    if npm is None or shutil.which("node") is None:
        pytest.skip("there is no node with npm")
    client = tmp_path_factory.mktemp("web") / "client"
    copy = client / "web"
    shutil.copytree(SOURCES, copy, ignore=shutil.ignore_patterns("node_modules"))
    shutil.copytree(BUILT, client / "lego_client" / "web")
    installed = subprocess.run(
        [npm, "ci", "--omit=dev", "--ignore-scripts", "--no-audit", "--no-fund", "--loglevel=error"],
        cwd=copy, capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    if installed.returncode != 0:
        pytest.skip(f"npm cannot install the page's tools: {installed.stderr.strip().splitlines()[-1:]}")
    return copy


def test_the_committed_page_is_what_its_sources_make(project: Path) -> None:
    fresh = project.parent / "lego_client" / "web"
    for name in ("app.js", "app.css", "sw.js", "NOTICE.txt"):
        (fresh / name).unlink()
    subprocess.run(["node", "scripts/build.mjs"], cwd=project, check=True, timeout=60)
    for path in BUILT.rglob("*.*"):
        made = fresh / path.relative_to(BUILT)
        assert made.read_bytes() == path.read_bytes(), f"{path.name} is another: run npm run build in client/web"


def test_the_page_passes_its_own_tests(project: Path) -> None:
    result = subprocess.run(["npm", "test", "--silent"], cwd=project, capture_output=True, text=True, timeout=120)
    assert result.returncode == 0, result.stdout + result.stderr


def test_the_page_knows_every_message_of_a_session_as_it_is_defined() -> None:
    source = (SOURCES / "src" / "proto" / "messages.ts").read_text()
    written = {
        name: {
            field: (int(number), kind.strip('"'), label)
            for field, number, kind, label in re.findall(r'(\w+): \[(\d+), ("?\w+"?)(?:, "(\w+)")?\]', fields)
        }
        for name, fields in re.findall(r"^export const (\w+) = schema\(\{(.*?)\}\);", source, re.DOTALL | re.MULTILINE)
    }
    defined: dict[str, dict[str, tuple[int, str, str]]] = {}
    unread = [pb.GuideRequest.DESCRIPTOR, pb.GuideResponse.DESCRIPTOR]
    while unread:
        message = unread.pop()
        defined[message.name] = {field.json_name: _described(field) for field in message.fields}
        unread += [field.message_type for field in message.fields if field.message_type]
    assert written == defined

    codes = re.search(r"^export const Code = \{(.*?)\}", source, re.DOTALL | re.MULTILINE)
    assert codes
    known = {f"CODE_{name}": int(number) for name, number in re.findall(r"(\w+): (\d+)", codes[1])}
    assert known == dict(pb.QueryError.Code.items())


def _described(field: FieldDescriptor) -> tuple[int, str, str]:
    """A field as messages.ts writes it."""
    if field.message_type is not None:
        return field.number, field.message_type.name, "repeated" if field.is_repeated else ""
    kind = {
        FieldDescriptor.TYPE_UINT64: "uint64", FieldDescriptor.TYPE_UINT32: "uint32", FieldDescriptor.TYPE_ENUM: "enum",
        FieldDescriptor.TYPE_FLOAT: "float", FieldDescriptor.TYPE_BOOL: "bool", FieldDescriptor.TYPE_STRING: "string",
        FieldDescriptor.TYPE_BYTES: "bytes",
    }[field.type]  # fmt: skip
    return field.number, kind, "repeated" if field.is_repeated else "optional" if field.has_presence else ""


def test_the_page_needs_nothing_but_its_server() -> None:
    files = [path for path in BUILT.rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) < _MOST_BYTES
    for path in files:
        if path.suffix in {".html", ".js", ".css", ".webmanifest"}:
            assert not re.search(r"https?://", path.read_text()), path.name
    html = (BUILT / "index.html").read_text()
    assert not re.search(r"<style|<script(?![^>]*\bsrc=)|\bstyle=|\bon[a-z]+=", html), "the server's policy forbids it"
