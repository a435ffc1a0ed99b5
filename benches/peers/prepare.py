"""Each network in the form that each runtime gets, made once and kept in the work folder."""

import contextlib
import importlib.util
import json
import shutil
import subprocess
import sys
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

HERE = Path(__file__).resolve().parent
SAMPLES = 16


class Skipped(Exception):
    """Why there is no such form."""


@dataclass
class Form:
    """What a runtime is measured with: the file it is given, all files it reads, and what it is."""

    file: Path
    parts: list[Path]
    kind: str

    @property
    def size(self):
        return sum(part.stat().st_size for part in self.parts)


def command(*arguments, **options):
    """Runs a command quietly; its last words are the error if it fails."""
    done = subprocess.run(list(map(str, arguments)), capture_output=True, text=True, **options)
    if done.returncode:
        words = (done.stderr or done.stdout).strip().splitlines() or [f"exit code {done.returncode}"]
        raise Skipped(f"{Path(arguments[0]).name} fails: {words[-1].strip()[:200]}")


@contextlib.contextmanager
def whole(output):
    """A place to make `output` in. It moves to where it belongs when all went well, together with
    the files beside it that have its stem."""
    draft = output.parent / f"{output.name}.draft"
    shutil.rmtree(draft, ignore_errors=True)
    draft.mkdir(parents=True)
    try:
        yield draft / output.name
        if not (draft / output.name).exists():
            raise Skipped(f"{output.name} was not made")
        for path in draft.glob(f"{output.stem}.*"):
            path.replace(output.parent / path.name)
    finally:
        shutil.rmtree(draft, ignore_errors=True)


