"""Compares what `woolly quantize` and `llama-quantize` lose, type by type, on the same rows.

    python crates/woolly-quant/checks/beside_llama_quantize.py --woolly target/release/woolly \\
        --llama-quantize PATH/llama-quantize --model models/woolly-lamb-Q8_0.gguf --text text.txt [--document docs/quantization.md]

Needs the packages numpy and gguf. Three kinds of rows go into one F32 file: normal, heavy-tailed (Student's t with 3 degrees of
freedom), and weights of the model. Both programs make every type of it, with and without an importance matrix: that of the model
on the text for its own weights, log-normal columns for the others. Printed are errors relative to the rows: the root of
sum((x - y)^2) / sum(x^2) of what was made without the matrix, and of the same sums weighted by importance with it. The
package gguf must decode every file to the same bits as Woolly. The exit status is 1 if Woolly loses more anywhere, or if
the decoders differ.
"""

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path

import gguf
import numpy as np
from gguf import quants

TYPES = (
    "q1_0 q2_0 q4_0 q4_1 q5_0 q5_1 q8_0 q2_K q3_K q4_K q5_K q6_K iq1_s iq1_m iq2_xxs iq2_xs iq2_s iq3_xxs iq3_s iq4_nl iq4_xs "
    "tq1_0 tq2_0 mxfp4 nvfp4 f16 bf16"
).split()
# llama-quantize refuses these without an importance matrix.
NEED_IMPORTANCE = {"iq1_s", "iq1_m", "iq2_xxs", "iq2_xs", "iq2_s", "iq3_xxs"}
# Weights of the model that count as its rows, and where the made-up rows stand.
REAL = [f"blk.{layer}.{part}.weight" for layer in (0, 2) for part in ("attn_q", "ffn_up", "ffn_down")]
NORMAL, HEAVY = "blk.4.ffn_up.weight", "blk.5.ffn_up.weight"
KINDS = {"normal": [NORMAL], "heavy-tailed": [HEAVY], "model": REAL}
MARKS = ("<!-- errors: written by beside_llama_quantize.py -->", "<!-- end of the errors -->")


def run(*command, log=None):
    done = subprocess.run([str(word) for word in command], capture_output=True, text=True, check=False)
    if done.returncode and log is None:
        sys.exit(f"{' '.join(map(str, command))}\n{done.stdout}\n{done.stderr}")
    return done.returncode == 0


def floats(path):
    """All tensors of an F32 file by name, as [rows, columns]."""
    return {tensor.name: np.array(tensor.data) for tensor in gguf.GGUFReader(path).tensors}


def write_rows(path, weights):
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_block_count(6)
    for add, value in [
        (writer.add_context_length, 64), (writer.add_embedding_length, 256), (writer.add_feed_forward_length, 768),
        (writer.add_head_count, 4), (writer.add_layer_norm_rms_eps, 1e-5), (writer.add_file_type, 0),
    ]:
        add(value)
    for name, values in weights.items():
        writer.add_tensor(name, values)
    close(writer)


def write_importance(path, columns):
    writer = gguf.GGUFWriter(path, "")
    writer.add_type("imatrix")
    writer.add_array("imatrix.datasets", ["rows"])
    writer.add_uint32("imatrix.chunk_count", 1)
    writer.add_uint32("imatrix.chunk_size", 512)
    for name, sums in columns.items():
        writer.add_tensor(f"{name}.in_sum2", sums.reshape(1, -1))
        writer.add_tensor(f"{name}.counts", np.ones((1, 1), np.float32))
    close(writer)


def close(writer):
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def prepare(arguments, folder):
    """Writes the rows and their importance; returns both by name."""
    rows, matrix, plain = folder / "rows.gguf", folder / "importance.gguf", folder / "plain.gguf"
    run(arguments.woolly, "quantize", "--allow-requantize", arguments.model, plain, "F32")
    run(arguments.woolly, "imatrix", "-m", plain, "-f", arguments.text, "-o", matrix)
    generator = np.random.default_rng(1)
    model, measured = floats(plain), floats(matrix)
    weights = {name: model[name] for name in REAL}
    weights[NORMAL] = generator.standard_normal((768, 256), np.float32)
    weights[HEAVY] = generator.standard_t(3, (768, 256)).astype(np.float32)
    weights["token_embd.weight"] = np.zeros((32, 256), np.float32)
    columns = {name: measured[f"{name}.in_sum2"].reshape(-1) for name in REAL}
    for name in (NORMAL, HEAVY):
        columns[name] = np.exp(1.5 * generator.standard_normal(256)).astype(np.float32)
    write_rows(rows, weights)
    write_importance(matrix, columns)
    return rows, matrix, weights, columns


