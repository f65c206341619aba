"""Questions answered from a passage: colours, counts, places, who has what, and small sums.

A passage is a handful of facts about a few people. The answers use the words of the passage, so that reading is
practised and nothing has to be known.
"""

from __future__ import annotations

from dataclasses import dataclass

from . import lexicon as words
from .document import Document, assistant, say, user


@dataclass
class Fact:
    """One thing of one person: its colour, its place or how many there are of it."""

    sort: str
    name: str
    noun: str
    value: str
    other: str = ""

    def sentence(self, rng) -> str:
        """The fact as a sentence of the passage."""
        return say(rng, rng.choice(_SENTENCES[self.sort]), **self.slots())

    def slots(self) -> dict[str, str]:
        """What the wordings can refer to."""
        a_thing = (
            words.article(f"{self.value} {self.noun}") if self.sort == "colour" else words.article(self.noun or "thing")
        )
        count = words.amount(int(self.value), self.noun) if self.value.isdigit() else ""
        return {
            "name": self.name,
            "noun": self.noun,
            "value": self.value,
            "a_thing": a_thing,
            "count": count,
            "nouns": words.plural(self.noun),
            "other": self.other,
        }


_SENTENCES = {
    "colour": (
        "{name} has {a_thing}.",
        "{name} [owns|bought|found|got] {a_thing}.",
        "the {noun} of {name} is {value}.",
        "{name}'s {noun} is {value}.",
    ),
    "count": ("{name} has {count}.", "{name} [bought|picked|found|got] {count}.", "there are {count} in {name}'s bag."),
    "place": (
        "{name} is {value}.",
        "{name} [is sitting|is waiting|is playing] {value}.",
        "{name} went for a walk {value}.",
    ),
    "pet": (
        "{name} has {a_thing} called {value}.",
        "{name}'s {noun} is called {value}.",
        "the {noun} of {name} is called {value}.",
    ),
    "hobby": ("{name} likes {value}.", "{name} loves {value}.", "the hobby of {name} is {value}."),
    "age": ("{name} is {value} years old.", "{name} turned {value} this year."),
    "gift": ("{name} gave {a_thing} to {other}.", "{other} got {a_thing} from {name}."),
}

# Question, answer and the slot that makes the answer right.
_QUESTIONS: dict[str, tuple[tuple[str, str, str], ...]] = {
    "colour": (
        ("[what colour|which colour|what color] is {name}'s {noun}?", "{name}'s {noun} is {value}.", "value"),
        ("[what colour|which colour|what color] is the {noun} of {name}?", "{name}'s {noun} is {value}.", "value"),
        ("[what colour|what color] does the {noun} of {name} have?", "{name}'s {noun} is {value}.", "value"),
        ("what is the colour of {name}'s {noun}?", "{name}'s {noun} is {value}.", "value"),
        ("who has [a|the] {value} {noun}?", "{name} has the {value} {noun}.", "name"),
        ("whose {noun} is {value}?", "{name}'s {noun} is {value}.", "name"),
    ),
    "count": (
        ("how many {nouns} does {name} have?", "{name} has {count}.", "value"),
        ("how many {nouns} [are with|belong to] {name}?", "{name} has {count}.", "value"),
        ("who has {count}?", "{name} has {count}.", "name"),
        ("who has {nouns}?", "{name} has {nouns}.", "name"),
    ),
    "place": (
        ("where is {name}?", "{name} is {value}.", "value"),
        ("where [can I find|do I find] {name}?", "{name} is {value}.", "value"),
        ("who is {value}?", "{name} is {value}.", "name"),
    ),
    "pet": (
        ("what is the name of {name}'s {noun}?", "{name}'s {noun} is called {value}.", "value"),
        ("what is {name}'s {noun} called?", "{name}'s {noun} is called {value}.", "value"),
        ("who has a {noun} called {value}?", "{name} has a {noun} called {value}.", "name"),
        ("whose {noun} is called {value}?", "{name}'s {noun} is called {value}.", "name"),
    ),
    "hobby": (
        ("what does {name} [like|like to do|love]?", "{name} likes {value}.", "value"),
        ("what is {name}'s hobby?", "{name} likes {value}.", "value"),
        ("who [likes|loves] {value}?", "{name} likes {value}.", "name"),
    ),
    "age": (
        ("how old is {name}?", "{name} is {value} years old.", "value"),
        ("who is {value} years old?", "{name} is {value} years old.", "name"),
    ),
    "gift": (
        ("who gave {other} the {noun}?", "{name} gave {other} the {noun}.", "name"),
        ("who got the {noun}?", "{other} got the {noun}.", "other"),
        ("what did {name} give to {other}?", "{name} gave {other} {a_noun}.", "noun"),
        ("who has the {noun} now?", "{other} has the {noun} now.", "other"),
    ),
}

