"""The same facts in other words, as a request in a chat or as raw text."""

from __future__ import annotations

from . import lexicon as words
from .document import Document, assistant, say, user

# Each row: wordings of one fact. Any of them can be said for any other.
_WAYS: tuple[tuple[str, ...], ...] = (
    ("{name} gave {thing} to {other}.", "{other} got {thing} from {name}.", "{name} gave {other} {thing}."),
    ("{name} sold {thing} to {other}.", "{other} bought {thing} from {name}."),
    ("{name} is older than {other}.", "{other} is younger than {name}."),
    ("{name} is taller than {other}.", "{other} is smaller than {name}."),
    ("{name} is faster than {other}.", "{other} is slower than {name}."),
    ("{name} arrived before {other}.", "{other} arrived after {name}."),
    ("{name} has {thing}.", "{thing} belongs to {name}.", "{name} owns {thing}."),
    ("{name} lives {at}.", "the home of {name} is {at}.", "{name} has a house {at}."),
    ("{name} likes {hobby}.", "{hobby} is fun for {name}.", "{name} enjoys {hobby}."),
    (
        "{name} lost {thing} {at}, so {he} was sad.",
        "{name} was sad, because {he} lost {thing} {at}.",
        "{at}, {name} lost {thing}. That made {him} sad.",
    ),
    (
        "{name} found {thing} {at}, so {he} was happy.",
        "{name} was happy, because {he} found {thing} {at}.",
        "{at}, {name} found {thing}. That made {him} happy.",
    ),
    (
        "{name} was tired, so {he} went to bed.",
        "{name} went to bed, because {he} was tired.",
        "since {he} was tired, {name} went to bed.",
    ),
    ("{name} was hungry, so {he} ate {food}.", "{name} ate {food}, because {he} was hungry."),
    (
        "it was raining, so {name} took an umbrella to {place}.",
        "{name} took an umbrella to {place}, because it was raining.",
        "because of the rain, {name} took an umbrella to {place}.",
    ),
    ("{name} and {other} are friends.", "{name} is a friend of {other}.", "{other} has a friend called {name}."),
    ("{name} teaches {other} {hobby}.", "{other} learns {hobby} from {name}."),
    ("{name} is not awake.", "{name} is asleep."),
    ("the {noun} of {name} is {colour}.", "{name}'s {noun} is {colour}.", "{name} has a {colour} {noun}."),
    ("{name} helped {other} {at}.", "{other} was helped by {name} {at}.", "{at}, {name} gave {other} a hand."),
    ("{name} sees {other} {at}.", "{other} is seen by {name} {at}."),
)

_REQUESTS = (
    "[Say this in other words|Say it in other words|Say the same in other words|Rephrase this|Rephrase|Put this another way|Write this in other words|Say this differently]: {text}",
    "{text}\n\n[Say this in other words.|Rephrase this.|Write the same with other words.|Say it differently.]",
    "[How else can I say this?|How can I say this in other words?|What is another way to say this?] {text}",
    '[Please rephrase|Can you rephrase|Please say in other words]: "{text}"',
)


def make(rng) -> Document:
    """One to three facts, each in two wordings."""
    (name, pronouns), (other, _) = words.people(rng, 2)
    firsts, seconds = [], []
    place = rng.choice(list(words.PLACES))
    noun = rng.choice(words.OBJECTS)
    slots = {
        "name": name,
        "other": other,
        "he": pronouns.he,
        "him": pronouns.him,
        "noun": noun,
        "colour": rng.choice(words.COLOURS),
        "place": f"the {place}",
        "at": f"{words.PLACES[place]} the {place}",
        "hobby": rng.choice(words.HOBBIES),
        "food": words.article(rng.choice(words.FOODS)),
        "thing": rng.choice((words.article(noun), f"the {noun}", words.article(f"{rng.choice(words.COLOURS)} {noun}"))),
    }
    for ways in rng.sample(_WAYS, rng.choice((1, 1, 1, 2, 3))):
        first, second = rng.sample(ways, 2)
        firsts.append(say(rng, first, **slots))
        seconds.append(say(rng, second, **slots))
    return _document(rng, ("rephrase", name, other), " ".join(firsts), " ".join(seconds))


def _document(rng, combo: tuple[str, ...], first: str, second: str) -> Document:
    if rng.random() < 0.15:
        joint = rng.choice((" In other words: ", " That means: ", "\n\nIn other words: "))
        return Document("rephrase-raw", combo, text=first + joint + second)
    return Document("rephrase", combo, messages=[user(say(rng, rng.choice(_REQUESTS), text=first)), assistant(second)])
