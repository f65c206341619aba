"""Writes logits of transformers for 20 prompts, for the comparison with Woolly.

The weights come out of the GGUF file and are computed with in 32-bit floats, so an implementation that expands the
weights too and rounds nothing must arrive at the same numbers. The output folder gets ``prompts.json`` with the texts
and their ids, and ``logits.f32`` (little endian) with the logits after the last token of each prompt, [prompts,
vocabulary]; with ``--all`` after every token, [tokens of all prompts, vocabulary].

The repository keeps the result for the model that ships, for the test ``crates/woolly/tests/lamb.rs``:

    python3 training/lamb/logits.py models/woolly-lamb-Q8_0.gguf crates/woolly/tests/lamb
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import torch

from corpus import mixture
from corpus.document import prompt_text
from gguf_model import load_tokenizer, load_transformers

_SEED = 99
_PROMPTS = 20


def prompts(count: int) -> list[str]:
    """Held-out chats of all kinds up to the last answer, and beginnings of raw stories."""
    texts: list[str] = []
    for made in mixture.stream(_SEED, "valid"):
        if len(texts) == count:
            return texts
        if made.messages:
            texts.append(prompt_text(made.messages[:-1], made.tools))
        elif made.text:
            texts.append(made.text[: len(made.text) // 2])
    return texts


@torch.inference_mode()
def write(model_path: Path, folder: Path, everything: bool) -> None:
    """Writes the folder."""
    tokenizer, model = load_tokenizer(model_path), load_transformers(model_path)
    folder.mkdir(parents=True, exist_ok=True)
    entries = []
    with (folder / "logits.f32").open("wb") as out:
        for text in prompts(_PROMPTS):
            ids = tokenizer.encode(text, add_special_tokens=False).ids
            logits = model(torch.tensor([ids])).logits[0]
            out.write(logits[0 if everything else -1 :].numpy().astype("<f4").tobytes())
            entries.append({"text": text, "ids": ids})
    description = {"model": model_path.name, "vocabulary": model.config.vocab_size}
    lines = ",\n".join(json.dumps(entry) for entry in entries)
    (folder / "prompts.json").write_text(f'{json.dumps(description)[:-1]}, "prompts": [\n{lines}\n]}}\n')


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--all", action="store_true", help="logits after every token")
    arguments = parser.parse_args()
    write(arguments.model, arguments.folder, arguments.all)


if __name__ == "__main__":
    main()
