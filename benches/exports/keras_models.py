"""Networks of Keras, through tf2onnx. Needs an environment with TensorFlow."""

import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy
import tensorflow
import tf2onnx
from case import Ready, floats, integers
from keras import Input, Model, layers, utils


def network(inputs, outputs, arrays, opset=15):
    """Returns the case of a functional model."""
    utils.set_random_seed(0)
    model = Model(inputs, outputs)
    names = list(arrays[0])
    signature = [tensorflow.TensorSpec(value.shape, value.dtype, name) for value, name in zip(model.inputs, names, strict=True)]

    @tensorflow.function(input_signature=signature)
    def call(*values):
        return model(list(values) if len(values) > 1 else values[0])

    onnx_model, _ = tf2onnx.convert.from_function(call, signature, opset=opset)
    return Ready(onnx_model.SerializeToString(), arrays)


def keras_lstm():
    inputs = Input((None,), dtype="int32")
    x = layers.Embedding(50, 12)(inputs)
    x = layers.Bidirectional(layers.LSTM(16, return_sequences=True))(x)
    x = layers.Dropout(0.2)(x)
    x = layers.LSTM(12)(x)
    outputs = layers.Dense(3, activation="softmax")(x)
    shapes = [(1, 9), (2, 12), (3, 5)]
    return network(inputs, outputs, [{"tokens": integers(r, 50, *s).astype(numpy.int32)} for r, s in enumerate(shapes)])


def keras_gru():
    inputs = Input((None, 8))
    x = layers.Conv1D(16, 3, padding="causal", activation="elu")(inputs)
    x = layers.GRU(16, return_sequences=True)(x)
    x = layers.TimeDistributed(layers.Dense(8, activation="selu"))(x)
    x = layers.GRU(12, reset_after=False)(x)
    outputs = layers.Dense(1, activation="sigmoid")(x)
    shapes = [(1, 9, 8), (2, 12, 8), (3, 5, 8)]
    return network(inputs, outputs, [{"series": floats(r, *s)} for r, s in enumerate(shapes)], opset=13)


def keras_conv_lstm():
    inputs = Input((None, 8, 8, 2))
    x = layers.ConvLSTM2D(4, 3, padding="same", return_sequences=True)(inputs)
    x = layers.Conv3D(3, 3, padding="same", activation="tanh")(x)
    outputs = layers.GlobalAveragePooling3D()(x)
    shapes = [(1, 4, 8, 8, 2), (2, 3, 8, 8, 2), (1, 6, 8, 8, 2)]
    return network(inputs, outputs, [{"video": floats(r, *s)} for r, s in enumerate(shapes)])
