"""A server that is killed, and a link that is cut, while a query is answered: the wearer gets one answer."""

from __future__ import annotations

import socket
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path

from tests.end_to_end.processes import Answer, Server, asking, serving, start_client

QUERY = "How do I open the drawer?"
ON_A_TERMINAL = {"FORCE_COLOR": "1", "TERM": "xterm"}  # so that the client shows its progress while it waits


def wait_for(process: subprocess.Popen[str], words: str) -> str:
    """Reads on until the client has said that; returns all it has said."""
    assert process.stdout is not None
    said = ""
    while words not in said:
        line = process.stdout.readline()
        assert line, f"the client ended before it said {words!r}: {said}"
        said += line
    return said


def finished(process: subprocess.Popen[str], out: Path, said: str) -> tuple[Answer, str]:
    rest, errors = process.communicate(timeout=120)
    assert process.returncode == 0, errors
    return Answer(out), said + rest


def test_a_query_whose_server_is_killed_is_answered_once_by_the_one_started_after_it(
    model: Path, kitchen: Path, tmp_path: Path
) -> None:
    with serving(model, tmp_path / "first log") as first:
        arguments = asking(first, kitchen, tmp_path / "out", QUERY, "--steps", "40", "--seed", "3")
        client = start_client(*arguments, **ON_A_TERMINAL)
        said = wait_for(client, "denoising")
        first.process.kill()
        first.process.wait()
        said += wait_for(client, "connection lost, trying again")
        with serving(model, tmp_path / "second log", "--port", first.address.rpartition(":")[2]) as second:
            answer, said = finished(client, tmp_path / "out", said)

    assert second.address == first.address
    assert "back; asking again" in said
    assert answer.record["query"] == QUERY and answer.record["sampling"]["steps"] == 40
    assert [path.name for path in (tmp_path / "out").glob("**/record.json")] == ["record.json"]
    assert "steps=40 " not in (tmp_path / "first log").read_text()
    assert (tmp_path / "second log").read_text().count("steps=40 ") == 1


def test_a_query_whose_link_is_cut_goes_on_in_its_session(server: Server, kitchen: Path, tmp_path: Path) -> None:
    before = server.log.read_text().count("steps=41 ")
    with cuttable(server.address) as link:
        client = start_client(
            *asking(replace(server, address=link.address), kitchen, tmp_path / "out", QUERY, "--steps", "41"),
            **ON_A_TERMINAL,
        )
        said = wait_for(client, "denoising")
        link.cut()
        _, said = finished(client, tmp_path / "out", said)

    assert "connection lost, trying again" in said and "back" in said
    assert "asking again" not in said
    assert server.log.read_text().count("steps=41 ") == before + 1


class Link:
    """Carries bytes between clients and a server until it is cut; new connections are carried again."""

    def __init__(self, target: str) -> None:
        host, _, port = target.rpartition(":")
        self._target = host, int(port)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._open: list[socket.socket] = []
        self.address = f"127.0.0.1:{self._listener.getsockname()[1]}"
        threading.Thread(target=self._accept, daemon=True).start()

    def cut(self) -> None:
        for each in self._open:
            with suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
        self._open.clear()

    def close(self) -> None:
        self._listener.close()
        self.cut()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                near, _ = self._listener.accept()
                far = socket.create_connection(self._target)
                self._open += [near, far]
                for source, sink in ((near, far), (far, near)):
                    threading.Thread(target=self._carry, args=(source, sink), daemon=True).start()

    def _carry(self, source: socket.socket, sink: socket.socket) -> None:
        with suppress(OSError):
            while data := source.recv(65536):
                sink.sendall(data)
        with suppress(OSError):
            sink.shutdown(socket.SHUT_RDWR)


@contextmanager
def cuttable(target: str) -> Iterator[Link]:
    link = Link(target)
    try:
        yield link
    finally:
        link.close()
