"""EgoVLP's network: Frozen in Time's video transformer with DistilBERT (Bain et al. 2021; Lin et al. 2022).

Module names are the released checkpoints' own, so that their weights fit as they are.
"""

from __future__ import annotations

from pathlib import Path

import torch
from lego_core.errors import LegoError
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention
from transformers import DistilBertConfig, DistilBertModel

from lego_training.evaluation.metrics.tensors import load_into, read_tensors

_HEAD_WIDTH = 64
_EPSILON = 1e-6


class DividedAttention(nn.Module):
    """Attention among patches of one frame, or of one place in all frames, each with the class token.

    The class token itself attends to everything.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.qkv = nn.Linear(width, 3 * width)
        self.proj = nn.Linear(width, width)

    def forward(self, tokens: Tensor, frames: int, across_time: bool) -> Tensor:
        """Returns what tokens (B, 1 + frames * patches, D) attend to, in the same shape."""
        batch, length = tokens.shape[:2]
        query, key, value = self.qkv(tokens).view(batch, length, 3, -1, _HEAD_WIDTH).permute(2, 0, 3, 1, 4)
        of_class = scaled_dot_product_attention(query[:, :, :1], key, value)

        def grouped(patches: Tensor) -> Tensor:  # (B, heads, groups, members, head width)
            apart = patches.unflatten(2, (frames, -1))
            return apart.transpose(2, 3) if across_time else apart

        def with_class(both: Tensor) -> Tensor:
            groups = grouped(both[:, :, 1:])
            return torch.cat([both[:, :, None, :1].expand(-1, -1, groups.shape[2], -1, -1), groups], dim=3)

        of_patches = scaled_dot_product_attention(grouped(query[:, :, 1:]), with_class(key), with_class(value))
        if across_time:
            of_patches = of_patches.transpose(2, 3)
        joined = torch.cat([of_class, of_patches.flatten(2, 3)], dim=2)
        attended: Tensor = self.proj(joined.transpose(1, 2).flatten(2))
        return attended


class SpaceTimeBlock(nn.Module):
    """Attention across time, then within frames, then a feed-forward network."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm1, self.norm2, self.norm3 = (nn.LayerNorm(width, eps=_EPSILON) for _ in range(3))
        self.attn = DividedAttention(width)
        self.timeattn = DividedAttention(width)
        self.mlp = nn.ModuleDict({"fc1": nn.Linear(width, 4 * width), "fc2": nn.Linear(4 * width, width)})

    def forward(self, tokens: Tensor, frames: int) -> Tensor:
        """Takes and returns tokens (B, 1 + frames * patches, D)."""
        over_time = tokens + self.timeattn(self.norm3(tokens), frames, across_time=True)
        # Frozen in Time adds the spatial attention to the tokens as they came, not to those that attended over time.
        tokens = tokens + self.attn(self.norm1(over_time), frames, across_time=False)
        hidden = nn.functional.gelu(self.mlp["fc1"](self.norm2(tokens)))
        return tokens + self.mlp["fc2"](hidden)


class SpaceTimeTransformer(nn.Module):
    """The video transformer.

    Args:
        frames: Most frames of a video.
        patches: Of a frame.
        patch_size: Pixels of a patch's side.
        width: Of a token.
        depth: Number of blocks.
    """

    def __init__(self, frames: int, patches: int, patch_size: int, width: int, depth: int) -> None:
        super().__init__()
        self.patch_size = patch_size
        self.patch_embed = nn.ModuleDict({"proj": nn.Conv2d(3, width, patch_size, patch_size)})
        self.cls_token = nn.Parameter(torch.zeros(1, 1, width))
        self.pos_embed = nn.Parameter(torch.zeros(1, 1 + patches, width))
        self.temporal_embed = nn.Parameter(torch.zeros(1, frames, width))
        self.blocks = nn.ModuleList(SpaceTimeBlock(width) for _ in range(depth))
        self.norm = nn.LayerNorm(width, eps=_EPSILON)

    def forward(self, video: Tensor) -> Tensor:
        """Returns the class token's state (B, D) of videos (B, F, 3, S, S)."""
        batch, frames = video.shape[:2]
        patches = self.patch_embed["proj"](video.flatten(0, 1)).flatten(2).transpose(1, 2).unflatten(0, (batch, frames))
        places = self.pos_embed[:, None, 1:] + self.temporal_embed[:, :frames, None]
        first = (self.cls_token + self.pos_embed[:, :1]).expand(batch, -1, -1)
        tokens = torch.cat([first, (patches + places).flatten(1, 2)], dim=1)
        for block in self.blocks:
            tokens = block(tokens, frames)
        state: Tensor = self.norm(tokens)[:, 0]
        return state


