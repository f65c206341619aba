"""What every generated text must keep to."""

import json
import random
import re
import unittest
from itertools import islice

from corpus import calls, document, lexicon, mixture, passages, reading, shapes, stories
from judging import mentions

_COUNT = 300


def made_by(maker, count=_COUNT):
    """Documents of one maker, each from a seed of its own."""
    return [maker(random.Random(seed)) for seed in range(count)]


class MixtureTest(unittest.TestCase):
    """Properties of the whole stream."""

    def test_same_seed_same_documents(self):
        first = [made.rendered() for made in islice(mixture.stream(3, "train"), 50)]
        second = [made.rendered() for made in islice(mixture.stream(3, "train"), 50)]
        self.assertEqual(first, second)

    def test_another_seed_gives_other_documents(self):
        first = [made.rendered() for made in islice(mixture.stream(3, "train"), 50)]
        other = [made.rendered() for made in islice(mixture.stream(4, "train"), 50)]
        self.assertFalse(set(first) & set(other))

    def test_a_stream_can_be_entered_anywhere(self):
        whole = [made.rendered() for made in islice(mixture.stream(3, "train"), 30)]
        self.assertEqual(mixture.document(3, "train", 20).rendered(), whole[20])

    def test_training_never_repeats_a_text(self):
        texts = [made.rendered() for made in islice(mixture.stream(1, "train"), 5000)]
        self.assertEqual(len(texts), len(set(texts)))

    def test_splits_share_no_combination(self):
        for made in islice(mixture.stream(1, "train", long_share=0.0), 500):
            for combo in (made.combo, *made.also):
                self.assertFalse(document.is_held_out(combo), combo)
        for made in islice(mixture.stream(1, "valid", long_share=0.0), 500):
            self.assertTrue(document.is_held_out(made.combo), made.combo)

    def test_no_template_mark_is_left_in_prose(self):
        for kind in ("story", "passage", "rephrase", "talk"):
            for index in range(_COUNT):
                text = mixture.document(5, "train", index, kind=kind).rendered()
                self.assertIsNone(re.search(r"[\[\]{}]|  |\bNone\b", text), text)

    def test_only_the_model_itself_carries_full_weight(self):
        chat = [document.user("Hello."), document.assistant("Hi!")]
        heavy = [text for text, weight in document.chat_segments(chat, []) if weight == 1.0]
        self.assertEqual(heavy, ["Hi!<|im_end|>"])


class StoryTest(unittest.TestCase):
    """Stories keep to what is asked."""

    def test_story_contains_hero_and_place(self):
        for made in made_by(stories.make):
            text = made.text or made.messages[-1]["content"]
            for part in ("hero", "place"):
                self.assertTrue(mentions(text, made.facts[part]), (made.facts, text))

    def test_prompt_names_what_was_asked(self):
        for made in made_by(stories.make):
            if not made.messages:
                continue
            for part in {"hero", "place"} & made.facts["asked"]:
                self.assertTrue(mentions(made.messages[0]["content"], made.facts[part]), made.messages[0])

    def test_both_forms_occur(self):
        kinds = {made.kind for made in made_by(stories.make)}
        self.assertEqual(kinds, {"story", "story-raw"})


class PassageTest(unittest.TestCase):
    """Answers follow from the passage."""

    def test_right_is_in_the_answer_and_wrong_is_not(self):
        for made in made_by(passages.make):
            answer = made.messages[-1]["content"]
            self.assertTrue(mentions(answer, made.facts["right"]), (answer, made.facts))
            for wrong in made.facts["wrong"]:
                self.assertFalse(mentions(answer, wrong), (answer, made.facts))

    def test_sums_are_right(self):
        found = 0
        for made in made_by(passages.make, 600):
            match = re.match(r"(\d+) (plus|minus) (\d+) is (\d+)\.", made.messages[-1]["content"])
            if match:
                a, b, c = int(match[1]), int(match[3]), int(match[4])
                self.assertEqual(c, a + b if match[2] == "plus" else a - b)
                found += 1
        self.assertGreater(found, 50)


