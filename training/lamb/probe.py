"""Questions of which the share answered right is followed during training, without decoding anything.

An answer of which every token is the most likely one, given the right tokens before it, is what greedy decoding would
write; one pass over prompt and answer is enough to know. The prompts are others than those of ``evaluate.py``.
"""

from __future__ import annotations

import torch
from tokenizers import Tokenizer

from batches import Batch, Encoded, collate
from corpus import mixture
from corpus.document import Document, chat_segments, prompt_text
from model import Lamb, precision

_SEED = 5
_QUESTIONS = 96
_BATCH = 32


def before_answer(made: Document) -> list[dict]:
    """The turns before the answer that is judged: the first tool call, otherwise the last answer."""
    if made.kind != "tool":
        return made.messages[:-1]
    first = next(index for index, message in enumerate(made.messages) if message.get("tool_calls"))
    return made.messages[:first]


class Probe:
    """Held-out questions of the kinds that have one right answer."""

    def __init__(self, tokenizer: Tokenizer, device: torch.device) -> None:
        self.batches = {name: _batches(tokenizer, name, device) for name in ("look-up", "sum", "tool", "json")}

    @torch.no_grad()
    def shares(self, model: Lamb) -> dict[str, float]:
        """The share of right answers of each kind."""
        return {name: sum(map(_right(model), batches)) / _QUESTIONS for name, batches in self.batches.items()}


def _right(model: Lamb):
    def count(batch: Batch) -> int:
        with precision(batch.ids.device):
            hit = model(batch.ids).argmax(-1) == batch.targets
        return int((hit | (batch.weights == 0)).all(-1).sum())

    return count


def _batches(tokenizer: Tokenizer, name: str, device: torch.device) -> list[Batch]:
    kind = "passage" if name in ("look-up", "sum") else name
    found: list[Encoded] = []
    index = 0
    while len(found) < _QUESTIONS:
        made = mixture.document(_SEED, "valid", index, kind=kind)
        index += 1
        if kind != "passage" or _is_sum(made) == (name == "sum"):
            found.append(_encoded(tokenizer, made))
    found.sort(key=lambda item: len(item.ids))
    return [collate(found[start : start + _BATCH], device) for start in range(0, _QUESTIONS, _BATCH)]


def _is_sum(made: Document) -> bool:
    return any(f" {word} " in made.messages[-1]["content"] for word in ("plus", "minus"))


def _encoded(tokenizer: Tokenizer, made: Document) -> Encoded:
    before = before_answer(made)
    # The last segment is the line break after the answer.
    answer, _ = chat_segments(made.messages[: len(before) + 1], made.tools)[-2]
    prompt_ids = tokenizer.encode(prompt_text(before, made.tools), add_special_tokens=False).ids
    answer_ids = tokenizer.encode(answer, add_special_tokens=False).ids
    return Encoded(prompt_ids + answer_ids, [0.0] * len(prompt_ids) + [1.0] * len(answer_ids))
