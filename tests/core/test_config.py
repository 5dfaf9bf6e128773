"""`lego.json`: what is written comes back, and what is wrong is named."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from lego_core.config import GuidanceDefaults, LegoConfig, VisionInput
from lego_core.errors import LegoError


def test_a_saved_config_comes_back_equal(tmp_path: Path) -> None:
    config = LegoConfig(
        name="lego-test", resolution=512, text_tokens=32, image_tokens=64, notice="Über-klein.",
        guidance=GuidanceDefaults("dpm_solver_pp", 10, 1.5, 2.0, (0.1, 0.8), 3),
        vision=VisionInput(128, "squash", (0.5, 0.5, 0.5), (0.2, 0.3, 0.4)),
        provenance={"stages": {"vae": {"samples": 3}}},
    )  # fmt: skip
    config.save(tmp_path / "new")

    assert LegoConfig.load(tmp_path / "new") == config


def test_only_the_name_and_the_format_version_are_needed() -> None:
    assert LegoConfig.from_dict({"format_version": 1, "name": "x"}) == LegoConfig(name="x")


def test_the_fidelity_original_has_the_original_codes_defaults() -> None:
    own = GuidanceDefaults("dpm_solver_pp", 8, 5.0, 2.0)

    assert own.at("default") == own
    assert own.at("original") == GuidanceDefaults("euler_ancestral", 100, 7.5, 1.5)
    with pytest.raises(LegoError, match="fidelity is 'exact'; choose one of default, original"):
        own.at("exact")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"resolution": 100}, "resolution is 100; it must be a multiple of 64"),
        ({"resolution": 0}, "resolution is 0; it must lie between 64 and 4096"),
        ({"resolution": "256"}, "resolution is '256'; it must be a whole number"),
        ({"text_tokens": 1}, "text_tokens is 1"),
        ({"conditioning": "image"}, "conditioning is 'image'; choose one of label, description, description_image,"),
        ({"image_tokens": 2.5}, "image_tokens is 2.5; it must be a whole number"),
        ({"max_description_tokens": True}, "max_description_tokens is True"),
        ({"name": ""}, "name is empty"),
        ({"name": 5}, "name is 5; it must be text"),
        ({"query_template": "How?"}, "lacks {action}"),
        ({"prompt_template": "{query}"}, "exactly one <image>"),
        ({"prompt_template": "<image><image>{query}"}, "exactly one <image>"),
        ({"resolutoin": 256}, "unknown key resolutoin; known keys are .*resolution"),
        ({"guidance": {"sampler": "heun"}}, "guidance.sampler is 'heun'; choose one of euler_ancestral"),
        ({"guidance": {"steps": 0}}, "guidance.steps is 0; it must lie between 1 and 1000"),
        ({"guidance": {"text_scale": float("nan")}}, "guidance.text_scale is nan"),
        ({"guidance": {"image_scale": "strong"}}, "guidance.image_scale is 'strong'; it must be a number"),
        (
            {"guidance": {"guidance_interval": [0.2, 1.5]}},
            "guidance.guidance_interval's end is 1.5; it must lie between",
        ),
        (
            {"guidance": {"guidance_interval": [0.5, 0.5]}},
            "guidance_interval is 0.5 to 0.5; its beginning must lie before",
        ),
        ({"guidance": {"guidance_interval": 0.5}}, "guidance_interval is 0.5; give two fractions of the steps"),
        ({"guidance": {"guidance_interval": ["a", 1]}}, "guidance_interval's beginning is 'a'; it must be a number"),
        (
            {"guidance": {"guidance_interval": [0.96, 1], "steps": 10}},
            "guidance_interval is 0.96 to 1, which holds the middle of none of the 10 steps: widen it",
        ),
        ({"guidance": {"cache_interval": 0}}, "guidance.cache_interval is 0; it must lie between 1 and 100"),
        ({"guidance": {"cache_interval": 2.0}}, "guidance.cache_interval is 2.0; it must be a whole number"),
        ({"guidance": {"scale": 2}}, "unknown key guidance.scale"),
        ({"guidance": None}, "guidance is None; it must be a mapping"),
        ({"vision": {"fit": "stretch"}}, "vision.fit is 'stretch'"),
        ({"vision": {"std": [0.2, 0.0, 0.2]}}, "vision.std is 0.0"),
        ({"vision": {"mean": [0.5]}}, "one number per channel"),
        ({"format_version": 2}, "format_version is 2; this software reads 1"),
    ],
)
def test_what_is_wrong_is_named_with_its_value(values: dict[str, Any], message: str) -> None:
    with pytest.raises(LegoError, match=message):
        LegoConfig.from_dict({"format_version": 1, "name": "x", **values})


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"{", "not valid JSON"),
        (b"\xff\xfe\x00", "not valid JSON"),
        (b"[1]", "must be a mapping"),
        (json.dumps({"format_version": 1}).encode(), "the key name is missing"),
    ],
)
def test_a_damaged_file_is_named(tmp_path: Path, content: bytes, message: str) -> None:
    (tmp_path / "lego.json").write_bytes(content)

    with pytest.raises(LegoError, match=message) as error:
        LegoConfig.load(tmp_path)
    assert str(tmp_path / "lego.json") in str(error.value)


def test_another_directory_is_no_checkpoint(tmp_path: Path) -> None:
    with pytest.raises(LegoError, match=r"not a LEGO checkpoint directory: it has no lego\.json"):
        LegoConfig.load(tmp_path)