class FrozenInTime(nn.Module):
    """Videos and texts in one space.

    Args:
        video_model: For videos.
        text_model: For texts.
        size: Width of the common space, 256 in EgoVLP.
    """

    def __init__(self, video_model: SpaceTimeTransformer, text_model: DistilBertModel, size: int) -> None:
        super().__init__()
        self.video_model, self.text_model = video_model, text_model
        self.vid_proj = nn.Sequential(nn.Linear(video_model.cls_token.shape[-1], size))
        self.txt_proj = nn.Sequential(nn.ReLU(), nn.Linear(text_model.config.dim, size))

    @classmethod
    def load(cls, path: Path, frames: int) -> FrozenInTime:
        """Reads a released checkpoint, of any size; its temporal embedding is cut to the first `frames`.

        Raises:
            LegoError: It is none, or is for fewer frames.
        """
        read = read_tensors(path, ignore_objects=True)
        tensors = {name.removeprefix("module."): value for name, value in read.items()}
        try:
            temporal = tensors["video_model.temporal_embed"]
            patches = tensors["video_model.pos_embed"].shape[1] - 1
            width, _, patch_size, _ = tensors["video_model.patch_embed.proj.weight"].shape
            size = tensors["vid_proj.0.weight"].shape[0]
            words, dim = tensors["text_model.embeddings.word_embeddings.weight"].shape
            positions = tensors["text_model.embeddings.position_embeddings.weight"].shape[0]
            hidden = tensors["text_model.transformer.layer.0.ffn.lin1.weight"].shape[0]
        except KeyError as error:
            raise LegoError(f"{path} lacks the weights {error}; it is no checkpoint of EgoVLP") from error
        if temporal.shape[1] < frames:
            raise LegoError(f"{path} is for {temporal.shape[1]} frames; {frames} are needed: take the dataset's own")
        tensors["video_model.temporal_embed"] = temporal[:, :frames]
        video_model = SpaceTimeTransformer(frames, patches, patch_size, width, _count(tensors, "video_model.blocks."))
        text_config = DistilBertConfig(
            vocab_size=words, dim=dim, hidden_dim=hidden, max_position_embeddings=positions,
            n_layers=_count(tensors, "text_model.transformer.layer."), n_heads=dim // _HEAD_WIDTH,
        )  # fmt: skip
        model = cls(video_model, DistilBertModel(text_config), size)
        load_into(model, tensors, path)
        return model.eval()

    @property
    def picture_size(self) -> int:
        """Pixels of a frame's side."""
        patches = self.video_model.pos_embed.shape[1] - 1
        return int(patches**0.5) * self.video_model.patch_size

    def videos(self, video: Tensor) -> Tensor:
        """Returns the embeddings (B, size) of videos (B, F, 3, S, S), normalised pixels."""
        embeddings: Tensor = self.vid_proj(self.video_model(video))
        return embeddings

    def texts(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Returns the embeddings (B, size) of token ids (B, T)."""
        states = self.text_model(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state
        embeddings: Tensor = self.txt_proj(states[:, 0])
        return embeddings


def _count(tensors: dict[str, Tensor], prefix: str) -> int:
    return len({name[len(prefix) :].partition(".")[0] for name in tensors if name.startswith(prefix)})
