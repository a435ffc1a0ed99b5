"""A model to export, with its inputs at three shapes."""

from dataclasses import dataclass, field

import numpy

# The case of an input of floats is made from this seed and the number of the shape.
SEED = 7


@dataclass
class Case:
    """A PyTorch module to export.

    `inputs` has one dictionary of arrays for each shape, in the order of the module's arguments.
    `dynamic` maps an input to the names of its dynamic dimensions by axis.
    """

    module: object
    inputs: list
    outputs: list
    dynamic: dict = field(default_factory=dict)


@dataclass
class Ready:
    """An ONNX model that needs no exporter of PyTorch, as bytes, with its inputs."""

    model: bytes
    inputs: list


def floats(run, *shape):
    """Returns seeded normal float32 numbers."""
    random = numpy.random.default_rng(SEED + run)
    return random.standard_normal(shape).astype(numpy.float32)


def integers(run, limit, *shape):
    """Returns seeded int64 numbers from 0 to `limit` - 1."""
    random = numpy.random.default_rng(SEED + run)
    return random.integers(0, limit, shape, dtype=numpy.int64)


def images(batches=(1, 2, 3), sizes=((64, 64),) * 3, name="image"):
    """Returns an input image at three shapes."""
    shapes = zip(batches, sizes, strict=True)
    return [{name: floats(run, batch, 3, *size)} for run, (batch, size) in enumerate(shapes)]


BATCH = {0: "batch"}
OPEN = {0: "batch", 2: "height", 3: "width"}
SIZES = ((64, 64), (96, 64), (64, 128))
