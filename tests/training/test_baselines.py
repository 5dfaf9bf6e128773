"""What LEGO is compared with: the models that are trained for it, and how each method paints."""

from __future__ import annotations

import csv
import json
import shutil
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import DDIMScheduler
from lego_core.config import LegoConfig
from lego_core.errors import LegoError
from lego_core.images import encode_jpeg
from lego_core.noise import gaussian_noise
from lego_model.checkpoint import LegoCheckpoint, fingerprint
from lego_model.pipeline import LegoPipeline
from lego_training.baselines import BASELINES, begin_checkpoint, begin_text_to_image, train_baselines
from lego_training.cli import main
from lego_training.config import RunConfig, load_config
from lego_training.dataset import Record, read_frame
from lego_training.evaluation.methods.edits import ProxEdit, SdEdit, proximal
from lego_training.evaluation.methods.generate import Gallery, choose_records, generate
from lego_training.evaluation.methods.lego import LegoMethod
from lego_training.evaluation.methods.method import Ask, NoEdit, Painting, Target, finish
from lego_training.evaluation.methods.settings import (
    DEFAULTS,
    LegoSettings,
    MethodSettings,
    ProxEditSettings,
    SdEditSettings,
    load_settings,
)
from lego_training.features import FeatureStore
from lego_training.loop import LoopConfig
from lego_training.stages.diffusion import DiffusionConfig
from lego_training.stages.features import FeatureConfig, Shard, extract_features
from lego_training.stages.text_to_image import LabelConfig
from lego_training.stages.vllm import TuningConfig
from lego_training.text_to_image import TextToImage, from_checkpoint
from safetensors.torch import load_file, save_file

from tests.training.conftest import TINY, Workshop

CPU = torch.device("cpu")
CONFIGS = Path(__file__).parents[2] / "training" / "lego_training" / "configs"


def loop(steps: int = 2) -> LoopConfig:
    return LoopConfig(
        steps=steps, batch_size=4, learning_rate=3e-3, threads=1, precision="fp32", sample_minutes=0
    )  # fmt: skip


def run_config(**values: object) -> RunConfig:
    config = RunConfig(
        "toykitchen", str(TINY), 0, loop(), loop(), TuningConfig(), DiffusionConfig(train_text_encoder=True),
        tune_text_to_image=loop(), text_to_image=LabelConfig(train_text_encoder=True),
    )  # fmt: skip
    return replace(config, **values)


