"""The toy kitchen: a procedural first-person kitchen that knows what is true in every picture it draws.

It is the data source of the small model that ships. Pictures carry little texture, so that a small autoencoder at an
eighth of the resolution can reproduce them; what matters for an action is always large and in view.
"""

from lego_training.toy_kitchen.clip import TOUR_SEEDS, render_clip, render_tour
from lego_training.toy_kitchen.dataset import DatasetSummary, write_dataset
from lego_training.toy_kitchen.language import (
    ACTIONS,
    Action,
    Fact,
    Slots,
    caption,
    mirror_text,
    parse_slots,
    question,
)
from lego_training.toy_kitchen.pair import KitchenPair, make_pair

__all__ = [
    "ACTIONS",
    "TOUR_SEEDS",
    "Action",
    "DatasetSummary",
    "Fact",
    "KitchenPair",
    "Slots",
    "caption",
    "make_pair",
    "mirror_text",
    "parse_slots",
    "question",
    "render_clip",
    "render_tour",
    "write_dataset",
]
