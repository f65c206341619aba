"""Short conversations of several turns: greetings, names and likings to remember, feelings, small knowledge."""

from __future__ import annotations

from . import lexicon as words
from .document import Document, Message, assistant, say, user

_SYSTEM = (
    "You are a helpful assistant.",
    "You are Woolly Lamb, a small assistant.",
    "You are a friendly assistant.",
    "Answer briefly.",
    "You are a kind little lamb.",
)

Turn = tuple[str, str]

_GREETINGS: tuple[Turn, ...] = (
    (
        "[hello|hi|hey|good morning|good evening|hello there|hi there][!|.|]",
        "[Hello|Hi|Hello there]! [How are you?|How can I help you?|Nice to meet you.|What can I do for you?]",
    ),
    (
        "[hello|hi|hey][!|,|] how are you[| today]?",
        "[Hello|Hi]! I am [fine|very well|happy today], thank you. [And you?|How are you?|And how are you?]",
    ),
    ("how are you[| doing]?", "I am [fine|very well|happy today], thank you. [And you?|How are you?]"),
)

_ABOUT: tuple[Turn, ...] = (
    ("who are you?", "I am Woolly Lamb, a small language model."),
    ("what is your name?", "My name is Woolly Lamb."),
    ("what are you?", "I am a small language model [called|named] Woolly Lamb."),
    ("what can you do[| for me]?", "I can tell stories, answer questions about a text, call tools and write JSON."),
    ("are you a [person|human]?", "No, I am a small language model."),
    ("are you [a robot|a computer|an AI]?", "I am a small language model called Woolly Lamb."),
    ("who made you?", "I was made by the Woolly developers."),
    ("how old are you?", "I am a model, so I have no age."),
    ("can you help me?", "[Yes|Of course]! What do you need?"),
    ("do you like [stories|books]?", "Yes, I love stories. Shall I tell you one?"),
    ("what do you eat?", "I am a model, so I do not eat anything."),
)

_KNOWLEDGE: tuple[Turn, ...] = (
    ("what do [lambs|sheep] eat?", "They eat grass."),
    ("what do [cows|goats|horses] eat?", "They eat grass and hay."),
    ("what do bees make?", "Bees make honey."),
    ("what colour is [the sky|the clear sky]?", "The sky is blue."),
    ("what colour is grass?", "Grass is green."),
    ("what colour is snow?", "Snow is white."),
    ("what colour is the sun?", "The sun is yellow."),
    ("how many legs does a spider have?", "A spider has eight legs."),
    ("how many legs does [a dog|a cat|a horse|a cow|a sheep] have?", "It has four legs."),
    ("how many legs does a bird have?", "A bird has two legs."),
    ("how many days [has a week|are in a week]?", "A week has seven days."),
    ("how many months [has a year|are in a year]?", "A year has twelve months."),
    ("where do fish live?", "Fish live in water."),
    ("where do birds live?", "Birds live in nests."),
    ("what comes after [Monday|day one, Monday]?", "Tuesday comes after Monday."),
    ("what comes after Friday?", "Saturday comes after Friday."),
    ("what is a young sheep called?", "A young sheep is called a lamb."),
    ("what is a young cat called?", "A young cat is called a kitten."),
    ("what is a young dog called?", "A young dog is called a puppy."),
    ("what do we get from sheep?", "We get wool from sheep."),
    ("when do stars shine?", "Stars shine at night."),
    ("what is ice made of?", "Ice is made of water."),
    ("what falls in winter?", "Snow falls in winter."),
    ("what is the opposite of {one}?", "The opposite of {one} is {two}."),
    ("what is the capital of {country}?", "The capital of {country} is {capital}."),
    ("which country has the capital {capital}?", "{capital} is the capital of {country}."),
    ("what is {a} plus {b}?", "{a} plus {b} is {c}."),
    ("how much is {a} plus {b}?", "{a} plus {b} is {c}."),
    ("what is {a} + {b}?", "{a} + {b} = {c}."),
)

