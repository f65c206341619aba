"""Words the corpus is built from.

Only lists and tables; how they are put together is the business of the modules of each kind of text.
"""

from __future__ import annotations

from typing import NamedTuple

ANIMALS = """fox mouse lamb rabbit bear owl hedgehog squirrel deer frog duck goose hen crow robin sparrow beaver otter
badger mole turtle snail bee ant beetle cricket spider cat kitten dog puppy pony horse donkey goat sheep cow calf pig
wolf lion tiger elephant monkey parrot penguin seal whale dolphin crab octopus fish swan stork eagle falcon bat lizard
camel giraffe zebra panda koala kangaroo raccoon weasel heron magpie butterfly moth ladybird caterpillar toad newt
hamster hare llama yak moose walrus peacock pelican pigeon raven swallow""".split()

PEOPLE = """girl boy baker farmer fisherman miller shepherd sailor painter tailor gardener king queen prince princess
knight wizard witch giant dwarf dragon robot ghost mermaid unicorn pirate clown teacher doctor nurse singer dancer
drummer carpenter blacksmith cook postman astronaut inventor scientist explorer hunter grandmother grandfather child
snowman troll fairy elf goblin juggler piper captain pilot librarian astronomer potter weaver clockmaker""".split()

# Each place with the preposition that goes with it.
PLACES: dict[str, str] = {}
for _preposition, _names in (
    (
        "in",
        """forest wood meadow garden valley village town city castle cave barn kitchen library market park desert
jungle swamp school tower mill harbour orchard museum palace palace-yard cottage attic cellar stable station theatre
temple workshop zoo shop bakery canyon tunnel maze vineyard greenhouse circus classroom""",
    ),
    (
        "by",
        "river lake pond sea stream well fountain waterfall bridge fence gate brook shore lighthouse volcano windmill",
    ),
    (
        "on",
        "hill mountain island beach farm road roof field cliff ship path moon playground street glacier raft balcony",
    ),
):
    for _name in _names.split():
        if "-" not in _name:
            PLACES[_name] = _preposition

OBJECTS = """key lantern bell kite map basket rope drum scarf hat book box cup coin ring shell stone feather button
flute ball boat candle mirror blanket umbrella ladder broom spoon pot jar bottle bag coat glove boot pillow clock compass
crown necklace letter pencil brush wheel hammer whistle violin trumpet doll puppet marble ribbon wagon sled bucket
telescope chest pebble acorn leaf lamp medal cap flag vase plate""".split()

FOODS = """plum apple pear cherry carrot potato bun cake cookie egg nut berry peach lemon orange melon turnip onion
tomato bean grape fig pancake muffin pie sandwich banana biscuit""".split()

COLOURS = "red blue green yellow white black brown pink purple orange grey golden silver".split()

GIRLS = """Mira Anna Lily Rosa Emma Nora Ella Clara Ida Maya Zoe Lucy Alma Greta Hanna Julia Kira Lena Mona Nina Olga
Paula Ruth Sara Tess Vera Wilma Yara Iris Ruby Daisy Molly Freya Heidi Amina Leila Priya Suki""".split()
BOYS = """Tom Ben Max Leo Sam Finn Oskar Paul Karl Otto Hugo Jonas Nils Emil Theo Adam Felix Ivan Luca Noah Peter
Robin Simon Tim Victor Walter Yusuf Bruno Carlo David Erik Fred George Henry Jack Omar Ravi Kenji""".split()

CITIES = """Paris London Rome Berlin Oslo Madrid Vienna Prague Lisbon Dublin Athens Warsaw Cairo Tokyo Delhi Sydney
Toronto Boston Chicago Lima Quito Nairobi Lagos Seoul Hanoi Bern Zurich Hamburg Munich Milan Venice Naples Porto Geneva
Helsinki Stockholm Copenhagen Brussels Amsterdam Budapest Istanbul Moscow Beijing Mumbai Denver Seattle Dallas Havana
Bristol Leeds Glasgow Lyon Turin Seville Krakow Riga Sofia Tunis Dakar Accra""".split()

