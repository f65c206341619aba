"""Measures a GGUF file on held-out prompts: stories, passages, tool calls, JSON and loops, all decoded greedily.

By default transformers runs the model. With ``--command`` any program does: ``{model}``, ``{prompt}`` and ``{limit}``
in the command line are replaced, and the completion is what it prints. The prompt is the text after the chat template,
in which names of control tokens stand for these tokens. With Woolly:

    --command 'woolly run -m {model} -p {prompt} --raw --parse-special --temp 0 -n {limit} -q'
"""

from __future__ import annotations

import argparse
import json
import shlex
import subprocess
from collections.abc import Callable
from itertools import islice
from pathlib import Path

import torch
from tokenizers import Tokenizer

import judging
from batches import collate, encode
from corpus import mixture
from corpus.document import ENDINGS, Document, prompt_text
from gguf_model import load_tokenizer, load_transformers
from probe import before_answer

_SEED = 77
_BATCH = 50
_LIMITS = {"story": 400, "passage": 60, "tool": 80, "json": 150}

_BOTH = frozenset({"hero", "place"})

Complete = Callable[[list[str], int], list[str]]


def prompts(kind: str, count: int) -> list[tuple[Document, str]]:
    """Held-out chats of one kind, each with its prompt up to the answer that is judged."""
    found: list[tuple[Document, str]] = []
    index = 0
    while len(found) < count:
        made = mixture.document(_SEED, "valid", index, kind=kind)
        index += 1
        if made.messages and made.facts.get("asked", _BOTH) >= _BOTH:
            found.append((made, prompt_text(before_answer(made), made.tools)))
    return found


def transformers_completer(path: Path) -> Complete:
    """Greedy decoding of many prompts at once, padded on the left."""
    tokenizer, model = load_tokenizer(path), load_transformers(path)
    ends = [tokenizer.token_to_id(text) for text in ENDINGS]

    def complete(texts: list[str], limit: int) -> list[str]:
        encoded = [tokenizer.encode(text, add_special_tokens=False).ids for text in texts]
        longest = max(map(len, encoded))
        ids = torch.tensor([[0] * (longest - len(item)) + item for item in encoded])
        mask = torch.tensor([[0] * (longest - len(item)) + [1] * len(item) for item in encoded])
        with torch.inference_mode():
            made = model.generate(
                ids, attention_mask=mask, max_new_tokens=limit, do_sample=False, eos_token_id=ends, pad_token_id=0
            )
        return [tokenizer.decode(_until_end(row[longest:].tolist(), ends)) for row in made]

    return complete


def _until_end(ids: list[int], ends: list[int]) -> list[int]:
    return ids[: next((index for index, token in enumerate(ids) if token in ends), len(ids))]


def command_completer(template: str, path: Path) -> Complete:
    """Runs a program once for each prompt."""

    def complete(texts: list[str], limit: int) -> list[str]:
        return [_printed(template, path, text, limit) for text in texts]

    return complete


def _printed(template: str, path: Path, text: str, limit: int) -> str:
    replacements = {"{model}": str(path), "{prompt}": text, "{limit}": str(limit)}
    words = shlex.split(template)
    for mark, value in replacements.items():
        words = [word.replace(mark, value) for word in words]
    return subprocess.run(words, check=True, capture_output=True, text=True).stdout


def measure(complete: Complete, tokenizer: Tokenizer, count: int, samples: int) -> dict[str, float]:
    """All figures, as shares between 0 and 1; prints failures up to ``samples`` of each measure."""
    figures: dict[str, float] = {}
    looping = total = 0
    for kind, measures in judging.MEASURES.items():
        asked = prompts(kind, count)
        answers: list[str] = []
        for start in range(0, len(asked), _BATCH):
            answers += complete([prompt for _, prompt in asked[start : start + _BATCH]], _LIMITS[kind])
        for name, right in measures.items():
            verdicts = [right(answer, document) for answer, (document, _) in zip(answers, asked)]
            figures[f"{kind}: {name}"] = sum(verdicts) / len(verdicts)
            failed = [(prompt, answer) for verdict, answer, (_, prompt) in zip(verdicts, answers, asked) if not verdict]
            for prompt, answer in failed[:samples]:
                print(f"--- {kind}, not: {name}\n{prompt}{answer}\n", flush=True)
        looping += sum(judging.loops(tokenizer.encode(answer).ids) for answer in answers)
        total += len(answers)
    figures["all: no loop"] = 1 - looping / total
    return figures


@torch.no_grad()
def validation_loss(path: Path, documents: int = 400) -> float:
    """Mean negative log-likelihood (nats) of a token that the model says, on held-out documents of all kinds."""
    tokenizer, model = load_tokenizer(path), load_transformers(path)
    total = weight = 0.0
    for made in islice(mixture.stream(_SEED, "valid"), documents):
        item = encode(tokenizer, made)
        item.weights = [float(own >= 1.0) for own in item.weights]
        batch = collate([item], torch.device("cpu"))
        logits = model(batch.ids).logits[0]
        losses = torch.nn.functional.cross_entropy(logits, batch.targets[0], reduction="none")
        total += float((losses * batch.weights[0]).sum())
        weight += float(batch.weights.sum())
    return total / weight


def main() -> None:
    """Command line: prints the figures and, with ``--output``, writes them as JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("--count", type=int, default=200, help="prompts of each kind")
    parser.add_argument("--samples", type=int, default=0, help="failures of each measure to print")
    parser.add_argument("--command", help="program to use in place of transformers")
    parser.add_argument("--output", type=Path)
    arguments = parser.parse_args()
    if arguments.command:
        complete = command_completer(arguments.command, arguments.model)
    else:
        complete = transformers_completer(arguments.model)
    figures = measure(complete, load_tokenizer(arguments.model), arguments.count, arguments.samples)
    figures["validation loss (nats per token)"] = loss = validation_loss(arguments.model)
    figures["validation perplexity"] = torch.tensor(loss).exp().item()
    for name, value in figures.items():
        print(f"{name}: {value:.4f}")
    if arguments.output:
        arguments.output.write_text(json.dumps(figures, indent=2) + "\n")


if __name__ == "__main__":
    main()
