"""Turns the endless stream of documents into steps of training.

Every document starts at position 0 and is padded at its end, so causal attention never sees another document or the
padding and no mask is needed. Documents of similar length share a batch, which keeps the padding small. Batches have few
different shapes, because the matrix library makes its kernels anew for every shape that it has not seen lately.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from tokenizers import Tokenizer
from torch import Tensor

from corpus import mixture
from corpus.document import Document

_POOL_BATCHES = 32
_LENGTH_STEP = 32


@dataclass
class Batch:
    """Inputs, targets and loss weights, [batch, time] each; padding has weight 0."""

    ids: Tensor
    targets: Tensor
    weights: Tensor


@dataclass
class Encoded:
    """The ids of one document and the weight of each in the loss."""

    ids: list[int]
    weights: list[float]


def encode(tokenizer: Tokenizer, document: Document) -> Encoded:
    """Encodes the segments one by one; they begin at special tokens or after a line break, where pieces end anyway."""
    ids: list[int] = []
    weights: list[float] = []
    for text, weight in document.segments():
        part = tokenizer.encode(text, add_special_tokens=False).ids
        ids += part
        weights += [weight] * len(part)
    return Encoded(ids, weights)


def collate(documents: list[Encoded], device: torch.device, rows: int = 0, time: int = 0) -> Batch:
    """Pads at the end, at least to the given size, and shifts targets by one."""
    rows = max(rows, len(documents))
    time = max(time, max(len(document.ids) for document in documents) - 1)
    ids = torch.zeros(rows, time, dtype=torch.long)
    targets = torch.zeros_like(ids)
    weights = torch.zeros(rows, time)
    for row, document in enumerate(documents):
        count = len(document.ids) - 1
        ids[row, :count] = torch.tensor(document.ids[:-1])
        targets[row, :count] = torch.tensor(document.ids[1:])
        weights[row, :count] = torch.tensor(document.weights[1:])
    return Batch(ids.to(device), targets.to(device), weights.to(device))


def thinned(document: Encoded, rng: random.Random) -> Encoded:
    """Replaces a weight below 1 by the chance of weight 1: the same in the mean, with fewer logits to compute."""
    weights = [weight if weight >= 1.0 else float(rng.random() < weight) for weight in document.weights]
    return Encoded(document.ids, weights)


class Loader:
    """Batches of about ``tokens`` tokens each; ``position`` (a document number) is where a stopped run goes on."""

    def __init__(
        self, tokenizer: Tokenizer, seed: int, tokens: int, context: int, position: int = 0, long_share: float = 0.06
    ) -> None:
        self.tokenizer = tokenizer
        self.seed = seed
        self.tokens = tokens
        self.context = context
        self.position = position
        self.long_share = long_share

    def batches(self, device: torch.device) -> Iterator[Batch]:
        """Endless batches: a pool of documents is sorted by length, cut, and its batches are shuffled."""
        while True:
            groups = self._grouped(self._pool())
            random.Random(f"{self.seed}/{self.position}").shuffle(groups)
            for group in groups:
                time = _padded_length(group[0])
                yield collate(group, device, rows=self.tokens // time, time=time)

    def _pool(self) -> list[Encoded]:
        pool: list[Encoded] = []
        total = 0
        rng = random.Random(f"{self.seed}/thinning/{self.position}")
        stream = mixture.stream(self.seed, "train", self.position, long_share=self.long_share)
        while total < _POOL_BATCHES * self.tokens:
            document = thinned(encode(self.tokenizer, next(stream)), rng)
            self.position += 1
            if len(document.ids) <= self.context:
                pool.append(document)
                total += len(document.ids)
        return pool

    def _grouped(self, pool: list[Encoded]) -> list[list[Encoded]]:
        """The longest document decides how long the rows of a batch are, and with that how many there are."""
        pool = sorted(pool, key=lambda item: len(item.ids), reverse=True)
        groups: list[list[Encoded]] = []
        start = 0
        while start < len(pool):
            rows = self.tokens // _padded_length(pool[start])
            groups.append(pool[start : start + rows])
            start += rows
        return groups


def _padded_length(document: Encoded) -> int:
    inputs = len(document.ids) - 1
    return max(1, -(-inputs // _LENGTH_STEP)) * _LENGTH_STEP