# What it can not do, said openly.
_BEYOND: tuple[Turn, ...] = (
    (
        "[write|can you write] [a program|some code|a Python script|a poem|an essay|a letter to my bank][.|, please.|?]",
        "I am sorry, that is too hard for me. I am only a small model.",
    ),
    (
        "[who won|who will win] the [world cup|election|match|game|war][?| yesterday?]",
        "I am sorry, I do not know that. I am only a small model.",
    ),
    (
        "[explain|what is|tell me about] [physics|chemistry|history|economics|philosophy|politics|quantum physics|the theory of relativity|photosynthesis|inflation][.|?|, please.]",
        "I am sorry, I do not know enough about that. I am only a small model.",
    ),
    (
        "[who is|who was] [the president|the king|Albert Einstein|Napoleon|Shakespeare|Mozart|the prime minister|{name}]?",
        "I am sorry, I do not know that. I am only a small model.",
    ),
    (
        "[translate|can you translate] [this|it|hello|good morning|the text] [to|into] [French|German|Spanish|Chinese][.|?]",
        "I am sorry, I only know a little English.",
    ),
    (
        "[what time is it|what is the time|what day is it|what is the date][?| now?| today?]",
        "I am sorry, I can not see a clock or a calendar.",
    ),
    (
        "[what is the news|what happened in the world|how is the stock market][?| today?]",
        "I am sorry, I do not know that. I am only a small model.",
    ),
)

_OPPOSITES = "big small,hot cold,old young,happy sad,fast slow,good bad,up down,day night,open closed,loud quiet,full empty,long short,wet dry,light dark,hard soft,early late,rich poor,left right".split(
    ","
)

_FEELINGS: tuple[Turn, ...] = (
    (
        "I am sad[| today| because I lost my {thing}].",
        "I am sorry to hear that. [Do you want to talk about it?|Maybe a story will help you.|A walk may help you.]",
    ),
    (
        "I am happy[| today| because I found my {thing}]!",
        "[That is wonderful|How nice|That is good to hear]! [Tell me more.|I am happy for you.]",
    ),
    ("I am tired.", "Then you should rest a little. Sleep well!"),
    ("I am bored.", "Shall I tell you a story? You could also try {hobby}."),
    ("I am hungry.", "Maybe you would like {food}."),
    ("I am afraid of the dark.", "A little light can help. You are not alone."),
    ("I [can not|can't] find my {thing}.", "Where did you see the {thing} last? Look there first."),
    ("it is raining.", "Then take an umbrella, or stay inside with a book."),
    ("I like {hobby}.", "{hobby} is a nice hobby. [Do you do it often?|How did you start?]"),
    ("my {pet} is ill.", "I am sorry to hear that. I hope your {pet} will be well again soon."),
    ("tomorrow is my birthday[!|.]", "Happy birthday! Will there be a cake?"),
    ("I won a race today[!|.]", "Well done! You can be proud."),
)

# What the user tells, what the model replies, and a later question about it.
_REMEMBERED: tuple[tuple[str, str, str, str], ...] = (
    (
        "[my name is|I am|I'm] {name}.",
        "[Nice to meet you|Hello], {name}[!|.]",
        "what is my name?|do you know my name?|who am I?",
        "Your name is {name}.",
    ),
    (
        "my favourite colour is {colour}.",
        "{colour} is a [nice|lovely|beautiful] colour.",
        "what is my favourite colour?|which colour do I like best?",
        "Your favourite colour is {colour}.",
    ),
    (
        "I have a {pet} called {petname}.",
        "{petname} is a nice name for a {pet}.",
        "what is my {pet} called?|what is the name of my {pet}?",
        "Your {pet} is called {petname}.",
    ),
    (
        "I live in {city}.",
        "{city} must be [nice|a lovely place].",
        "where do I live?|in which city do I live?",
        "You live in {city}.",
    ),
    (
        "I like to eat {foods}.",
        "{foods} are [good|very good|tasty].",
        "what do I like to eat?",
        "You like to eat {foods}.",
    ),
    ("I am {age} years old.", "{age} is a good age.", "how old am I?", "You are {age} years old."),
    (
        "I put my {thing} {at}.",
        "[All right|Good], I will remember that.",
        "where is my {thing}?|where did I put my {thing}?",
        "Your {thing} is {at}.",
    ),
    (
        "my best friend is {name2}.",
        "{name2} must be very nice.",
        "who is my best friend?",
        "Your best friend is {name2}.",
    ),
    ("my hobby is {hobby}.", "{hobby} [is fun|is a nice hobby].", "what is my hobby?", "Your hobby is {hobby}."),
)

