"""The network of woolly-lamb: Llama with grouped-query attention and tied embeddings, in plain PyTorch.

Parameter names and the layout of rotary positions are those of transformers' ``LlamaForCausalLM``, so that its
checkpoints and ours are interchangeable. Training only: there is no cache of keys and values here.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn


@dataclass(frozen=True)
class Shape:
    """The dimensions of the model; every row length is a multiple of 256."""

    vocabulary: int = 3072
    width: int = 256
    hidden: int = 768
    layers: int = 4
    heads: int = 4
    kv_heads: int = 2
    context: int = 1024
    rope_base: float = 10_000.0
    epsilon: float = 1e-5

    @property
    def head_width(self) -> int:
        """Elements of one attention head."""
        return self.width // self.heads

    def as_dict(self) -> dict[str, int | float]:
        """For checkpoints."""
        return asdict(self)


def has_fast_bf16(device: torch.device) -> bool:
    """Whether matrix products in bf16 are faster than in 32 bits: on GPUs, and on CPUs with AMX.

    Without AMX a product in bf16 takes almost twice the time: AVX-512's instruction for it does as many operations a
    cycle as two units of 32 bits, and oneDNN reaches half of that.
    """
    return device.type == "cuda" or bool(torch.cpu.get_capabilities().get("amx_bf16"))


def precision(device: torch.device) -> torch.autocast:
    """The context in which the model runs on a device: matrix products in bf16 where that is fast."""
    return torch.autocast(device.type, torch.bfloat16, enabled=has_fast_bf16(device))


class RMSNorm(nn.Module):
    """Root-mean-square normalisation (Zhang and Sennrich 2019), computed in 32 bits."""

    def __init__(self, width: int, epsilon: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))
        self.epsilon = epsilon

    def forward(self, x: Tensor) -> Tensor:
        return F.rms_norm(x, (x.shape[-1],), self.weight.to(x.dtype), self.epsilon)


def rotary_tables(shape: Shape) -> tuple[Tensor, Tensor]:
    """Cosines and sines, [context, head_width / 2]."""
    exponents = torch.arange(0, shape.head_width, 2, dtype=torch.float64) / shape.head_width
    angles = torch.outer(torch.arange(shape.context, dtype=torch.float64), shape.rope_base**-exponents)
    return angles.cos().float(), angles.sin().float()


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotary positions (Su et al. 2021) on [batch, heads, time, head_width]; pairs are the two halves."""
    first, second = x.chunk(2, dim=-1)
    return torch.cat((first * cos - second * sin, second * cos + first * sin), dim=-1).to(x.dtype)


def causal_attention(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Attention to oneself and what came before, [batch, heads, time, head_width] each.

    On a CPU written out: for rows of a few hundred tokens this takes a quarter of the time of the fused kernel.
    """
    if q.device.type == "cuda":
        return F.scaled_dot_product_attention(q, k, v, is_causal=True)
    scores = (q * q.shape[-1] ** -0.5) @ k.mT
    later = torch.ones(scores.shape[-2:], dtype=torch.bool, device=q.device).triu(1)
    return scores.masked_fill(later, float("-inf")).softmax(-1).to(v.dtype) @ v


class Attention(nn.Module):
    """Causal self-attention in which several query heads share a key and a value head."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.shape = shape
        kv_width = shape.kv_heads * shape.head_width
        self.q_proj = nn.Linear(shape.width, shape.width, bias=False)
        self.k_proj = nn.Linear(shape.width, kv_width, bias=False)
        self.v_proj = nn.Linear(shape.width, kv_width, bias=False)
        self.o_proj = nn.Linear(shape.width, shape.width, bias=False)

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        batch, time, width = x.shape
        q = rotate(self._heads(self.q_proj(x)), cos, sin)
        k = rotate(self._heads(self.k_proj(x)), cos, sin)
        v = self._heads(self.v_proj(x))
        groups = self.shape.heads // self.shape.kv_heads
        k, v = k.repeat_interleave(groups, dim=1), v.repeat_interleave(groups, dim=1)
        mixed = causal_attention(q, k, v)
        return self.o_proj(mixed.transpose(1, 2).reshape(batch, time, width))

    def _heads(self, x: Tensor) -> Tensor:
        return x.unflatten(-1, (-1, self.shape.head_width)).transpose(1, 2)


class FeedForward(nn.Module):
    """SwiGLU (Shazeer 2020)."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.gate_proj = nn.Linear(shape.width, shape.hidden, bias=False)
        self.up_proj = nn.Linear(shape.width, shape.hidden, bias=False)
        self.down_proj = nn.Linear(shape.hidden, shape.width, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.down_proj(F.silu(self.gate_proj(x)) * self.up_proj(x))


class Layer(nn.Module):
    """One layer: attention and feed-forward, each behind its norm."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.input_layernorm = RMSNorm(shape.width, shape.epsilon)
        self.self_attn = Attention(shape)
        self.post_attention_layernorm = RMSNorm(shape.width, shape.epsilon)
        self.mlp = FeedForward(shape)

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        x = x + self.self_attn(self.input_layernorm(x), cos, sin)
        return x + self.mlp(self.post_attention_layernorm(x))


class Lamb(nn.Module):
    """The whole model: ids [batch, time] to logits [batch, time, vocabulary]."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.shape = shape
        self.embed_tokens = nn.Embedding(shape.vocabulary, shape.width)
        self.layers = nn.ModuleList(Layer(shape) for _ in range(shape.layers))
        self.norm = RMSNorm(shape.width, shape.epsilon)
        for name, table in zip(("cos", "sin"), rotary_tables(shape)):
            self.register_buffer(name, table, persistent=False)
        self.apply(_initialise)

    def forward(self, ids: Tensor) -> Tensor:
        return F.linear(self.hidden(ids), self.embed_tokens.weight)

    def hidden(self, ids: Tensor) -> Tensor:
        """What the output matrix is applied to, [batch, time, width]."""
        time = ids.shape[1]
        cos, sin = self.cos[:time], self.sin[:time]
        x = self.embed_tokens(ids)
        for layer in self.layers:
            x = layer(x, cos, sin)
        return self.norm(x)

    def loss(self, ids: Tensor, targets: Tensor, weights: Tensor) -> Tensor:
        """Sum over all tokens of weight times negative log-likelihood; shapes [batch, time]."""
        counted = weights.flatten().nonzero()[:, 0]
        return self.loss_of(ids, counted, targets.flatten()[counted], weights.flatten()[counted])

    def loss_of(self, ids: Tensor, counted: Tensor, targets: Tensor, weights: Tensor) -> Tensor:
        """The loss of the tokens whose places in the flattened ``ids`` are ``counted``; their targets and weights.

        Logits are only computed for these: the vocabulary is wide for so small a model.
        """
        hidden = self.hidden(ids).flatten(0, 1)[counted]
        logits = F.linear(hidden, self.embed_tokens.weight).float()
        return (F.cross_entropy(logits, targets, reduction="none") * weights).sum()


def _initialise(module: nn.Module) -> None:
    if isinstance(module, nn.Linear):
        nn.init.normal_(module.weight, std=0.5 * module.in_features**-0.5)
    elif isinstance(module, nn.Embedding):
        nn.init.normal_(module.weight, std=0.02)
