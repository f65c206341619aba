"""Decides whether an answer of the model is right. Standard library only; nothing here runs a model."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from typing import Any

from corpus.document import CALL_END, CALL_START, Document

_SPAN = 20
_REPETITIONS = 3


def mentions(text: str, phrase: str) -> bool:
    """Whether a phrase occurs in a text as whole words, in any case."""
    return re.search(rf"(?<!\w){re.escape(phrase)}(?!\w)", text, re.IGNORECASE) is not None


def story_right(answer: str, document: Document) -> bool:
    """The story contains the given hero and the given place."""
    return mentions(answer, document.facts["hero"]) and mentions(answer, document.facts["place"])


def passage_right(answer: str, document: Document) -> bool:
    """The answer contains what is asked for and nothing that would be the answer to another question."""
    wrong = any(mentions(answer, value) for value in document.facts["wrong"])
    return mentions(answer, document.facts["right"]) and not wrong


def tool_right(answer: str, document: Document) -> bool:
    """The answer is one call in valid JSON, of the right tool with the right arguments."""
    text = answer.strip()
    if not (text.startswith(CALL_START) and text.endswith(CALL_END)):
        return False
    call = _parsed(text[len(CALL_START) : -len(CALL_END)])
    return call == {"name": document.facts["tool"], "arguments": document.facts["arguments"]}


def shape_followed(answer: str, document: Document) -> bool:
    """The answer is a JSON object with exactly the fields asked for, each of the right type."""
    value = _parsed(answer)
    if not isinstance(value, dict):
        return False
    return {field: type(item).__name__ for field, item in value.items()} == document.facts["types"]


def values_right(answer: str, document: Document) -> bool:
    """The JSON object also holds the right values."""
    return _parsed(answer) == document.facts["value"]


def loops(ids: Sequence[int], span: int = _SPAN, repetitions: int = _REPETITIONS) -> bool:
    """Whether any run of ``span`` tokens occurs ``repetitions`` times."""
    counts: dict[tuple[int, ...], int] = {}
    for start in range(len(ids) - span + 1):
        window = tuple(ids[start : start + span])
        counts[window] = counts.get(window, 0) + 1
    return max(counts.values(), default=0) >= repetitions


def _parsed(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return None


# Kind of document -> what is measured on it.
MEASURES: dict[str, dict[str, Callable[[str, Document], bool]]] = {
    "story": {"contain the given hero and place": story_right},
    "passage": {"answered right": passage_right},
    "tool": {"valid call, right tool and arguments": tool_right},
    "json": {"shape followed": shape_followed, "values right": values_right},
}
