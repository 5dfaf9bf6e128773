"""Which frames are best and which pairs too alike or too different, by CLIP and without."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from lego_core.errors import LegoError
from lego_training.prepare.clip import AestheticHead, ClipVision
from lego_training.prepare.judge import Judge, JudgeSpec, SimilarityConfig
from PIL import Image
from transformers import CLIPImageProcessor, CLIPVisionConfig, CLIPVisionModelWithProjection

from tests.training.prepare.conftest import PLAIN, epic_row, metadata, prepare, records, report
from tests.training.prepare.films import steady, write_film

HEADS = {
    "sac+logos+ava1-l14-linearMSE.pth": 768, "laion_sa_0_4_vit_l_14_linear.pth": 768,
    "laion_sa_0_4_vit_b_32_linear.pth": 512,
}  # fmt: skip


def make_clip(folder: Path, width: int) -> Path:
    """A small CLIP with random weights, of the embedding width of a real one."""
    torch.manual_seed(0)
    config = CLIPVisionConfig(
        hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=2, image_size=32, patch_size=8,
        projection_dim=width,
    )  # fmt: skip
    CLIPVisionModelWithProjection(config).save_pretrained(folder)
    CLIPImageProcessor(size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32}).save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_clip(tmp_path_factory.mktemp("clip") / "L14", 768)


def pictures(count: int) -> list[Image.Image]:
    rng = np.random.default_rng(0)
    return [Image.fromarray(rng.integers(0, 256, (64, 114, 3), np.uint8)).resize((456, 256)) for _ in range(count)]


@pytest.mark.parametrize(("name", "width"), HEADS.items())
def test_a_released_head_scores_the_unit_embeddings_of_a_clip_of_its_width(
    weights: Path, tmp_path: Path, name: str, width: int
) -> None:
    clip = ClipVision(make_clip(tmp_path / "clip", width))
    embeddings = clip.embed(pictures(3))

    scores = AestheticHead(weights / name, clip.width).score(embeddings)

    np.testing.assert_allclose(np.linalg.norm(embeddings, axis=1), 1, rtol=1e-5)
    state = torch.load(weights / name, map_location="cpu", weights_only=True)
    values = torch.from_numpy(embeddings)
    for prefix in ("layers.0.", "layers.2.", "layers.4.", "layers.6.", "layers.7.") if len(state) > 2 else ("",):
        values = torch.nn.functional.linear(values, state[f"{prefix}weight"].float(), state[f"{prefix}bias"].float())
    np.testing.assert_allclose(scores, values[:, 0].numpy(), rtol=1e-4, atol=1e-4)
    assert len(set(scores)) == 3 and all(0 < score < 10 for score in scores)


def test_the_preprocessing_is_clips_own(clip: Path) -> None:
    wide = pictures(1)[0]
    middle = wide.crop((100, 0, 356, 256))

    embeddings = ClipVision(clip).embed([wide, middle])

    np.testing.assert_allclose(embeddings[0], embeddings[1], atol=2e-2)  # the sides are cropped away


def test_of_a_folder_of_heads_the_one_that_fits_is_taken(weights: Path, tmp_path: Path) -> None:
    for name in ("laion_sa_0_4_vit_b_32_linear.pth", "laion_sa_0_4_vit_l_14_linear.pth"):
        shutil.copy(weights / name, tmp_path)

    assert AestheticHead(tmp_path, 768).path.name == "laion_sa_0_4_vit_l_14_linear.pth"
    with pytest.raises(LegoError, match="no file fits embeddings of width 1024"):
        AestheticHead(tmp_path, 1024)


def test_a_head_for_another_clip_is_refused_with_both_widths(weights: Path) -> None:
    with pytest.raises(LegoError, match="is for embeddings of width 768; this CLIP's are of width 512"):
        AestheticHead(weights / "sac+logos+ava1-l14-linearMSE.pth", 512)


def test_a_head_that_holds_code_is_not_run(tmp_path: Path) -> None:
    class Code:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return (Path(tmp_path / "ran").write_text, ("",))

    torch.save({"weight": Code()}, tmp_path / "head.pth")

    with pytest.raises(LegoError, match=r"head.pth cannot be read as weights"):
        AestheticHead(tmp_path / "head.pth", 768)
    assert not (tmp_path / "ran").exists()


def test_a_dataset_is_chosen_by_the_aesthetic_score_and_clip_where_both_are_given(
    write_epic: Callable[..., Path], weights: Path, clip: Path, tmp_path: Path
) -> None:
    head = weights / "sac+logos+ava1-l14-linearMSE.pth"
    film = write_film(tmp_path / "videos" / "P01_01.mp4", steady(6, 10))
    out = tmp_path / "data"

    code = prepare(
        "epic", "--annotations", write_epic(epic_row("P01_01_0", 2.05, 4)), "--videos", tmp_path / "videos",
        "--out", out, "--clip", clip, "--aesthetic", head, "height=64", "similarity.lowest=-1", "similarity.highest=1",
    )  # fmt: skip

    assert code == 0
    about = metadata(out)["P01_01"]
    assert (about["score"], about["similarity"]) == ("aesthetic", "clip")
    assert report(out)["settings"]["aesthetic"].startswith("sac+logos+ava1-l14-linearMSE.pth sha256 ")
    # The same by hand: the best of frames 15 to 21, as the head scores them.
    from lego_training.prepare.video import VideoFile

    (window,) = VideoFile(film, 64).windows([1.8], 3, 1)
    assert [round(frame.time * 10) for frame in window] == list(range(15, 22))
    embedding = ClipVision(clip)
    scores = AestheticHead(head, 768).score(embedding.embed([frame.image for frame in window]))
    facts = about["actions"]["P01_01_0"]
    assert facts["input_score"] == pytest.approx(max(scores), abs=1e-3)
    assert facts["input_time"] == pytest.approx(window[int(np.argmax(scores))].time, abs=1e-4)


def test_an_aesthetic_head_without_a_clip_is_refused() -> None:
    with pytest.raises(LegoError, match="give --clip too"):
        JudgeSpec.settle(SimilarityConfig(), None, Path("head.pth"))


@pytest.mark.parametrize("measure", ["clip", "ssim", "pixels"])
def test_every_measure_says_one_of_the_same_frame_and_less_of_a_changed_one(measure: str, clip: Path) -> None:
    judge = Judge(JudgeSpec.settle(SimilarityConfig(measure), clip, None))
    first, second = pictures(2)
    changed = Image.blend(first, second, 0.4)

    assert judge.similarity(first, first) == pytest.approx(1, abs=1e-5)
    assert judge.similarity(first, second) < judge.similarity(first, changed) < 1


def test_the_papers_bounds_belong_to_clip_and_each_measure_has_its_own(clip: Path) -> None:
    settled = [JudgeSpec.settle(SimilarityConfig(), folder, None) for folder in (clip, None)]

    assert [(spec.measure, spec.lowest, spec.highest) for spec in settled] == [("clip", 0.81, 0.97), ("ssim", 0.3, 0.9)]


def test_pairs_outside_the_bounds_are_dropped_with_their_similarity_and_shown(
    write_epic: Callable[..., Path], tmp_path: Path
) -> None:
    # The painted numbers 0 and 4095 differ in all squares, 0 and 1 in one, 0 and 7 in three.
    write_film(tmp_path / "videos" / "P01_01.mp4", steady(12, 10))
    rows = [epic_row("P01_01_0", 1.85, 2.15), epic_row("P01_01_1", 2.65, 10.5), epic_row("P01_01_2", 3.45, 3.75)]
    out = tmp_path / "data"

    options = (*PLAIN[:3], "similarity.lowest=0.85", "similarity.highest=0.95")
    code = prepare("epic", "--annotations", write_epic(*rows), "--videos", tmp_path / "videos", "--out", out, *options)

    assert code == 0
    kept = {action_id: facts["similarity"] for action_id, facts in metadata(out)["P01_01"]["actions"].items()}
    dropped = {skip["action_id"]: (skip["facts"]["similarity"], skip["reason"]) for skip in report(out)["skips"]}
    assert set(kept) == set(records(out)) and set(kept) | set(dropped) == {row["narration_id"] for row in rows}
    assert kept and dropped
    assert all(0.85 <= similarity <= 0.95 for similarity in kept.values())
    for similarity, reason in dropped.values():
        assert (similarity < 0.85 and reason == "frames too different") or (
            similarity > 0.95 and reason == "frames too alike"
        )
    page = (out / "prepare" / "epickitchen_train" / "report.html").read_text()
    assert "http" not in page.replace("http-equiv", "") and page.count("data:image/jpeg;base64,") == len(rows)
    assert not list((out / "EgoGen").rglob(f"{next(iter(dropped))}"))
    assert json.loads(json.dumps(report(out)))["skipped"]
