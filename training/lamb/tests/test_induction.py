"""The first weights copy what was repeated; needs PyTorch and is skipped without it."""

import unittest

try:
    import torch

    from induction import begin_with_copying
    from model import Lamb, Shape
except ImportError:
    torch = None

_TEXTS = 32
_TOKENS = 60


@unittest.skipIf(torch is None, "PyTorch is not installed")
class InductionTest(unittest.TestCase):
    """Random tokens, all different, once and then in the same order again."""

    def test_most_tokens_are_copied_before_any_training(self):
        with_heads, without = self._share(True), self._share(False)
        self.assertGreater(with_heads, 0.8)
        self.assertLess(without, 0.05)

    def test_a_model_without_a_second_layer_is_refused(self):
        with self.assertRaisesRegex(ValueError, "two layers"):
            begin_with_copying(Lamb(Shape(layers=1)))

    def _share(self, heads):
        torch.manual_seed(3)
        model = Lamb(Shape())
        if heads:
            begin_with_copying(model)
        orders = [torch.randperm(model.shape.vocabulary)[:_TOKENS] for _ in range(_TEXTS)]
        once = torch.stack(orders)
        with torch.no_grad():
            said = model(torch.cat((once, once), 1)).argmax(-1)
        # What follows the last token of the first half is not known.
        return (said[:, _TOKENS:-1] == once[:, 1:]).float().mean().item()


if __name__ == "__main__":
    unittest.main()
