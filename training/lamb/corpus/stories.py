"""Stories from a given hero, place, object and mood, as answers in a chat and as raw text.

The plots and their wordings are in ``plots.py``.
"""

from __future__ import annotations

from dataclasses import dataclass

from . import lexicon as words
from .document import Document, assistant, say, user
from .plots import CLOSINGS, OPENINGS, PLOTS, SCENES, Plot

_HEROES = words.ANIMALS + words.PEOPLE
_PLACES = list(words.PLACES)
_FEMALE = set("girl queen princess witch mermaid grandmother nurse hen goose cow fairy".split())
_MALE = set("boy king prince wizard fisherman grandfather postman".split())
_OBJECTS = sorted(set(words.OBJECTS) | {name for plot in PLOTS for name in plot.objects})


@dataclass
class Wish:
    """What a story is to be about; ``asked`` names the parts that the prompt mentions."""

    hero: str
    place: str
    thing: str
    mood: str
    name: str
    pronouns: words.Pronouns
    asked: frozenset[str]


def make(rng) -> Document:
    """One story, as a chat (three in four) or as raw text."""
    wish = _wish(rng)
    story = tell(rng, wish)
    combo = ("story", wish.hero, wish.place)
    facts = {"asked": wish.asked, "hero": wish.name if "name" in wish.asked else wish.hero, "place": wish.place}
    if rng.random() < 0.25:
        return Document("story-raw", combo, text=story, facts=facts)
    return Document("story", combo, messages=[user(ask(rng, wish)), assistant(story)], facts=facts)


def _wish(rng) -> Wish:
    hero = words.invented_word(rng) if rng.random() < 0.02 else rng.choice(_HEROES)
    place = words.invented_word(rng) if rng.random() < 0.02 else rng.choice(_PLACES)
    pronouns = words.SHE if hero in _FEMALE or (hero not in _MALE and rng.random() < 0.5) else words.HE
    name = ""
    if rng.random() < 0.3:
        name = rng.choice(words.GIRLS if pronouns is words.SHE else words.BOYS)
        name = words.invented_word(rng).capitalize() if rng.random() < 0.1 else name
    given = rng.choices((("hero", "place"), ("hero",), ("place",), ()), weights=(76, 12, 4, 8))[0]
    asked = set(given)
    for part, chance in (
        ("thing", 0.4 if given else 0),
        ("mood", 0.35),
        ("name", 0.6 if name and "hero" in given else 0),
    ):
        if rng.random() < chance:
            asked.add(part)
    mood = (
        rng.choice(list(words.MOODS)) if "mood" in asked else rng.choice(("happy", "happy", "brave", "calm", "funny"))
    )
    thing = rng.choice(_OBJECTS)
    return Wish(hero, place, thing, mood, name, pronouns, frozenset(asked))


def tell(rng, wish: Wish) -> str:
    """The story itself: opening, scene, the beats of a plot, an ending and sometimes a lesson."""
    plot = _plot(rng, wish)
    slots = _slots(rng, wish)
    sentences = [say(rng, rng.choice(OPENINGS), **slots)]
    if wish.mood != "happy" or "mood" in wish.asked or rng.random() < 0.5:
        sentences.append(say(rng, rng.choice(SCENES[wish.mood]), **slots))
    sentences += _beats(rng, plot, slots)
    sentences.append(say(rng, rng.choice(CLOSINGS[wish.mood]), **slots))
    if rng.random() < 0.3:
        sentences.append(say(rng, rng.choice(plot.lessons), **slots))
    elif rng.random() < 0.2:
        sentences.append("The end.")
    return _laid_out(rng, sentences)


def _plot(rng, wish: Wish) -> Plot:
    return rng.choice([plot for plot in PLOTS if not plot.objects or wish.thing in plot.objects])


def _beats(rng, plot: Plot, slots: dict[str, str]) -> list[str]:
    """The beats in order; the first mention of the friend introduces it."""
    wordings: list[str] = []
    introduced = False
    for choices in plot.beats:
        wording = rng.choice(choices)
        if not introduced and "{a_friend}" not in wording:
            wording = wording.replace("{friend}", "{a_friend}", 1)
        introduced = introduced or "{a_friend}" in wording
        wordings.append(wording)
    return [say(rng, wording, **slots) for wording in _known(wordings)]


def _known(wordings: list[str]) -> list[str]:
    """Turns every introduction of the friend or the object but the first into a plain mention."""
    known: list[str] = []
    seen: set[str] = set()
    for wording in wordings:
        for introduced, plain in (("{a_friend}", "{friend}"), ("{an_obj}", "the {obj}")):
            if introduced in seen:
                wording = wording.replace(introduced, plain)
            elif introduced in wording:
                seen.add(introduced)
        if "{obj}" in wording:
            seen.add("{an_obj}")
        known.append(wording)
    return known


def _slots(rng, wish: Wish) -> dict[str, str]:
    friend = rng.choice([name for name in _HEROES if name != wish.hero])
    friend_pronouns = words.SHE if friend in _FEMALE or (friend not in _MALE and rng.random() < 0.5) else words.HE
    trait = rng.choice(words.TRAITS) + " " if rng.random() < 0.6 else ""
    look = rng.choice(words.OBJECT_LOOKS + words.COLOURS) + " " if rng.random() < 0.6 else ""
    friend_trait = rng.choice(words.TRAITS) + " " if rng.random() < 0.5 else ""
    preposition = words.PLACES.get(wish.place, "near")
    return {
        "hero": wish.name or f"the {wish.hero}",
        "a_hero": _introduced(rng, trait + wish.hero, wish.name),
        "friend": f"the {friend}",
        "a_friend": words.article(friend_trait + friend),
        "place": f"the {wish.place}",
        "at": f"{preposition} the {wish.place}",
        "obj": wish.thing,
        "an_obj": words.article(look + wish.thing),
        "he": wish.pronouns.he,
        "him": wish.pronouns.him,
        "his": wish.pronouns.his,
        "his_own": "hers" if wish.pronouns is words.SHE else "his",
        "fhe": friend_pronouns.he,
        "fhim": friend_pronouns.him,
        "fhis": friend_pronouns.his,
    }