@pytest.fixture(scope="module")
def trained(workshop: Workshop, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All baselines after a few steps; the workshop's own model stands for the untuned one."""
    output = tmp_path_factory.mktemp("baselines")
    train_baselines(workshop.checkpoint, workshop.checkpoint, workshop.records, run_config(), output, list(BASELINES))
    return output


def ask(workshop: Workshop, number: int = 0, seed: int = 0) -> Ask:
    return Ask.of(workshop.records[number], seed)


# --- training


def test_every_baseline_is_a_whole_model_of_its_own_conditions(trained: Path) -> None:
    for name, baseline in BASELINES.items():
        folder = trained / name / "checkpoint"
        if baseline.conditioning is None:
            assert TextToImage.load(folder).unet.config.in_channels == 4
        else:
            assert LegoCheckpoint.load(folder).config.conditioning == baseline.conditioning
        assert (trained / name / "run").is_dir()


def test_frozen_parts_are_shared_and_the_base_stays_as_it_was(
    checkpoint: Path, workshop: Workshop, tmp_path: Path
) -> None:
    before = fingerprint(checkpoint)

    begin_checkpoint(checkpoint, tmp_path / "new", "new", str(TINY), seed=1)
    begin_checkpoint(checkpoint, tmp_path / "same", "checkpoint", str(TINY), seed=1)

    parts = ("vae", "vllm", "tokenizer", "scheduler")
    assert fingerprint(tmp_path / "new", parts) == fingerprint(checkpoint, parts)
    assert fingerprint(tmp_path / "new", ("unet",)) != fingerprint(checkpoint, ("unet",))
    assert fingerprint(tmp_path / "same", ("unet", *parts)) == fingerprint(checkpoint, ("unet", *parts))
    weights = "vllm/model.safetensors"
    assert (tmp_path / "new" / weights).samefile(checkpoint / weights)
    train_baselines(checkpoint, None, workshop.records, run_config(), tmp_path / "out", ["instruct_pix2pix"])
    assert fingerprint(checkpoint) == before


def test_the_text_to_image_model_keeps_the_latents_channels_of_lego_s_own_start(
    checkpoint: Path, tmp_path: Path
) -> None:
    base = LegoCheckpoint.load(checkpoint)
    with torch.no_grad():
        base.unet.conv_in.weight[:, 4:] = 0  # as training begins with Stable Diffusion's weights
    model = from_checkpoint(base)
    latents, context = torch.randn(2, 4, 8, 8), torch.randn(2, 12, 16)
    times = torch.tensor([10, 500])

    with torch.inference_mode():
        found = model.unet(latents, times, context).sample
        expected = base.unet(torch.cat([latents, torch.randn(2, 4, 8, 8)], dim=1), times, context).sample

    torch.testing.assert_close(found, expected)
    begin_text_to_image(checkpoint, tmp_path / "model", "checkpoint", str(TINY), seed=0)
    assert TextToImage.load(tmp_path / "model").config.resolution == 64


def test_an_unread_start_keeps_what_it_paints_and_forgets_what_it_reads(checkpoint: Path, tmp_path: Path) -> None:
    begin_checkpoint(checkpoint, tmp_path / "lego", "unread", str(TINY), seed=1)
    begin_text_to_image(checkpoint, tmp_path / "labels", "unread", str(TINY), seed=1)

    base, begun = LegoCheckpoint.load(checkpoint), LegoCheckpoint.load(tmp_path / "lego")
    labels = TextToImage.load(tmp_path / "labels")
    before, after, narrow = (each.unet.state_dict() for each in (base, begun, labels))
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert changed and all(".attn2." in name for name in changed)
    assert all(name in changed for name in before if name.endswith("attn2.to_k.weight"))
    assert fingerprint(tmp_path / "lego", ("vae", "vllm")) == fingerprint(checkpoint, ("vae", "vllm"))
    for part in ("conditioner", "text_encoder"):
        assert fingerprint(tmp_path / "lego", (part,)) != fingerprint(checkpoint, (part,))
    # The text-to-image model begins with the same weights, but for the channels of the input frame.
    assert all(torch.equal(narrow[name], after[name]) for name in after if name != "conv_in.weight")
    assert fingerprint(tmp_path / "labels", ("text_encoder",)) == fingerprint(tmp_path / "lego", ("text_encoder",))
    with pytest.raises(LegoError, match=r"is not of the architecture nano\.yaml; name its own"):
        begin_checkpoint(checkpoint, tmp_path / "other", "unread", "nano.yaml", seed=1)


def test_the_text_to_image_model_learns_and_a_stopped_run_goes_on(workshop: Workshop, tmp_path: Path) -> None:
    config = run_config(tune_text_to_image=loop(40))

    train_baselines(workshop.checkpoint, None, workshop.records, config, tmp_path, ["text_to_image"])

    losses = [
        float(row["loss"]) for row in csv.DictReader((tmp_path / "text_to_image/run/tune_text_to_image.csv").open())
    ]
    assert np.mean(losses[-8:]) < 0.9 * np.mean(losses[:4])
    before = (tmp_path / "text_to_image" / "done.json").stat().st_mtime_ns
    train_baselines(workshop.checkpoint, None, workshop.records, config, tmp_path, ["text_to_image"])
    assert (tmp_path / "text_to_image" / "done.json").stat().st_mtime_ns == before


def test_the_command_trains_those_that_are_named_and_goes_on_after_them(
    workshop: Workshop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    steps = "{steps: 2, batch_size: 2, learning_rate: 1.0e-3, threads: 1, precision: fp32, sample_minutes: 0}"
    config = tmp_path / "run.yaml"
    config.write_text(
        f"dataset: toykitchen\narchitecture: {TINY}\nseed: 0\ntune_vllm: {steps}\ntune_diffusion: {steps}\n"
        f"tune_text_to_image: {steps}\ntuning: {{}}\ndiffusion: {{train_text_encoder: true, pairs: 4}}\n"
    )
    out = tmp_path / "baselines"
    places = ("--data", workshop.data, "--checkpoint", workshop.checkpoint, "--out", out)
    for only in (("--only", "instruct_pix2pix"), ("--only", "instruct_pix2pix", "--only", "text_to_image")):
        monkeypatch.setattr(sys, "argv", ["lego-train", "baselines", *map(str, (config, *places, *only))])
        with pytest.raises(SystemExit) as end:
            main()
        assert not end.value.code

    assert f"in {out}: instruct_pix2pix, text_to_image" in capsys.readouterr().out
    assert sorted(path.parent.name for path in out.glob("*/done.json")) == ["instruct_pix2pix", "text_to_image"]
    assert LegoConfig.load(out / "instruct_pix2pix" / "checkpoint").conditioning == "label"


def test_without_an_untuned_model_its_row_is_left_out(workshop: Workshop, tmp_path: Path) -> None:
    names = ["lego_untuned"]

    assert train_baselines(workshop.checkpoint, None, workshop.records, run_config(), tmp_path, names) == []


def test_bad_wishes_are_named(workshop: Workshop, trained: Path, tmp_path: Path) -> None:
    base, records = workshop.checkpoint, workshop.records
    with pytest.raises(LegoError, match="there is no baseline 'pix2pix'; choose of instruct_pix2pix"):
        train_baselines(base, None, records, run_config(), tmp_path, ["pix2pix"])
    with pytest.raises(LegoError, match="add the key tune_text_to_image"):
        train_baselines(base, None, records, run_config(tune_text_to_image=None), tmp_path, ["text_to_image"])
    with pytest.raises(LegoError, match="holds baselines with another seed; choose another folder"):
        train_baselines(base, None, records, run_config(seed=3), trained, ["text_to_image"])
    with pytest.raises(LegoError, match="baselines is 'old'; choose new, checkpoint or unread"):
        run_config(baselines="old")
    with pytest.raises(LegoError, match=r"is no text-to-image model: it has no text_to_image\.json"):
        TextToImage.load(base)


def test_calls_for_some_baselines_and_later_for_others_make_one_comparison(workshop: Workshop, tmp_path: Path) -> None:
    base, records, config = workshop.checkpoint, workshop.records, run_config(tune_text_to_image=None)

    assert train_baselines(base, None, records, config, tmp_path, ["lego"]) == ["lego"]
    assert train_baselines(base, base, records, config, tmp_path, ["lego_untuned"]) == ["lego_untuned"]
    names = ["text_to_image", "lego_untuned", "lego"]
    assert len(train_baselines(base, base, records, run_config(), tmp_path, names)) == 3


def other(checkpoint: Path, directory: Path, part: str, name: str = "diffusion_pytorch_model.safetensors") -> Path:
    """A copy of a checkpoint with another part."""
    shutil.copytree(checkpoint, directory)
    weights = directory / part / name
    values = load_file(weights)
    save_file({key: value + 1 if value.is_floating_point() else value for key, value in values.items()}, weights)
    return directory


@pytest.mark.parametrize(
    ("start", "part", "told"),
    [
        ("checkpoint", "unet", "start_weights"), ("unread", "unet", "start_weights"),
        ("checkpoint", "conditioner", "start_weights"), ("new", "vae", "frozen_parts"), ("unread", "conditioner", ""),
        ("new", "unet", ""),
    ],
)  # fmt: skip
def test_models_that_are_done_are_not_mixed_with_those_of_another_start(
    start: str, part: str, told: str, workshop: Workshop, tmp_path: Path
) -> None:
    config, names = run_config(baselines=start), ["instruct_pix2pix"]
    train_baselines(workshop.checkpoint, None, workshop.records, config, tmp_path / "out", names)
    base = other(workshop.checkpoint, tmp_path / "other", part)

    if not told:  # nothing is taken of that part
        assert train_baselines(base, None, workshop.records, config, tmp_path / "out", names) == names
        return
    with pytest.raises(LegoError, match=f"another {told}; choose another folder, or remove this one") as error:
        train_baselines(base, None, workshop.records, config, tmp_path / "out", names)
    assert "(there it is '" in str(error.value)


def test_one_baselines_own_settings_are_checked_too(workshop: Workshop, trained: Path, tmp_path: Path) -> None:
    base, records = workshop.checkpoint, workshop.records
    untuned = other(base, tmp_path / "untuned", "vllm", "model.safetensors")
    with pytest.raises(LegoError, match="holds the baseline lego_untuned with another frozen_parts"):
        train_baselines(base, untuned, records, run_config(), trained, ["lego_untuned"])
    config = run_config(tune_text_to_image=loop(3))
    with pytest.raises(LegoError, match=r"holds the baseline text_to_image with another loop\.steps.*it is 2, here 3"):
        train_baselines(base, None, records, config, trained, ["text_to_image"])
    config = run_config(text_to_image=LabelConfig(0.3, train_text_encoder=True))
    with pytest.raises(LegoError, match=r"another labels\.condition_dropout"):
        train_baselines(base, None, records, config, trained, ["text_to_image"])
    with pytest.raises(LegoError, match="holds baselines with another features"):
        train_baselines(base, None, records, run_config(), trained, ["lego"], FeatureStore.at(tmp_path, "train"))
    renamed = [replace(records[0], action="boil water"), *records[1:]]
    with pytest.raises(LegoError, match="holds baselines with another dataset"):
        train_baselines(base, None, renamed, run_config(), trained, ["lego"])
    settings = trained / "settings.json"
    content = settings.read_text()
    settings.write_text(json.dumps({"seed": 0}))  # of a version that noted less
    with pytest.raises(LegoError, match=r"another frozen_parts.*\(there it is unknown"):
        train_baselines(base, None, records, run_config(), trained, ["lego"])
    settings.write_text(content)


def test_an_untuned_model_of_another_start_is_refused(workshop: Workshop, tmp_path: Path) -> None:
    untuned, config = other(workshop.checkpoint, tmp_path / "untuned", "unet"), run_config(baselines="unread")

    with pytest.raises(LegoError, match="differ, so that the baselines would not begin alike; give the same model"):
        train_baselines(
            workshop.checkpoint, untuned, workshop.records, config, tmp_path / "out", ["lego_untuned"]
        )  # fmt: skip


def test_lego_can_be_trained_on_its_baselines_budget(trained: Path) -> None:
    lego, label = (LegoCheckpoint.load(trained / name / "checkpoint") for name in ("lego", "instruct_pix2pix"))

    assert (lego.config.conditioning, label.config.conditioning) == ("joint", "label")
    lengths = [len((trained / name / "run" / "tune_diffusion.csv").read_text().splitlines())
               for name in ("lego", "instruct_pix2pix")]  # fmt: skip
    assert lengths[0] == lengths[1] > 1


def test_the_comparison_trains_every_method_alike() -> None:
    config = load_config(CONFIGS / "comparison.yaml")

    assert config.tune_text_to_image == config.tune_diffusion and config.baselines == "unread"


@pytest.mark.parametrize("name", ["nano", "paper"])
def test_the_recipes_say_how_baselines_are_trained(name: str) -> None:
    config = load_config(CONFIGS / f"{name}.yaml")

    assert config.tune_text_to_image is not None and config.tune_text_to_image.steps >= 1000
    assert config.text_to_image.condition_dropout == 0.1


# --- methods


def pixels(painting: Painting, tmp_path: Path) -> np.ndarray:
    path = tmp_path / f"painting{painting.suffix}"
    path.write_bytes(painting.content)
    return np.asarray(read_frame(path))


def methods(trained: Path) -> dict[str, object]:
    model, steps = trained / "text_to_image" / "checkpoint", 3
    found: dict[str, object] = {
        "sdedit": SdEdit(model, SdEditSettings(steps=steps, strength=1.0), CPU, "default"),
        "proxedit": ProxEdit(model, ProxEditSettings(steps=steps), CPU, "default"),
    }
    for name, baseline in BASELINES.items():
        if baseline.conditioning is not None:
            folder = trained / name / "checkpoint"
            found[name] = LegoMethod(folder, baseline.conditioning, LegoSettings(steps=1), CPU)
    return found


@pytest.mark.parametrize("name", ["sdedit", "proxedit", *(name for name in BASELINES if name != "text_to_image")])
def test_every_method_paints_by_seed_and_label_alone(
    name: str, trained: Path, workshop: Workshop, tmp_path: Path
) -> None:
    method = methods(trained)[name]
    asks = [ask(workshop, number) for number in range(3)]
    other_seed = replace(asks[0], seed=asks[0].seed + 1)

    together = method.paint(asks)  # type: ignore[attr-defined]
    alone, otherwise = (method.paint([each])[0] for each in (asks[0], other_seed))  # type: ignore[attr-defined]

    assert [pixels(each, tmp_path).shape for each in together] == [(64, 64, 3)] * 3
    difference = np.abs(pixels(together[0], tmp_path).astype(int) - pixels(alone, tmp_path))
    # Rounding, enlarged by the file's compression and by ProxEdit's thresholds.
    assert difference.mean() < (2 if name == "proxedit" else 0.5)
    if name != "proxedit":  # which draws no noise
        assert not np.array_equal(pixels(alone, tmp_path), pixels(otherwise, tmp_path))


def test_seeds_are_of_records_and_not_of_their_order(workshop: Workshop) -> None:
    first, second = ask(workshop), ask(workshop, 1)

    assert first.seed != second.seed and ask(workshop).seed == first.seed != ask(workshop, seed=1).seed
    assert 0 <= first.seed < 2**63
    other_action = Ask.of(replace(workshop.records[0], action="turn on tap"), 0)
    assert other_action.seed != first.seed


def test_lego_paints_what_its_pipeline_does(workshop: Workshop, tmp_path: Path) -> None:
    method = LegoMethod(workshop.checkpoint, "joint", LegoSettings(steps=2), CPU)
    wanted = ask(workshop)

    (painting,) = method.paint([wanted])

    pipe = LegoPipeline.from_pretrained(workshop.checkpoint)
    expected = pipe(wanted.frame, f"how do I {wanted.record.action}?", seed=wanted.seed, steps=2)
    assert painting.description == expected.description
    difference = pixels(painting, tmp_path).astype(int) - pixels(Painting(encode_jpeg(expected.image)), tmp_path)
    assert np.abs(difference).mean() < 0.1


def test_instruct_pix2pix_reads_the_label_as_it_was_trained_on(trained: Path, workshop: Workshop) -> None:
    method = LegoMethod(trained / "instruct_pix2pix" / "checkpoint", "label", LegoSettings(steps=1), CPU)
    record = replace(workshop.records[0], action="open the left drawer")

    assert method.paint([Ask.of(record, 0)])[0].description == "open the left drawer"
    with pytest.raises(LegoError, match="is conditioned on 'label'; what is wanted here is 'joint'"):
        LegoMethod(trained / "instruct_pix2pix" / "checkpoint", "joint", LegoSettings(), CPU)


def test_stored_features_are_painted_from_as_if_described_now(workshop: Workshop, tmp_path: Path) -> None:
    greedy = FeatureConfig(greedy=True, max_tokens=LegoConfig.load(workshop.checkpoint).max_description_tokens)
    extract_features(workshop.checkpoint, workshop.records, "toykitchen", "train", tmp_path, greedy, Shard())
    now = LegoMethod(workshop.checkpoint, "joint", LegoSettings(steps=1), CPU)
    (described,) = now.paint([ask(workshop)])
    stored = LegoMethod(
        workshop.checkpoint, "joint", LegoSettings(steps=1), CPU, FeatureStore.find(tmp_path, "train")
    )  # fmt: skip
    record = replace(workshop.records[0], description=described.description or "a")

    (painting,) = stored.paint([Ask.of(record, 0)])

    difference = np.abs(pixels(painting, tmp_path).astype(int) - pixels(described, tmp_path))
    assert difference.mean() < 2  # features are stored in half precision
    with pytest.raises(LegoError, match="has no description; its stored features belong to one"):
        stored.paint([Ask.of(replace(record, description=""), 0)])


def test_the_bounds_are_the_files_themselves(workshop: Workshop) -> None:
    wanted, record = ask(workshop), workshop.records[0]

    assert NoEdit().paint([wanted]) == [Painting(record.input_path.read_bytes(), ".jpg")]
    assert Target().paint([wanted]) == [Painting(record.target_path.read_bytes(), ".jpg")]


# --- SDEdit and ProxEdit


@pytest.fixture(scope="module")
def model(trained: Path) -> TextToImage:
    return TextToImage.load(trained / "text_to_image" / "checkpoint")


@pytest.mark.parametrize("prediction", ["v_prediction", "epsilon"])
def test_a_step_is_that_of_diffusers_ddim(model: TextToImage, prediction: str) -> None:
    theirs = DDIMScheduler.from_config(
        model.scheduler.config, prediction_type=prediction, clip_sample=False, set_alpha_to_one=False, steps_offset=1,
        timestep_spacing="leading",
    )  # fmt: skip
    theirs.set_timesteps(10)
    latents, context = torch.randn(1, 4, 8, 8), torch.randn(1, 12, 16)
    times = model.timesteps(10)
    assert theirs.timesteps.tolist() == times[::-1]
    model.scheduler.register_to_config(prediction_type=prediction)

    for timestep, to in ((times[5], times[4]), (times[0], 0)):
        with torch.inference_mode():
            output = model.unet(latents, torch.tensor([timestep]), context).sample
        expected = theirs.step(output, timestep, latents).prev_sample
        found = model.move(latents, model.noise_in(latents, timestep, context), timestep, to)
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
    model.scheduler.register_to_config(prediction_type="v_prediction")


def test_sdedit_without_strength_returns_the_frame_through_the_autoencoder(
    trained: Path, model: TextToImage, workshop: Workshop, tmp_path: Path
) -> None:
    folder, wanted = trained / "text_to_image" / "checkpoint", ask(workshop)
    (kept,) = SdEdit(folder, SdEditSettings(strength=0.0), CPU, "default").paint([wanted])
    (painted,) = SdEdit(folder, SdEditSettings(steps=4, strength=1.0), CPU, "default").paint([wanted])
    posterior = torch.from_numpy(gaussian_noise(wanted.seed, 1, (4, 8, 8)))[None]
    decoded = finish(model.decode(model.encode_frames([wanted.frame], posterior))[0], wanted.frame, "default")

    assert kept == decoded != painted


def test_inversion_and_painting_with_the_same_words_come_back(trained: Path, workshop: Workshop) -> None:
    folder = trained / "text_to_image" / "checkpoint"
    prox = ProxEdit(folder, ProxEditSettings(), CPU, "default")
    model = prox._model
    clean, context = model.encode_frames([ask(workshop).frame]), model.encode_text([""])
    times = model.timesteps(125)

    path = prox.invert(clean, context, times)
    latents = path[-1]
    for timestep, to in zip(times[::-1], [*times[-2::-1], 0], strict=True):
        latents = model.move(latents, model.noise_in(latents, timestep, context), timestep, to)

    assert len(path) == 126 and (path[-1] - clean).abs().mean() > clean.abs().mean()
    assert (latents - clean).abs().mean() < 0.1 * clean.abs().mean()


def test_small_changes_of_noise_are_left_out_and_l1_shrinks_the_others() -> None:
    change = torch.tensor([-4.0, -1.0, 0.5, 1.0, 3.0]).view(1, 1, 1, 5)

    hard, where = proximal(change, "l0", 0.5)
    soft, _ = proximal(change, "l1", 0.5)
    everything, everywhere = proximal(change, "none", 0.5)

    assert hard.flatten().tolist() == [-4, 0, 0, 0, 3] and where.flatten().tolist() == [1, 0, 0, 0, 1]
    assert soft.flatten().tolist() == [-3, 0, 0, 0, 2]
    assert torch.equal(everything, change) and everywhere.all()


def test_proxedit_that_changes_nothing_restores_the_frame(
    trained: Path, model: TextToImage, workshop: Workshop, tmp_path: Path
) -> None:
    folder, wanted = trained / "text_to_image" / "checkpoint", ask(workshop)
    strict = ProxEditSettings(steps=5, quantile=1.0, dilate=0, restore_below=1000)

    (painting,) = ProxEdit(folder, strict, CPU, "default").paint([wanted])

    decoded = finish(model.decode(model.encode_frames([wanted.frame]))[0], wanted.frame, "default")
    difference = pixels(painting, tmp_path).astype(int) - pixels(decoded, tmp_path)
    assert np.abs(difference).mean() < 0.1


def test_while_attention_is_shared_the_edit_looks_where_the_frame_does(trained: Path, workshop: Workshop) -> None:
    folder = trained / "text_to_image" / "checkpoint"
    common = ProxEditSettings(steps=3, threshold="none")
    contents = {
        share: ProxEdit(folder, replace(common, self_replace=share), CPU, "default").paint([ask(workshop)])[0].content
        for share in (0.0, 1.0)
    }

    assert contents[0.0] != contents[1.0]
    before = TextToImage.load(folder).unet.attn_processors
    assert {type(each).__name__ for each in before.values()} == {"AttnProcessor2_0"}


# --- settings


def test_the_recipe_of_the_methods_has_their_defaults() -> None:
    assert load_settings(DEFAULTS) == MethodSettings()
    changed = load_settings(DEFAULTS, ["sdedit.strength=0.5", "lego.fidelity=original", "seed=3"])
    assert (changed.sdedit.strength, changed.lego.fidelity, changed.seed) == (0.5, "original", 3)


@pytest.mark.parametrize(
    ("override", "told"),
    [
        ("sdedit.strength=2", "sdedit: strength is 2; it must lie between 0 and 1"),
        ("lego.sampler=ddim", "lego: sampler is 'ddim'; choose one of"), ("lego.steps=0", "lego: steps is 0"),
        ("proxedit.threshold=l2", "threshold is 'l2'; choose l0, l1 or none"), ("batch_size=0", "batch_size is 0"),
        ("pix2pix.steps=3", "unknown key 'pix2pix'"),
    ],
)  # fmt: skip
def test_settings_out_of_range_are_named(override: str, told: str) -> None:
    with pytest.raises(LegoError, match=told):
        load_settings(DEFAULTS, [override])


# --- generating


class Stopping(NoEdit):
    """Stops before the picture of one number, and says how often it was asked."""

    def __init__(self, stop_at: int = -1) -> None:
        self.asked, self._stop_at = 0, stop_at

    def paint(self, asks: list[Ask]) -> list[Painting]:  # type: ignore[override]
        self.asked += len(asks)
        if self.asked > self._stop_at >= 0:
            raise KeyboardInterrupt
        return [
            replace(each, description=ask.record.action) for each, ask in zip(super().paint(asks), asks, strict=True)
        ]


def paint_all(
    method: NoEdit, records: list[Record], folder: Path, shard: str = "1/1", batch_size: int = 2, seed: int = 0
) -> list[str]:  # fmt: skip
    faults = generate(
        lambda: method, records, Gallery(folder), {"method": "no edit"}, seed, batch_size, Shard.parse(shard), "no edit"
    )  # fmt: skip
    return [str(fault) for fault in faults]


def test_a_stopped_generation_goes_on_and_shards_make_the_same_pictures(workshop: Workshop, tmp_path: Path) -> None:
    records, gallery = workshop.records, Gallery(tmp_path / "stopped")
    with pytest.raises(KeyboardInterrupt):
        paint_all(Stopping(stop_at=4), records, gallery.folder)
    assert len(gallery.missing(records)) == 2

    second = Stopping()
    assert paint_all(second, records, gallery.folder) == [] and second.asked == 2
    for shard in ("2/2", "1/2"):
        paint_all(Stopping(), records, tmp_path / "sharded", shard, batch_size=3)

    for record in records:
        (found, other) = (Gallery(tmp_path / name).find(record) for name in ("stopped", "sharded"))
        assert found is not None and other is not None and found.read_bytes() == other.read_bytes()
    expected = {f"{each.clip_id}/{each.action_id}": each.action for each in records}
    assert gallery.descriptions() == Gallery(tmp_path / "sharded").descriptions() == expected


def test_a_frame_that_cannot_be_read_is_named_and_the_others_are_painted(workshop: Workshop, tmp_path: Path) -> None:
    damaged = tmp_path / "clip" / "action" / "frame.jpg"
    damaged.parent.mkdir(parents=True)
    damaged.write_bytes(b"no picture")
    records = [replace(workshop.records[0], input_path=damaged), *workshop.records[1:]]

    (fault,) = paint_all(NoEdit(), records, tmp_path / "out", batch_size=6)

    assert fault.startswith(f"{damaged}: the frame {damaged} cannot be read")
    assert Gallery(tmp_path / "out").missing(records) == records[:1]


def test_a_gallery_of_other_settings_is_refused(workshop: Workshop, tmp_path: Path) -> None:
    paint_all(NoEdit(), workshop.records[:1], tmp_path / "out")

    with pytest.raises(LegoError, match="holds pictures with another seed; choose another folder"):
        paint_all(NoEdit(), workshop.records, tmp_path / "out", seed=1)


def test_records_are_spread_evenly_over_the_dataset(workshop: Workshop) -> None:
    records = workshop.records

    assert choose_records(records, 2) == [records[0], records[-1]]
    assert choose_records(records, None) == choose_records(records, 99) == records


def test_a_journal_line_that_was_cut_off_is_passed_over(workshop: Workshop, tmp_path: Path) -> None:
    records = workshop.records
    paint_all(Stopping(), records[:2], tmp_path)
    (journal,) = tmp_path.glob("paintings.*.jsonl")
    with journal.open("a") as file:
        file.write('{"name": "torn')
    paint_all(Stopping(), records[:3], tmp_path)

    assert len(Gallery(tmp_path).descriptions()) == 3
