"""Tool calls: three tools, the call, the tool's answer and the sentence that uses it."""

from __future__ import annotations

from typing import Any

from . import lexicon as words
from . import talks
from .document import Document, Message, assistant, calling, say, tool_answer, user

_SYSTEM = ("You are a helpful assistant.", "You are Woolly Lamb, a small assistant.", "Use a tool when it helps.")

_DESCRIPTIONS = {
    "get_weather": ("Tells the weather in a city.", "Get the current weather for a city.", "The weather of a place."),
    "calculate": ("Computes an arithmetic expression.", "Work out a sum.", "Calculate the value of an expression."),
    "set_timer": ("Starts a timer.", "Set a timer for some minutes.", "Starts a kitchen timer with a label."),
}

_PARAMETERS: dict[str, dict[str, str]] = {
    "get_weather": {"city": "string"},
    "calculate": {"expression": "string"},
    "set_timer": {"minutes": "integer", "label": "string"},
}


def tool(rng, name: str) -> dict[str, Any]:
    """The description of one of the three tools in the form that chat interfaces use."""
    properties = {parameter: {"type": kind} for parameter, kind in _PARAMETERS[name].items()}
    parameters = {"type": "object", "properties": properties, "required": list(properties)}
    function = {"name": name, "description": rng.choice(_DESCRIPTIONS[name]), "parameters": parameters}
    return {"type": "function", "function": function}


def offered(rng) -> list[dict[str, Any]]:
    """The three tools in any order."""
    names = list(_PARAMETERS)
    rng.shuffle(names)
    return [tool(rng, name) for name in names]


def make(rng) -> Document:
    """A chat with one to four calls; facts name the first tool and its arguments."""
    messages: list[Message] = [{"role": "system", "content": rng.choice(_SYSTEM)}] if rng.random() < 0.3 else []
    first, key, facts = use(rng)
    if rng.random() < 0.12:
        messages += talks.exchange(rng)
    messages += first
    also: list[tuple[str, ...]] = []
    for _ in range(rng.choice((0, 1, 1, 2, 3))):
        if rng.random() < 0.12:
            messages += talks.exchange(rng)
            continue
        turns, further, _ = use(rng)
        messages += turns
        also.append(("tool", *further))
    return Document("tool", ("tool", *key), tuple(also), messages=messages, tools=offered(rng), facts=facts)


def use(rng) -> tuple[list[Message], tuple[str, ...], dict[str, Any]]:
    """The four turns of one use of a tool, what identifies it, and the call to expect."""
    name = rng.choice(list(_PARAMETERS))
    request, arguments, result, answer = {"get_weather": _weather, "calculate": _calculation, "set_timer": _timer}[
        name
    ](rng)
    turns = [user(request), calling(name, arguments), tool_answer(result), assistant(answer)]
    return turns, (name, *map(str, arguments.values())), {"tool": name, "arguments": arguments}


_WEATHER_REQUESTS = (
    "[what is|what's|how is|how's] the weather [in|like in] {city} [|today|now|right now]?",
    "[what is|how is] the weather in {city}[?| today?]",
    "[tell me|please tell me|can you tell me|I want to know] the weather in {city}.",
    "is it [raining|sunny|snowing|cold|warm|windy] in {city} [|today|now]?",
    "do I need [an umbrella|a coat|a hat|warm clothes] in {city} [|today]?",
    "weather in {city}[|, please|?|.]",
    "how [warm|cold|hot] is it in {city} [|today|now]?",
    "I [am|will be|am going to be] in {city} today. [what is the weather like|how is the weather|what will the weather be]?",
    "[check|look up|get] the weather [in|for] {city}[.|, please.]",
    "what is the temperature in {city}?",
)
_WEATHER_ANSWERS = (
    "It is {sky} in {city}, and the temperature is {degrees} degrees.",
    "In {city} it is {sky} with {degrees} degrees.",
    "The weather in {city} is {sky}. It is {degrees} degrees.",
)


def _weather(rng) -> tuple[str, dict, dict, str]:
    city = (
        words.invented_word(rng).capitalize() if rng.random() < 0.06 else rng.choice(words.CITIES + words.LONG_CITIES)
    )
    sky, degrees = rng.choice(words.SKIES), rng.randint(-9, 38)
    result = (
        {"sky": sky, "temperature": degrees}
        if rng.random() < 0.5
        else {"city": city, "sky": sky, "temperature": degrees}
    )
    slots = {"city": city, "sky": sky, "degrees": str(degrees)}
    return (
        say(rng, rng.choice(_WEATHER_REQUESTS), **slots),
        {"city": city},
        result,
        say(rng, rng.choice(_WEATHER_ANSWERS), **slots),
    )


