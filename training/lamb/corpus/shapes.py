"""JSON objects that follow a described shape, filled from facts told in the prompt."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from . import lexicon as words
from .document import Document, assistant, say, user

Value = tuple[Any, tuple[str, ...]]


def _number_field(low: int, high: int, *wordings: str) -> Callable[[Any], Value]:
    return lambda rng: (rng.randint(low, high), wordings)


def _word_field(choices: list[str], *wordings: str) -> Callable[[Any], Value]:
    return lambda rng: (rng.choice(choices), wordings)


def _truth_field(yes: str, no: str) -> Callable[[Any], Value]:
    def make_truth(rng) -> Value:
        truth = rng.random() < 0.5
        return truth, (yes if truth else no,)

    return make_truth


def _list_field(choices: list[str], *wordings: str) -> Callable[[Any], Value]:
    return lambda rng: (rng.sample(choices, rng.choice((1, 2, 2, 3))), wordings)


_FOODS = [words.plural(food) for food in words.FOODS]

# Name of the field -> maker of its value and of the wordings that tell it; {v} is the value.
_FIELDS: dict[str, Callable[[Any], Value]] = {
    "age": _number_field(3, 90, "{name} is {v} years old.", "{name} turned {v} this year."),
    "size": _number_field(40, 200, "{name} is {v} centimetres tall.", "the size of {name} is {v}."),
    "friends": _number_field(
        1,
        30,
        "{name} has {v} friends.",
    ),
    "score": _number_field(0, 100, "{name} has a score of {v}.", "{name} got {v} points."),
    "city": _word_field(words.CITIES, "{name} lives in {v}.", "{name} comes from {v}.", "the home of {name} is {v}."),
    "job": _word_field(words.PEOPLE[2:20], "{name} is a {v}.", "{name} works as a {v}."),
    "pet": _word_field(
        "dog cat pony rabbit hamster parrot goat".split(), "{name} has a {v}.", "the pet of {name} is a {v}."
    ),
    "colour": _word_field(
        words.COLOURS,
        "{name}'s favourite colour is {v}.",
        "{name} likes the colour {v}.",
        "the colour {name} likes best is {v}.",
    ),
    "hobby": _word_field(words.HOBBIES, "{name} likes {v}.", "{name}'s hobby is {v}.", "{name} loves {v}."),
    "day": _word_field(words.WEEKDAYS, "{name} comes on {v}.", "the day of {name} is {v}."),
    "object": _word_field(words.OBJECTS, "{name} owns a {v}.", "{name} carries a {v}."),
    "happy": _truth_field("{name} is happy.", "{name} is not happy."),
    "hungry": _truth_field("{name} is hungry.", "{name} is not hungry."),
    "can_swim": _truth_field("{name} can swim.", "{name} can not swim."),
    "student": _truth_field("{name} is a student.", "{name} is not a student."),
    "foods": _list_field(_FOODS, "{name} eats {v}.", "{name} likes to eat {v}."),
    "colours": _list_field(words.COLOURS, "the colours of {name} are {v}.", "{name} paints with {v}."),
    "items": _list_field(
        words.OBJECTS, "in the bag of {name} there are these things: {v}.", "{name} has these things: {v}."
    ),
}

_TYPE_WORDS = {
    str: ("string", "string", "text"),
    bool: ("boolean", "boolean", "true or false"),
    int: ("number", "number", "integer"),
    list: ("list of strings", "list of strings", "array of strings", "list"),
}

_REQUESTS = (
    "{facts} [Write|Give me|Make|Return] a JSON object with {shape}.",
    "[Write|Make|Give me|Return] a JSON object with {shape}. {facts}",
    "{facts}\n\n[Turn this into|Write this as|Put this into|Answer with] JSON with {shape}.",
    "[Fill|Give|Write] JSON with {shape}.\n\n{facts}",
    "Text: {facts}\nShape: {bare}\nJSON:",
    "Shape: {bare}\n{facts}",
    "{facts} [Answer as|Write] JSON of the shape {bare}[.|]",
    "[Extract|Read out] {shape} as JSON: {facts}",
)


def make(rng) -> Document:
    """One to three requests, each with facts and a shape, and their objects; the facts are those of the last."""
    parts = [_of_a_thing(rng) if rng.random() < 0.12 else _of_a_person(rng) for _ in range(rng.choice((1, 2, 2, 3)))]
    last = parts[-1]
    messages = [message for part in parts for message in part.messages]
    return Document("json", last.combo, tuple(part.combo for part in parts[:-1]), messages=messages, facts=last.facts)


def _of_a_person(rng) -> Document:
    """An object about a person, with the name or without."""
    name, _ = words.person(rng)
    chosen = rng.sample(list(_FIELDS), rng.choice((1, 2, 2, 3)))
    result: dict[str, Any] = {}
    sentences: list[str] = []
    for field in chosen:
        value, wordings = _FIELDS[field](rng)
        result[field] = value
        sentences.append(_told(rng, name, value, rng.choice(wordings)))
    if rng.random() < 0.1 and len(sentences) > 1:
        rng.shuffle(sentences)
    fields = (["name"] if rng.random() < 0.8 else []) + chosen
    if rng.random() < 0.1:
        rng.shuffle(fields)
    answer = {field: name if field == "name" else result[field] for field in fields}
    return _document(rng, answer, sentences, (name, *sorted(chosen)))


# Fields of things, with any word or number as value.
_THING_FIELDS = """speed weight height price colour kind shape state owner place taste smell sound number width length year page
month title author level power material name code season brand team winner goal rank flavour""".split()
_THING_WORDS = words.TRAITS + words.COLOURS + words.OBJECTS + words.ANIMALS + words.SKIES


def _of_a_thing(rng) -> Document:
    """An object about a thing: field names of all sorts, values that have to be copied."""
    thing = rng.choice(words.OBJECTS + words.ANIMALS + list(words.PLACES))
    fields = rng.sample(_THING_FIELDS, rng.choice((1, 2, 2, 3)))
    answer: dict[str, Any] = {}
    sentences = []
    for field in fields:
        value = (
            rng.randint(1, 99)
            if rng.random() < 0.4
            else rng.choice((words.invented_word(rng), *rng.choices(_THING_WORDS, k=15)))
        )
        answer[field] = value
        sentences.append(
            say(
                rng,
                rng.choice(("the {f} of the {t} is {v}.", "the {f} is {v}.", "the {t} has the {f} {v}.", "{f}: {v}.")),
                f=field,
                t=thing,
                v=str(value),
            )
        )
    return _document(rng, answer, sentences, (thing, *fields))


def _document(rng, answer: dict[str, Any], sentences: list[str], combo: tuple[str, ...]) -> Document:
    request = _request(rng, answer, " ".join(sentences))
    facts = {"types": {field: type(value).__name__ for field, value in answer.items()}, "value": answer}
    messages = [user(request), assistant(json.dumps(answer))]
    return Document("json", ("json", *combo), messages=messages, facts=facts)


def _told(rng, name: str, value: Any, wording: str) -> str:
    said = value if isinstance(value, str) else _listed(value) if isinstance(value, list) else str(value)
    if isinstance(value, str) and value[0] in "aeiou":
        wording = wording.replace("a {v}", "an {v}")
    return say(rng, wording, name=name, v=said)


def _listed(names: list[str]) -> str:
    return names[0] if len(names) == 1 else ", ".join(names[:-1]) + " and " + names[-1]


def _request(rng, answer: dict[str, Any], facts: str) -> str:
    kinds = {field: rng.choice(_TYPE_WORDS[type(value)]) for field, value in answer.items()}
    style = rng.choice(("{f} ({t})", "{f} ({t})", '"{f}" ({t})', "{f}: {t}", "{f}"))
    shape = _listed([style.format(f=field, t=kind) for field, kind in kinds.items()])
    opening = (
        rng.choice(("the fields ", "the keys ", "these fields: ", ""))
        if len(answer) > 1
        else rng.choice(("the field ", "the key ", ""))
    )
    bare = "{" + ", ".join(f'"{field}": {kind}' for field, kind in kinds.items()) + "}"
    return say(rng, rng.choice(_REQUESTS), facts=facts, shape=opening + shape, bare=bare)
