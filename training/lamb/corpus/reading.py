"""Practice in looking things up: many questions to one passage, and bare lists of which entries are asked for.

A question answered from a passage is one act of looking up in a hundred tokens, too seldom for the skill to be learnt
in a short training. Here there is one in every twenty to forty tokens. Only for training: what is evaluated are the
passages of ``passages.py``.
"""

from __future__ import annotations

from dataclasses import replace

from . import lexicon as words
from .document import Document, assistant, user
from .passages import MIXED, Fact, framed, make_facts, question_on

_ATTEMPTS_PER_QUESTION = 3

# More often than in passages, what is hard to tell apart: colours, numbers and places of several persons.
_SORTS = (("colour",), ("colour",), ("count",), ("count",), ("place",), ("place",), ("pet",), MIXED, MIXED)
_INVENTED_NAMES = 0.1

Combos = tuple[tuple[str, ...], ...]


def make(rng, easy: bool = False) -> Document:
    """A chat of up to eight questions on one passage; with few facts while that is still hard."""
    facts = _facts(rng, easy)
    passage = " ".join(fact.sentence(rng) for fact in facts)
    turns: list[dict] = []
    for index, (question, answer) in enumerate(_questions(rng, facts, rng.randint(4, 8))):
        turns += [user(framed(rng, passage, question) if index == 0 else question), assistant(answer)]
    combo, also = _combos(facts)
    return Document("reading", combo, also, messages=turns)


def make_drill(rng, easy: bool = False) -> Document:
    """Raw text: something to read, then cues, each followed by what it stands for."""
    if rng.random() < 0.5:
        return _list_drill(rng, easy)
    facts = _facts(rng, easy)
    given = " ".join(fact.sentence(rng) for fact in facts) + "\n\n"
    cues: list[tuple[str, str]] = []
    for question, answer in _questions(rng, facts, rng.randint(3, 7)):
        cues.append((given + question, f" {answer}\n"))
        given = ""
    combo, also = _combos(facts)
    return Document("drill", combo, also, cues=cues)


def _facts(rng, easy: bool) -> list[Fact]:
    if easy:
        return _renamed(rng, make_facts(rng, people=(2, 2, 3), each=(1,), sorts=_SORTS))
    return _renamed(rng, make_facts(rng, people=(2, 2, 3, 3, 4), each=(1, 1, 2), sorts=_SORTS))


def _renamed(rng, facts: list[Fact]) -> list[Fact]:
    """Some persons get a name that nobody has, so that names are read and not remembered."""
    names = {name: name for fact in facts for name in (fact.name, fact.other) if name}
    for name in names:
        if rng.random() < _INVENTED_NAMES:
            names[name] = words.invented_word(rng).capitalize()
    return [replace(fact, name=names[fact.name], other=names.get(fact.other, "")) for fact in facts]


def _combos(facts: list[Fact]) -> tuple[tuple[str, ...], Combos]:
    first, *rest = [("passage", fact.name, fact.noun) for fact in facts]
    return first, tuple(rest)


def _questions(rng, facts: list[Fact], count: int) -> list[tuple[str, str]]:
    """Different questions with their answers, every fact about as often as every other."""
    found: dict[str, str] = {}
    for _ in range(_ATTEMPTS_PER_QUESTION):
        for fact in rng.sample(facts, len(facts)):
            question, answer, _ = question_on(rng, fact, facts)
            found.setdefault(question, answer)
            if len(found) == count:
                return list(found.items())
    return list(found.items())


def make_copy(rng) -> Document:
    """Raw text: words in any order, then pieces of it again; only what follows from the text counts.

    Nothing but the skill of finding what followed a word before helps here, and nearly every word calls for it. Lists
    and sentences are learnt quickly once it is there, and hardly at all before.
    """
    given = rng.sample(_WORDS, rng.randint(8, 40))
    given = [words.invented_word(rng) if rng.random() < 0.1 else word for word in given]
    cues: list[tuple[str, str]] = []
    text = " ".join(given) + "."
    for _ in range(rng.randint(2, 5)):
        length = rng.randint(4, len(given)) if rng.random() < 0.7 else len(given)
        start = rng.randint(0, len(given) - length)
        piece = given[start : start + length]
        cues.append((f"{text}\n{piece[0]}", f" {' '.join(piece[1:])}.\n"))
        text = ""
    return Document("drill", ("copy", *given[:4]), cues=cues)


_LIST_LAYOUTS = (("{key}: {value}", "\n"), ("{key} - {value}", "\n"), ("{key}: {value}", ", "), ("{key} {value}", ". "))
_KEYS = (words.GIRLS + words.BOYS, words.OBJECTS, words.FOODS, words.ANIMALS, words.CITIES, list(words.PLACES))
_VALUES = (words.COLOURS, words.OBJECTS, words.HOBBIES, words.FOODS, words.ANIMALS, words.CITIES, words.GIRLS)


def _list_drill(rng, easy: bool) -> Document:
    """A list of pairs; then the first of some pairs as cue and the second to be said."""
    count = rng.randint(2, 4) if easy else rng.randint(3, 10)
    keys = rng.sample(rng.choice(_KEYS), count)
    values = [_value(rng) for _ in keys] if rng.random() < 0.3 else rng.sample(rng.choice(_VALUES), count)
    layout, separator = rng.choice(_LIST_LAYOUTS)
    entries = [layout.format(key=key, value=value) for key, value in zip(keys, values)]
    given = separator.join(entries) + ".\n\n"
    cues: list[tuple[str, str]] = []
    for index in rng.sample(range(count), count) + rng.choices(range(count), k=count // 2):
        cues.append((given + rng.choice(("{}?", "{}:")).format(keys[index]), f" {values[index]}\n"))
        given = ""
    return Document("drill", ("drill", *keys), cues=cues)


_WORDS = sorted({word for group in _KEYS + _VALUES for word in group} | set(words.TRAITS) | set(words.PEOPLE))


def _value(rng) -> str:
    return rng.choice((words.invented_word(rng), str(rng.randint(1, 99)), rng.choice(rng.choice(_VALUES))))
