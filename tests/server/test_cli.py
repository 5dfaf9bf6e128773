"""The commands as people run them: in a process of their own."""

from __future__ import annotations

import json
import re
import signal
import socket
import subprocess
import sys
import urllib.request
from pathlib import Path

import grpc
import pytest
from lego_proto.v1 import guidance_pb2 as pb
from lego_proto.v1 import guidance_pb2_grpc
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect
from websockets.typing import Subprotocol

from tests.server.harness import picture

COMMAND = [sys.executable, "-m", "lego_server"]


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*COMMAND, *arguments], capture_output=True, text=True, timeout=60)


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("onnx")
    from tests.server.tiny_engine import write_tiny_engine

    path = tmp_path_factory.mktemp("engines")
    write_tiny_engine(path)
    return path


@pytest.mark.parametrize("stop", [signal.SIGTERM, signal.SIGINT])
def test_serve_says_where_it_listens_answers_and_stops_cleanly(directory: Path, stop: signal.Signals) -> None:
    process = subprocess.Popen(
        [*COMMAND, "serve", "--engines", str(directory), "--port", "0", "--threads", "1"],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        assert line.startswith("listening on 127.0.0.1:")
        with grpc.insecure_channel(line.split()[-1]) as channel:
            stub = guidance_pb2_grpc.GuidanceStub(channel)
            result = stub.Generate(pb.GenerateRequest(image=picture(), text="open the drawer"), timeout=20)
            assert result.description
        process.send_signal(stop)
        output, errors = process.communicate(timeout=20)
    finally:
        process.kill()
    assert process.returncode == 0
    assert output == ""
    assert errors == "note: A fake model for tests.\n"


def test_serve_says_where_its_page_is_and_tells_its_wearers_when_it_stops(directory: Path) -> None:
    process = subprocess.Popen(
        [*COMMAND, "serve", "--engines", str(directory), "--port", "0", "--threads", "1", "--web-port", "0"],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        assert process.stdout is not None and process.stderr is not None
        assert process.stdout.readline().startswith("listening on 127.0.0.1:")
        told = process.stderr.readline() + process.stderr.readline()
        [page] = re.findall(r"^web page at (http://127\.0\.0\.1:\d+/)$", told, re.MULTILINE)
        with urllib.request.urlopen(page, timeout=20) as answer:
            assert b"LEGO-AR" in answer.read()
        url = f"{page.replace('http', 'ws')}guide"
        with connect(url, subprotocols=[Subprotocol("lego.v1")], proxy=None) as stream:
            assert pb.GuideResponse.FromString(bytes(stream.recv(20))).HasField("session_started")
            process.send_signal(signal.SIGTERM)
            with pytest.raises(ConnectionClosed):
                stream.recv(20)
            assert stream.close_code == 1001
        _, errors = process.communicate(timeout=20)
    finally:
        process.kill()
    assert (process.returncode, errors) == (0, "")


def test_all_that_serve_tells_is_json_where_the_log_is(directory: Path) -> None:
    process = subprocess.Popen(
        [*COMMAND, "serve", "--engines", str(directory), "--port", "0", "--threads", "1", "--web-port", "0",
         "--metrics-port", "0", "--metrics-host", "0.0.0.0", "--log-format", "json"],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    told = []
    try:
        assert process.stdout is not None and process.stderr is not None
        assert process.stdout.readline().startswith("listening on 127.0.0.1:")
        process.send_signal(signal.SIGHUP)
        while not (told and told[-1]["text"].endswith("is as before")):
            told.append(json.loads(process.stderr.readline()))
        process.send_signal(signal.SIGTERM)
        _, errors = process.communicate(timeout=20)
    finally:
        process.kill()
    assert (process.returncode, errors) == (0, "")
    assert {each["event"] for each in told} == {"announcement"}
    found = [(each["level"], " ".join(each["text"].split()[:2])) for each in told]
    assert found == [
        ("info", "note: A"), ("warning", "whoever can"), ("info", "metrics at"), ("info", "web page"),
        ("info", "listening on"), ("info", "fake is"),
    ]  # fmt: skip


def test_info_says_what_is_in_the_directory(directory: Path) -> None:
    result = run("info", "--engines", str(directory))

    assert result.returncode == 0
    assert "fake-0123456789ab" in result.stdout and "euler_ancestral, 3 steps" in result.stdout
    assert "sampler distilled, 2 steps" in result.stdout


@pytest.mark.parametrize("command", ["serve", "info"])
def test_a_directory_without_engines_is_one_line_and_exit_code_2(command: str, tmp_path: Path) -> None:
    result = run(command, "--engines", str(tmp_path))

    assert result.returncode == 2
    assert result.stderr == f"error: {tmp_path} is not an engine directory: it has no manifest.json\n"


def test_a_manifest_that_cannot_be_opened_is_one_line_and_exit_code_2(directory: Path, tmp_path: Path) -> None:
    long = tmp_path / ("x" * 300)
    result = run("info", "--engines", str(long))

    assert result.returncode == 2
    assert result.stderr.startswith("error: ") and "File name too long" in result.stderr
    assert result.stderr.count("\n") == 1


def test_a_missing_provider_is_one_line_and_exit_code_2(directory: Path) -> None:
    result = run("serve", "--engines", str(directory), "--device", "tensorrt")

    assert result.returncode == 2
    assert result.stderr.startswith("error: device tensorrt needs onnxruntime's TensorrtExecutionProvider")
    assert result.stderr.count("\n") == 1


def test_a_mistyped_option_is_one_line_and_exit_code_2(directory: Path) -> None:
    result = run("serve", "--engines", str(directory), "--colour", "red")

    assert result.returncode == 2
    assert result.stderr == "error: No such option: --colour\n"


def test_a_bad_setting_is_one_line_and_exit_code_2(directory: Path) -> None:
    result = run("serve", "--engines", str(directory), "--max-active", "0")

    assert result.returncode == 2
    assert result.stderr == "error: max_active is 0; it must lie between 1 and 256\n"


def test_the_server_never_imports_torch_or_opencv() -> None:
    modules = "lego_server.cli, lego_server.server, lego_server.engines.graph_engine"
    code = f"import sys, {modules}; print({{'torch', 'cv2'}} & set(sys.modules))"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)

    assert result.stdout.strip() == "set()"


def test_a_taken_port_is_one_line_and_exit_code_2(directory: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        result = run("serve", "--engines", str(directory), "--port", str(taken.getsockname()[1]))

    assert result.returncode == 2
    assert "error: cannot listen on 127.0.0.1:" in result.stderr
    assert result.stderr.count("\n") == 2  # the model's note, and the error


def test_listening_beyond_this_machine_without_protection_is_refused(directory: Path) -> None:
    result = run("serve", "--engines", str(directory), "--host", "0.0.0.0", "--port", "0")

    assert result.returncode == 2
    assert result.stderr.startswith("error: 0.0.0.0 can be reached from other machines, and without encryption and")
    assert "--token-file" in result.stderr and "leave out --host" in result.stderr
    assert result.stderr.count("\n") == 1


def test_listening_beyond_this_machine_without_protection_can_be_insisted_on_and_is_warned_of(directory: Path) -> None:
    process = subprocess.Popen(
        [*COMMAND, "serve", "--engines", str(directory), "--host", "0.0.0.0", "--port", "0", "--allow-insecure"],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        assert process.stdout is not None
        assert process.stdout.readline().startswith("listening on 0.0.0.0:")
        process.terminate()
        _, errors = process.communicate(timeout=20)
    finally:
        process.kill()
    assert "warning: 0.0.0.0 can be reached from other machines, and without encryption and without a check" in errors
