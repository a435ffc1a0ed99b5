"""The models."""

from dataclasses import dataclass


@dataclass
class Entry:
    """A model, and how it is exported."""

    module: str
    function: str
    exporter: str
    opset: int | None = None

    @property
    def name(self):
        """The name of the model's folder."""
        return f"{self.function}-{self.exporter}{self.opset or ''}"


def torch(module, function, dynamo=(18,), legacy=(17,)):
    """Returns the entries of a model for the two exporters of PyTorch, by operator set."""
    entries = [Entry(module, function, "dynamo", opset) for opset in dynamo]
    return entries + [Entry(module, function, "legacy", opset) for opset in legacy]


def others(module, functions, exporter):
    """Returns the entries of models that make ONNX files on their own."""
    return [Entry(module, function, exporter) for function in functions]


TABLE = [
    *torch("vision", "convnext", legacy=(11,)),
    *torch("vision", "swin", legacy=(14,)),
    *torch("vision", "vit", legacy=()),
    *torch("vision", "mobilevit", legacy=(14,)),
    *torch("vision", "mobilevit_v2"),
    *torch("vision", "efficientformer"),
    *torch("vision", "efficientformer_v2"),
    *torch("vision", "efficientnet", dynamo=(20,), legacy=(9, 18)),
    *torch("vision", "mobilenet_v3", dynamo=(21,), legacy=(12,)),
    *torch("vision", "regnet"),
    *torch("vision", "maxvit"),
    *torch("vision", "unet", dynamo=(18, 22), legacy=(12,)),
    *torch("vision", "unet_transposed"),
    *torch("vision", "deeplab", legacy=(11,)),
    *torch("vision", "sam_encoder", dynamo=(19,)),
    *torch("vision", "segformer"),
    *torch("vision", "depth_anything"),
    *torch("detection", "detr", legacy=()),
    *torch("detection", "yolo_v5", legacy=(11,)),
    *torch("detection", "yolo_v8", dynamo=(20,), legacy=(13,)),
    *torch("detection", "yolo_v8_selected", legacy=(12,)),
    *torch("detection", "ssdlite", dynamo=(), legacy=(11,)),
    *torch("detection", "faster_rcnn", dynamo=(), legacy=(11, 16)),
    *torch("detection", "rt_detr"),
    *torch("audio", "whisper_encoder"),
    *torch("audio", "whisper_decoder", dynamo=()),
    *torch("audio", "conformer", legacy=(13,)),
    *torch("audio", "rnnt_decoder", dynamo=(21,), legacy=(11,)),
    *torch("audio", "rnnt_joiner"),
    *torch("audio", "demucs", legacy=(12,)),
    *torch("audio", "wav2vec2"),
    *torch("audio", "vad"),
    *torch("audio", "vocoder", legacy=(11,)),
    *torch("audio", "encodec", dynamo=()),
    *torch("text", "bert", legacy=(14,)),
    *torch("text", "roberta", dynamo=(20,), legacy=(12,)),
    *torch("text", "deberta"),
    *torch("text", "gpt2", dynamo=()),
    *torch("text", "llama", dynamo=()),
    *torch("text", "t5_encoder"),
    *torch("text", "t5_decoder"),
    *torch("text", "t5_cached", dynamo=()),
    *torch("text", "clip", dynamo=()),
    *torch("text", "lstm_packed", dynamo=(), legacy=(11, 17)),
    *torch("text", "gru_packed", dynamo=(), legacy=(13,)),
    *torch("text", "mamba"),
    *torch("text", "mixture"),
    *others("classic", [
        "logistic", "forest", "boosting", "neighbors_classifier", "neighbors_regressor",
        "support_vectors", "support_regressor", "perceptron", "components", "columns", "voting", "adaboost", "gaussian",
        "outliers", "clusters", "mixtures", "selection",
    ], "sklearn"),
    *others("keras_models", ["keras_lstm", "keras_gru", "keras_conv_lstm"], "tf2onnx"),
]
