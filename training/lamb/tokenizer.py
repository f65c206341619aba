"""Trains the byte-level BPE tokenizer of woolly-lamb on the generated corpus.

The pre-tokenizer is the one that GGUF files call "starcoder": every digit by itself, then the GPT-2 expression. Digits
by themselves make numbers easy to copy, and punctuation never sticks to a word, so that a word is the same token in
prose and in JSON up to the leading space.
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, trainers

from corpus import document, mixture

VOCABULARY = 3072
PRE_TOKENIZER = "starcoder"
_TRAINING_DOCUMENTS = 60_000

# Control tokens end up in no text; the marks of a tool call are part of what the user of an interface sees.
CONTROL = (document.END_OF_TEXT, document.TURN_START, document.TURN_END)
MARKS = (document.CALL_START, document.CALL_END)
_SPECIAL = re.compile("|".join(re.escape(token) for token in CONTROL + MARKS))


def untrained() -> Tokenizer:
    """An empty tokenizer with the right splitting; no normalisation, as in the GGUF table."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(r"\p{N}"), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    return tokenizer


def train(seed: int, vocabulary: int = VOCABULARY, documents: int = _TRAINING_DOCUMENTS) -> Tokenizer:
    """Learns the merges; the special tokens get the first ids."""
    tokenizer = untrained()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        special_tokens=list(CONTROL + MARKS),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(_pieces(seed, documents), trainer)
    # Tokens that were special to the trainer are re-declared: the marks are ordinary, visible tokens.
    tokenizer.add_tokens([AddedToken(mark, special=False, normalized=False) for mark in MARKS])
    return tokenizer


def _pieces(seed: int, documents: int) -> Iterator[str]:
    for made in islice(mixture.stream(seed, "train"), documents):
        yield from (piece for piece in _SPECIAL.split(made.rendered()) if piece)


def main() -> None:
    """Command line: trains and writes tokenizer.json."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("output", type=Path)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--vocabulary", type=int, default=VOCABULARY)
    arguments = parser.parse_args()
    arguments.output.parent.mkdir(parents=True, exist_ok=True)
    train(arguments.seed, arguments.vocabulary).save(str(arguments.output))


if __name__ == "__main__":
    main()