LONG_CITIES = [
    "New York",
    "Los Angeles",
    "San Francisco",
    "Cape Town",
    "Hong Kong",
    "Buenos Aires",
    "Mexico City",
    "Rio de Janeiro",
    "Tel Aviv",
    "Abu Dhabi",
    "New Delhi",
    "Las Vegas",
    "Kuala Lumpur",
    "Sao Paulo",
    "Saint Petersburg",
]

CAPITALS = dict(
    pair.split(":")
    for pair in """France:Paris England:London Italy:Rome Germany:Berlin Norway:Oslo Spain:Madrid Austria:Vienna
    Portugal:Lisbon Ireland:Dublin Greece:Athens Poland:Warsaw Egypt:Cairo Japan:Tokyo Peru:Lima Kenya:Nairobi Vietnam:Hanoi
    Switzerland:Bern Finland:Helsinki Sweden:Stockholm Denmark:Copenhagen Belgium:Brussels Hungary:Budapest Russia:Moscow
    China:Beijing Cuba:Havana Latvia:Riga Bulgaria:Sofia Tunisia:Tunis Senegal:Dakar Ghana:Accra""".split()
)

TRAITS = """little small young old tiny clever kind quiet brave shy curious gentle cheerful lazy proud lonely busy
friendly patient hungry sleepy clumsy merry""".split()

OBJECT_LOOKS = "shiny old little small wooden strange pretty tiny broken new".split()

MOODS: dict[str, list[str]] = {
    "happy": ["happy", "cheerful", "merry", "joyful"],
    "sad": ["sad", "touching"],
    "funny": ["funny", "silly"],
    "brave": ["brave", "exciting", "adventurous"],
    "calm": ["calm", "gentle", "quiet", "cozy", "peaceful"],
    "spooky": ["spooky", "scary", "mysterious"],
}

WEEKDAYS = "Monday Tuesday Wednesday Thursday Friday Saturday Sunday".split()
SKIES = "sunny rainy cloudy windy snowy foggy stormy clear".split()
HOBBIES = """swimming reading drawing singing dancing cooking fishing running painting climbing gardening football chess
skating sailing knitting camping baking hiking juggling""".split()

_ONSETS = "b br d dr f fl g gl h j k kr l m n p pl r s sk t tr v w z".split()
_VOWELS = "a e i o u ai oo ee".split()
_CODAS = ["", "", "n", "l", "r", "s", "m", "x", "ck", "nd", "mp"]


class Pronouns(NamedTuple):
    """The forms of one third-person pronoun."""

    he: str
    him: str
    his: str


HE = Pronouns("he", "him", "his")
SHE = Pronouns("she", "her", "her")


def article(noun: str) -> str:
    """Puts "a" or "an" before a word or phrase."""
    return ("an " if noun[0].lower() in "aeiou" and not noun.startswith("uni") else "a ") + noun


def plural(noun: str) -> str:
    """The plural of a noun of the lists above."""
    irregular = {"mouse": "mice", "wolf": "wolves", "leaf": "leaves", "potato": "potatoes", "tomato": "tomatoes"}
    if noun in irregular:
        return irregular[noun]
    if noun.endswith("y") and noun[-2] not in "aeiou":
        return noun[:-1] + "ies"
    if noun.endswith(("s", "x", "ch", "sh")):
        return noun + "es"
    return noun + "s"


def amount(count: int, noun: str) -> str:
    """ "1 plum", "3 plums"."""
    return f"{count} {noun if count == 1 else plural(noun)}"


def invented_word(rng) -> str:
    """A pronounceable word of two or three syllables that is in no list: practice for copying."""
    syllables = rng.choice((2, 2, 3))
    word = "".join(rng.choice(_ONSETS) + rng.choice(_VOWELS) for _ in range(syllables))
    return word + rng.choice(_CODAS)


def person(rng) -> tuple[str, Pronouns]:
    """A name with its pronouns; one in thirty is an invented name."""
    female = rng.random() < 0.5
    name = invented_word(rng).capitalize() if rng.random() < 0.03 else rng.choice(GIRLS if female else BOYS)
    return name, SHE if female else HE


def people(rng, count: int) -> list[tuple[str, Pronouns]]:
    """Several persons with different names."""
    chosen: dict[str, Pronouns] = {}
    while len(chosen) < count:
        name, pronouns = person(rng)
        chosen.setdefault(name, pronouns)
    return list(chosen.items())
