"""A beginning of the weights that can copy: what followed a word before is what the model says after it again.

Looking something up in a text rests on two attention heads that work together, of which the second is an induction head
(Olsson et al. 2022): one writes into each position which token stood before it, the other looks for the position whose
predecessor is the token at hand, and says what stands there. A model of this size finds them late or never: after 26
million tokens it copied 17 % of what it should. So they are put in place before the training, as weights that a training
might have found, in the manner of mimetic initialisation (Trockman and Kolter 2023). The training may change all of them.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from model import Attention, Lamb

# Standard deviation of an embedding's elements: so much that the first steps of AdamW do not wash the heads away.
_SPREAD = 0.1
# The final norm makes up for it in the logits.
_FINAL_NORM = 0.3
# The element that all tokens have in common, in standard deviations.
_COMMON = 8.0
# How much the score of the position before stands out, for each pair of elements that turns fast.
_SHARPNESS = 4.0
# What queries and keys of the second head are multiplied by, in each element that is compared.
_MATCH = 4.0
# How strongly what was found is said, in root mean squares of the residual stream.
_SAY = 2.5
# Radians a position from which on pairs of a head count as turning fast: several positions apart they differ.
_FAST = 0.05
# Radians a position below which they tell nothing of the distance in a text of some hundred tokens.
_SLOW = 1 / 250


@torch.no_grad()
def begin_with_copying(model: Lamb) -> None:
    """Replaces the first weights of a model so that it copies and does nothing else.

    The residual stream is divided: element 0 is the same for all tokens, the last ``head_width`` elements take in what the
    first layer finds, and what lies between tells the tokens apart.
    """
    shape = model.shape
    if shape.layers < 2:
        raise ValueError(f"copying takes two layers, one after the other; the model has {shape.layers}")
    table = model.embed_tokens.weight
    table.normal_(0, _SPREAD)
    table[:, 0] = _COMMON * _SPREAD
    table[:, -shape.head_width :] = 0
    model.norm.weight.fill_(_FINAL_NORM)
    for layer in model.layers:
        layer.self_attn.o_proj.weight.zero_()
        layer.mlp.down_proj.weight.zero_()
    mean_square = (_COMMON**2 + shape.width - 1 - shape.head_width) * _SPREAD**2 / shape.width
    scale = math.sqrt(mean_square)
    _note_predecessors(model.layers[0].self_attn, scale)
    _look_for_predecessors(model.layers[1].self_attn, scale)


def _speeds(attention: Attention) -> Tensor:
    """Radians that each pair of a head turns from one position to the next."""
    half = attention.shape.head_width // 2
    return attention.shape.rope_base ** (-torch.arange(half).float() / half)


def _note_predecessors(attention: Attention, scale: float) -> None:
    """Makes the heads of the first key-value head bring along the token before.

    Queries and keys are made of the common element alone. Turned by their positions they agree best where they are as far
    apart as the query was turned back.
    """
    shape, width = attention.shape, attention.shape.head_width
    speeds, half = _speeds(attention), width // 2
    common = _COMMON * _SPREAD / scale
    length = math.sqrt(_SHARPNESS * math.sqrt(width)) / common * (speeds > _FAST)
    attention.k_proj.weight[:width] = 0
    attention.k_proj.weight[:half, 0] = length
    attention.v_proj.weight[:width] = 0
    attention.v_proj.weight[:width, 1 : 1 + width] = torch.eye(width)
    sharing = shape.heads // shape.kv_heads
    for head in range(sharing):
        query = attention.q_proj.weight[head * width : (head + 1) * width]
        query.zero_()
        query[:half, 0] = length * torch.cos(speeds)
        query[half:, 0] = -length * torch.sin(speeds)
        attention.o_proj.weight[-width:, head * width : (head + 1) * width] = scale / sharing * torch.eye(width)


def _look_for_predecessors(attention: Attention, scale: float) -> None:
    """Makes all heads compare the token at hand with the predecessors, and say the token that they find.

    Each key-value head compares other elements, in pairs that hardly turn, and says other elements.
    """
    shape, width = attention.shape, attention.shape.head_width
    slow = torch.nonzero(_speeds(attention) < _SLOW)[:, 0]
    places = torch.cat((slow, slow + width // 2))
    count, sharing = len(places), shape.heads // shape.kv_heads
    compared = torch.zeros(width, count)
    compared[places, torch.arange(count)] = _MATCH
    for shared in range(shape.kv_heads):
        own = slice(shared * width, (shared + 1) * width)
        said = slice(1 + shared * width, 1 + (shared + 1) * width)
        first = shape.width - width + shared * count
        attention.k_proj.weight[own] = 0
        attention.k_proj.weight[own, first : first + count] = compared
        attention.v_proj.weight[own] = 0
        attention.v_proj.weight[own, said] = torch.eye(width)
        for head in range(shared * sharing, (shared + 1) * sharing):
            rows = slice(head * width, (head + 1) * width)
            attention.q_proj.weight[rows] = 0
            attention.q_proj.weight[rows, 1 + shared * count : 1 + (shared + 1) * count] = compared
            attention.o_proj.weight[said, rows] = _SAY * scale * torch.eye(width)
