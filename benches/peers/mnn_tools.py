"""An ONNX file as quantized MNN file, with the native converter and quantizer of MNN's package.

    mnn_tools.py MODEL.onnx OUT.mnn INPUT_NAME SHAPE

The samples lie in `samples.npy` in the working folder. The package's own commands `mnnconvert` and
`mnnquant` are not used: they install further packages with whatever pip they find and send usage
data. The native module under them does neither.
"""

import json
import sys
from pathlib import Path

import _tools
import numpy as np


def main():
    source, output, name, shape = sys.argv[1:]
    files = ["--modelFile", source, "--MNNModel", "float.mnn"]
    _tools.mnnconvert(["mnnconvert", "-f", "ONNX", *files, "--bizCode", "peers"])
    if not Path("float.mnn").exists():
        sys.exit("MNN does not convert this network")
    samples = np.load("samples.npy")
    inputs = [{"name": name, "shape": json.loads(shape)}]
    for index, sample in enumerate(samples):
        folder = Path("samples") / f"{index:03}"
        folder.mkdir(parents=True)
        (folder / "input.json").write_text(json.dumps({"inputs": inputs, "outputs": []}))
        np.savetxt(folder / f"{name}.txt", sample.reshape(-1), fmt="%.7g")
    config = {
        "path": "samples/", "used_sample_num": len(samples), "batch_size": 1, "input_type": "sequence",
        "inputs": inputs,
        "feature_quantize_method": "EMA", "weight_quantize_method": "MAX_ABS",
        "feature_clamp_value": 127, "weight_clamp_value": 127,
    }
    Path("quantize.json").write_text(json.dumps(config))
    _tools.mnnquant(["mnnquant", "float.mnn", output, "quantize.json"])


if __name__ == "__main__":
    main()
