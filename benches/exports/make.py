"""Exports models with random weights to ONNX, and stores inputs and the outputs of ONNX Runtime.

    python make.py OUT [NAME…]
"""

import argparse
import contextlib
import importlib
import logging
import os
import shutil
import sys
import time
import warnings
from pathlib import Path

import numpy
import onnxruntime
from case import Ready
from table import TABLE


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out", type=Path, metavar="OUT", help="the folder to write one folder per model to")
    parser.add_argument("names", nargs="*", metavar="NAME", help="models of the table [default: all]")
    arguments = parser.parse_args()
    unknown = sorted(name for name in arguments.names if not any(name in (e.name, e.function) for e in TABLE))
    if unknown:
        parser.error(f"no such model: {', '.join(unknown)}")
    warnings.simplefilter("ignore")
    logging.disable(logging.CRITICAL)
    failed = 0
    for entry in TABLE:
        if arguments.names and not {entry.name, entry.function} & set(arguments.names):
            continue
        start = time.monotonic()
        try:
            with silence():
                made = make(entry, arguments.out / entry.name)
            print(f"{entry.name:34} {made} ({time.monotonic() - start:.0f} s)", flush=True)
        except Exception as problem:  # An exporter may raise anything.
            failed += 1
            shutil.rmtree(arguments.out / entry.name, ignore_errors=True)
            reason = str(problem).strip().splitlines() or [type(problem).__name__]
            print(f"{entry.name:34} not exported: {reason[0][:160]}", flush=True)
    return 1 if failed else 0


@contextlib.contextmanager
def silence():
    """Discards the output of the process: exporters print graphs of thousands of lines."""
    kept = [os.dup(1), os.dup(2)]
    nothing = os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nothing, 1)
        os.dup2(nothing, 2)
        yield
    finally:
        sys.stdout.flush()
        for number, copy in enumerate(kept, 1):
            os.dup2(copy, number)
            os.close(copy)
        os.close(nothing)


def make(entry, folder):
    """Writes one model with inputs and outputs. Returns a description."""
    try:
        module = importlib.import_module(entry.module)
    except ImportError as problem:
        return f"skipped: {problem}"
    seed()
    case = getattr(module, entry.function)()
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "model.onnx"
    if isinstance(case, Ready):
        path.write_bytes(case.model)
    else:
        export(entry, case, path)
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    known = {value.name for value in session.get_inputs()}
    names = [value.name for value in session.get_outputs()]
    for index, inputs in enumerate(case.inputs):
        # An exporter drops inputs that no output depends on.
        inputs = {name: array for name, array in inputs.items() if name in known}
        outputs = dict(zip(names, session.run(names, inputs), strict=True))
        numpy.savez(folder / f"inputs{index}.npz", **inputs)
        numpy.savez(folder / f"outputs{index}.npz", **outputs)
    return f"{path.stat().st_size / 1e6:.1f} MB"


def seed():
    try:
        import torch

        torch.manual_seed(0)
    except ImportError:
        pass
    numpy.random.seed(0)


def export(entry, case, path):
    """Exports a module of PyTorch with one of its two exporters."""
    import torch

    torch.backends.mha.set_fastpath_enabled(False)
    module = case.module.eval()
    spread_weights(module)
    # The exporters take a size of 1 for a constant, so the second shape has none.
    first = case.inputs[1]
    arguments = tuple(torch.from_numpy(array) for array in first.values())
    common = {"input_names": list(first), "output_names": case.outputs, "opset_version": entry.opset}
    with torch.no_grad():
        if entry.exporter == "dynamo":
            shapes = tuple(case.dynamic.get(name, {}) for name in first)
            shapes = (shapes,) if takes_any_number(module) else shapes
            torch.onnx.export(
                module, arguments, path, dynamo=True, dynamic_shapes=shapes, external_data=False,
                verbose=False, **common,
            )
        else:
            torch.onnx.export(module, arguments, path, dynamo=False, dynamic_axes=case.dynamic, **common)


def takes_any_number(module):
    """Returns whether a module's `forward` is declared with `*arguments`."""
    import inspect

    parameters = inspect.signature(module.forward).parameters.values()
    return any(parameter.kind is parameter.VAR_POSITIONAL for parameter in parameters)


def spread_weights(module):
    """Replaces parameters that are all equal, such as those of a normalization, by random ones."""
    import torch

    for parameter in module.parameters():
        if parameter.is_floating_point() and parameter.numel() > 1 and (parameter == parameter.flatten()[0]).all():
            parameter.data += 0.1 * torch.randn_like(parameter)


if __name__ == "__main__":
    sys.exit(main())
