"""The judges accept right answers and reject each way of being wrong."""

import unittest

import judging
from corpus.document import Document

_CALL = '<tool_call>{"name": "get_weather", "arguments": {"city": "Oslo"}}</tool_call>'


class JudgingTest(unittest.TestCase):
    """One table of cases for each judge."""

    def check(self, right, facts, cases):
        """Runs a judge on (answer, expected verdict) pairs."""
        for answer, expected in cases:
            self.assertEqual(right(answer, Document("", (), facts=facts)), expected, answer)

    def test_story(self):
        cases = [("The fox came to the river.", True), ("The fox came.", False), ("A foxglove by the river.", False)]
        self.check(judging.story_right, {"hero": "fox", "place": "river"}, cases)

    def test_passage(self):
        cases = [("Tom's hat is red.", True), ("It is blue.", False), ("It is red or blue.", False), ("", False)]
        self.check(judging.passage_right, {"right": "red", "wrong": ["blue"]}, cases)

    def test_tool(self):
        cases = [
            (_CALL, True),
            (_CALL.replace("Oslo", "Rome"), False),
            (_CALL + " ok", False),
            ("It is sunny.", False),
            (_CALL.replace("}}", "}"), False),
            (_CALL.replace("get_weather", "calculate"), False),
        ]
        self.check(judging.tool_right, {"tool": "get_weather", "arguments": {"city": "Oslo"}}, cases)

    def test_shape(self):
        cases = [
            ('{"age": 3}', True),
            ('{"age": 4}', True),
            ('{"age": "3"}', False),
            ('{"age": true}', False),
            ('{"age": 3, "x": 1}', False),
            ("[3]", False),
            ("age: 3", False),
        ]
        self.check(judging.shape_followed, {"types": {"age": "int"}}, cases)

    def test_loops(self):
        span = list(range(20))
        self.assertTrue(judging.loops(span * 3))
        self.assertFalse(judging.loops(span * 2))
        self.assertFalse(judging.loops(list(range(100))))
        self.assertTrue(judging.loops([7] * 22))


if __name__ == "__main__":
    unittest.main()
