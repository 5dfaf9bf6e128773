"""Descriptions and VLLM features of a dataset: written whole, divided or resumed alike, and read as released."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from lego_core.errors import LegoError
from lego_core.images import frame_to_vision_pixels
from lego_core.prompts import action_prompt
from lego_model.checkpoint import LegoCheckpoint
from lego_model.describe import embed_image, most_likely, sampled, write
from lego_training.dataset import Record, read_frame
from lego_training.features import FeatureStore, read_image_features, read_text_features
from lego_training.loop import LoopConfig
from lego_training.stages.diffusion import DiffusionConfig, tune_diffusion
from lego_training.stages.embed import embed
from lego_training.stages.features import FeatureConfig, Shard, extract_features, read_descriptions

from tests.training.conftest import PAIRS, Workshop

NAME = "ego4d"
CONFIG = FeatureConfig(max_tokens=5)


@pytest.fixture(scope="module")
def records(workshop: Workshop) -> list[Record]:
    """The toy kitchen's, narrated as Ego4D is."""
    return [replace(record, action=f"#C C {record.action}") for record in workshop.records]


def extract(
    workshop: Workshop, records: Sequence[Record], output: Path, config: FeatureConfig = CONFIG, shard: str = "1/1"
) -> int:
    return extract_features(workshop.checkpoint, records, NAME, "train", output, config, Shard.parse(shard))


