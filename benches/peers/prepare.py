"""Each model in the form that each runtime likes best, made once and kept."""

import subprocess
import sys
from pathlib import Path

import numpy as np


class Skipped(Exception):
    """Why there is no such form."""


def source(folder, work):
    """The float ONNX file of a model; networks with random weights are built by their script."""
    model = folder / "model.onnx"
    if model.exists():
        return model
    built = work / f"{folder.name}.onnx"
    if not built.exists():
        script = folder.parent / "make_random_model.py"
        subprocess.run([sys.executable, script, folder, built], check=True, stdout=subprocess.DEVNULL)
    return built


def calibration(onnx_file, work):
    """Eight samples of noise for the first input, as `.npz` named as it is; name and file."""
    import onnx

    graph = onnx.load(onnx_file, load_external_data=False).graph
    constants = {tensor.name for tensor in graph.initializer}
    port = next(value for value in graph.input if value.name not in constants)
    shape = [dim.dim_value or 1 for dim in port.type.tensor_type.shape.dim]
    file = work / f"{onnx_file.stem}-{onnx_file.parent.name}.npz"
    if not file.exists():
        noise = np.random.default_rng(0).standard_normal([8, *shape[1:]])
        np.savez(file, **{port.name: noise.astype(np.float32)})
    return port.name, file


def modern(onnx_file, output):
    """The model with operators new enough for scales per channel, and with constants that are no
    inputs, so that peers can fold them."""
    import onnx
    from onnx import version_converter

    model = onnx.load(onnx_file)
    constants = {tensor.name for tensor in model.graph.initializer}
    ports = [port for port in model.graph.input if port.name not in constants]
    del model.graph.input[:]
    model.graph.input.extend(ports)
    model.ir_version = max(model.ir_version, 8)
    if model.opset_import[0].version < 13:
        model = version_converter.convert_version(model, 17)
    onnx.save(model, output)


def qdq(name, onnx_file, work):
    """QDQ with u8 activations and s8 weights per channel: what ONNX Runtime and OpenVINO run in
    integers on x86."""
    output = work / f"{name}.qdq.onnx"
    if output.exists():
        return output
    import onnxruntime
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process

    port, file = calibration(onnx_file, work)
    samples = np.load(file)[port]

    class Reader(CalibrationDataReader):
        rows = iter(samples)

        def get_next(self):
            row = next(self.rows, None)
            return None if row is None else {port: row[None]}

    onnxruntime.set_default_logger_severity(3)
    inferred = work / f"{name}.inferred.onnx"
    modern(onnx_file, inferred)
    quant_pre_process(str(inferred), str(inferred))
    quantize_static(
        str(inferred), str(output), Reader(), quant_format=QuantFormat.QDQ, per_channel=True,
        activation_type=QuantType.QUInt8, weight_type=QuantType.QInt8,
    )
    return output


def tflite(folder):
    """The INT8 file that a model's authors published."""
    files = sorted(folder.glob("reference_*int8.tflite"))
    if not files:
        raise Skipped("its authors publish no INT8 .tflite, and none is made here")
    return files[0]


def bundle(name, onnx_file, work, hardtack):
    """Our bundle, packed for this machine."""
    output = work / f"{name}.tack"
    _, file = calibration(onnx_file, work)
    command = [hardtack, "convert", onnx_file, "-o", output, "--int8", "--calibrate", file, "--target", "native"]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return output


def form(peer, name, folder, work, hardtack):
    """The file that `peer` is measured with."""
    if peer == "litert":
        return tflite(folder)
    onnx_file = source(folder, work)
    if peer == "hardtack":
        return bundle(name, onnx_file, work, hardtack)
    return qdq(name, onnx_file, work)
