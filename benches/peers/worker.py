"""One Python runtime with one model, in a process of its own.

    worker.py --peer PEER --model FILE --threads N

Loads the model and runs it once, then prints `ready` and a JSON object: the microseconds of loading
and of the first run (interpreter, imports and making the input excluded), and the bytes that the
bare interpreter with numpy holds. From then on each line on stdin is a number of inferences, and
each line on stdout their times in microseconds.
"""

import argparse
import gc
import json
import sys
import time

import numpy as np


def resident():
    """The memory that this process holds, in bytes."""
    with open("/proc/self/status") as status:
        line = next(line for line in status if line.startswith("VmRSS"))
    return int(line.split()[1]) * 1024


def noise(shape, dtype=np.float32):
    """An input: normal noise, in the middle of the range where it is of integers."""
    shape = [dim if isinstance(dim, int) and dim > 0 else 1 for dim in shape]
    values = np.random.default_rng(1).standard_normal(shape)
    if np.dtype(dtype).kind == "f":
        return values.astype(dtype)
    info = np.iinfo(dtype)
    middle = (info.min + info.max + 1) // 2
    return np.clip(np.round(values * 32) + middle, info.min, info.max).astype(dtype)


class OnnxRuntime:
    """ONNX Runtime, all optimizations, on the processor."""

    def __init__(self, threads):
        import onnxruntime

        self.package = onnxruntime
        self.options = onnxruntime.SessionOptions()
        self.options.intra_op_num_threads = threads
        self.options.inter_op_num_threads = 1
        self.options.log_severity_level = 3

    def load(self, path):
        self.session = self.package.InferenceSession(path, self.options, providers=["CPUExecutionProvider"])

    def feed(self):
        self.inputs = {port.name: noise(port.shape) for port in self.session.get_inputs()}

    def run(self):
        return self.session.run(None, self.inputs)


class OpenVino:
    """OpenVINO, set to least latency."""

    def __init__(self, threads):
        import openvino

        self.core = openvino.Core
        self.settings = {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_NUM_THREADS": threads, "NUM_STREAMS": 1}

    def load(self, path):
        self.model = self.core().compile_model(path, "CPU", self.settings)
        self.request = self.model.create_infer_request()

    def feed(self):
        self.inputs = [noise(list(port.shape)) for port in self.model.inputs]

    def run(self):
        return self.request.infer(self.inputs)


class LiteRt:
    """LiteRT with its default delegate, XNNPACK. Its input is set once."""

    def __init__(self, threads):
        from ai_edge_litert.interpreter import Interpreter

        self.make = lambda path: Interpreter(path, num_threads=threads)

    def load(self, path):
        self.interpreter = self.make(path)
        self.interpreter.allocate_tensors()

    def feed(self):
        for port in self.interpreter.get_input_details():
            self.interpreter.set_tensor(port["index"], noise(port["shape"].tolist(), port["dtype"]))

    def run(self):
        self.interpreter.invoke()


class Ncnn:
    """ncnn; beside `NAME.param` lie `NAME.bin` and `NAME.shape`."""

    def __init__(self, threads):
        import ncnn

        self.package = ncnn
        self.net = ncnn.Net()
        self.net.opt.num_threads = threads
        self.net.opt.use_vulkan_compute = False

    def load(self, path):
        stem = path.removesuffix(".param")
        if self.net.load_param(path) or self.net.load_model(f"{stem}.bin"):
            raise RuntimeError("ncnn refuses the converted network")
        with open(f"{stem}.shape") as shape:
            self.shape = json.load(shape)

    def feed(self):
        self.input = self.package.Mat(noise(self.shape[1:]))

    def run(self):
        with self.net.create_extractor() as extractor:
            extractor.input(self.net.input_names()[0], self.input)
            for name in self.net.output_names():
                failed, _ = extractor.extract(name)
                if failed:
                    raise RuntimeError(f"ncnn cannot compute the output {name}")


class Mnn:
    """MNN on the processor. Its input is set once."""

    def __init__(self, threads):
        import MNN

        self.package = MNN
        self.settings = {"numThread": threads, "backend": "CPU"}

    def load(self, path):
        self.interpreter = self.package.Interpreter(path)
        self.session = self.interpreter.createSession(self.settings)

    def feed(self):
        package = self.package
        for port in self.interpreter.getSessionInputAll(self.session).values():
            values = noise(list(port.getShape()))
            kind = port.getDimensionType()
            port.copyFrom(package.Tensor(values.shape, package.Halide_Type_Float, values, kind))

    def run(self):
        self.interpreter.runSession(self.session)


PEERS = {"onnxruntime": OnnxRuntime, "openvino": OpenVino, "litert": LiteRt, "ncnn": Ncnn, "mnn": Mnn}


def microseconds(action):
    """How long an action takes."""
    began = time.perf_counter_ns()
    action()
    return (time.perf_counter_ns() - began) / 1e3


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--peer", choices=PEERS, required=True)
    parser.add_argument("--model", required=True)
    parser.add_argument("--threads", type=int, required=True)
    arguments = parser.parse_args()
    bare = resident()
    imports = time.perf_counter_ns()
    peer = PEERS[arguments.peer](arguments.threads)
    imports = (time.perf_counter_ns() - imports) / 1e3
    load = microseconds(lambda: peer.load(arguments.model))
    feed = microseconds(peer.feed)
    first = microseconds(peer.run)
    told = {"import_us": imports, "load_us": load, "feed_us": feed, "first_us": first, "bare_bytes": bare}
    print("ready", json.dumps(told), flush=True)
    gc.disable()
    for line in sys.stdin:
        print(*(f"{microseconds(peer.run):.1f}" for _ in range(int(line))), flush=True)


if __name__ == "__main__":
    main()
