"""Converts the models that make.py wrote, and compares Hardtack with ONNX Runtime.

    python check.py HARDTACK OUT [NAME…]
"""

import argparse
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy
import onnx

# The largest difference that passes, as a fraction of the output's range.
LIMIT = 1e-3


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("hardtack", type=Path, metavar="HARDTACK", help="the command, such as target/release/hardtack")
    parser.add_argument("out", type=Path, metavar="OUT", help="the folder of make.py")
    parser.add_argument("names", nargs="*", metavar="NAME", help="folders to check [default: all]")
    parser.add_argument("--words", action="store_true", help="print what convert says about each model")
    arguments = parser.parse_args()
    folders = sorted(path.parent for path in arguments.out.glob("*/model.onnx"))
    if arguments.names:
        folders = [folder for folder in folders if any(folder.name.startswith(name) for name in arguments.names)]
    if not folders:
        parser.error(f"{arguments.out}: no models; make them with make.py")
    heads = ("model", "exporter", "nodes", "seconds", "difference", "verdict")
    print("{:28} {:10} {:>5} {:>7} {:>10}  {}".format(*heads))
    failed = 0
    for folder in folders:
        row = check(arguments.hardtack.resolve(), folder, arguments.words)
        failed += row["verdict"] != "equal"
        difference = "" if row["difference"] is None else f"{row['difference']:.1e}"
        print("{name:28} {exporter:10} {nodes:5} {seconds:7.1f} {0:>10}  {verdict}".format(difference, **row), flush=True)
    print(f"{len(folders) - failed} of {len(folders)} models are equal")
    return 1 if failed else 0


def check(hardtack, folder, words):
    """Converts and runs one model. Returns a row of the table."""
    name, _, exporter = folder.name.rpartition("-")
    nodes = len(onnx.load(folder / "model.onnx").graph.node)
    row = {"name": name or folder.name, "exporter": exporter if name else "", "nodes": nodes, "difference": None}
    with tempfile.TemporaryDirectory() as temporary:
        bundle = Path(temporary) / "model.tack"
        start = time.monotonic()
        done = call(hardtack, "convert", folder / "model.onnx", "-o", bundle)
        row["seconds"] = time.monotonic() - start
        if words:
            print(done.stdout + done.stderr)
        if done.returncode:
            return row | {"verdict": "not converted: " + last_line(done.stderr)}
        worst = 0.0
        for inputs in sorted(folder.glob("inputs*.npz")):
            outputs = Path(temporary) / "outputs.npz"
            done = call(hardtack, "run", bundle, "--inputs", inputs, "-o", outputs)
            if done.returncode:
                return row | {"verdict": f"{inputs.stem}: not run: " + last_line(done.stderr)}
            expected = numpy.load(folder / inputs.name.replace("inputs", "outputs"))
            with numpy.load(outputs) as found:
                for key in expected.files:
                    wrong = mismatch(key, expected[key], found)
                    if wrong:
                        return row | {"verdict": f"{inputs.stem}: {wrong}"}
                    worst = max(worst, difference(expected[key], found[key]))
    verdict = "equal" if worst < LIMIT else "different"
    return row | {"difference": worst, "verdict": verdict}


def call(*command):
    return subprocess.run([str(part) for part in command], capture_output=True, text=True)


def last_line(text):
    return (text.strip().splitlines() or [""])[-1][:300]


def mismatch(key, expected, found):
    """Returns in what an output differs from the expected one other than in its values."""
    if key not in found.files:
        return f"output {key} is missing"
    if expected.shape != found[key].shape:
        return f"output {key} is {list(found[key].shape)}, not {list(expected.shape)}"
    if expected.dtype != found[key].dtype:
        return f"output {key} is {found[key].dtype}, not {expected.dtype}"
    return None


def difference(expected, found):
    """Returns the largest difference as a fraction of the range of the expected values."""
    if expected.size == 0:
        return 0.0
    expected, found = expected.astype(numpy.float64), found.astype(numpy.float64)
    if not numpy.array_equal(numpy.isfinite(expected), numpy.isfinite(found)):
        return float("inf")
    finite = numpy.isfinite(expected)
    if not numpy.array_equal(expected[~finite], found[~finite], equal_nan=True):
        return float("inf")
    expected, found = expected[finite], found[finite]
    if expected.size == 0:
        return 0.0
    extent = max(numpy.ptp(expected), numpy.abs(expected).max(), 1e-30)
    return float(numpy.abs(expected - found).max() / extent)


if __name__ == "__main__":
    sys.exit(main())
