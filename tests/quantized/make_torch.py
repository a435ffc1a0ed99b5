"""Makes the networks of PyTorch beside this file, and what ONNX Runtime gives for them.

    pip install torch==2.4.1 onnx==1.23.2 onnxruntime==1.31.1 numpy
    python tests/quantized/make_torch.py

As `make.py` does: an .onnx and an .npz with input `x`, output `y` and `step`, the output's scale.
"""

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import torch
from onnx import numpy_helper
from torch import nn
from torch.ao.quantization import (
    FakeQuantize,
    MovingAverageMinMaxObserver,
    QConfig,
    QConfigMapping,
    default_per_channel_weight_fake_quant,
    disable_observer,
    get_default_qat_qconfig_mapping,
    get_default_qconfig_mapping,
)
from torch.ao.quantization.quantize_fx import convert_fx, prepare_fx, prepare_qat_fx

HERE = Path(__file__).parent
SHAPE = (1, 3, 16, 16)


class Net(nn.Module):
    """What image networks are made of: strides, a depthwise layer, a sum, a concatenation, pools."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1, bias=False), nn.BatchNorm2d(8), nn.ReLU())
        self.depthwise = nn.Sequential(
            nn.Conv2d(8, 8, 3, 1, 1, groups=8, bias=False), nn.BatchNorm2d(8), nn.Hardswish()
        )
        self.pointwise = nn.Sequential(nn.Conv2d(8, 8, 1, bias=False), nn.BatchNorm2d(8))
        self.down = nn.Conv2d(16, 16, 3, 2, 1)
        self.limit = nn.ReLU6()
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.head = nn.Linear(16, 10)

    def forward(self, x):
        x = self.stem(x)
        y = torch.relu(x + self.pointwise(self.depthwise(x)))
        y = torch.cat([y, nn.functional.max_pool2d(x, 3, 1, 1)], 1)
        return self.head(torch.flatten(self.pool(self.limit(self.down(y))), 1))


def sample(seed):
    return torch.randn(SHAPE, generator=torch.Generator().manual_seed(seed))


def network():
    """With moments of its own in each normalization."""
    torch.manual_seed(1)
    net = Net().train()
    for seed in range(8):
        net(sample(seed).repeat(4, 1, 1, 1) + torch.randn(4, *SHAPE[1:]) * 0.5)
    return net


def graph_mode(backend, trained):
    """FX graph mode: after training, or as if trained for integers."""
    torch.backends.quantized.engine = backend
    example = (sample(0),)
    if trained:
        net = prepare_qat_fx(network(), get_default_qat_qconfig_mapping(backend), example)
    else:
        net = prepare_fx(network().eval(), get_default_qconfig_mapping(backend), example)
    for seed in range(16):
        net(sample(seed))
    return convert_fx(net.eval())


def fake():
    """Trained for integers and exported before conversion: reals between quantizations."""
    activation = FakeQuantize.with_args(observer=MovingAverageMinMaxObserver)
    weight = default_per_channel_weight_fake_quant
    mapping = QConfigMapping().set_global(QConfig(activation=activation, weight=weight))
    net = prepare_qat_fx(network(), mapping, (sample(0),))
    for seed in range(16):
        net(sample(seed))
    return net.eval().apply(disable_observer)


def save(name, net):
    path = HERE / f"{name}.onnx"
    names = {"input_names": ["x"], "output_names": ["y"]}
    torch.onnx.export(net, (sample(99),), str(path), opset_version=13, dynamo=False, **names)
    model = onnx.load(path)
    constants = {each.name: numpy_helper.to_array(each) for each in model.graph.initializer}
    for node in model.graph.node:
        if node.op_type == "Constant":
            constants[node.output[0]] = numpy_helper.to_array(node.attribute[0].t)
    (last,) = [node for node in model.graph.node if node.output[0] == "y"]
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    x = sample(99).numpy()
    (y,) = onnxruntime.InferenceSession(str(path), options).run(None, {"x": x})
    np.savez_compressed(HERE / f"{name}.npz", x=x, y=y, step=constants[last.input[1]].reshape(()))


if __name__ == "__main__":
    save("torch_fx", graph_mode("fbgemm", trained=False))
    save("torch_trained", graph_mode("qnnpack", trained=True))
    save("torch_fake", fake())