class Network:
    """A network of the assets: its float file, its calibration data and its forms."""

    def __init__(self, folder, work, hardtack, tensorflow):
        self.name, self.folder = folder.name, folder
        self.work = work / folder.name
        self.work.mkdir(parents=True, exist_ok=True)
        self.hardtack, self.tensorflow = hardtack, tensorflow
        self.data = folder.parent.parent / "data"

    @cached_property
    def float(self):
        """The float ONNX file with shapes fixed to a batch of one and without constants among its
        inputs. Networks with random weights are built by the script beside them."""
        import onnx

        output = self.work / "float.onnx"
        if output.exists():
            return output
        with whole(output) as draft:
            source = self.folder / "model.onnx"
            if not source.exists():
                script = self.folder.parent / "make_random_model.py"
                if not script.exists():
                    raise Skipped(f"there is no {source.name} in {self.folder}, and no script to build it")
                source = draft.parent / "built.onnx"
                command(sys.executable, script, self.folder, source)
            model = onnx.load(source)
            constants = {tensor.name for tensor in model.graph.initializer}
            ports = [port for port in model.graph.input if port.name not in constants]
            del model.graph.input[:]
            model.graph.input.extend(ports)
            for port in [*model.graph.input, *model.graph.output]:
                for dim in port.type.tensor_type.shape.dim[:1]:
                    dim.dim_value = dim.dim_value or 1
            del model.graph.value_info[:]
            onnx.save(onnx.shape_inference.infer_shapes(model), draft)
        return output

    @cached_property
    def port(self):
        """The name and the shape of the network's input."""
        import onnx

        graph = onnx.load(self.float, load_external_data=False).graph
        if len(graph.input) != 1:
            raise Skipped(f"it has {len(graph.input)} inputs; only networks with one are compared")
        port = graph.input[0]
        return port.name, [dim.dim_value or 1 for dim in port.type.tensor_type.shape.dim]

    @cached_property
    def samples(self):
        """Calibration samples: real ones where the assets have them, else normal noise."""
        name, shape = self.port
        real = real_samples(self.name, self.data)
        if real is None and not self.name.startswith("random_"):
            vectors = [np.load(path) for path in sorted(self.folder.glob("io_*.npz"))]
            kept = [vector[name] for vector in vectors if name in vector]
            real = np.concatenate(kept) if kept else None
        if real is None:
            real = np.random.default_rng(0).standard_normal([SAMPLES, *shape[1:]])
        return real[:SAMPLES].reshape([-1, *shape[1:]]).astype(np.float32)

    @cached_property
    def calibration(self):
        """The samples as `.npz`, named as the input."""
        output = self.work / "calibration.npz"
        if not output.exists():
            with whole(output) as draft:
                np.savez(draft, **{self.port[0]: self.samples})
        return output

    @cached_property
    def modern(self):
        """The float network with operators that know scales per channel, ready for quantizers."""
        import onnx
        from onnx import version_converter
        from onnxruntime.quantization.shape_inference import quant_pre_process

        output = self.work / "modern.onnx"
        if output.exists():
            return output
        model = onnx.load(self.float)
        model.ir_version = max(model.ir_version, 8)
        if model.opset_import[0].version < 13:
            model = version_converter.convert_version(model, 17)
        with whole(output) as draft:
            onnx.save(model, draft)
            quant_pre_process(str(draft), str(draft))
        return output

    def hardtack_form(self):
        """Our bundle, packed for this machine where the command knows how; made anew every time."""
        output = self.work / "hardtack.tack"
        words = [self.hardtack, "convert", self.float, "-o", output, "--int8", "--data", self.calibration]
        try:
            command(*words, "--target", "native")
            kind = "INT8, packed for this machine"
        except Skipped:
            command(*words)
            kind = "INT8, packed when loaded"
        return Form(output, [output], kind)

    def qdq_form(self):
        """QDQ with u8 activations and s8 weights per channel: what ONNX Runtime and OpenVINO run
        in integers on x86."""
        from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static

        name, rows = self.port[0], iter(self.samples)

        class Reader(CalibrationDataReader):
            def get_next(self):
                row = next(rows, None)
                return None if row is None else {name: row[None]}

        output = self.work / "qdq.onnx"
        if not output.exists():
            with whole(output) as draft:
                quantize_static(
                    str(self.modern), str(draft), Reader(), quant_format=QuantFormat.QDQ, per_channel=True,
                    activation_type=QuantType.QUInt8, weight_type=QuantType.QInt8,
                )
        return Form(output, [output], "INT8, QDQ u8s8 per channel")

    def dynamic_form(self):
        """INT8 with scales of activations found while it runs."""
        from onnxruntime.quantization import QuantType, quantize_dynamic

        output = self.work / "dynamic.onnx"
        if not output.exists():
            with whole(output) as draft:
                quantize_dynamic(str(self.modern), str(draft), weight_type=QuantType.QInt8)
        return Form(output, [output], "INT8, dynamic")

    def float_form(self):
        """The network as it is."""
        return Form(self.float, [self.float], "f32")

    def nncf_form(self):
        """OpenVINO's own quantization."""
        output = self.work / "nncf.xml"
        if not output.exists():
            import nncf
            import openvino

            data = nncf.Dataset([{self.port[0]: row[None]} for row in self.samples])
            model = openvino.Core().read_model(self.float)
            model = nncf.quantize(model, data, preset=nncf.QuantizationPreset.MIXED, subset_size=SAMPLES)
            with whole(output) as draft:
                openvino.save_model(model, draft, compress_to_fp16=False)
        return Form(output, [output, output.with_suffix(".bin")], "INT8, NNCF mixed")

    def litert_form(self):
        """The file that a network's authors publish, or one made from the same topology in Keras."""
        published = sorted(self.folder.glob("reference_*int8.tflite"))
        if published:
            kind = "UINT8 per tensor, an older form," if "uint8" in published[0].name else "INT8,"
            return Form(published[0], [published[0]], f"{kind} published by its authors")
        output = self.work / "keras.tflite"
        if not output.exists():
            if self.tensorflow is None:
                raise Skipped("its authors publish no INT8 .tflite, and making one needs --tensorflow")
            with whole(output) as draft:
                command(self.tensorflow, HERE / "keras_tflite.py", self.name, draft)
        return Form(output, [output], "INT8, same topology from Keras")

    def ncnn_form(self):
        """Converted by pnnx. The Python package of ncnn brings no quantizer."""
        output = self.work / "ncnn.param"
        if not output.exists():
            program = Path(importlib.util.find_spec("pnnx").origin).parent / "pnnx"
            shape = json.dumps(self.port[1], separators=(",", ":"))
            with whole(output) as draft:
                shutil.copy(self.float, draft.parent / "model.onnx")
                command(
                    program, "model.onnx", f"inputshape={shape}", "fp16=0",
                    "ncnnparam=ncnn.param", "ncnnbin=ncnn.bin", cwd=draft.parent,
                )
                draft.with_suffix(".shape").write_text(shape)
        return Form(output, [output, output.with_suffix(".bin")], "f32: its package has no INT8 quantizer")

    def mnn_form(self):
        """Converted and quantized by the tools of its package, in a process of their own."""
        output = self.work / "mnn.mnn"
        if not output.exists():
            name, shape = self.port
            with whole(output) as draft:
                np.save(draft.parent / "samples.npy", self.samples)
                words = [self.float, draft.name, name, json.dumps(shape)]
                command(sys.executable, HERE / "mnn_tools.py", *words, cwd=draft.parent)
        return Form(output, [output], "INT8, EMA")

    def forms(self, peer):
        """Makers of what `peer` may be measured with, the best first."""
        return {
            "hardtack": [self.hardtack_form],
            "onnxruntime": [self.qdq_form],
            "openvino": [self.qdq_form],
            "openvino-nncf": [self.nncf_form],
            "litert": [self.litert_form],
            "ncnn": [self.ncnn_form],
            "mnn": [self.mnn_form],
            "tract": [self.qdq_form, self.float_form],
            "tract-f32": [self.float_form],
            "rten": [self.dynamic_form, self.qdq_form, self.float_form],
            "rten-f32": [self.float_form],
        }[peer]


def real_samples(name, data):
    """Recorded or photographed inputs of the MLPerf Tiny networks, as floats."""
    known = {
        "mlperf_tiny_kws_dscnn": ("kws01/calib100.npz", 83, 0.5847029089927673),
        "mlperf_tiny_ic_resnet8": ("cifar10/calib300.npz", 0, 1),
        "mlperf_tiny_vww_mobilenet": ("vww_calib/images30.npz", 0, 1 / 255),
        "mlperf_tiny_ad_autoencoder": ("toycar/normal_windows.npz", 0, 1),
    }
    file, zero, scale = known.get(name, ("", 0, 1))
    if not (data / file).is_file():
        return None
    return (np.load(data / file)["x"][:SAMPLES].astype(np.float32) - zero) * scale
