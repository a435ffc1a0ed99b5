"""One runtime with one model, in a process of its own.

    worker.py PEER MODEL THREADS

Loads the model, runs it once and prints one JSON line: milliseconds from the beginning of loading
to the first result (interpreter and imports excluded) and the memory that this took. Then, for
each line with a number on stdin, runs the model so often and prints the microseconds of each run.
"""

import json
import sys
import time

import numpy as np


def memory(field):
    """`VmRSS`, what this process holds, or `VmHWM`, the most it held, in bytes."""
    with open("/proc/self/status") as status:
        line = next(line for line in status if line.startswith(field))
    return int(line.split()[1]) * 1024


def forget_peak():
    """The most memory this process held is, from now on, what it holds now."""
    with open("/proc/self/clear_refs", "w") as control:
        control.write("5")


def input_of(shape, dtype):
    """The same input for every runtime of a model: noise, as f32 or as integers."""
    shape = [dim if isinstance(dim, int) and dim > 0 else 1 for dim in shape]
    noise = np.random.default_rng(1).standard_normal(shape)
    if np.dtype(dtype).kind == "f":
        return noise.astype(dtype)
    info = np.iinfo(dtype)
    middle = (info.min + info.max + 1) // 2
    return np.clip(np.round(noise * 32) + middle, info.min, info.max).astype(dtype)


def onnxruntime(threads):
    import onnxruntime as ort

    def load(path):
        options = ort.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        session = ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        port = session.get_inputs()[0]
        values = {port.name: input_of(port.shape, np.float32)}
        return lambda: session.run(None, values)

    return load


def openvino(threads):
    import openvino as ov

    def load(path):
        settings = {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_NUM_THREADS": threads, "NUM_STREAMS": 1}
        model = ov.Core().compile_model(path, "CPU", settings)
        request = model.create_infer_request()
        shape = [dim.get_length() if dim.is_static else 1 for dim in model.input(0).partial_shape]
        values = input_of(shape, np.float32)
        return lambda: request.infer([values])

    return load


def litert(threads):
    from ai_edge_litert.interpreter import Interpreter

    def load(path):
        interpreter = Interpreter(path, num_threads=threads)
        interpreter.allocate_tensors()
        port = interpreter.get_input_details()[0]
        interpreter.set_tensor(port["index"], input_of(port["shape"].tolist(), port["dtype"]))
        return interpreter.invoke

    return load


PEERS = {"onnxruntime": onnxruntime, "openvino": openvino, "litert": litert}


def main():
    peer, model, threads = sys.argv[1], sys.argv[2], int(sys.argv[3])
    load = PEERS[peer](threads)
    forget_peak()
    before = memory("VmRSS")
    began = time.perf_counter()
    run = load(model)
    run()
    first = (time.perf_counter() - began) * 1e3
    print(json.dumps({"first_result_ms": first, "memory": memory("VmHWM") - before}), flush=True)
    for line in sys.stdin:
        times = []
        for _ in range(int(line)):
            began = time.perf_counter()
            run()
            times.append((time.perf_counter() - began) * 1e6)
        print(json.dumps(times), flush=True)


if __name__ == "__main__":
    main()
