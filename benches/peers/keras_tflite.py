"""An INT8 .tflite file of the same topology as one of the networks with random weights.

    keras_tflite.py NAME OUT.tflite

Speed is the same whatever the weights, so that the graph is built in Keras with its own random
ones. Runs in the environment of `requirements-tensorflow.txt`.
"""

import os
import sys
from pathlib import Path

os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"

import numpy as np
import tensorflow as tf
from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2 as freeze

SIZE = 224
layers = tf.keras.layers


def convolution(x, channels, size, stride, active=True):
    """A convolution with batch norm, padded as PyTorch does."""
    x = layers.ZeroPadding2D(size // 2)(x) if stride > 1 and size > 1 else x
    padding = "same" if stride == 1 else "valid"
    x = layers.Conv2D(channels, size, stride, padding, use_bias=False, kernel_initializer="he_normal")(x)
    x = layers.BatchNormalization()(x)
    return layers.ReLU()(x) if active else x


def resnet(blocks, wide):
    """ResNet v1.5 with `blocks` in each stage, of bottlenecks where `wide` is four. Keras has
    only the first version, which strides elsewhere."""
    image = layers.Input((SIZE, SIZE, 3))
    x = layers.MaxPool2D(3, 2)(layers.ZeroPadding2D(1)(convolution(image, 64, 7, 2)))
    for stage, count in enumerate(blocks):
        width = 64 << stage
        for block in range(count):
            stride = 2 if block == 0 and stage else 1
            changes = block == 0 and (stage or wide > 1)
            side = convolution(x, width * wide, 1, stride, active=False) if changes else x
            if wide > 1:
                y = convolution(convolution(x, width, 1, 1), width, 3, stride)
                y = convolution(y, width * wide, 1, 1, active=False)
            else:
                y = convolution(convolution(x, width, 3, stride), width, 3, 1, active=False)
            x = layers.ReLU()(layers.Add()([y, side]))
    x = layers.GlobalAveragePooling2D()(x)
    return tf.keras.Model(image, layers.Dense(1000)(x))


def application(name, **settings):
    """A network that Keras knows."""
    make = getattr(tf.keras.applications, name)
    return make(weights=None, classifier_activation=None, input_shape=(SIZE, SIZE, 3), **settings)


NETWORKS = {
    "random_mobilenet_v2": lambda: application("MobileNetV2"),
    "random_mobilenet_v3_large": lambda: application("MobileNetV3Large", include_preprocessing=False),
    "random_resnet18": lambda: resnet([2, 2, 2, 2], 1),
    "random_resnet50": lambda: resnet([3, 4, 6, 3], 4),
}


def quantized(model, images):
    """The model as INT8 file, calibrated on `images`."""
    signature = [tf.TensorSpec((1, SIZE, SIZE, 3), tf.float32)]
    call = tf.function(lambda image: model(image, training=False), input_signature=signature)
    converter = tf.lite.TFLiteConverter.from_concrete_functions([freeze(call.get_concrete_function())])
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    converter.representative_dataset = lambda: ([image[None]] for image in images)
    converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
    converter.inference_input_type = converter.inference_output_type = tf.int8
    return converter.convert()


def main():
    name, output = sys.argv[1:]
    if name not in NETWORKS:
        sys.exit(f"there is no Keras topology of {name}")
    tf.keras.utils.set_random_seed(0)
    images = np.random.default_rng(0).standard_normal([8, SIZE, SIZE, 3]).astype(np.float32)
    model = NETWORKS[name]()
    for layer in model.layers:
        if isinstance(layer, layers.BatchNormalization):
            layer.momentum = 0.5
    for _ in range(4):  # so that activations keep their size through the layers
        model(images, training=True)
    Path(output).write_bytes(quantized(model, images))


if __name__ == "__main__":
    main()