_FRAMES = (
    "{passage} {question}",
    "{passage}\n\n{question}",
    "{passage}\n{question}",
    "Passage: {passage}\nQuestion: {question}",
    "[Read this|Here is a text|Read the text]: {passage}\n\n{question}",
    "{question}\n\n{passage}",
    "[Text|Story]: {passage}\n[Answer this|Now tell me]: {question}",
    "[Answer from the text|Answer the question]. {passage} {question}",
)


def make(rng) -> Document:
    """A passage with one to four questions, or one to three sums."""
    if rng.random() < 0.35:
        return _sums(rng)
    facts = make_facts(rng)
    passage = " ".join(fact.sentence(rng) for fact in facts)
    asked = rng.sample(facts, min(len(facts), rng.choice((1, 2, 3, 3, 4))))
    turns: list[dict] = []
    judged: dict = {}
    for index, fact in enumerate(asked):
        question, answer, judged = question_on(rng, fact, facts)
        turns += [user(framed(rng, passage, question) if index == 0 else question), assistant(answer)]
    return Document("passage", ("passage", facts[0].name, facts[0].noun), messages=turns, facts=judged)


MIXED = tuple(_SENTENCES)
_SORTS = (("colour",), ("colour",), ("count",), ("pet",), ("place",), MIXED, MIXED)


def make_facts(
    rng,
    people: tuple[int, ...] = (2, 2, 2, 3),
    each: tuple[int, ...] = (1, 1, 2),
    sorts: tuple[tuple[str, ...], ...] = _SORTS,
) -> list[Fact]:
    """Facts of one sort about several people (to be told apart) or of several sorts.

    ``people`` are the choices for the number of people, ``each`` those for the number of facts about one of them,
    ``sorts`` those for the sorts that occur.
    """
    names = [name for name, _ in words.people(rng, rng.choice(people))]
    shared = rng.choice(words.OBJECTS)
    chosen = rng.choice(sorts)
    facts: dict[tuple[str, str, str], Fact] = {}
    for name in names:
        for _ in range(rng.choice(each)):
            fact = _fact(rng, rng.choice(chosen), name, names, shared)
            if not any(
                other.sort == fact.sort
                and (
                    other.value == fact.value
                    or (other.noun == fact.noun and other.name == name)
                    or (fact.sort in ("place", "age", "hobby") and other.name == name)
                )
                for other in facts.values()
            ):
                facts[fact.sort, fact.name, fact.noun] = fact
    if not facts:
        return make_facts(rng, people, each, sorts)
    mixed = list(facts.values())
    rng.shuffle(mixed)
    return _unambiguous(mixed)


def _fact(rng, sort: str, name: str, names: list[str], shared: str) -> Fact:
    thing = shared if rng.random() < 0.4 else rng.choice(words.OBJECTS)
    if sort == "colour":
        return Fact(sort, name, thing, rng.choice(words.COLOURS))
    if sort == "count":
        return Fact(sort, name, rng.choice(words.FOODS + words.OBJECTS), str(rng.randint(2, 12)))
    if sort == "place":
        place = rng.choice(list(words.PLACES))
        return Fact(sort, name, "", f"{words.PLACES[place]} the {place}")
    if sort == "pet":
        pet = (
            words.invented_word(rng).capitalize()
            if rng.random() < 0.08
            else rng.choice(("Bella", "Rex", "Coco", "Luna", "Max", "Mimi", "Bobo", "Fluffy", "Spot", "Toby"))
        )
        return Fact(sort, name, rng.choice("dog cat pony rabbit hamster parrot goat".split()), pet)
    if sort == "hobby":
        return Fact(sort, name, "", rng.choice(words.HOBBIES))
    if sort == "age":
        return Fact(sort, name, "", str(rng.randint(3, 90)))
    other = rng.choice([candidate for candidate in names if candidate != name])
    return Fact("gift", name, rng.choice(words.OBJECTS), "", other)


def _unambiguous(facts: list[Fact]) -> list[Fact]:
    """Drops gifts of a thing that occurs elsewhere too, so that every question has one answer."""
    nouns = [fact.noun for fact in facts if fact.noun]
    pairs = [(fact.name, fact.other) for fact in facts]
    return [
        fact
        for fact in facts
        if fact.sort != "gift" or (nouns.count(fact.noun) == 1 and pairs.count((fact.name, fact.other)) == 1)
    ] or facts[:1]


