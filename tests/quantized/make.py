"""Makes the quantized networks beside this file, and what ONNX Runtime gives for them.

    pip install onnx==1.23.2 onnxruntime==1.31.1 numpy
    python tests/quantized/make.py

Each network is an .onnx and an .npz: its input `x`, its output `y`, and `step`, the scale of the
output (0 where the output is no quantized value). ONNX Runtime runs without graph optimizations.
Scales are such that sums do not fall between two integers, where runtimes round either way.
"""

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper

HERE = Path(__file__).parent
MICROSOFT = "com.microsoft"
ELEMENT = {
    np.uint8: TensorProto.UINT8,
    np.int8: TensorProto.INT8,
    np.float32: TensorProto.FLOAT,
}


class Net:
    """A graph in the making; values are names."""

    def __init__(self, shape, opset=13, element=np.float32):
        self.random = np.random.default_rng(7)
        self.nodes, self.constants, self.opset = [], [], opset
        self.element, self.shape = element, list(shape)

    def constant(self, value):
        name = f"c{len(self.constants)}"
        self.constants.append(numpy_helper.from_array(np.asarray(value), name))
        return name

    def reals(self, *values):
        return self.constant(np.array(values, np.float32))

    def sizes(self, *values):
        return self.constant(np.array(values, np.int64))

    def op(self, operator, inputs, domain="", outputs=1, **attributes):
        names = [f"{operator}{len(self.nodes)}.{slot}" for slot in range(outputs)]
        name = f"{operator}{len(self.nodes)}"
        self.nodes.append(
            helper.make_node(operator, inputs, names, name, domain=domain, **attributes)
        )
        return names[0] if outputs == 1 else names

    def scale(self, step, zero, element=np.uint8):
        return [self.constant(np.float32(step)), self.constant(element(zero))]

    def q(self, x, step, zero, element=np.uint8, domain=""):
        return self.op("QuantizeLinear", [x, *self.scale(step, zero, element)], domain)

    def dq(self, x, step, zero, element=np.uint8, domain=""):
        return self.op("DequantizeLinear", [x, *self.scale(step, zero, element)], domain)

    def qdq(self, x, step, zero, element=np.uint8):
        return self.dq(self.q(x, step, zero, element), step, zero, element)

    def integers(self, shape):
        return self.random.integers(-127, 128, shape).astype(np.int8)

    def steps(self, channels):
        return (self.random.random(channels) * 0.01 + 0.003).astype(np.float32)

    def conv(self, x, step, inputs=4, outputs=4, group=1, bias=True):
        """A convolution with int8 weights per channel and an int32 bias, both dequantized."""
        weights = self.integers((outputs, inputs // group, 3, 3))
        steps = self.steps(outputs)
        zeros = self.constant(np.zeros(outputs, np.int8))
        operands = [self.constant(weights), self.constant(steps), zeros]
        operands = [x, self.op("DequantizeLinear", operands, axis=0)]
        if bias:
            integers = self.random.integers(-3000, 3000, outputs).astype(np.int32)
            integers = [self.constant(integers), self.constant(np.float32(step) * steps)]
            operands.append(self.op("DequantizeLinear", integers, axis=0))
        return self.op("Conv", operands, pads=[1] * 4, group=group)

    def qlinear_conv(self, x, read, written):
        steps, zeros = self.constant(self.steps(4)), self.constant(np.zeros(4, np.int8))
        operands = [x, *read, self.constant(self.integers((4, 4, 3, 3))), steps, zeros, *written]
        bias = self.random.integers(-3000, 3000, 4).astype(np.int32)
        return self.op("QLinearConv", [*operands, self.constant(bias)], pads=[1] * 4)

    def finish(self, name, y, step, element=np.float32):
        self.nodes.append(helper.make_node("Identity", [y], ["y"], "out"))
        graph = helper.make_graph(
            self.nodes,
            name,
            [helper.make_tensor_value_info("x", ELEMENT[self.element], self.shape)],
            [helper.make_tensor_value_info("y", ELEMENT[element], None)],
            self.constants,
        )
        opsets = [helper.make_opsetid("", self.opset), helper.make_opsetid(MICROSOFT, 1)]
        model = helper.make_model(graph, opset_imports=opsets, producer_name="make.py")
        model.ir_version = 10 if self.opset >= 21 else 8
        onnx.save(model, HERE / f"{name}.onnx")
        if self.element == np.float32:
            x = (self.random.standard_normal(self.shape) * 1.2).astype(np.float32)
        else:
            x = self.random.integers(0, 256, self.shape).astype(self.element)
        options = onnxruntime.SessionOptions()
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
        session = onnxruntime.InferenceSession(model.SerializeToString(), options)
        (y,) = session.run(None, {"x": x})
        np.savez_compressed(HERE / f"{name}.npz", x=x, y=y, step=np.float32(step))


IMAGE = (1, 4, 6, 6)


def signed_residual():
    """As PyTorch exports: symmetric activations, limits and a sum before one scale."""
    net = Net(IMAGE)
    x = net.qdq("x", 0.03, 0, np.int8)
    a = net.qdq(net.op("Relu", [net.conv(x, 0.03)]), 0.04, 0, np.int8)
    b = net.conv(a, 0.04, group=4, bias=False)
    y = net.qdq(net.op("Relu", [net.op("Add", [b, a])]), 0.06, 0, np.int8)
    net.finish("signed_residual", y, 0.06)


def pooled_head():
    """Pools, and a Gemm with a large bias and transposed weights."""
    net = Net(IMAGE)
    y = net.qdq(net.conv(net.qdq("x", 0.03, 128), 0.03), 0.08, 120)
    y = net.qdq(net.op("MaxPool", [y], kernel_shape=[3, 3], pads=[1] * 4), 0.08, 120)
    y = net.qdq(net.op("AveragePool", [y], kernel_shape=[2, 2], strides=[2, 2]), 0.06, 100)
    a = net.qdq(net.op("GlobalAveragePool", [y]), 0.05, 110)
    b = net.qdq(net.op("GlobalMaxPool", [y]), 0.06, 100)
    y = net.qdq(net.op("Concat", [a, b], axis=1), 0.06, 100)
    y = net.op("Flatten", [y])
    weights, steps = net.integers((5, 8)), net.steps(5)
    weights = [net.constant(weights), net.constant(steps), net.constant(np.zeros(5, np.int8))]
    weights = net.op("DequantizeLinear", weights, axis=0)
    bias = net.random.integers(-20000, 20000, 5).astype(np.int32)
    bias = net.op("DequantizeLinear", [net.constant(bias), net.constant(steps * np.float32(0.06))], axis=0)
    y = net.qdq(net.op("Gemm", [y, weights, bias], transB=1), 0.1, 128)
    net.finish("pooled_head", y, 0.1)


def activations():
    """Functions, whole and in parts, between stated scales."""
    net = Net(IMAGE, opset=20)
    y = net.qdq(net.conv(net.qdq("x", 0.03, 128), 0.03), 0.05, 120)
    gate = net.op("Add", [y, net.constant(np.float32(3))])
    gate = net.op("Clip", [gate, net.constant(np.float32(0)), net.constant(np.float32(6))])
    swish = net.op("Div", [net.op("Mul", [y, gate]), net.constant(np.float32(6))])
    parts = [net.qdq(swish, 0.03, 15)]
    for operator, step, zero in [
        ("Gelu", 0.03, 8), ("Elu", 0.03, 35), ("Softplus", 0.03, 0), ("Mish", 0.03, 12),
        ("LeakyRelu", 0.03, 10), ("HardSigmoid", 1 / 256, 0), ("Tanh", 1 / 128, 128),
    ]:
        parts.append(net.qdq(net.op(operator, [y]), step, zero))
    gate = net.qdq(net.op("Sigmoid", [y]), 1 / 256, 0)
    parts.append(net.qdq(net.op("Mul", [y, gate]), 0.03, 10))
    parts = [net.qdq(part, 0.03, 40) for part in parts]
    net.finish("activations", net.qdq(net.op("Concat", parts, axis=1), 0.03, 40), 0.03)


def rearranged():
    """Padding, slices, shuffled axes, resizing, and a product with transposed weights."""
    net = Net(IMAGE)
    y = net.q(net.conv(net.qdq("x", 0.03, 128), 0.03), 0.08, 120)
    y = net.op("Pad", [y, net.sizes(0, 0, 1, 0, 0, 0, 0, 1), net.constant(np.uint8(120))])
    nearest = {"mode": "nearest", "nearest_mode": "floor"}
    scales = net.reals(1, 1, 2, 2)
    y = net.op("Resize", [y, "", scales], coordinate_transformation_mode="asymmetric", **nearest)
    y = net.dq(y, 0.08, 120)
    y = net.qdq(net.op("Slice", [y, net.sizes(1), net.sizes(9), net.sizes(2)]), 0.08, 120)
    y = net.qdq(net.op("Reshape", [y, net.sizes(1, 4, -1)]), 0.08, 120)
    y = net.qdq(net.op("Transpose", [y], perm=[0, 2, 1]), 0.08, 120)
    weights = [net.constant(net.integers((6, 4))), net.constant(net.steps(6))]
    weights = net.op("DequantizeLinear", weights, axis=0)
    y = net.op("MatMul", [y, net.op("Transpose", [weights], perm=[1, 0])])
    y = net.qdq(net.op("Add", [y, net.reals(*range(6))]), 0.1, 100)
    net.finish("rearranged", net.qdq(net.op("Softmax", [y], axis=-1), 1 / 256, 0), 1 / 256)


def by_position():
    """Constants by channel, by position and alone, as a detector's last operators have them."""
    net = Net(IMAGE)
    y = net.qdq(net.conv(net.qdq("x", 0.03, 128), 0.03), 0.08, 120)
    for operator, shape, step, zero in [
        ("Add", (4, 1, 1), 0.0973, 110), ("Mul", (1, 4, 6, 6), 0.0927, 110),
        ("Add", (6, 1), 0.1171, 90), ("Mul", (), 0.1493, 110),
    ]:
        factor = net.dq(net.constant(net.random.integers(0, 256, shape).astype(np.uint8)), 0.0113, 100)
        y = net.qdq(net.op(operator, [y, factor]), step, zero)
    net.finish("by_position", y, 0.1493)


def integer_ports():
    """Bytes in and bytes out."""
    net = Net(IMAGE, element=np.uint8)
    read, between, written = net.scale(0.03, 128), net.scale(0.08, 120), net.scale(0.3, 130)
    y = net.qlinear_conv(net.qlinear_conv("x", read, between), between, written)
    net.finish("integer_ports", y, 1, np.uint8)


def microsoft():
    """The operators of com.microsoft on quantized tensors."""
    net = Net(IMAGE)
    read, scale = net.scale(0.03, 128), net.scale(0.08, 120)
    x = net.op("QuantizeLinear", ["x", *read], MICROSOFT)
    y = net.qlinear_conv(x, read, scale)
    to = net.scale(0.09, 110)
    y = net.op("QLinearAdd", [y, *scale, x, *read, *to], MICROSOFT)
    gate = net.scale(1 / 256, 0)
    sigmoid = net.op("QLinearSigmoid", [y, *to, *gate], MICROSOFT)
    swish = net.scale(0.05, 20)
    y = net.op("QLinearMul", [y, *to, sigmoid, *gate, *swish], MICROSOFT)
    leaky = net.scale(0.05, 30)
    y = net.op("QLinearLeakyRelu", [y, *swish, *leaky], MICROSOFT, alpha=0.1)
    pool = {"kernel_shape": [2, 2], "strides": [2, 2]}
    pooled = net.scale(0.0437, 25)
    y = net.op("QLinearAveragePool", [y, *leaky, *pooled], MICROSOFT, **pool)
    both = net.scale(0.0617, 25)
    y = net.op("QLinearConcat", [*both, y, *pooled, y, *pooled], MICROSOFT, axis=1)
    mean = net.scale(0.0291, 20)
    y = net.op("QLinearGlobalAveragePool", [y, *both, *mean], MICROSOFT)
    y = net.op("Reshape", [y, net.sizes(1, 8)])
    weights = [net.constant(net.integers((8, 5))), *net.scale(0.01, 0, np.int8)]
    bias = net.constant(net.random.integers(-3000, 3000, 5).astype(np.int32))
    gemm = net.scale(0.03, 120)
    y = net.op("QGemm", [y, *mean, *weights, bias, *gemm], MICROSOFT)
    old = {"axis": 1, "opset": 12}
    y = net.op("QLinearSoftmax", [y, *gemm, *gate], MICROSOFT, **old)
    net.finish("microsoft", net.op("DequantizeLinear", [y, *gate], MICROSOFT), 1 / 256)


def four_bits():
    """Weights of four bits with a scale per column."""
    net = Net((1, 16), opset=21)
    weights = net.random.integers(-8, 8, 16 * 8).tolist()
    weights = helper.make_tensor("weights", TensorProto.INT4, [16, 8], weights)
    net.constants.append(weights)
    weights = net.op("DequantizeLinear", ["weights", net.constant(net.steps(8) * 10)], axis=1)
    y = net.op("MatMul", [net.qdq("x", 0.03, 128), weights])
    net.finish("four_bits", net.qdq(y, 0.08, 120), 0.08)


def wide_weights():
    """Weights of nine bits without their zero point, each sort one layer deep."""
    net = Net((1, 6, 8, 8))
    x = net.qdq("x", 0.03, 140)
    parts = []
    for shape, group, element, zero in [
        ((6, 6, 3, 3), 1, np.uint8, 90), ((6, 1, 3, 3), 6, np.uint8, 190),
        ((6, 3, 1, 1), 2, np.int8, 0), ((6, 6, 1, 1), 1, np.uint8, 255),
    ]:
        limits = np.iinfo(element)
        weights = net.random.integers(limits.min, limits.max + 1, shape).astype(element)
        weights[:, 0, 0, 0] = limits.min
        steps = net.steps(6) if zero == 0 else np.float32(0.0073)
        zeros = np.full(np.shape(steps), zero, element)
        operands = [net.constant(value) for value in (weights, steps, zeros)]
        y = net.op("DequantizeLinear", operands, axis=0)
        y = net.op("Conv", [x, y], pads=[shape[2] // 2] * 4, group=group)
        parts.append(net.op("Flatten", [net.qdq(y, 0.031, 117)]))
    weights = net.random.integers(0, 256, (64, 80)).astype(np.uint8)
    weights = net.dq(net.constant(weights), 0.0073, 75)
    flat = net.op("Reshape", [x, net.sizes(1, 6, 64)])
    y = net.qdq(net.op("MatMul", [flat, weights]), 0.031, 117)
    parts.append(net.op("Reshape", [y, net.sizes(1, -1)]))
    net.finish("wide_weights", net.qdq(net.op("Concat", parts, axis=1), 0.031, 117), 0.031)


def scaled():
    """A factor and an offset for each channel, as a normalization that was not folded."""
    net = Net((1, 16, 16, 16))
    weights = [net.constant(np.ones((16, 1, 1, 1), np.int8)), *net.scale(1, 0, np.int8)]
    x = net.qdq("x", 0.03, 128)
    x = net.qdq(net.op("Conv", [x, net.op("DequantizeLinear", weights)], group=16), 0.03, 128)
    numbers = net.random.standard_normal((4, 16)).astype(np.float32)
    numbers[0] *= 2
    numbers[3] = 1
    y = net.op("BatchNormalization", [x, *(net.constant(each) for each in numbers)])
    net.finish("scaled", net.qdq(y, 0.0317, 131), 0.0317)


def rescaled():
    """Another scale for the same values, a little more than halves of whole steps."""
    net = Net((1, 4, 16, 16))
    weights = [net.constant(np.ones((4, 1, 1, 1), np.int8)), *net.scale(1, 0, np.int8)]
    x = net.qdq("x", 0.03, 128)
    x = net.qdq(net.op("Conv", [x, net.op("DequantizeLinear", weights)], group=4), 0.03, 128)
    step = 0.06 * (1 - 2**-17)
    y = net.qdq(net.op("Concat", [x, net.op("Transpose", [x], perm=[0, 1, 3, 2])], axis=1), step, 120)
    net.finish("rescaled", y, step)


def sixteen_bits():
    """Activations of sixteen bits before eight: the first layer stays real."""
    net = Net(IMAGE, opset=21)
    scale = [net.constant(np.float32(1e-3)), net.constant(np.int16(0))]
    x = net.op("DequantizeLinear", [net.op("QuantizeLinear", ["x", *scale]), *scale])
    y = net.qdq(net.conv(x, 1e-3, bias=False), 0.08, 120)
    net.finish("sixteen_bits", net.qdq(net.conv(y, 0.08), 0.3, 120), 0.3)


def dynamic():
    """Activations quantized by their own range when they are there."""
    net = Net((1, 16))
    x, step, zero = net.op("DynamicQuantizeLinear", ["x"], outputs=3)
    y = net.op("MatMulInteger", [x, net.constant(net.integers((16, 8))), zero])
    y = net.op("Cast", [y], to=TensorProto.FLOAT)
    y = net.op("Mul", [y, net.op("Mul", [step, net.constant(np.float32(0.007))])])
    net.finish("dynamic", y, 0)


def dynamic_layers():
    """As `quantize_dynamic` writes them: weights of either sign, a scale each or a column, products
    of the same activations, biases, and a second layer."""
    net = Net((2, 5, 24))

    def product(read, weights, steps, zeros):
        x, step, zero = read
        y = net.op("MatMulInteger", [x, net.constant(weights), zero, *zeros])
        y = net.op("Cast", [y], to=TensorProto.FLOAT)
        y = net.op("Mul", [y, net.op("Mul", [step, net.constant(steps)])])
        return net.op("Add", [net.constant(net.random.standard_normal(32).astype(np.float32)), y])

    x = net.op("DynamicQuantizeLinear", ["x"], outputs=3)
    unsigned = net.random.integers(0, 256, (24, 32)).astype(np.uint8)
    zeros = net.random.integers(-20, 20, 32).astype(np.int8)
    layers = [
        product(x, net.integers((24, 32)), net.steps(32), []),
        product(x, unsigned, np.float32(0.005), [net.constant(np.uint8(131))]),
        product(x, net.integers((24, 32)), net.steps(32), [net.constant(zeros)]),
    ]
    y = net.op("Relu", [net.op("Concat", layers, axis=-1)])
    y = net.op("DynamicQuantizeLinear", [y], outputs=3)
    y = product(y, net.integers((96, 32)), net.steps(32), [net.constant(np.zeros(32, np.int8))])
    net.finish("dynamic_layers", y, 0)


def dynamic_microsoft():
    """The products that ONNX Runtime's optimizer makes of these."""
    net = Net((3, 24))
    bias = [net.constant(net.random.standard_normal(16).astype(np.float32)) for _ in range(2)]
    x, step, zero = net.op("DynamicQuantizeLinear", ["x"], outputs=3)
    matrix = [net.constant(net.integers((24, 16))), step, net.constant(net.steps(16)), zero]
    zeros = net.constant(np.zeros(16, np.int8))
    y = net.op("MatMulIntegerToFloat", [x, *matrix, zeros, bias[0]], MICROSOFT)
    matrix = [net.constant(net.integers((24, 16))), net.constant(np.float32(0.006))]
    z = net.op("DynamicQuantizeMatMul", ["x", *matrix, "", bias[1]], MICROSOFT)
    net.finish("dynamic_microsoft", net.op("Concat", [y, z], axis=0), 0)


def packed_blocks():
    """MatMulNBits with zero points: real throughout, with the numbers of its blocks."""
    net = Net((1, 64), opset=21)
    blocks = net.constant(net.random.integers(0, 256, (8, 2, 16)).astype(np.uint8))
    zeros = net.constant(net.random.integers(0, 256, 8).astype(np.uint8))
    sizes = {"K": 64, "N": 8, "bits": 4, "block_size": 32}
    y = net.op("MatMulNBits", ["x", blocks, net.constant(net.steps(16)), zeros], MICROSOFT, **sizes)
    net.finish("packed_blocks", y, 0)


def blocks():
    """Weights of four bits, and one of eight, with a scale per block or per column: their sum."""
    net = Net((1, 128), opset=21)
    depth, columns = 128, 64

    def weights(kind, low, high):
        name = f"weights{len(net.constants)}"
        numbers = net.random.integers(low, high, depth * columns).tolist()
        net.constants.append(helper.make_tensor(name, kind, [depth, columns], numbers))
        return name

    def zeros(kind, low, high, rows):
        name = f"zeros{len(net.constants)}"
        numbers = net.random.integers(low, high, rows * columns).tolist()
        net.constants.append(helper.make_tensor(name, kind, [rows, columns], numbers))
        return name

    def steps(rows):
        return net.constant(net.steps(rows * columns).reshape(rows, columns))

    signed = [weights(TensorProto.INT4, -8, 8), steps(4)]
    unsigned = [weights(TensorProto.UINT4, 0, 16), steps(3), zeros(TensorProto.UINT4, 0, 16, 3)]
    each = [
        net.op("DequantizeLinear", signed, axis=0, block_size=32),
        net.op("DequantizeLinear", unsigned, axis=-2, block_size=48),
        net.op("DequantizeLinear", [weights(TensorProto.INT4, -8, 8), net.constant(net.steps(64))]),
    ]
    products = [net.op("MatMul", ["x", matrix]) for matrix in each]
    for bits, in_byte, zero in [(4, 2, False), (4, 2, True), (8, 1, False)]:
        packed = net.random.integers(0, 256, (columns, 4, 32 // in_byte)).astype(np.uint8)
        inputs = ["x", net.constant(packed), net.constant(net.steps(columns * 4))]
        if zero:
            inputs.append(net.constant(net.random.integers(0, 256, columns * 2).astype(np.uint8)))
        sizes = {"K": depth, "N": columns, "bits": bits, "block_size": 32}
        products.append(net.op("MatMulNBits", inputs, MICROSOFT, **sizes))
    net.finish("blocks", net.op("Sum", products), 0)


if __name__ == "__main__":
    for make in [
        signed_residual, pooled_head, activations, rearranged, by_position, integer_ports,
        microsoft, four_bits, wide_weights, scaled, rescaled, sixteen_bits, dynamic, dynamic_layers,
        dynamic_microsoft, packed_blocks, blocks,
    ]:
        make()
