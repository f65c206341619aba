"""Writes the logits of transformers for 20 prompts, for the comparison with Woolly.

The weights come out of the GGUF file and are computed with in 32-bit floats, so the comparison is exact for an F32 file
and shows the error of 8-bit activations for a Q8_0 file. The output folder gets, for each prompt, ``NN.f32`` (little
endian, [tokens, vocabulary]), and ``prompts.json`` with the texts, their ids and the greedy continuation.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import torch
from transformers import LlamaForCausalLM

from corpus import mixture
from corpus.document import prompt_text
from gguf_model import load_tokenizer, load_transformers

_SEED = 99
_PROMPTS = 20
_CONTINUATION = 32


def prompts(count: int) -> list[str]:
    """Held-out chats of all kinds up to the last answer, and beginnings of raw stories."""
    texts: list[str] = []
    for made in mixture.stream(_SEED, "valid"):
        if len(texts) == count:
            return texts
        texts.append(prompt_text(made.messages[:-1], made.tools) if made.messages else made.text[: len(made.text) // 2])
    return texts


@torch.inference_mode()
def write(model_path: Path, folder: Path) -> None:
    """Writes the folder."""
    tokenizer, model = load_tokenizer(model_path), load_transformers(model_path)
    folder.mkdir(parents=True, exist_ok=True)
    entries = []
    for index, text in enumerate(prompts(_PROMPTS)):
        ids = tokenizer.encode(text, add_special_tokens=False).ids
        logits = model(torch.tensor([ids])).logits[0]
        name = f"{index:02}.f32"
        logits.numpy().astype("<f4").tofile(folder / name)
        entries.append({"text": text, "ids": ids, "logits": name, "greedy": _greedy(model, ids)})
    description = {"model": model_path.name, "vocabulary": model.config.vocab_size, "prompts": entries}
    (folder / "prompts.json").write_text(json.dumps(description, indent=1) + "\n")


def _greedy(model: LlamaForCausalLM, ids: list[int]) -> list[int]:
    # No end of text: the continuation has a fixed length.
    model.generation_config.eos_token_id = None
    made = model.generate(torch.tensor([ids]), max_new_tokens=_CONTINUATION, do_sample=False, pad_token_id=0)
    return made[0, len(ids) :].tolist()


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("folder", type=Path)
    arguments = parser.parse_args()
    write(arguments.model, arguments.folder)


if __name__ == "__main__":
    main()
