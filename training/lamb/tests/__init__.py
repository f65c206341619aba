"""Tests of corpus, judging and first weights: ``python3 -m unittest`` in ``training/lamb``.

All but those of the first weights, which need PyTorch, use the standard library only.
"""