def decoded(arguments, path, folder):
    """The weights of a quantised file, as Woolly decodes them; and whether gguf does likewise, None where it cannot."""
    plain = folder / "decoded.gguf"
    run(arguments.woolly, "quantize", "--force", "--allow-requantize", "--pure", path, plain, "F32")
    values = floats(plain)
    try:
        tensors = [tensor for tensor in gguf.GGUFReader(path).tensors if tensor.name.startswith("blk")]
        theirs = {tensor.name: quants.dequantize(tensor.data, tensor.tensor_type) for tensor in tensors}
    except (NotImplementedError, ValueError, KeyError):
        return values, None
    same = all(np.array_equal(values[name].view(np.uint32), np.ascontiguousarray(other, np.float32).view(np.uint32))
               for name, other in theirs.items())
    return values, same


def loss(kind, weights, values, columns):
    """The relative error of a kind of rows: the root of the mean of the relative squares of its tensors."""
    squares = []
    for name in KINDS[kind]:
        importance = columns[name].astype(np.float64) if columns else 1.0
        exact = weights[name].astype(np.float64)
        squares.append((importance * (exact - values[name]) ** 2).sum() / (importance * exact**2).sum())
    return float(np.sqrt(np.mean(squares)))


def losses(arguments, program, ty, files, folder):
    """The errors of all kinds of rows, without and with importance; None where the program refuses."""
    rows, matrix, weights, columns = files
    found, agree = [], []
    for weighted in (False, True):
        out = folder / f"{program}-{ty}.gguf"
        out.unlink(missing_ok=True)
        tool = [arguments.woolly, "quantize", "--without-imatrix"] if program == "woolly" else [arguments.llama_quantize]
        tool += ["--imatrix", matrix] if weighted else []
        if ty in ("f16", "bf16"):
            tool += [rows, out, ty.upper()]
        else:
            tool += ["--tensor-type", f"blk={ty}", rows, out, "Q8_0"]
        if not run(*tool, log=folder):
            found += [None] * len(KINDS)
            continue
        values, same = decoded(arguments, out, folder)
        agree.append(same)
        found += [loss(kind, weights, values, columns if weighted else None) for kind in KINDS]
    return found, agree


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("woolly", "llama-quantize", "model", "text"):
        parser.add_argument(f"--{name}", required=True)
    parser.add_argument("--types", default=" ".join(TYPES), help="only these types, separated by spaces")
    parser.add_argument("--document", help="Markdown file with the marks between which the table goes")
    arguments = parser.parse_args()
    heads = [f"{kind}{weighted}" for weighted in ("", ", weighted") for kind in KINDS]
    lines = [f"| type | {' | '.join(heads)} | read by gguf |", "|---" * (len(heads) + 2) + "|"]
    failed = False
    with tempfile.TemporaryDirectory() as folder:
        files = prepare(arguments, Path(folder))
        for ty in arguments.types.split():
            ours, agree = losses(arguments, "woolly", ty, files, Path(folder))
            theirs, _ = losses(arguments, "llama", ty, files, Path(folder))
            cells = []
            for a, b in zip(ours, theirs):
                # A hundred-thousandth is what sums in another order make.
                worse = a is None or (b is not None and a > b * 1.00001)
                failed |= worse
                text = "refused" if a is None else f"{a:.5f}"
                cells.append(f"{text} / {'–' if b is None else f'{b:.5f}'}{' **worse**' if worse else ''}")
            read = "–" if None in agree else "same" if agree and all(agree) else "**differs**"
            failed |= read == "**differs**"
            lines.append(f"| {ty.upper()} | {' | '.join(cells)} | {read} |")
            print(lines[-1], flush=True)
    if arguments.document:
        path = Path(arguments.document)
        before, rest = path.read_text().split(MARKS[0])
        table = "\n".join(lines)
        path.write_text(f"{before}{MARKS[0]}\n\n{table}\n\n{MARKS[1]}{rest.split(MARKS[1])[1]}")
    sys.exit(failed)


if __name__ == "__main__":
    main()