class ReadingTest(unittest.TestCase):
    """What is asked can be looked up, and no question is asked twice."""

    def test_questions_of_a_chat_differ(self):
        for made in made_by(reading.make):
            asked = [message["content"] for message in made.messages if message["role"] == "user"]
            self.assertEqual(len(asked), len(set(asked)), made.rendered())

    def test_every_fact_is_kept_apart_from_the_held_out_ones(self):
        for made in islice(mixture.stream(1, "train", long_share=0.0), 2000):
            if made.kind == "reading":
                self.assertFalse(any(document.is_held_out(combo) for combo in (made.combo, *made.also)))

    def test_pieces_are_copies(self):
        for made in made_by(reading.make_copy):
            given, pieces = "", []
            for cue, answer in made.cues:
                head, _, first = cue.rpartition("\n")
                given = given or head
                pieces.append((first + answer).strip(" .\n"))
            for piece in pieces:
                self.assertIn(piece, given)

    def test_lists_hold_every_entry_that_is_asked_for(self):
        found = 0
        for made in made_by(reading.make_drill):
            given, _, _ = made.cues[0][0].partition("\n\n")
            for cue, answer in made.cues:
                key = cue.rpartition("\n")[2]
                if made.combo[0] == "drill":
                    self.assertRegex(given, rf"{key[:-1]}\W+{answer.strip()}\b")
                    found += 1
        self.assertGreater(found, 100)

    def test_only_what_follows_a_cue_carries_weight(self):
        made = reading.make_drill(random.Random(1))
        heavy = [text for text, weight in made.segments() if weight >= 1.0]
        self.assertEqual(heavy, [answer for _, answer in made.cues])

    def test_texts_begin_easy_in_training_only(self):
        def share(split, start):
            kinds = [made.kind for made in islice(mixture.stream(1, split, start), 200)]
            return kinds.count("drill") / len(kinds)

        self.assertGreater(share("train", 0), 0.5)
        self.assertLess(share("train", 1_000_000), 0.15)
        self.assertLess(share("valid", 0), 0.15)


class ToolTest(unittest.TestCase):
    """Calls fit the tools and the answers."""

    def test_call_names_an_offered_tool_with_its_parameters(self):
        for made in made_by(calls.make):
            offered = {tool["function"]["name"]: tool["function"]["parameters"] for tool in made.tools}
            self.assertEqual(len(offered), 3)
            for message in made.messages:
                for call in message.get("tool_calls", []):
                    schema = offered[call["function"]["name"]]
                    self.assertEqual(list(call["function"]["arguments"]), schema["required"])

    def test_rendered_call_is_json_between_its_marks(self):
        for made in made_by(calls.make):
            text = made.rendered()
            found = re.findall(r"<tool_call>(.*?)</tool_call>", text)
            self.assertTrue(found, text)
            self.assertEqual(json.loads(found[0]), {"name": made.facts["tool"], "arguments": made.facts["arguments"]})

    def test_calculator_answers_are_right(self):
        for made in made_by(calls.make):
            if made.facts["tool"] == "calculate":
                result = next(message for message in made.messages if message["role"] == "tool")
                value = eval(made.facts["arguments"]["expression"], {"__builtins__": {}})
                self.assertEqual(json.loads(result["content"])["result"], value)


class ShapeTest(unittest.TestCase):
    """JSON answers are JSON and can be read off the prompt."""

    def test_answer_parses_to_the_facts(self):
        for made in made_by(shapes.make):
            self.assertEqual(json.loads(made.messages[-1]["content"]), made.facts["value"])

    def test_every_field_is_asked_for(self):
        for made in made_by(shapes.make):
            for field in made.facts["types"]:
                self.assertIn(field, made.messages[-2]["content"])


class WordsTest(unittest.TestCase):
    """Grammar of single words."""

    def test_articles(self):
        cases = {"owl": "an owl", "unicorn": "a unicorn", "mouse": "a mouse", "old hat": "an old hat"}
        for noun, expected in cases.items():
            self.assertEqual(lexicon.article(noun), expected)

    def test_plurals(self):
        cases = {
            "plum": "plums",
            "cherry": "cherries",
            "box": "boxes",
            "mouse": "mice",
            "key": "keys",
            "peach": "peaches",
        }
        for noun, expected in cases.items():
            self.assertEqual(lexicon.plural(noun), expected)

    def test_say_expands_choices_and_slots(self):
        text = document.say(random.Random(1), "[the|the] {x} ran. [it|it] fell", x="fox")
        self.assertEqual(text, "The fox ran. It fell")


if __name__ == "__main__":
    unittest.main()