@pytest.fixture(scope="module")
def whole(workshop: Workshop, records: list[Record], tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("features")
    assert extract(workshop, records, output) == 0
    return output


def content(folder: Path) -> dict[str, bytes]:
    """What a user takes away: features and descriptions."""
    files = [*folder.rglob("*.npy"), *folder.glob("*.json")]
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


def test_features_are_the_projectors_output_and_the_states_that_wrote_each_token(
    workshop: Workshop, records: list[Record], whole: Path
) -> None:
    checkpoint, record = LegoCheckpoint.load(workshop.checkpoint), records[0]
    pixels = torch.from_numpy(frame_to_vision_pixels(read_frame(record.input_path), checkpoint.config.vision))[None]
    image = embed_image(checkpoint, pixels)[0]
    paths = FeatureStore.at(whole, "train").paths(record)
    states = np.load(paths[1])

    described = read_descriptions(whole / f"{NAME}_train_descriptions.json")[record.clip_id, record.action_id]

    stored = np.load(paths[0])
    assert stored.dtype == states.dtype == np.float16
    np.testing.assert_allclose(stored, image.detach().numpy(), atol=1e-2)
    assert states.ndim == 2 and 1 <= len(states) <= CONFIG.max_tokens
    # Row 0 is the state at the end of the prompt, whichever words were drawn.
    prompt = action_prompt(checkpoint.config, record.action.removeprefix("#C C "))
    first = write(checkpoint, image, prompt, most_likely, 1)
    np.testing.assert_allclose(states[:1], first.text_states.numpy(), atol=1e-2)
    assert isinstance(described, str)


def test_files_lie_where_the_released_ones_do(records: list[Record], whole: Path) -> None:
    record = records[1]
    relative = f"train/{record.clip_id}/{record.action_id}/{record.input_path.stem}.npy"

    assert (whole / "vllm_image_feature" / relative).is_file()
    assert (whole / "vllm_text_feature" / relative).is_file()
    assert len(list(whole.rglob("*.npy"))) == 2 * PAIRS
    assert not list(whole.rglob("*.partial"))


def test_descriptions_stand_beside_the_raw_and_the_normalised_label(records: list[Record], whole: Path) -> None:
    values = json.loads((whole / f"{NAME}_train_descriptions.json").read_text())

    assert [(clip, action) for clip, actions in values.items() for action in actions] == [
        (record.clip_id, record.action_id) for record in records
    ]
    entry = values[records[0].clip_id][records[0].action_id]
    assert list(entry) == ["original action", "action", "description"]
    assert entry["original action"] == records[0].action == f"#C C {entry['action']}"


def test_shards_in_any_order_make_what_one_worker_makes(
    workshop: Workshop, records: list[Record], whole: Path, tmp_path: Path
) -> None:
    left = [extract(workshop, records, tmp_path, shard=f"{number}/4") for number in (3, 1, 4, 2)]

    assert left[-1] == 0 and left == sorted(left, reverse=True)
    assert content(tmp_path) == content(whole)


def test_a_stopped_run_goes_on_and_makes_halves_again(
    workshop: Workshop, records: list[Record], whole: Path, tmp_path: Path
) -> None:
    damaged = [replace(records[3], input_path=records[3].input_path.with_name("gone.jpg"))]
    with pytest.raises(LegoError, match=r"gone\.jpg cannot be read"):
        extract(workshop, [*records[:3], *damaged, *records[4:]], tmp_path)
    assert len(list(tmp_path.rglob("*.npy"))) == 2 * 3
    store = FeatureStore.at(tmp_path, "train")
    kept, half = store.paths(records[0]), store.paths(records[1])
    half[0].unlink()
    journal = next(tmp_path.glob("*.jsonl"))
    journal.write_bytes(journal.read_bytes()[:-9])  # stopped in the middle of the third line
    times = [path.stat().st_mtime_ns for path in kept]

    assert extract(workshop, records, tmp_path) == 0

    assert content(tmp_path) == content(whole)
    assert [path.stat().st_mtime_ns for path in kept] == times


def test_sampling_follows_its_seed_and_greedy_needs_none(workshop: Workshop, records: list[Record]) -> None:
    checkpoint, record = LegoCheckpoint.load(workshop.checkpoint), records[0]
    image = torch.zeros(checkpoint.config.image_tokens, checkpoint.vllm.config.text_config.hidden_size)
    prompt = action_prompt(checkpoint.config, record.action)

    def states(seed: int, temperature: float) -> torch.Tensor:
        return write(checkpoint, image, prompt, sampled(seed, temperature), 5).text_states

    assert torch.equal(states(1, 50.0), states(1, 50.0))
    assert states(1, 50.0).shape != states(2, 50.0).shape or not torch.equal(states(1, 50.0), states(2, 50.0))
    assert torch.equal(states(1, 1e-6), write(checkpoint, image, prompt, most_likely, 5).text_states)


def test_other_settings_are_refused_in_the_same_folder(workshop: Workshop, records: list[Record], whole: Path) -> None:
    before = content(whole)

    with pytest.raises(LegoError, match="were made with seed 42, not 43: choose another folder"):
        extract(workshop, records, whole, replace(CONFIG, seed=43))
    assert content(whole) == before


def test_two_records_of_one_input_frame_are_refused(workshop: Workshop, records: list[Record], tmp_path: Path) -> None:
    twin = replace(records[0], action_id="other")

    with pytest.raises(LegoError, match=r"would share .*\.npy, as features are named after their input frame"):
        extract(workshop, [*records, twin], tmp_path)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("shard", ["0/2", "3/2", "2", "a/b", "-1/2", "1/0"])
def test_a_shard_that_is_none_is_refused(shard: str) -> None:
    with pytest.raises(LegoError, match="such as 2/8"):
        Shard.parse(shard)


def test_shards_share_all_records_between_them(records: list[Record]) -> None:
    for count in (1, 2, 4, 5, 9):
        parts = [record for number in range(1, count + 1) for record in Shard(number, count).of(records)]
        assert parts == records


@pytest.mark.parametrize("frame", ["frames.jpg/clip/7/a.jpg", "x/clip/7/a.JPEG", "x/clip/7/a.png"])
def test_only_the_suffix_of_a_frame_is_replaced(frame: str) -> None:
    record = Record("clip", "7", Path("/data") / frame, Path("b.jpg"), "open drawer", "")

    image, text = FeatureStore.at(Path("out"), "val").paths(record)

    assert image == Path("out/vllm_image_feature/val/clip/7/a.npy")
    assert text == Path("out/vllm_text_feature/val/clip/7/a.npy")


# --- reading


def saved(path: Path, array: np.ndarray) -> Path:
    np.save(path, array)
    return path


@pytest.mark.parametrize("tokens", [1, 4, 5, 9])
def test_text_features_are_cut_or_filled_with_zero_rows(tmp_path: Path, tokens: int) -> None:
    features = np.random.default_rng(0).normal(size=(tokens, 3)).astype(np.float16)

    read = read_text_features(saved(tmp_path / "a.npy", features), 5, 3)

    assert read.shape == (5, 3) and read.dtype == np.float32
    np.testing.assert_array_equal(read[:tokens], features[:5])
    assert not read[tokens:].any()


def test_of_several_layers_text_features_the_last_counts(tmp_path: Path) -> None:
    features = np.random.default_rng(0).normal(size=(4, 2, 3)).astype(np.float16)

    read = read_text_features(saved(tmp_path / "a.npy", features), 5, 3)

    np.testing.assert_array_equal(read[:4], features[:, -1])


def test_a_single_tokens_features_that_lost_their_axis_are_one_row(tmp_path: Path) -> None:
    read = read_text_features(saved(tmp_path / "a.npy", np.ones(3, np.float16)), 5, 3)

    assert read[0].all() and not read[1:].any()


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.ones((4, 2), np.float16), r"holds \(4, 2\); this model's image features are \(4, 3\)"),
        (np.ones((4, 3), np.int32), "holds int32; features are float16"),
        (np.array([{}], object), "cannot be read .*; write them again"),
    ],
)
def test_features_of_another_kind_are_refused(tmp_path: Path, array: np.ndarray, message: str) -> None:
    np.save(tmp_path / "a.npy", array, allow_pickle=True)

    with pytest.raises(LegoError, match=message):
        read_image_features(tmp_path / "a.npy", 4, 3)


