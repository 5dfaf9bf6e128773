"""A frame and a query in, the guidance frame out."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import DDIMScheduler, EulerAncestralDiscreteScheduler, EulerDiscreteScheduler
from lego_core.config import GUIDED_SAMPLERS, Sampler
from lego_core.errors import LegoError
from lego_model.describe import describe
from lego_model.pipeline import LegoPipeline
from PIL import Image

QUERY = "How do I open the drawer?"


def difference(one: Image.Image, other: Image.Image) -> float:
    return float(np.abs(np.asarray(one, float) - np.asarray(other, float)).max())


def test_the_same_seed_paints_the_same_picture_and_another_seed_another(
    pipe: LegoPipeline, frames: list[Image.Image]
) -> None:
    first, again, other = (pipe(frames[0], QUERY, seed=seed, sampler="euler_ancestral") for seed in (1, 1, 2))

    assert difference(first.image, again.image) == 0
    assert difference(first.image, other.image) > 0
    assert (first.seed, first.description) == (1, again.description)


@pytest.mark.parametrize("size", [(160, 120), (120, 160), (64, 64), (320, 90)])
def test_the_guidance_frame_has_the_input_frames_aspect_ratio(pipe: LegoPipeline, size: tuple[int, int]) -> None:
    guidance = pipe(Image.new("RGB", size, (90, 120, 60)), QUERY, steps=1)

    assert min(guidance.image.size) == 64
    assert guidance.image.width / guidance.image.height == pytest.approx(size[0] / size[1], abs=0.02)


@pytest.mark.parametrize("mode", ["L", "RGBA"])
def test_any_colour_mode_is_taken(pipe: LegoPipeline, frames: list[Image.Image], mode: str) -> None:
    assert pipe(frames[0].convert(mode), QUERY, steps=1).image.mode == "RGB"


@pytest.mark.parametrize("sampler", GUIDED_SAMPLERS)
@torch.inference_mode()
def test_a_batch_paints_what_its_members_paint_alone(
    pipe: LegoPipeline, frames: list[Image.Image], sampler: Sampler
) -> None:
    words = [describe(pipe.checkpoint, pipe.embed(frame), QUERY) for frame in frames]
    latents, contexts = pipe.encode_frames(frames), pipe.context(words)

    together = pipe.paint(latents, contexts, [1, 2], sampler=sampler)

    for index, seed in enumerate((1, 2)):
        alone = pipe.paint(latents[index : index + 1], contexts[index : index + 1], [seed], sampler=sampler)
        torch.testing.assert_close(together[index : index + 1], alone, rtol=1e-3, atol=1e-3)


def test_guidance_scales_pull_the_picture(pipe: LegoPipeline, frames: list[Image.Image]) -> None:
    plain = pipe(frames[0], QUERY, text_scale=1.0, image_scale=1.0).image

    assert difference(plain, pipe(frames[0], QUERY, text_scale=9.0, image_scale=1.0).image) > 0
    assert difference(plain, pipe(frames[0], QUERY, text_scale=1.0, image_scale=5.0).image) > 0


@pytest.mark.parametrize("sampler", GUIDED_SAMPLERS)
def test_cheaper_steps_change_the_picture_and_their_widest_settings_do_not(
    pipe: LegoPipeline, frames: list[Image.Image], sampler: Sampler
) -> None:
    options: dict[str, Any] = {"sampler": sampler, "steps": 6, "text_scale": 4.0, "image_scale": 1.5}
    plain = pipe(frames[0], QUERY, **options).image

    assert difference(plain, pipe(frames[0], QUERY, **options, guidance_interval=(0, 1), cache_interval=1).image) == 0
    for cheaper in ({"guidance_interval": (0.3, 0.7)}, {"cache_interval": 3}):
        painted = pipe(frames[0], QUERY, **options, **cheaper).image
        assert difference(plain, painted) > 0
        assert difference(painted, pipe(frames[0], QUERY, **options, **cheaper).image) == 0


@torch.inference_mode()
def test_outside_the_guidance_interval_and_between_evaluations_of_the_deep_layers_less_is_asked(
    pipe: LegoPipeline, frames: list[Image.Image]
) -> None:
    rows: list[tuple[int, bool]] = []  # of each evaluation, and whether it had the deep layers
    unet = pipe.checkpoint.unet
    hooks = [
        unet.conv_in.register_forward_hook(lambda _, inputs, __: rows.append((len(inputs[0]), False))),
        unet.mid_block.register_forward_hook(lambda *_: rows.append((rows.pop()[0], True))),
    ]
    try:
        words = describe(pipe.checkpoint, pipe.embed(frames[0]), QUERY)
        pipe.paint(
            pipe.encode_frames(frames[:1]), pipe.context([words]), [0], steps=6, text_scale=4.0, image_scale=1.5,
            guidance_interval=(0.5, 1.0), cache_interval=2,
        )  # fmt: skip
    finally:
        for hook in hooks:
            hook.remove()

    assert rows == [(1, True), (1, False), (1, True), (3, True), (3, False), (3, True)]


@torch.inference_mode()
def test_scales_of_one_leave_the_conditional_branch_alone(pipe: LegoPipeline, frames: list[Image.Image]) -> None:
    latents = pipe.encode_frames(frames[:1])
    context = pipe.context([describe(pipe.checkpoint, pipe.embed(frames[0]), QUERY)])
    clean = LegoPipeline(pipe.checkpoint)
    clean._null = torch.randn_like(pipe.null)

    options: dict[str, Any] = {"text_scale": 1.0, "image_scale": 1.0}
    torch.testing.assert_close(
        pipe.paint(latents, context, [0], **options),
        clean.paint(latents, context, [0], **options),
        rtol=1e-3,
        atol=1e-3,
    )


def test_a_given_description_is_painted_instead(pipe: LegoPipeline, frames: list[Image.Image]) -> None:
    own = pipe(frames[0], QUERY)
    given = pipe(frames[0], QUERY, description="  The left hand\nturns the tap. ")

    assert given.description == "The left hand turns the tap."
    assert difference(own.image, given.image) > 0


def test_progress_is_told_step_by_step(pipe: LegoPipeline, frames: list[Image.Image]) -> None:
    seen: list[tuple[int, int]] = []
    context = pipe.null
    pipe.paint(pipe.encode_frames(frames[:1]), context, [0], steps=3, on_step=lambda *step: seen.append(step))

    assert seen == [(1, 3), (2, 3), (3, 3)]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"steps": 0}, "steps is 0; it must lie between 1 and 1000"),
        ({"steps": 1001}, "steps is 1001"),
        ({"steps": 2.5}, "steps is 2.5; it must be a whole number"),
        ({"text_scale": 0.5}, "text_scale is 0.5; it must lie between 1 and 30"),
        ({"image_scale": 11}, "image_scale is 11; it must lie between 1 and 10"),
        ({"guidance_interval": (0.7, 0.2)}, "guidance_interval is 0.7 to 0.2; its beginning must lie before its end"),
        ({"cache_interval": 101}, "cache_interval is 101; it must lie between 1 and 100"),
        ({"steps": 2, "guidance_interval": (0.4, 0.6)}, "holds the middle of none of the 2 steps"),
        ({"sampler": "heun"}, "sampler is 'heun'; choose one of euler_ancestral, euler, dpm_solver_pp"),
        ({"seed": -1}, "seed is -1; it must lie between 0"),
        ({"description": "  "}, "the description is empty; leave it out"),
    ],
)
def test_an_option_out_of_range_is_named(
    pipe: LegoPipeline, frames: list[Image.Image], options: dict[str, Any], message: str
) -> None:
    with pytest.raises(LegoError, match=message):
        pipe(frames[0], QUERY, **options)


def test_a_query_without_an_action_is_refused(pipe: LegoPipeline, frames: list[Image.Image]) -> None:
    with pytest.raises(LegoError, match="names no action"):
        pipe(frames[0], "how do I?")


def test_batch_sizes_that_disagree_are_named(pipe: LegoPipeline, frames: list[Image.Image]) -> None:
    with pytest.raises(LegoError, match="2 frames, 1 contexts and 1 seeds"):
        pipe.paint(pipe.encode_frames(frames), pipe.null, [0])


def test_a_directory_becomes_a_pipeline(tiny_directory: Path, pipe: LegoPipeline, frames: list[Image.Image]) -> None:
    loaded = LegoPipeline.from_pretrained(tiny_directory)

    assert difference(loaded(frames[0], QUERY).image, pipe(frames[0], QUERY).image) == 0


def test_half_precision_paints_nearly_the_same(
    tiny_directory: Path, pipe: LegoPipeline, frames: list[Image.Image]
) -> None:
    half = LegoPipeline.from_pretrained(tiny_directory, torch.bfloat16)

    picture = half(frames[0], QUERY, description="The left hand turns the tap.").image

    assert difference(picture, pipe(frames[0], QUERY, description="The left hand turns the tap.").image) < 40


def test_a_diffusers_scheduler_can_take_the_samplers_place(pipe: LegoPipeline, frames: list[Image.Image]) -> None:
    scheduler = EulerDiscreteScheduler.from_config(pipe.checkpoint.scheduler.config, timestep_spacing="linspace")
    ours = pipe(frames[0], "open the drawer", description="The right hand opens it.", steps=10, sampler="euler")

    theirs = pipe(frames[0], "open the drawer", description="The right hand opens it.", steps=10, scheduler=scheduler)

    # diffusers interpolates its sigmas linearly between whole timesteps, so the two differ by rounding only.
    assert np.abs(np.asarray(ours.image, int) - np.asarray(theirs.image, int)).max() <= 2


def test_a_scheduler_that_adds_noise_takes_it_from_the_seed(pipe: LegoPipeline, frames: list[Image.Image]) -> None:
    scheduler = EulerAncestralDiscreteScheduler.from_config(pipe.checkpoint.scheduler.config)

    first, again = (pipe(frames[0], "open the drawer", steps=4, seed=1, scheduler=scheduler) for _ in range(2))

    assert difference(first.image, again.image) == 0


def test_a_variance_preserving_scheduler_runs_too(pipe: LegoPipeline, frames: list[Image.Image]) -> None:
    scheduler = DDIMScheduler.from_config(pipe.checkpoint.scheduler.config)

    first, second = (pipe(frames[0], "open the drawer", steps=4, seed=seed, scheduler=scheduler) for seed in (1, 2))

    assert np.asarray(first.image).std() > 0
    assert np.asarray(first.image).tobytes() != np.asarray(second.image).tobytes()
