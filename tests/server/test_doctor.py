"""`lego-server doctor` as people run it: what it finds in a good place, and in bad ones."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("onnx")

from tests.server.tiny_engine import write_tiny_engine


def doctor(*arguments: str, limit: int | None = None) -> tuple[int, dict[str, dict[str, Any]]]:
    """Runs it; returns its exit code and findings by name."""

    def lower_limit() -> None:
        import resource

        resource.setrlimit(resource.RLIMIT_NOFILE, (limit or 0, limit or 0))

    command = [sys.executable, "-m", "lego_server", "doctor", "--json", "--port", "0", *arguments]
    result = subprocess.run(
        command, capture_output=True, text=True, timeout=60, preexec_fn=None if limit is None else lower_limit
    )
    assert result.stderr == "", result.stderr
    return result.returncode, {finding["name"]: finding for finding in json.loads(result.stdout)}


@pytest.fixture
def engines(tmp_path: Path) -> Path:
    write_tiny_engine(tmp_path / "engines")
    return tmp_path / "engines"


def test_a_good_place_is_all_well_and_answers_a_query(engines: Path) -> None:
    code, findings = doctor(str(engines), "--run", "--threads", "1")
    assert code == 0
    assert {each["status"] for each in findings.values()} == {"ok"}
    assert "fake-0123456789ab: 13 files" in findings["engines"]["told"]
    assert "answered in" in findings["run"]["told"]


def _damage(engines: Path) -> None:
    (engines / "text_tokenizer.json").write_text("{}")


def _lose(engines: Path) -> None:
    (engines / "unet.onnx").unlink()


def _future(engines: Path) -> None:
    later = time.time() + 86_400
    os.utime(engines / "manifest.json", (later, later))


@pytest.mark.parametrize(
    ("harm", "arguments", "name", "told", "cure"),
    [
        (_damage, [], "engines", "is not the file its manifest describes", "rebuild it with lego-export build"),
        (_lose, [], "engines", "lacks the graph file unet.onnx", "rebuild it with lego-export build"),
        (_future, [], "clock", "which is before files here were written", "set it; use NTP"),
        (None, ["--device", "tensorrt"], "device", "needs onnxruntime's TensorrtExecutionProvider", "another --device"),
        (None, ["--max-steps", "2"], "limits", "max_steps is 2, the model's default is 3", "raise --max-steps"),
        (
            None,
            ["--web-port", "0", "--web-host", "a..b", "--allow-insecure"],
            "web port",
            "that is no host name",
            "or another address",
        ),
        (
            None,
            ["--metrics-port", "0", "--metrics-host", "a..b"],
            "metrics port",
            "that is no host name",
            "or another address",
        ),
        (
            lambda engines: (engines / "manifest.json").write_text("[" * 100_000),
            [],
            "engines",
            "nested too deeply",
            "rebuild it with lego-export build",
        ),
        (None, ["--host", "192.0.2.1"], "port", "cannot listen on 192.0.2.1:0", "choose another --port"),
    ],
)
def test_a_problem_is_named_with_its_cure(
    engines: Path, harm: Callable[[Path], None] | None, arguments: list[str], name: str, told: str, cure: str
) -> None:
    if harm is not None:
        harm(engines)
    code, findings = doctor(str(engines), *arguments)
    assert code == 1
    assert findings[name]["status"] == "problem"
    assert told in findings[name]["told"] and cure in findings[name]["cure"]


def test_a_cluster_is_looked_at_when_asked_for(engines: Path) -> None:
    pytest.importorskip("ray.serve")
    code, findings = doctor(str(engines), "--cluster", "--replica-cpus", "0.1")
    assert code == 0 and findings["ray"]["told"].startswith("ray 2.")
    code, crowded = doctor(str(engines), "--cluster", "--replica-cpus", "1000")
    assert code == 1 and "1000 CPUs needed" in crowded["replicas"]["told"]
    code, alone = doctor(str(engines), "--cluster", "--ray-address", "127.0.0.1:1")
    assert code == 1 and "no Ray cluster can be reached at 127.0.0.1:1" in alone["ray cluster"]["told"]
    assert "ray" not in doctor(str(engines))[1]


def test_every_model_is_looked_at(engines: Path, tmp_path: Path) -> None:
    write_tiny_engine(tmp_path / "other")
    _damage(tmp_path / "other")
    code, findings = doctor(str(engines), "--model", f"other={tmp_path / 'other'}")
    assert code == 1
    assert str(tmp_path / "other") in findings["engines"]["told"]


def test_a_taken_port_is_a_problem(engines: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        code, findings = doctor(str(engines), "--metrics-port", str(taken.getsockname()[1]))
    assert code == 1
    assert (findings["port"]["status"], findings["metrics port"]["status"]) == ("ok", "problem")


def test_the_web_port_its_page_and_its_address_are_looked_at(engines: Path, tmp_path: Path) -> None:
    code, findings = doctor(str(engines), "--web-port", "0")
    assert code == 0
    assert {findings[name]["status"] for name in ("web port", "web page", "exposure", "web exposure")} == {"ok"}
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        code, findings = doctor(
            str(engines), "--web-port", str(taken.getsockname()[1]), "--web-page", str(tmp_path / "nothing")
        )
    assert code == 1
    assert "choose another --web-port" in findings["web port"]["cure"]
    assert "give --web-page the folder of a page" in findings["web page"]["told"]
    code, findings = doctor(str(engines), "--web-port", "0", "--web-host", "0.0.0.0")
    assert (findings["exposure"]["status"], findings["web exposure"]["status"]) == ("ok", "problem")
    code, findings = doctor(str(engines), "--web-host", "0.0.0.0")
    assert code == 0 and "web exposure" not in findings, "nothing listens there"


def test_too_few_open_files_are_a_problem(engines: Path) -> None:
    code, findings = doctor(str(engines), "--max-sessions", "1000", limit=512)
    assert code == 1
    assert findings["open files"]["told"] == "512, 1064 needed for 1000 sessions"


def test_it_reads_the_config_file_and_prints_a_table(engines: Path, tmp_path: Path) -> None:
    path = tmp_path / "server.toml"
    path.write_text(f'[server]\nport = 0\n[engine]\ndirectory = "{engines}"\n')
    command = [sys.executable, "-m", "lego_server", "doctor", "--config", str(path)]
    result = subprocess.run(command, capture_output=True, text=True, timeout=60, env=os.environ | {"COLUMNS": "200"})
    assert result.returncode == 0, result.stderr
    assert "fake-0123456789ab" in result.stdout and "problem" not in result.stdout


def test_a_limit_on_memory_is_looked_at() -> None:
    program = (
        "import resource; resource.setrlimit(resource.RLIMIT_AS, (2**30, 2**30));"
        "from lego_server.doctor.machine import available_memory; print(available_memory())"
    )
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True)
    assert 0 < int(result.stdout) < 2**30