@pytest.mark.parametrize("damage", [b"", b"\x93NUMPY", b"no array"])
def test_a_damaged_file_of_features_is_named(tmp_path: Path, damage: bytes) -> None:
    (tmp_path / "a.npy").write_bytes(damage)

    with pytest.raises(LegoError, match=r"a\.npy cannot be read"):
        read_text_features(tmp_path / "a.npy", 4, 3)


# --- training on them


def test_released_features_lie_in_a_folder_of_their_vllm(tmp_path: Path) -> None:
    for kind in ("vllm_image_feature", "vllm_text_feature"):
        (tmp_path / kind / "llava-forecasting-finetune" / "train").mkdir(parents=True)

    store = FeatureStore.find(tmp_path, "train")

    assert store.texts == tmp_path / "vllm_text_feature" / "llava-forecasting-finetune" / "train"
    (tmp_path / "vllm_text_feature" / "other" / "train").mkdir(parents=True)
    with pytest.raises(LegoError, match="leave the one that belongs to the checkpoint"):
        FeatureStore.find(tmp_path, "train")
    with pytest.raises(LegoError, match="has no vllm_image_feature/val; write it with lego-train features"):
        FeatureStore.find(tmp_path, "val")


def test_the_unet_trains_on_stored_features(
    checkpoint: Path, records: list[Record], whole: Path, tmp_path: Path
) -> None:
    store = FeatureStore.find(whole, "train")

    embeddings = embed(checkpoint, records, tmp_path / "embeddings", store)

    # A pair and its mirror image share the features and the words, as in the original.
    first, mirrored = embeddings.text_states[np.array([2, 3])]
    np.testing.assert_array_equal(first, mirrored)
    np.testing.assert_array_equal(embeddings.text_ids[2], embeddings.text_ids[3])
    assert not np.array_equal(embeddings.frame_latents[2], embeddings.frame_latents[3])
    rows = np.load(store.paths(records[1])[1])
    np.testing.assert_array_equal(first[: len(rows)], rows.astype(np.float32))
    assert not (tmp_path / "embeddings" / "text_states.npy").exists()
    before = LegoCheckpoint.load(checkpoint).unet.state_dict()["conv_in.weight"]
    loop = LoopConfig(steps=2, batch_size=4, learning_rate=1e-3, threads=1, precision="fp32")
    tune_diffusion(checkpoint, embeddings, loop, DiffusionConfig(), tmp_path)
    assert not torch.equal(LegoCheckpoint.load(checkpoint).unet.state_dict()["conv_in.weight"], before)


def test_embedding_refuses_a_store_that_lacks_a_record(checkpoint: Path, records: list[Record], tmp_path: Path) -> None:
    with pytest.raises(LegoError, match=f"{PAIRS} of {PAIRS} records lack their features, the first is"):
        embed(checkpoint, records, tmp_path / "embeddings", FeatureStore.at(tmp_path, "train"))
