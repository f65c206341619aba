"""Trains woolly-lamb; a stopped run goes on from its last checkpoint.

The learning rate is warmed up, constant, and then falls linearly to zero (warm-up, stable, decay). The decay can be
started from any checkpoint: run again with ``--steps`` and ``--decay`` chosen accordingly.

On a CPU, worker threads take batches of a step from a common queue, each with one core and its own gradients. Threads
meet once per step and not once per matrix product, which matters on a machine that has other work to do. The layers are
compiled once for all lengths, which makes a step half as fast again (``--eager`` does without).
"""

from __future__ import annotations

import argparse
import copy
import math
import os
import threading
import time
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from queue import Empty, SimpleQueue

import torch
from tokenizers import Tokenizer
from torch import Tensor

from batches import Batch, Loader, collate, encode
from corpus import mixture
from gguf_model import load_transformers
from induction import begin_with_copying
from model import Lamb, Shape, precision
from optimizer import optimizers
from probe import Probe

_VALIDATION_DOCUMENTS = 128
_VALIDATION_BATCH = 16
_COUNTED_STEP = 128


def rate(step: int, warmup: int, steps: int, decay: int) -> float:
    """The factor of the learning rate at a step (counted from 0) of warm-up, stable, decay."""
    return min(1.0, (step + 1) / warmup, max(0.0, (steps - step) / max(1, decay)))