def _introduced(rng, phrase: str, name: str) -> str:
    return words.article(phrase) + (f" {rng.choice(('named', 'called'))} {name}" if name else "")


def _laid_out(rng, sentences: list[str]) -> str:
    """One paragraph, or two or three."""
    if rng.random() < 0.6:
        return " ".join(sentences)
    third = max(2, len(sentences) // 3)
    return "\n\n".join(" ".join(sentences[start : start + third + 1]) for start in range(0, len(sentences), third + 1))


_TELL = (
    "[Tell me|Tell me|Write|Write me|Make up|Please tell me|Please write|Can you tell me|Could you write|I want|I would like"
    "|I want to hear|Give me|Tell us|Create|Let me hear|Can you make up|Invent]"
)

# Wordings by the parts that are asked for.
_REQUESTS: dict[frozenset[str], tuple[str, ...]] = {
    frozenset({"hero", "place"}): (
        _TELL + " {a_story} about {who} {where}{with_it}{mark}",
        _TELL + " {a_story} about {who} and {a_place}{with_it}{mark}",
        _TELL + " {a_story} [where|in which] {who} [goes to|visits|comes to|lives near] {a_place}{with_thing}{mark}",
        _TELL + " {a_story} about {who} who [lives|is|walks|gets lost|plays] {where}{and_has}{mark}",
        "{a_story} about {who} {where}{with_it}[|, please].",
        "{a_story} about {who} and {a_place}{and_it}[|, please].",
        "{a_story}: {who}, {a_place}{and_it}.",
        "{who}, {a_place}{and_it}: [tell a story|make a story of it|write a story][.|!]",
        "[Tell|Write] {a_story} [with|that has] {who}, {a_place}{and_it} in it.",
        "[Tell me|Write|Please write] {a_story}. [The hero is|It is about|It should be about] {who}, and it [happens|takes place] {where}.{it_too}",
        "Hero: {who}. Place: {a_place}.{it_line}{mood_line} [Write|Tell] the story.",
        "[Once more a story|Another story], please: {who} {where}{with_it}.",
        "What happened to {who} {where}{with_it}?",
        "[Do you know|Have you got] {a_story} about {who} and {a_place}{and_it}?",
    ),
    frozenset({"hero"}): (
        _TELL + " {a_story} about {who}{with_it}{mark}",
        "{a_story} about {who}{with_it}[|, please].",
        "[Do you know|Have you got] {a_story} about {who}{with_it}?",
        "[Tell me|Write] something about {who}{with_it}{mark}",
        "What did {who} do?",
        "[Another|Another story|One more story] about {who}{with_it}[, please|].",
    ),
    frozenset({"place"}): (
        _TELL + " {a_story} about {a_place}{with_it}{mark}",
        _TELL + " {a_story} that [happens|takes place] {where}{mark}",
        "[What happened|Tell me what happened] {where}?",
    ),
    frozenset(): (
        "once upon a time[|,|.|...]",
        "once upon a time[ there was|, there was|...]",
        _TELL + " {a_story}{mark}",
        "{a_story}, please.",
        "[Another story|One more story|Another one|One more], please[.|!]",
        "[Do you know|Have you got] {a_story}?",
    ),
}


def ask(rng, wish: Wish) -> str:
    """A request for the story in free wording; in small letters now and then."""
    template = rng.choice(_REQUESTS[wish.asked & {"hero", "place"}])
    text = say(rng, template, **_request_slots(rng, wish, "Hero:" in template))
    if text.startswith(("Can you", "Could you")):
        text = text.rstrip(".!") + "?"
    return text.lower() if rng.random() < 0.08 and "name" not in wish.asked else text


def _request_slots(rng, wish: Wish, mood_apart: bool) -> dict[str, str]:
    thing = "thing" in wish.asked
    a_thing = words.article(wish.thing)
    mood = rng.choice(words.MOODS[wish.mood]) if "mood" in wish.asked else ""
    preposition = words.PLACES.get(wish.place, "in") if rng.random() < 0.8 else rng.choice(("near", "at"))
    sort = f"{rng.choice(('', '', '', 'short ', 'little ', 'bedtime ', 'new '))}{'' if mood_apart else mood} {rng.choice(('story', 'story', 'story', 'tale'))}"
    return {
        "who": _introduced(rng, wish.hero, wish.name) if "name" in wish.asked else words.article(wish.hero),
        "where": f"{preposition} {rng.choice(('the ' + wish.place, words.article(wish.place)))}",
        "a_place": words.article(wish.place),
        "a_story": words.article(" ".join(sort.split())),
        "with_it": rng.choice((f" with {a_thing}", f" who finds {a_thing}", f" and {a_thing}")) if thing else "",
        "with_thing": f" with {a_thing}" if thing else "",
        "and_it": f" and {a_thing}" if thing else "",
        "and_has": f" and has {a_thing}" if thing else "",
        "it_too": f" There is {a_thing} in it too." if thing else "",
        "it_line": f" Object: {a_thing}." if thing else "",
        "mood_line": f" Mood: {mood}." if mood else "",
        "mark": rng.choice((".", ".", "", "!", ", please.")),
    }
