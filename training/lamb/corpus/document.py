"""What a generated text is, and how a chat becomes text with loss weights.

A document is either raw text or a chat. Rendering must agree with the chat template in ``template.jinja``;
``export.py`` refuses to export where it does not.
"""

from __future__ import annotations

import json
import re
import zlib
from dataclasses import dataclass, field
from typing import Any

END_OF_TEXT = "<|endoftext|>"
TURN_START = "<|im_start|>"
TURN_END = "<|im_end|>"
CALL_START = "<tool_call>"
CALL_END = "</tool_call>"

# What ends an answer.
ENDINGS = (END_OF_TEXT, TURN_END)

# The reader of a prompt need not predict it, but its sentences still teach the language.
PROMPT_WEIGHT = 0.1
# Short answers that have to be copied or computed would drown among the many tokens of the stories.
_ANSWER_WEIGHTS = {
    "passage": 5.0,
    "reading": 4.0,
    "drill": 3.0,
    "json": 4.0,
    "tool": 4.0,
    "rephrase": 2.0,
    "talk": 1.5,
    "long": 2.0,
}
_HELD_OUT_ONE_IN = 16

Message = dict[str, Any]
Segment = tuple[str, float]


@dataclass
class Document:
    """One text of the corpus.

    ``combo`` names the combination that ``facts`` is about, which is what the evaluation needs to judge an answer;
    ``also`` names further combinations in the same text. A text for training has none that is held out.
    ``cues`` are pieces of raw text in pairs: one to read and one that follows from it.
    """

    kind: str
    combo: tuple[str, ...]
    also: tuple[tuple[str, ...], ...] = ()
    messages: list[Message] = field(default_factory=list)
    tools: list[dict[str, Any]] = field(default_factory=list)
    text: str = ""
    cues: list[tuple[str, str]] = field(default_factory=list)
    facts: dict[str, Any] = field(default_factory=dict)

    def belongs_to(self, split: str) -> bool:
        """Whether the text may be used for ``train`` or for ``valid``."""
        if split == "valid":
            return is_held_out(self.combo)
        return not any(is_held_out(combo) for combo in (self.combo, *self.also))

    def segments(self) -> list[Segment]:
        """The text in pieces, each with the weight of its tokens in the loss."""
        if self.text:
            return [(self.text + END_OF_TEXT, 1.0)]
        weight = _ANSWER_WEIGHTS.get(self.kind, 1.0)
        if self.cues:
            pairs = [((cue, PROMPT_WEIGHT), (answer, weight)) for cue, answer in self.cues]
            return [segment for pair in pairs for segment in pair] + [(END_OF_TEXT, PROMPT_WEIGHT)]
        return chat_segments(self.messages, self.tools, weight)

    def rendered(self) -> str:
        """The whole text as the model sees it."""
        return "".join(text for text, _ in self.segments())


def is_held_out(combo: tuple[str, ...]) -> bool:
    """Whether a combination belongs to validation: one in sixteen, by a checksum, for ever the same."""
    return zlib.crc32("|".join(combo).encode()) % _HELD_OUT_ONE_IN == 0


def user(content: str) -> Message:
    """A user's turn."""
    return {"role": "user", "content": content}


def assistant(content: str) -> Message:
    """A turn of the model's."""
    return {"role": "assistant", "content": content}


def calling(name: str, arguments: dict[str, Any]) -> Message:
    """A turn in which the model calls one tool."""
    function = {"name": name, "arguments": arguments}
    return {"role": "assistant", "content": "", "tool_calls": [{"type": "function", "function": function}]}


def tool_answer(result: Any) -> Message:
    """The turn in which a tool answers."""
    return {"role": "tool", "content": json.dumps(result, ensure_ascii=False)}


def chat_segments(messages: list[Message], tools: list[dict[str, Any]], answer_weight: float = 1.0) -> list[Segment]:
    """Renders a chat; what the model itself says carries its full weight, the rest little."""
    segments: list[Segment] = []
    rest = messages
    system = _system_text(messages, tools)
    if system:
        segments.append((f"{TURN_START}system\n{system}{TURN_END}\n", PROMPT_WEIGHT))
        rest = messages[1:] if messages[0]["role"] == "system" else messages
    for message in rest:
        head = f"{TURN_START}{message['role']}\n"
        body = message["content"] + "".join(_call_text(call) for call in message.get("tool_calls", []))
        if message["role"] == "assistant":
            segments += [(head, PROMPT_WEIGHT), (body + TURN_END, answer_weight), ("\n", PROMPT_WEIGHT)]
        else:
            segments.append((f"{head}{body}{TURN_END}\n", PROMPT_WEIGHT))
    return segments


def prompt_text(messages: list[Message], tools: list[dict[str, Any]]) -> str:
    """Renders a chat up to the point where the model is to speak."""
    return "".join(text for text, _ in chat_segments(messages, tools)) + f"{TURN_START}assistant\n"


def _system_text(messages: list[Message], tools: list[dict[str, Any]]) -> str:
    own = messages[0]["content"] if messages[0]["role"] == "system" else ""
    if not tools:
        return own
    lines = [_tool_line(tool["function"]) for tool in tools]
    return (own + "\n\n" if own else "") + "Tools:\n" + "".join(line + "\n" for line in lines)


def _tool_line(function: dict[str, Any]) -> str:
    properties = function["parameters"]["properties"]
    parameters = ", ".join(f"{name}: {schema['type']}" for name, schema in properties.items())
    return f"- {function['name']}({parameters}): {function['description']}"


def _call_text(call: dict[str, Any]) -> str:
    function = call["function"]
    name = json.dumps(function["name"], ensure_ascii=False)
    arguments = json.dumps(function["arguments"], ensure_ascii=False)
    return f'{CALL_START}{{"name": {name}, "arguments": {arguments}}}{CALL_END}'


_CHOICE = re.compile(r"\[([^\[\]]*)\]")
_SENTENCE_START = re.compile(r'(^|[.!?] |[.!?] "|[.]" |\n)([a-z])')


def say(rng, template: str, **slots: str) -> str:
    """Expands ``[one|other]`` choices from the inside out, fills ``{slots}`` and starts sentences with capitals."""
    while "[" in template:
        template = _CHOICE.sub(lambda match: rng.choice(match.group(1).split("|")), template)
    text = template.format(**slots)
    text = re.sub(r"  +", " ", text).strip().replace(" .", ".").replace(" ,", ",").replace(" ?", "?")
    return capitalised(text)


def capitalised(text: str) -> str:
    """Starts every sentence, also within quotation marks, with a capital letter."""
    return _SENTENCE_START.sub(lambda match: match.group(1) + match.group(2).upper(), text)
