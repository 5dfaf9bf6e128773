"""Loss curves of a run as one picture."""

from __future__ import annotations

import csv
from pathlib import Path

import matplotlib as mpl
import numpy as np

# Before pyplot is imported: a training machine has no screen.
mpl.use("Agg")
import matplotlib.pyplot as plt


def plot_losses(run: Path) -> Path:
    """Draws every `<stage>.csv` of a run into `<run>/losses.png`, raw and smoothed."""
    files = sorted(run.glob("*.csv"))
    figure, axes = plt.subplots(1, max(1, len(files)), figsize=(5 * max(1, len(files)), 3.5), squeeze=False)
    for file, axis in zip(files, axes[0], strict=False):
        rows = list(csv.DictReader(file.read_text().splitlines()))
        if not rows:
            continue
        steps, losses = (np.array([row[name] for row in rows], float) for name in ("step", "loss"))
        width = max(1, len(losses) // 50)
        smooth = np.convolve(losses, np.ones(width) / width, "valid")
        axis.plot(steps, losses, alpha=0.25, linewidth=0.5)
        axis.plot(steps[width - 1 :], smooth)
        axis.set(title=file.stem, xlabel="optimizer step", ylabel="loss", yscale="log")
    figure.tight_layout()
    path = run / "losses.png"
    figure.savefig(path, dpi=110)
    plt.close(figure)
    return path
