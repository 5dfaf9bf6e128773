"""The server paints what the readable torch pipeline paints."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from lego_model.pipeline import LegoPipeline
from PIL import Image

from tests.end_to_end.processes import Server, ask


def test_server_and_torch_pipeline_give_the_same_picture_for_the_same_seed(
    server: Server, model: Path, kitchen: Path, tmp_path: Path
) -> None:
    query = "How do I open the drawer?"
    answer = ask(
        server, kitchen, tmp_path, query, "--seed", "11", "--steps", "4", "--sampler", "euler", "--quality", "100"
    )  # fmt: skip
    torch.set_num_threads(1)

    with Image.open(answer.directory / "frame.jpg") as frame:  # as the server saw it
        expected = LegoPipeline.from_pretrained(model)(frame, query, seed=11, steps=4, sampler="euler")

    assert answer.record["description"] == expected.description
    with Image.open(answer.directory / "guidance.jpg") as guidance:
        error = np.asarray(guidance, float) - np.asarray(expected.image, float)
    psnr = 10 * np.log10(255**2 / np.mean(error**2))
    assert psnr > 35  # dB; the JPEG's own error is part of it
