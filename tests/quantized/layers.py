"""Compares each operation of a quantized ONNX model with ONNX Runtime's, given the same integers.

    pip install onnx==1.23.2 onnxruntime==1.31.1 numpy
    python tests/quantized/layers.py MODEL.onnx INPUTS.npz [target/release/hardtack]

What lies between two quantized tensors is cut out, converted and run on the integers that ONNX Runtime
has there (without graph optimizations). Where nothing in it has weights, a product with ones stands
before it, so that it runs in integers. One line a kind of operation: how many results there are, by how
many steps one differs at most, and what part does.
"""

import subprocess
import sys
import tempfile
from collections import defaultdict
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper

LAYERS = {"Conv", "Gemm", "MatMul", "QLinearConv", "QLinearMatMul", "QGemm"}
MOVES = {"MaxPool", "Reshape", "Transpose", "Flatten", "Squeeze", "Unsqueeze", "Slice", "Resize", "Pad"}
# Where an operator has the scale and zero point of its result; others of QLinear… have them at 3.
STATED = {
    "QuantizeLinear": 1, "QLinearConv": 6, "QLinearMatMul": 6, "QLinearAdd": 6, "QLinearMul": 6,
    "QGemm": 7, "QLinearConcat": 0,
}


def run(model, inputs):
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(model.SerializeToString(), options)
    inputs = {port.name: inputs[port.name] for port in session.get_inputs()}
    return dict(zip([port.name for port in session.get_outputs()], session.run(None, inputs)))


def port(name, array):
    kind = TensorProto.INT8 if array.dtype == np.int8 else TensorProto.UINT8
    return helper.make_tensor_value_info(name, kind, array.shape)


class Model:
    def __init__(self, path, inputs):
        self.model = onnx.load(path)
        nodes = self.model.graph.node
        self.made = {output: node for node in nodes for output in node.output}
        self.constants = {each.name: each for each in self.model.graph.initializer}
        for node in nodes:
            if node.op_type == "Constant":
                each = TensorProto()
                each.CopyFrom(node.attribute[0].t)
                each.name = node.output[0]
                self.constants[each.name] = each
        self.stated = self.quantized(nodes)
        whole = onnx.load(path)
        del whole.graph.output[:]
        for name, (_, zero) in self.stated.items():
            zero = numpy_helper.to_array(self.constants[zero])
            whole.graph.output.append(port(name, np.empty(0, zero.dtype)))
            whole.graph.output[-1].type.tensor_type.ClearField("shape")
        self.values = run(whole, inputs)

    def is_constant(self, name):
        if name == "" or name in self.constants:
            return True
        return name in self.made and all(self.is_constant(each) for each in self.made[name].input)

    def quantized(self, nodes):
        """Scale and zero point, by the name of each quantized tensor."""
        stated = {}
        for node in nodes:
            name, operator = node.output[0], node.op_type
            if self.is_constant(name):
                continue
            if operator in STATED or operator.startswith("QLinear"):
                at = STATED.get(operator, 3)
                stated[name] = tuple(node.input[at : at + 2])
            elif operator in MOVES and node.input[0] in stated:
                stated[name] = stated[node.input[0]]
        return stated

    def before(self, name):
        """The nodes that make a quantized tensor of others, those tensors, and whether it does."""
        nodes, reads, real = [], [], []

        def visit(value):
            if value != name and value in self.stated:
                reads.append(value) if value not in reads else None
            elif value and value not in self.constants and value not in self.made:
                real.append(value)
            elif value in self.made and value not in self.constants:
                node = self.made[value]
                if node not in nodes:
                    [visit(each) for each in node.input]
                    nodes.append(node)

        visit(name)
        return nodes, reads, not real and bool(reads)

    def ones(self, value):
        """Nodes and constants that give a tensor once more, as a layer's result."""
        channels, rank = self.values[value].shape[1], self.values[value].ndim
        scale, name = self.stated[value], f"{value}.again"
        depthwise = rank > 2
        shape = (channels, 1) + (1,) * (rank - 2)
        weights = np.ones(shape, np.int8) if depthwise else np.eye(channels, dtype=np.int8)
        constants = {"w": weights, "s": np.float32(1), "z": np.int8(0)}
        constants = [numpy_helper.from_array(each, f"{name}.{k}") for k, each in constants.items()]
        inputs = [value, *scale, *(each.name for each in constants), *scale]
        operator, more = ("QLinearConv", {"group": channels}) if depthwise else ("QLinearMatMul", {})
        return name, helper.make_node(operator, inputs, [name], name, **more), constants

    def cut(self, name):
        """The operation that makes a tensor, alone; `None` where it reads reals."""
        nodes, reads, whole = self.before(name)
        if not whole:
            return None
        operators = [node.op_type for node in nodes if not self.is_constant(node.output[0])]
        plain = [each for each in operators if each not in ("QuantizeLinear", "DequantizeLinear")]
        copies, more, again = [], [], {}
        if not LAYERS & set(plain):
            for value in reads:
                again[value], node, constants = self.ones(value)
                copies.append(node)
                more.extend(constants)
        for node in nodes:
            copy = onnx.NodeProto()
            copy.CopyFrom(node)
            copy.input[:] = [again.get(each, each) for each in node.input]
            copies.append(copy)
        used = {each for node in copies for each in node.input}
        graph = helper.make_graph(
            copies, "cut",
            [port(value, self.values[value]) for value in reads], [port(name, self.values[name])],
            [each for each in self.constants.values() if each.name in used] + more,
        )
        model = helper.make_model(graph, opset_imports=self.model.opset_import)
        model.ir_version = self.model.ir_version
        return "+".join(plain) or "another scale", model, {value: self.values[value] for value in reads}


def compare(path, inputs, hardtack):
    model = Model(path, inputs)
    kinds = defaultdict(list)
    with tempfile.TemporaryDirectory() as scratch:
        source, bundle, given, got = (str(Path(scratch) / each) for each in ("x.onnx", "x.tack", "x.npz", "y.npz"))
        for name in model.stated:
            cut = model.cut(name)
            if cut is None:
                continue
            kind, alone, values = cut
            onnx.save(alone, source)
            np.savez(given, **values)
            convert = [hardtack, "convert", source, "-o", bundle]
            result = subprocess.run(convert, capture_output=True, text=True)
            if result.returncode or "in float" in result.stderr:
                print(f"{name}: {result.stderr.strip().splitlines()[-1]}")
                continue
            execute = [hardtack, "run", bundle, "--inputs", given, "--output", got]
            subprocess.run(execute, capture_output=True, check=True)
            expected = run(alone, values)[name].astype(int)
            kinds[kind].append(np.abs(np.load(got)[name].astype(int) - expected).ravel())
    for kind, differences in sorted(kinds.items()):
        steps = np.concatenate(differences)
        print(f"{kind:40} {steps.size:9} results, {steps.max()} steps, {100 * (steps > 0).mean():.4f} %")


if __name__ == "__main__":
    command = sys.argv[3] if len(sys.argv) > 3 else "target/release/hardtack"
    compare(sys.argv[1], dict(np.load(sys.argv[2])), command)
