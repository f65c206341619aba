"""Chooses the kind of each document, keeps training and validation apart, and never repeats a text."""

from __future__ import annotations

import random
from collections.abc import Iterator

from . import calls, passages, reading, rephrase, shapes, stories, talks
from .document import Document

MAKERS = {
    "story": stories.make,
    "passage": passages.make,
    "reading": reading.make,
    "drill": reading.make_drill,
    "copy": reading.make_copy,
    "tool": calls.make,
    "json": shapes.make,
    "talk": talks.make,
    "rephrase": rephrase.make,
}

# Share of the documents, not of the tokens: stories and tool calls are the longest. Most of the first documents practise
# nothing but copying and looking up, and give way to the others little by little.
_SHARES = {
    "story": 17,
    "passage": 17,
    "reading": 32,
    "drill": 5,
    "copy": 2,
    "tool": 9,
    "json": 14,
    "talk": 2,
    "rephrase": 2,
}
_FIRST_SHARES = {
    "story": 4,
    "passage": 4,
    "reading": 14,
    "drill": 24,
    "copy": 46,
    "tool": 2,
    "json": 4,
    "talk": 1,
    "rephrase": 1,
}
_FIRST_DOCUMENTS = 15_000

# Kinds whose makers can begin with easy texts.
_GRADED = ("reading", "drill")

# Kinds that can follow each other in one chat.
_JOINABLE = ("story", "passage", "json", "rephrase")
_ATTEMPTS = 1000


def document(seed: int, split: str, index: int, kind: str = "", long_share: float = 0.06) -> Document:
    """The document with this number: the same for the same arguments.

    ``split`` is ``train`` or ``valid``; only combinations of that side are used. ``long_share`` is the share of
    chats that go through several subjects and fill more of the context.
    """
    rng = random.Random(f"{seed}/{split}/{kind}/{index}")
    if not kind and rng.random() < long_share:
        return _long_chat(rng, split)
    first = split == "train" and rng.random() * _FIRST_DOCUMENTS > index
    shares = _FIRST_SHARES if first else _SHARES
    chosen = kind or rng.choices(list(shares), weights=list(shares.values()))[0]
    return _of_split(rng, chosen, split, easy=first)


def stream(seed: int, split: str, start: int = 0, **options) -> Iterator[Document]:
    """All documents from a number on, without end and without repetition."""
    seen: set[int] = set()
    index = start
    while True:
        made = document(seed, split, index, **options)
        index += 1
        fingerprint = hash(made.rendered())
        if fingerprint not in seen:
            seen.add(fingerprint)
            yield made


def _of_split(rng, kind: str, split: str, easy: bool = False) -> Document:
    options = {"easy": easy} if kind in _GRADED else {}
    for _ in range(_ATTEMPTS):
        made = MAKERS[kind](rng, **options)
        if made.belongs_to(split):
            return made
    raise RuntimeError(f"kind {kind!r}: no combination for split {split!r} in {_ATTEMPTS} attempts")


def _long_chat(rng, split: str) -> Document:
    """Several subjects in one chat, some of them with tools at hand that are not always needed."""
    tools = calls.offered(rng) if rng.random() < 0.5 else []
    messages = []
    combo: tuple[str, ...] = ("long",)
    for _ in range(rng.randint(2, 5)):
        kind = rng.choice(_JOINABLE + (("tool", "tool") if tools else ("talk",)))
        part = _of_split(rng, kind, split)
        if not part.messages:
            continue
        messages += [message for message in part.messages if message["role"] != "system"]
        combo += part.combo
    if not messages:
        return _long_chat(rng, split)
    return Document("long", combo, messages=messages, tools=tools)