_OPERATIONS = {
    "+": ("{a} plus {b}", "{a} + {b}", "the sum of {a} and {b}"),
    "-": ("{a} minus {b}", "{a} - {b}"),
    "*": ("{a} times {b}", "{a} * {b}", "{a} multiplied by {b}", "the product of {a} and {b}"),
    "/": ("{a} divided by {b}", "{a} / {b}"),
}
_CALCULATION_REQUESTS = (
    "what is {sum}?",
    "[what's|how much is] {sum}?",
    "[calculate|compute|work out|please calculate|please compute] {sum}.",
    "[can you work out|can you calculate|do you know] {sum}?",
    "I need [to know|the result of] {sum}.",
    "{sum} = ?",
    "[tell me|give me] {sum}[.|, please.]",
    "how much is {sum}?",
)


def _calculation(rng) -> tuple[str, dict, dict, str]:
    sign = rng.choice("+-**/") if rng.random() < 0.7 else "+"
    a, b = (rng.randint(2, rng.choice((20, 99, 99, 99, 999))) for _ in range(2))
    if sign == "/":
        b = rng.randint(2, 40)
        a *= b
    result = {"+": a + b, "-": a - b, "*": a * b, "/": a // b}[sign]
    said = say(rng, rng.choice(_OPERATIONS[sign]), a=str(a), b=str(b))
    expression = f"{a} {sign} {b}"
    word = {"+": "plus", "-": "minus", "*": "times", "/": "divided by"}[sign]
    answer = rng.choice((f"{a} {word} {b} is {result}.", f"The result is {result}.", f"{expression} = {result}"))
    said = said[0].lower() + said[1:]
    return say(rng, rng.choice(_CALCULATION_REQUESTS), sum=said), {"expression": expression}, {"result": result}, answer


_LABELS = (
    words.FOODS
    + """soup pasta tea rice bread pizza laundry homework eggs meeting nap bath workout coffee plants oven roast
phone game break lesson call""".split()
)
_TIMER_REQUESTS = (
    "[set|start|please set|please start] a timer for {minutes} minutes for the {label}.",
    "[set|start] a {minutes} minute timer for the {label}.",
    "[set|start|I need] a {label} timer [for|of] {minutes} minutes.",
    "remind me of the {label} in {minutes} minutes.",
    "[can you|could you] [set|start] a timer of {minutes} minutes for the {label}?",
    "the {label} needs {minutes} minutes. [set a timer|start a timer|please set a timer].",
    "timer for the {label}[, |: ]{minutes} minutes[.|, please.]",
    "wake me after {minutes} minutes[, |. ]it is for the {label}.",
)
# Without a purpose the label is "timer".
_PLAIN_TIMER_REQUESTS = (
    "[set|start|please set|I need] a timer [for|of] {minutes} minutes.",
    "[set|start] a {minutes} minute timer[.|, please.]",
    "timer[, |: ]{minutes} minutes.",
    "[can you|could you] [set|start] a timer [for|of] {minutes} minutes?",
)
_PLAIN_TIMER_ANSWERS = ("The timer is set to {minutes} minutes.", "I have set a timer of {minutes} minutes.")
_TIMER_ANSWERS = (
    "The timer for the {label} is set to {minutes} minutes.",
    "I have set a timer of {minutes} minutes for the {label}.",
    "Done. The {label} timer will ring in {minutes} minutes.",
)


def _timer(rng) -> tuple[str, dict, dict, str]:
    label = words.invented_word(rng) if rng.random() < 0.04 else rng.choice(_LABELS)
    if rng.random() < 0.12:
        label = f"{rng.choice(words.COLOURS + words.FOODS)} {label}"
    requests, answers = _TIMER_REQUESTS, _TIMER_ANSWERS
    if rng.random() < 0.1:
        label, requests, answers = "timer", _PLAIN_TIMER_REQUESTS, _PLAIN_TIMER_ANSWERS
    minutes = rng.randint(1, 120)
    slots = {"label": label, "minutes": str(minutes)}
    result = rng.choice(({"status": "started"}, {"ok": True}, {"status": "started", "minutes": minutes}))
    return (
        say(rng, rng.choice(requests), **slots),
        {"minutes": minutes, "label": label},
        result,
        say(rng, rng.choice(answers), **slots),
    )
