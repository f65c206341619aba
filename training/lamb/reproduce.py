"""Makes woolly-lamb from nothing: tokenizer, training, export and evaluation, in one command.

Each part is skipped when its result is there already; training goes on from its last checkpoint.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from pathlib import Path

_HERE = Path(__file__).parent
STEPS = 3400
DECAY = 1700


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("directory", type=Path, nargs="?", default=Path("lamb-run"), help="for everything that is made")
    parser.add_argument("--steps", type=int, default=STEPS)
    parser.add_argument("--decay", type=int, default=DECAY)
    parser.add_argument("--count", type=int, default=200, help="prompts of each kind in the evaluation")
    arguments = parser.parse_args()
    folder: Path = arguments.directory
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer = folder / "tokenizer.json"
    if not tokenizer.exists():
        _run("tokenizer.py", tokenizer)
    _run("train.py", folder, "--tokenizer", tokenizer, "--steps", arguments.steps, "--decay", arguments.decay)
    for kind in ("Q8_0", "F32"):
        model = folder / f"woolly-lamb-{kind}.gguf"
        _run("export.py", folder / "last.pt", model, "--tokenizer", tokenizer, "--type", kind)
    model = folder / "woolly-lamb-Q8_0.gguf"
    _run("evaluate.py", model, "--count", arguments.count, "--output", folder / "figures.json")


def _run(script: str, *words: object) -> None:
    # One thread per worker: train.py brings its own threads, and theirs would only wait for each other.
    environment = os.environ | ({"OMP_NUM_THREADS": "1"} if script == "train.py" else {})
    subprocess.run([sys.executable, _HERE / script, *map(str, words)], check=True, env=environment)


if __name__ == "__main__":
    main()