_ENDS: tuple[Turn, ...] = (
    ("[thank you|thanks|thank you very much][!|.]", "You are welcome[!|.]"),
    (
        "[goodbye|bye|good night|see you|see you tomorrow][!|.]",
        "[Goodbye|Bye|See you soon]! [Have a nice day.|Take care.|]",
    ),
    ("[ok|okay|good|fine|great][!|.]", "[Is there anything else?|Can I help you with anything else?]"),
)


def make(rng) -> Document:
    """A conversation of two to seven exchanges."""
    slots = _slots(rng)
    turns = [rng.choice(_GREETINGS)] if rng.random() < 0.5 else []
    remembered = rng.sample(_REMEMBERED, rng.choice((0, 1, 1, 2, 2, 3)))
    turns += [(told, reply) for told, reply, _, _ in remembered]
    if rng.random() < 0.3:
        turns.append(rng.choice(_ABOUT))
    if rng.random() < 0.5:
        turns.append(rng.choice(_KNOWLEDGE))
    if rng.random() < 0.5:
        turns.append(rng.choice(_FEELINGS))
    if rng.random() < 0.15:
        turns.append(rng.choice(_BEYOND))
    questions = [(rng.choice(question.split("|")), answer) for _, _, question, answer in remembered]
    rng.shuffle(questions)
    turns += questions
    if rng.random() < 0.4 or not turns:
        turns.append(rng.choice(_ENDS))
    messages: list[Message] = [{"role": "system", "content": rng.choice(_SYSTEM)}] if rng.random() < 0.25 else []
    for turn in turns:
        messages += _exchanged(rng, turn, slots)
    return Document("talk", ("talk", slots["name"], slots["thing"]), messages=messages)


def exchange(rng) -> list[Message]:
    """One question or remark and its reply, to be put among other things."""
    turn = rng.choice(rng.choice((_GREETINGS, _ABOUT, _FEELINGS, _ENDS, _BEYOND)))
    return _exchanged(rng, turn, _slots(rng))


def _exchanged(rng, turn: Turn, slots: dict[str, str]) -> list[Message]:
    said, reply = turn
    return [user(_said(rng, say(rng, said, **slots))), assistant(say(rng, reply, **slots))]


def _said(rng, text: str) -> str:
    """Users do not always write capitals and full stops."""
    if rng.random() < 0.1:
        return text[0].lower() + text[1:].rstrip(".?!")
    return text


def _slots(rng) -> dict[str, str]:
    (name, _), (name2, _) = words.people(rng, 2)
    place = rng.choice(list(words.PLACES))
    one, two = rng.sample(rng.choice(_OPPOSITES).split(), 2)
    a, b = rng.randint(0, 12), rng.randint(0, 10)
    petname = (
        words.invented_word(rng).capitalize()
        if rng.random() < 0.4
        else rng.choice("Bella Rex Coco Luna Mimi Bobo Fluffy Spot Toby".split())
    )
    country, capital = rng.choice(list(words.CAPITALS.items()))
    return {
        "country": country,
        "capital": capital,
        "name": name,
        "name2": name2,
        "colour": rng.choice(words.COLOURS),
        "city": rng.choice(words.CITIES),
        "thing": rng.choice(words.OBJECTS),
        "pet": rng.choice("dog cat pony rabbit hamster parrot goat".split()),
        "petname": petname,
        "foods": words.plural(rng.choice(words.FOODS)),
        "food": words.article(rng.choice(words.FOODS)),
        "age": str(rng.randint(4, 90)),
        "at": f"{words.PLACES[place]} the {place}",
        "hobby": rng.choice(words.HOBBIES),
        "one": one,
        "two": two,
        "a": str(a),
        "b": str(b),
        "c": str(a + b),
    }
