"""Answers one prompt with a GGUF file through transformers, greedily: for a quick look without Woolly."""

from __future__ import annotations

import argparse
from pathlib import Path

from corpus.document import prompt_text, user
from evaluate import transformers_completer


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", type=Path)
    parser.add_argument("prompts", nargs="+")
    parser.add_argument("--raw", action="store_true", help="continue the text itself; no chat template")
    parser.add_argument("--limit", type=int, default=300)
    arguments = parser.parse_args()
    texts = [text if arguments.raw else prompt_text([user(text)], []) for text in arguments.prompts]
    for prompt, answer in zip(arguments.prompts, transformers_completer(arguments.model)(texts, arguments.limit)):
        print(f"> {prompt}\n{answer}\n")


if __name__ == "__main__":
    main()
