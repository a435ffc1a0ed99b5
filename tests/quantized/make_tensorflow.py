"""Makes the network of TensorFlow beside this file: INT8 by TensorFlow Lite, to ONNX by tf2onnx.

    pip install tensorflow-cpu==2.15.1 tf2onnx==1.17.0 onnx==1.16.2 "numpy<2" onnxruntime==1.20.1
    python tests/quantized/make_tensorflow.py

As `make.py` does: an .onnx and an .npz with input `x`, output `y` and `step`, which is 1 as the
output is integers.
"""

import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import tensorflow as tf

HERE = Path(__file__).parent
SHAPE = (1, 16, 16, 3)


def network():
    layers = tf.keras.layers
    tf.keras.utils.set_random_seed(1)
    image = tf.keras.Input(SHAPE[1:], batch_size=1)
    x = layers.Conv2D(8, 3, strides=2, padding="same", activation="relu")(image)
    y = layers.DepthwiseConv2D(3, padding="same")(x)
    y = layers.ReLU(6.0)(y)
    y = layers.Add()([x, layers.Conv2D(8, 1)(y)])
    y = layers.Concatenate()([y, layers.MaxPooling2D(3, strides=1, padding="same")(x)])
    y = layers.Conv2D(16, 3, strides=2, padding="same", activation="relu")(y)
    y = layers.AveragePooling2D(4)(y)
    y = layers.Dense(10)(layers.Flatten()(y))
    return tf.keras.Model(image, layers.Softmax()(y))


def quantized(net):
    random = np.random.default_rng(7)
    converter = tf.lite.TFLiteConverter.from_keras_model(net)
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    converter.representative_dataset = lambda: (
        [random.standard_normal(SHAPE).astype(np.float32)] for _ in range(32)
    )
    converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
    converter.inference_input_type = converter.inference_output_type = tf.int8
    return converter.convert()


if __name__ == "__main__":
    path = HERE / "tensorflow.onnx"
    with tempfile.TemporaryDirectory() as scratch:
        lite = Path(scratch) / "net.tflite"
        lite.write_bytes(quantized(network()))
        command = [sys.executable, "-m", "tf2onnx.convert", "--opset", "13"]
        subprocess.run([*command, "--tflite", lite, "--output", path], check=True)
    model = onnx.load(path)
    # The names that the test asks for.
    names = {model.graph.input[0].name: "x", model.graph.output[0].name: "y"}
    for value in [*model.graph.input, *model.graph.output]:
        value.name = names[value.name]
    for node in model.graph.node:
        for side in (node.input, node.output):
            side[:] = [names.get(name, name) for name in side]
    onnx.save(model, path)
    x = np.random.default_rng(9).integers(-128, 128, SHAPE).astype(np.int8)
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    (y,) = onnxruntime.InferenceSession(str(path), options).run(None, {"x": x})
    np.savez_compressed(HERE / "tensorflow.npz", x=x, y=y, step=np.float32(1))