class Workers:
    """Copies of the model that share its weights but have gradients of their own."""

    def __init__(self, model: Lamb, count: int, device: torch.device, compiled: bool) -> None:
        self.model = model
        self.device = device
        self.copies = [model] + [self._shared(model) for _ in range(count - 1)]
        self.losses = [self._loss(own, compiled) for own in self.copies]

    def _loss(self, model: Lamb, compiled: bool) -> Callable[[Batch], Tensor]:
        function = torch.compile(model.loss_of, dynamic=True) if compiled else model.loss_of

        def loss(batch: Batch) -> Tensor:
            # Which tokens count depends on data and is found out here, so that the rest is one graph. Their number is
            # rounded up, so that few shapes occur; a token of weight 0 makes no difference.
            order = batch.weights.flatten().sort(descending=True, stable=True).indices
            count = int(batch.weights.count_nonzero())
            counted = order[: -(-max(1, count) // _COUNTED_STEP) * _COUNTED_STEP]
            with precision(self.device):
                return function(batch.ids, counted, batch.targets.flatten()[counted], batch.weights.flatten()[counted])

        return loss

    @staticmethod
    def _shared(model: Lamb) -> Lamb:
        twin = copy.deepcopy(model)
        for own, common in zip(twin.parameters(), model.parameters()):
            own.data = common.data
        return twin

    def gradients(self, batches: list[Batch]) -> float:
        """Fills the model's gradients from all batches; returns the mean loss of a unit of weight."""
        total = sum(float(batch.weights.sum()) for batch in batches)
        queue: SimpleQueue[Batch] = SimpleQueue()
        for batch in batches:
            queue.put(batch)
        losses = [0.0] * len(self.copies)
        threads = [
            threading.Thread(target=self._work, args=(index, queue, total, losses))
            for index in range(1, len(self.copies))
        ]
        for thread in threads:
            thread.start()
        self._work(0, queue, total, losses)
        for thread in threads:
            thread.join()
        self._gather()
        return sum(losses)

    def _work(self, index: int, queue: SimpleQueue, total: float, losses: list[float]) -> None:
        if len(self.copies) > 1:
            torch.set_num_threads(1)
        while True:
            try:
                batch = queue.get_nowait()
            except Empty:
                return
            loss = self.losses[index](batch) / total
            loss.backward()
            losses[index] += float(loss.detach())

    def _gather(self) -> None:
        for twin in self.copies[1:]:
            for own, common in zip(twin.parameters(), self.model.parameters()):
                if own.grad is None:
                    continue
                common.grad = own.grad if common.grad is None else common.grad.add_(own.grad)
                own.grad = None


def validation_batches(tokenizer: Tokenizer, seed: int, context: int, device: torch.device) -> list[Batch]:
    """A fixed set of held-out documents, every token of what the model says with weight 1 and no other."""
    encoded = []
    for document in islice(mixture.stream(seed, "valid"), _VALIDATION_DOCUMENTS):
        item = encode(tokenizer, document)
        item.weights = [float(weight >= 1.0) for weight in item.weights]
        if len(item.ids) <= context:
            encoded.append(item)
    encoded.sort(key=lambda item: len(item.ids))
    return [
        collate(encoded[start : start + _VALIDATION_BATCH], device)
        for start in range(0, len(encoded), _VALIDATION_BATCH)
    ]


@torch.no_grad()
def validate(model: Lamb, batches: list[Batch]) -> float:
    """Mean negative log-likelihood (nats) of a token that the model says."""
    total = weight = 0.0
    for batch in batches:
        with precision(batch.ids.device):
            total += float(model.loss(batch.ids, batch.targets, batch.weights))
        weight += float(batch.weights.sum())
    return total / weight


def save(path: Path, model: Lamb, optimisers: list[torch.optim.Optimizer], progress: dict) -> None:
    """Writes a checkpoint so that a crash leaves the old or the new one, never half of one."""
    state = {
        "shape": model.shape.as_dict(),
        "model": model.state_dict(),
        "optimizers": [optimiser.state_dict() for optimiser in optimisers],
        "progress": progress,
    }
    temporary = path.with_suffix(".tmp")
    torch.save(state, temporary)
    os.replace(temporary, path)


def load_model(path: Path) -> Lamb:
    """The model of a checkpoint, on the CPU."""
    state = torch.load(path, map_location="cpu", weights_only=True)
    model = Lamb(Shape(**state["shape"]))
    model.load_state_dict(state["model"])
    return model


def weights_of(path: Path) -> dict[str, Tensor]:
    """The weights of a GGUF file under the names of our model."""
    state = load_transformers(path).state_dict()
    return {name.removeprefix("model."): weight for name, weight in state.items() if name != "lm_head.weight"}


def train(arguments: argparse.Namespace) -> None:
    """Runs to ``--steps`` from where the last checkpoint stands."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    torch.manual_seed(arguments.seed)
    arguments.directory.mkdir(parents=True, exist_ok=True)
    (arguments.directory / "train.pid").write_text(str(os.getpid()))
    tokenizer = Tokenizer.from_file(str(arguments.tokenizer))
    model = Lamb(Shape(vocabulary=tokenizer.get_vocab_size(), layers=arguments.layers)).to(device)
    optimisers = optimizers(model, arguments.matrix_rate, arguments.other_rate)
    base_rates = [[group["lr"] for group in optimiser.param_groups] for optimiser in optimisers]
    progress = {"step": 0, "position": arguments.first_document, "tokens": 0, "seconds": 0.0}
    checkpoint = arguments.directory / "last.pt"
    if checkpoint.exists():
        progress = _resume(checkpoint, model, optimisers, device)
    elif arguments.weights:
        model.load_state_dict(weights_of(arguments.weights))
    else:
        begin_with_copying(model)
    # Workers alias the weights, so they are made after a checkpoint has been read.
    workers = Workers(model, 1 if device.type == "cuda" else arguments.workers, device, not arguments.eager)
    loader = Loader(
        tokenizer, arguments.seed, arguments.batch, model.shape.context, progress["position"], arguments.long_share
    )
    held_out = validation_batches(tokenizer, arguments.seed, model.shape.context, device)
    probe = Probe(tokenizer, device)
    batches = loader.batches(device)
    while progress["step"] < arguments.steps:
        factor = rate(progress["step"], arguments.warmup, arguments.steps, arguments.decay)
        _set_rates(optimisers, base_rates, factor)
        _one_step(workers, optimisers, batches, arguments.accumulate, progress)
        progress["position"] = loader.position
        _report(model, held_out, probe, progress, factor, arguments)
        if progress["step"] % arguments.save_every == 0 or progress["step"] == arguments.steps:
            save(checkpoint, model, optimisers, progress)
        if progress["step"] % arguments.keep_every == 0:
            save(arguments.directory / f"step{progress['step']:06}.pt", model, optimisers, progress)


def _resume(path: Path, model: Lamb, optimisers: list[torch.optim.Optimizer], device: torch.device) -> dict:
    state = torch.load(path, map_location=device, weights_only=True)
    model.load_state_dict(state["model"])
    for optimiser, saved in zip(optimisers, state["optimizers"]):
        optimiser.load_state_dict(saved)
    return state["progress"]


def _set_rates(optimisers: list[torch.optim.Optimizer], base_rates: list[list[float]], factor: float) -> None:
    for optimiser, rates in zip(optimisers, base_rates):
        for group, base in zip(optimiser.param_groups, rates):
            group["lr"] = base * factor


def _one_step(
    workers: Workers, optimisers: list[torch.optim.Optimizer], batches: Iterator[Batch], accumulate: int, progress: dict
) -> None:
    started = time.monotonic()
    step = list(islice(batches, accumulate))
    progress["loss"] = workers.gradients(step)
    if not math.isfinite(progress["loss"]):
        raise RuntimeError(f"step {progress['step']}: the loss is {progress['loss']}; lower the learning rates")
    # The workers have finished, so all cores are free for the products of Muon.
    torch.set_num_threads(len(workers.copies))
    for optimiser in optimisers:
        optimiser.step()
        optimiser.zero_grad(set_to_none=True)
    progress["step"] += 1
    progress["tokens"] += sum(batch.ids.numel() for batch in step)
    progress["seconds"] += time.monotonic() - started


def _report(
    model: Lamb, held_out: list[Batch], probe: Probe, progress: dict, factor: float, arguments: argparse.Namespace
) -> None:
    step = progress["step"]
    if step % arguments.log_every == 0:
        speed = progress["tokens"] / progress["seconds"]
        line = (
            f"step {step} loss {progress['loss']:.4f} rate {factor:.3f} tokens {progress['tokens']} speed {speed:.0f}/s"
        )
        if step % arguments.validate_every == 0 or step == arguments.steps:
            line += f" validation {validate(model, held_out):.4f}"
            line += "".join(f" {name} {share:.0%}" for name, share in probe.shares(model).items())
        print(line, flush=True)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("directory", type=Path, help="checkpoints go here; outside the repository")
    parser.add_argument("--tokenizer", type=Path, required=True)
    parser.add_argument("--weights", type=Path, help="GGUF file whose weights to begin with")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--first-document", type=int, default=0, help="the number of the document to begin with")
    parser.add_argument("--steps", type=int, default=2000)
    parser.add_argument("--decay", type=int, default=500, help="steps at the end in which the rate falls to zero")
    parser.add_argument("--warmup", type=int, default=60)
    parser.add_argument("--matrix-rate", type=float, default=0.015)
    parser.add_argument("--other-rate", type=float, default=0.003)
    parser.add_argument("--layers", type=int, default=Shape.layers)
    parser.add_argument("--batch", type=int, default=2048, help="tokens of one batch")
    parser.add_argument("--accumulate", type=int, default=4, help="batches of one step")
    parser.add_argument("--eager", action="store_true", help="do not compile")
    parser.add_argument("--long-share", type=float, default=0.06)
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--log-every", type=int, default=10)
    parser.add_argument("--validate-every", type=int, default=100)
    parser.add_argument("--save-every", type=int, default=50)
    parser.add_argument("--keep-every", type=int, default=500)
    # Room for the kernels of all shapes of batches; read when the first is made.
    os.environ.setdefault("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "8192")
    train(parser.parse_args())


if __name__ == "__main__":
    main()
