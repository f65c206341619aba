"""Writes a checkpoint as a GGUF file, with complete metadata, in Q8_0 or F32.

Refuses to write when the chat template and the rendering of the training corpus disagree.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import jinja2
import numpy as np
from gguf import GGMLQuantizationType, GGUFWriter, LlamaFileType, TokenType
from gguf.quants import quantize
from tokenizers import Tokenizer

from corpus import document, mixture
from gguf_model import TENSOR_NAMES, interleaved
from model import Lamb, Shape
from tokenizer import CONTROL, MARKS, PRE_TOKENIZER
from train import load_model

_TYPES = {
    "Q8_0": (GGMLQuantizationType.Q8_0, LlamaFileType.MOSTLY_Q8_0),
    "F32": (GGMLQuantizationType.F32, LlamaFileType.ALL_F32),
}
_TEMPLATE = Path(__file__).parent / "corpus" / "template.jinja"
_CHECKED_CHATS = 300


def chat_template() -> str:
    """The Jinja source that goes into the file."""
    return _TEMPLATE.read_text()


def check_template(source: str) -> None:
    """Compares the template with the rendering of the corpus on many chats, with and without trimming of blocks."""
    for trimmed in (True, False):
        environment = jinja2.Environment(trim_blocks=trimmed, lstrip_blocks=trimmed)
        environment.filters["tojson"] = lambda value: json.dumps(value, ensure_ascii=False)
        template = environment.from_string(source)
        for index in range(_CHECKED_CHATS):
            made = mixture.document(0, "valid", index, long_share=0.2)
            if made.messages:
                _check_chat(template, made)


def _check_chat(template: jinja2.Template, made: document.Document) -> None:
    rendered = template.render(messages=made.messages, tools=made.tools, add_generation_prompt=True)
    wanted = document.prompt_text(made.messages, made.tools)
    if rendered != wanted:
        raise RuntimeError(f"the template renders {rendered!r}, the corpus has {wanted!r}")


def write(model: Lamb, tokenizer: Tokenizer, path: Path, kind: str) -> None:
    """Writes the file."""
    source = chat_template()
    check_template(source)
    tensor_type, file_type = _TYPES[kind]
    writer = GGUFWriter(path, "llama")
    _general(writer, model, file_type)
    _llama(writer, model.shape)
    _tokenizer(writer, tokenizer, source)
    for name, weight in _tensors(model):
        wanted = tensor_type if weight.ndim == 2 else GGMLQuantizationType.F32
        writer.add_tensor(name, quantize(weight, wanted), raw_dtype=wanted)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def _general(writer: GGUFWriter, model: Lamb, file_type: LlamaFileType) -> None:
    count = sum(parameter.numel() for parameter in model.parameters())
    writer.add_type("model")
    writer.add_name("Woolly Lamb")
    writer.add_basename("woolly-lamb")
    writer.add_finetune("chat")
    writer.add_version("1")
    writer.add_size_label(f"{count / 1e6:.1f}M")
    writer.add_author("The Woolly developers")
    writer.add_organization("The Woolly developers")
    writer.add_description(
        "A very small model for trying Woolly without a download: simple stories, questions about a short text, "
        "tool calls and JSON. Trained from scratch on generated texts only."
    )
    writer.add_license("MIT OR Apache-2.0")
    writer.add_license_name("MIT or Apache License 2.0, at your choice")
    writer.add_tags(["text-generation", "chat", "tool-calls", "json"])
    writer.add_languages(["en"])
    writer.add_file_type(file_type)
    writer.add_quantization_version(2)


def _llama(writer: GGUFWriter, shape: Shape) -> None:
    writer.add_context_length(shape.context)
    writer.add_embedding_length(shape.width)
    writer.add_block_count(shape.layers)
    writer.add_feed_forward_length(shape.hidden)
    writer.add_head_count(shape.heads)
    writer.add_head_count_kv(shape.kv_heads)
    writer.add_key_length(shape.head_width)
    writer.add_value_length(shape.head_width)
    writer.add_layer_norm_rms_eps(shape.epsilon)
    writer.add_rope_dimension_count(shape.head_width)
    writer.add_rope_freq_base(shape.rope_base)
    writer.add_vocab_size(shape.vocabulary)


def _tokenizer(writer: GGUFWriter, tokenizer: Tokenizer, template: str) -> None:
    description = json.loads(tokenizer.to_str())
    ids = tokenizer.get_vocab()
    tokens = sorted(ids, key=lambda token: ids[token])
    kinds = dict.fromkeys(CONTROL, TokenType.CONTROL) | dict.fromkeys(MARKS, TokenType.USER_DEFINED)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(PRE_TOKENIZER)
    writer.add_token_list(tokens)
    writer.add_token_types([kinds.get(token, TokenType.NORMAL) for token in tokens])
    writer.add_token_merges([" ".join(merge) for merge in description["model"]["merges"]])
    writer.add_bos_token_id(ids[document.END_OF_TEXT])
    writer.add_eos_token_id(ids[document.END_OF_TEXT])
    writer.add_eot_token_id(ids[document.TURN_END])
    writer.add_pad_token_id(ids[document.END_OF_TEXT])
    writer.add_add_bos_token(False)
    writer.add_add_eos_token(False)
    writer.add_add_space_prefix(False)
    writer.add_chat_template(template)


def _tensors(model: Lamb) -> list[tuple[str, np.ndarray]]:
    """Every tensor under its name in the file; the output matrix is the embedding and not stored again."""
    state = model.state_dict()
    found: list[tuple[str, np.ndarray]] = []
    for layer in range(model.shape.layers):
        for pattern, name in TENSOR_NAMES.items():
            if "{}" not in pattern and layer > 0:
                continue
            weight = state[name.removeprefix("model.").format(layer)].float().numpy()
            if "attn_q" in pattern:
                weight = interleaved(weight, model.shape.heads)
            elif "attn_k" in pattern:
                weight = interleaved(weight, model.shape.kv_heads)
            found.append((pattern.format(layer), np.ascontiguousarray(weight)))
    return found


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("output", type=Path)
    parser.add_argument("--tokenizer", type=Path, required=True)
    parser.add_argument("--type", choices=list(_TYPES), default="Q8_0")
    arguments = parser.parse_args()
    write(
        load_model(arguments.checkpoint),
        Tokenizer.from_file(str(arguments.tokenizer)),
        arguments.output,
        arguments.type,
    )


if __name__ == "__main__":
    main()
