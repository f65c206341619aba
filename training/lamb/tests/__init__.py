"""Tests of the corpus and of the judging; standard library only: ``python3 -m unittest`` in ``training/lamb``."""
