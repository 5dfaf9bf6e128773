"""Config files: what they set, what wins, and how mistakes are told."""

from __future__ import annotations

import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest
from lego_core.errors import LegoError
from lego_server.config import DEVICES, ServerConfig
from lego_server.config_file import load_config, write_config
from lego_server.engines.devices import DEVICES as KNOWN_DEVICES
from lego_server.settings import Section, setting, settings_of


def config(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "lego_server", "config", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=60)


def test_a_file_sets_what_it_names_and_leaves_the_rest(tmp_path: Path) -> None:
    path = tmp_path / "server.toml"
    path.write_text('[server]\nport = 6000\n[engine]\ndirectory = "models/nano"\nengine_call_seconds = 5\n')
    loaded = load_config(path)
    assert (loaded.server.port, loaded.engine.directory, loaded.engine.engine_call_seconds) == (6000, "models/nano", 5)
    assert loaded.limits == ServerConfig().limits


def test_what_is_written_reads_back_the_same(tmp_path: Path) -> None:
    path = tmp_path / "server.toml"
    changed = ServerConfig().with_values({
        "server": {"host": 'a "quoted" name\\', "shutdown_seconds": 2.5}, "engine": {"directory": "modèle/ключ"},
        "metrics": {"port": 0},
    })  # fmt: skip
    for each in (ServerConfig(), changed):
        path.write_text(write_config(each), encoding="utf-8")
        assert load_config(path) == each


def test_options_win_over_the_file_and_the_file_over_defaults(tmp_path: Path) -> None:
    path = tmp_path / "server.toml"
    path.write_text("[engine]\nmax_active = 7\nmax_waiting = 8\n")
    result = config("--config", str(path), "--max-active", "3")
    assert result.returncode == 0, result.stderr
    assert "\nmax_active = 3\n" in result.stdout and "\nmax_waiting = 8\n" in result.stdout
    assert "\nmax_batch = 1\n" in result.stdout


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("[servr]\n", "there is no section servr; did you mean server?"),
        ("[limits]\nmax_stepps = 3\n", "[limits] there is no key max_stepps; did you mean max_steps? (it is set to 3)"),
        ("[sessions]\nzzz = 1\n", "[sessions] there is no key zzz; there are max_sessions"),
        ("[server]\nport = 70000\n", "[server] port is 70000; it must lie between 0 and 65535"),
        ("[server]\nport = '1'\n", "[server] port is '1'; it must be a whole number between 0 and 65535"),
        ("[server]\nport = true\n", "[server] port is True; it must be a whole number"),
        ("[server]\nshutdown_seconds = nan\n", "[server] shutdown_seconds is nan; it must lie between 0 and 600"),
        ("[server]\nhost = ''\n", "[server] host is empty"),
        ("[logging]\nformat = 'xml'\n", "[logging] format is 'xml'; choose one of text, json"),
        ("[limits]\nmax_message_bytes = 5000\n", "it must be above the 8388608 of max_image_bytes"),
        ("server = 3\n", "server is 3; it is a section, so write [server] above its keys"),
        ("[server\n", "is not TOML"),
        (f"a = {'[' * 100_000}", "it is nested too deeply"),
    ],
)
def test_a_mistake_is_named_with_its_value_and_its_cure(text: str, told: str, tmp_path: Path) -> None:
    path = tmp_path / "server.toml"
    path.write_text(text)
    with pytest.raises(LegoError, match=re.escape(str(path)) + ".*" + re.escape(told)):
        load_config(path)


def test_a_mistake_in_a_file_is_one_line_and_exit_code_2(tmp_path: Path) -> None:
    path = tmp_path / "server.toml"
    result = config("--config", str(path))
    assert result.returncode == 2
    assert result.stderr == f"error: there is no config file {path}; lego-server config prints one to start from\n"


def test_a_folder_is_no_config_file(tmp_path: Path) -> None:
    with pytest.raises(LegoError, match=r"cannot be read \(Is a directory\); give --config a TOML file"):
        load_config(tmp_path)


def test_a_larger_frame_makes_room_in_messages() -> None:
    limits = ServerConfig().with_values({"limits": {"max_image_bytes": 2**26}}).limits
    assert limits.message_bytes == 2**26 + 2**20


@dataclass(frozen=True)
class _Names(Section):
    """`[names]`: a section as another module may declare one."""

    known: tuple[str, ...] = setting(("a",), "Some names.")
    strict: bool = setting(False, "Whether others are refused.")


def test_a_section_may_hold_lists_and_switches() -> None:
    [known, strict] = settings_of(_Names)
    assert (known.many, known.kind, strict.kind, known.option) == (True, str, bool, "--known")
    assert _Names(known=("b", "c"), strict=True).known == ("b", "c")
    with pytest.raises(LegoError, match="known is \\(1,\\); it must be a list of values that are each text"):
        _Names(known=(1,))  # type: ignore[arg-type]


def test_every_setting_has_an_option_of_its_own_a_sentence_and_a_good_default() -> None:
    settings = [each for section in ServerConfig.sections().values() for each in settings_of(section)]
    options = [each.option for each in settings]
    assert len(set(options)) == len(options)
    for each in settings:
        assert each.help.endswith(".")
        each.check(each.default)


def test_the_devices_are_those_that_engines_know() -> None:
    assert set(DEVICES) == set(KNOWN_DEVICES)
