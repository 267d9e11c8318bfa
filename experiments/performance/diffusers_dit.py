"""The DiT of diffusers at the size of one of ours, for the benchmark alone.

It accepts square patches and square inputs only, so it gets about as many tokens, and equal depth,
width and heads. Its blocks are adaLN-zero (Peebles & Xie 2022).
"""

import math

import torch
from diffusers import DiTTransformer2DModel
from torch import nn


class DiT(nn.Module):
    """x_t [B, C, S, S] and t [B] in [0, 1] -> [B, C, S, S], with one class for all."""

    def __init__(self, flax_model):
        super().__init__()
        m = flax_model
        self.dit = DiTTransformer2DModel(
            num_attention_heads=m.heads,
            attention_head_dim=m.width // m.heads,
            in_channels=m.shape[2],
            num_layers=m.depth,
            sample_size=side(m) * m.patch[0],
            patch_size=m.patch[0],
            num_embeds_ada_norm=1,
        )

    def forward(self, x_t, t):
        class_labels = torch.zeros_like(t, dtype=torch.long)
        return self.dit(x_t, 1000 * t, class_labels=class_labels, return_dict=False)[0]


def fits(flax_model):
    """Return whether diffusers supports the patches of a model."""
    return flax_model.patch[0] == flax_model.patch[1]


def side(flax_model):
    """Return the tokens along a side of the square with about as many as the model."""
    (f, t, _), (pf, pt) = flax_model.shape, flax_model.patch
    return round(math.sqrt(f // pf * (t // pt)))
