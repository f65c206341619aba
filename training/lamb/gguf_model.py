"""Reads an exported GGUF file back into a tokenizer and into transformers, without anything else of the training.

What is evaluated is therefore the very file that ships, by an implementation that is not ours. Weights of any type are
expanded to 32-bit floats.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from gguf import GGUFReader
from gguf.quants import dequantize
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM

_NORMAL, _CONTROL, _USER_DEFINED = 1, 3, 4

# Names in the file -> names in transformers; {} is the number of the layer.
TENSOR_NAMES = {
    "token_embd.weight": "model.embed_tokens.weight",
    "output_norm.weight": "model.norm.weight",
    "blk.{}.attn_norm.weight": "model.layers.{}.input_layernorm.weight",
    "blk.{}.attn_q.weight": "model.layers.{}.self_attn.q_proj.weight",
    "blk.{}.attn_k.weight": "model.layers.{}.self_attn.k_proj.weight",
    "blk.{}.attn_v.weight": "model.layers.{}.self_attn.v_proj.weight",
    "blk.{}.attn_output.weight": "model.layers.{}.self_attn.o_proj.weight",
    "blk.{}.ffn_norm.weight": "model.layers.{}.post_attention_layernorm.weight",
    "blk.{}.ffn_gate.weight": "model.layers.{}.mlp.gate_proj.weight",
    "blk.{}.ffn_up.weight": "model.layers.{}.mlp.up_proj.weight",
    "blk.{}.ffn_down.weight": "model.layers.{}.mlp.down_proj.weight",
}


def interleaved(weight: np.ndarray, heads: int) -> np.ndarray:
    """Rows of a projection from "two halves" (transformers) to "neighbouring pairs" (GGUF llama), head by head."""
    rows, columns = weight.shape
    return weight.reshape(heads, 2, rows // heads // 2, columns).swapaxes(1, 2).reshape(rows, columns)


def halved(weight: np.ndarray, heads: int) -> np.ndarray:
    """The inverse of ``interleaved``."""
    rows, columns = weight.shape
    return weight.reshape(heads, rows // heads // 2, 2, columns).swapaxes(1, 2).reshape(rows, columns)


class Metadata:
    """The metadata of a file by key."""

    def __init__(self, reader: GGUFReader) -> None:
        self.reader = reader

    def __getitem__(self, key: str) -> Any:
        field = self.reader.get_field(key)
        if field is None:
            raise KeyError(f"the file has no metadata key {key}")
        return field.contents()


def load_tokenizer(path: Path) -> Tokenizer:
    """The tokenizer of a file whose pre-tokenizer is "starcoder"."""
    metadata = Metadata(GGUFReader(path))
    if (metadata["tokenizer.ggml.model"], metadata["tokenizer.ggml.pre"]) != ("gpt2", "starcoder"):
        raise ValueError(f"{path}: only the tokenizer model gpt2 with pre-tokenizer starcoder is known here")
    tokens = metadata["tokenizer.ggml.tokens"]
    merges = [tuple(merge.split(" ")) for merge in metadata["tokenizer.ggml.merges"]]
    tokenizer = Tokenizer(models.BPE(vocab={token: index for index, token in enumerate(tokens)}, merges=merges))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(r"\p{N}"), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    for token, kind in zip(tokens, metadata["tokenizer.ggml.token_type"]):
        if kind in (_CONTROL, _USER_DEFINED):
            tokenizer.add_tokens([AddedToken(token, special=kind == _CONTROL, normalized=False)])
    return tokenizer


def load_transformers(path: Path) -> LlamaForCausalLM:
    """The model of a file in transformers, in 32-bit floats."""
    reader = GGUFReader(path)
    config = _config(Metadata(reader))
    model = LlamaForCausalLM(config)
    names = {
        key.format(layer): name.format(layer)
        for key, name in TENSOR_NAMES.items()
        for layer in range(config.num_hidden_layers)
    }
    state: dict[str, torch.Tensor] = {}
    for tensor in reader.tensors:
        weight = dequantize(tensor.data, tensor.tensor_type).astype(np.float32)
        if "attn_q" in tensor.name:
            weight = halved(weight, config.num_attention_heads)
        elif "attn_k" in tensor.name:
            weight = halved(weight, config.num_key_value_heads)
        state[names[tensor.name]] = torch.from_numpy(np.ascontiguousarray(weight))
    missing, unexpected = model.load_state_dict(state, strict=False)
    if unexpected or set(missing) - {"lm_head.weight"}:
        raise ValueError(f"{path}: missing {missing}, unexpected {unexpected}")
    model.tie_weights()
    return model.eval()


def _config(metadata: Metadata) -> LlamaConfig:
    return LlamaConfig(
        vocab_size=len(metadata["tokenizer.ggml.tokens"]),
        hidden_size=metadata["llama.embedding_length"],
        intermediate_size=metadata["llama.feed_forward_length"],
        num_hidden_layers=metadata["llama.block_count"],
        num_attention_heads=metadata["llama.attention.head_count"],
        num_key_value_heads=metadata["llama.attention.head_count_kv"],
        max_position_embeddings=metadata["llama.context_length"],
        rms_norm_eps=metadata["llama.attention.layer_norm_rms_epsilon"],
        rope_parameters={"rope_type": "default", "rope_theta": metadata["llama.rope.freq_base"]},
        tie_word_embeddings=True,
        bos_token_id=metadata["tokenizer.ggml.bos_token_id"],
        eos_token_id=metadata["tokenizer.ggml.eos_token_id"],
        attn_implementation="eager",
    )
