"""Which methods and metrics each table of the paper compares, and what the paper reports of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from lego_core.config import Conditioning
from yaml import safe_load

_QUALITY = ("egovlp", "egovlp_plus", "clip", "fid", "psnr", "lpips_squeeze")
_SIMILARITY = ("egovlp", "egovlp_plus", "clip")
_CAPTIONS = ("blip_base", "blip_large")
_METHODS = ("proxedit", "sdedit", "instruct_pix2pix", "lego")


@dataclass(frozen=True)
class MethodKind:
    """A method that can be compared.

    Attributes:
        title: In tables.
        conditioning: Of a LEGO checkpoint; None for the others.
        model: Name of the model that it needs, by which --checkpoint and lego-train baselines know it; "" for none.
    """

    title: str
    conditioning: Conditioning | None = None
    model: str = ""


METHODS: Mapping[str, MethodKind] = {
    "no_edit": MethodKind("input frame, not edited"),
    "proxedit": MethodKind("ProxEdit", None, "text_to_image"),
    "sdedit": MethodKind("SDEdit", None, "text_to_image"),
    "instruct_pix2pix": MethodKind("InstructPix2Pix", "label", "instruct_pix2pix"),
    "description": MethodKind("descriptions", "description", "description"),
    "description_image": MethodKind("descriptions + image embeddings", "description_image", "description_image"),
    "description_text": MethodKind("descriptions + text embeddings", "description_text", "description_text"),
    "lego_untuned": MethodKind("LEGO, VLLM not tuned", "joint", "lego_untuned"),
    "lego": MethodKind("LEGO", "joint", "lego"),
    "lego_scaleup": MethodKind("LEGO, trained on both datasets", "joint", "lego_scaleup"),
    "target": MethodKind("target frame"),
}


@dataclass(frozen=True)
class Comparison:
    """One table or figure.

    Attributes:
        title: What it compares.
        methods: Its rows, of `METHODS`.
        metrics: Its columns, of the metrics' names.
        difference: Adds a row with the last method's lead over the first's.
        bins: Divides the records by the time between their frames, as in figure 10.
    """

    title: str
    methods: tuple[str, ...]
    metrics: tuple[str, ...]
    difference: bool = False
    bins: bool = False


COMPARISONS: Mapping[str, Comparison] = {
    "table1": Comparison("Table 1: action frame generation", ("no_edit", *_METHODS, "target"), _QUALITY),
    "table2": Comparison("Table 2: captions of the pictures", ("no_edit", *_METHODS, "target"), _CAPTIONS),
    "table3": Comparison(
        "Table 3: what the U-Net is conditioned on",
        ("instruct_pix2pix", "description", "description_image", "description_text", "lego"), _SIMILARITY,
    ),
    "table4": Comparison(
        "Table 4: embeddings of a VLLM that was not tuned", ("description", "lego_untuned", "lego"), _SIMILARITY
    ),
    "table6": Comparison(
        "Table 6: image-text metrics and their upper bound", ("instruct_pix2pix", "target"), ("clip_text", *_CAPTIONS),
        difference=True,
    ),
    "table7": Comparison("Table 7: training on both datasets", ("lego", "lego_scaleup"), _QUALITY),
    "all": Comparison(
        "Tables 1, 3 and 4: all methods", tuple(name for name in METHODS if name != "lego_scaleup"), _QUALITY
    ),
    "figure10": Comparison("Figure 10: by the time from input to target", _METHODS, _QUALITY, bins=True),
}  # fmt: skip


@lru_cache
def _paper() -> dict[str, dict[str, dict[str, float]]]:
    values: dict[str, dict[str, dict[str, float]]] = safe_load(Path(__file__).with_name("paper.yaml").read_text())
    return values


def paper_value(dataset: str, method: str, metric: str) -> float | None:
    """Returns what the paper reports, if the dataset is one of the paper's and the paper has a number for it."""
    return _paper().get(dataset, {}).get(method, {}).get(metric)