def question_on(rng, fact: Fact, facts: list[Fact]) -> tuple[str, str, dict]:
    """A question on a fact, its answer, and what a judge must and must not find in an answer."""
    same = [other for other in facts if other is not fact and other.sort == fact.sort and other.noun == fact.noun]
    choices = list(_QUESTIONS[fact.sort])
    if fact.sort == "count" and same:
        choices = [choice for choice in choices if choice[0] != "who has {nouns}?"]
    wording, answer, key = rng.choice(choices)
    slots = fact.slots() | {"a_noun": words.article(fact.noun) if fact.noun else ""}
    wrong = {other.slots()[key] for other in facts} | ({fact.name, fact.other} if key in ("name", "other") else set())
    keep = {slots[key]} | {value for name, value in slots.items() if name != key and "{" + name + "}" in answer}
    judged = {"right": slots[key], "wrong": sorted(w for w in wrong - keep if w)}
    return say(rng, wording, **slots), say(rng, answer, **slots), judged


def framed(rng, passage: str, question: str) -> str:
    """A passage and a question in one request."""
    return say(rng, rng.choice(_FRAMES), passage=passage, question=question)


_SUMS = (
    (
        "{name} has {count}. {other} gives {him} {more} more.",
        "how many {nouns} does {name} have [now|then]?",
        "+",
        "{a} plus {b} is {c}. {name} has {total} now.",
    ),
    (
        "{name} has {count}. {He} [finds|buys|gets|picks] {more} more.",
        "how many {nouns} does {name} have [now|in the end|altogether]?",
        "+",
        "{a} plus {b} is {c}. {name} has {total} now.",
    ),
    (
        "{name} has {count}. {He} [eats|loses|gives away|sells] {more}.",
        "how many {nouns} [are left|does {name} have now|does {name} still have]?",
        "-",
        "{a} minus {b} is {c}. {name} has {total} left.",
    ),
    (
        "{name} has {count}. {He} gives {more} to {other}.",
        "how many {nouns} [are left|does {name} have now|does {name} still have]?",
        "-",
        "{a} minus {b} is {c}. {name} has {total} left.",
    ),
    (
        "{name} has {count}. {other} has {more_nouns}.",
        "how many {nouns} do they have [together|in all|altogether]?",
        "+",
        "{a} plus {b} is {c}. They have {total} together.",
    ),
    (
        "{name} has {count} and {other} has {more_nouns}.",
        "how many {nouns} do {name} and {other} have [together|in all|altogether]?",
        "+",
        "{a} plus {b} is {c}. They have {total} together.",
    ),
)


def _sums(rng) -> Document:
    """A chat of one to three sums that have nothing to do with each other."""
    turns: list[dict] = []
    judged: dict = {}
    combos: list[tuple[str, ...]] = []
    for _ in range(rng.choice((1, 2, 3))):
        question, answer, judged, used = _sum(rng)
        turns += [user(question), assistant(answer)]
        combos.append(("passage", *used))
    return Document("passage", combos[-1], tuple(combos[:-1]), messages=turns, facts=judged)


def _sum(rng) -> tuple[str, str, dict, tuple[str, str]]:
    """A small sum told as a story; the answer names the sum first and then the result."""
    (name, pronouns), (other, _), (third, _) = words.people(rng, 3)
    noun = rng.choice(words.FOODS + words.OBJECTS)
    story, question, sign, answer = rng.choice(_SUMS)
    a, b = rng.randint(1, 10), rng.randint(1, 9)
    if sign == "-":
        a, b = max(a, b) + 1, min(a, b)
    total = a + b if sign == "+" else a - b
    slots = {
        "name": name,
        "other": other,
        "him": pronouns.him,
        "He": pronouns.he.capitalize(),
        "a": str(a),
        "b": str(b),
        "c": str(total),
        "count": words.amount(a, noun),
        "more": str(b),
        "more_nouns": words.amount(b, noun),
        "nouns": words.plural(noun),
        "total": words.amount(total, noun),
    }
    passage = say(rng, story, **slots)
    if rng.random() < 0.3:
        extra = _fact(rng, rng.choice(("colour", "hobby", "place")), third, [name, third], "hat").sentence(rng)
        passage = rng.choice((f"{extra} {passage}", f"{passage} {extra}"))
    judged = {"right": words.amount(total, noun), "wrong": []}
    return framed(rng, passage, say(rng, question, **slots)), say(rng, answer, **slots), judged, (name, noun)
