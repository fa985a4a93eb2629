"""The layers and operations of Keras that are known, each with the function that translates it."""

from __future__ import annotations

import operator
from collections.abc import Mapping

import torch

from edgeloop.models.keras_import import plain_layers as plain
from edgeloop.models.keras_import import weight_layers as with_weights
from edgeloop.models.keras_import import windows
from edgeloop.models.keras_import.call import LayerTranslation

LAYERS: Mapping[str, LayerTranslation] = {
    **dict.fromkeys(("Conv1D", "Conv2D"), with_weights.convolution),
    **dict.fromkeys(("DepthwiseConv1D", "DepthwiseConv2D"), with_weights.depthwise),
    **dict.fromkeys(("SeparableConv1D", "SeparableConv2D"), with_weights.separable),
    "Dense": with_weights.dense,
    "BatchNormalization": with_weights.batch_norm,
    "Embedding": with_weights.embedding,
    "PReLU": with_weights.prelu,
    **dict.fromkeys(("MaxPooling1D", "MaxPooling2D", "AveragePooling1D", "AveragePooling2D"), windows.pool),
    **dict.fromkeys(("GlobalAveragePooling1D", "GlobalAveragePooling2D"), windows.global_pool),
    **dict.fromkeys(("GlobalMaxPooling1D", "GlobalMaxPooling2D"), windows.global_pool),
    **dict.fromkeys(("ZeroPadding1D", "ZeroPadding2D"), windows.zero_padding),
    "UpSampling2D": plain.upsampling,
    "Flatten": plain.flatten,
    **dict.fromkeys(("Reshape", "Squeeze", "ExpandDims"), plain.reshape),
    **dict.fromkeys(("Permute", "Transpose"), plain.permute),
    **dict.fromkeys(("Dropout", "SpatialDropout1D", "SpatialDropout2D"), plain.dropout),
    "Identity": plain.identity,
    **dict.fromkeys(("Cast", "ConvertToTensor"), plain.cast),
    "Activation": plain.activation,
    "ReLU": plain.relu,
    "LeakyReLU": plain.leaky_relu,
    "ELU": plain.elu,
    "Softmax": plain.softmax,
    "Rescaling": plain.rescaling,
    "Concatenate": plain.concatenate,
    "Average": plain.merge(operator.add),
    "Add": plain.merge_or_arithmetic(operator.add),
    "Subtract": plain.merge_or_arithmetic(operator.sub),
    "Multiply": plain.merge_or_arithmetic(operator.mul),
    "Maximum": plain.merge_or_arithmetic(plain.maximum),
    "Minimum": plain.merge_or_arithmetic(plain.minimum),
    **dict.fromkeys(("Divide", "TrueDivide"), plain.arithmetic(operator.truediv)),
    "Negative": plain.pointwise(operator.neg),
    "Absolute": plain.pointwise(torch.abs),
    "Square": plain.pointwise(torch.square),
    "Sqrt": plain.pointwise(torch.sqrt),
    "Exp": plain.pointwise(torch.exp),
    "Mean": plain.reduction(torch.mean),
    "Sum": plain.reduction(torch.sum),
    "Max": plain.reduction(torch.amax),
    "Min": plain.reduction(torch.amin),
    "Relu": plain.activation_operation("relu"),
    "Relu6": plain.activation_operation("relu6"),
    "Sigmoid": plain.activation_operation("sigmoid"),
    "Tanh": plain.activation_operation("tanh"),
    "Silu": plain.activation_operation("silu"),
    "HardSigmoid": plain.activation_operation("hard_sigmoid"),
    "HardSilu": plain.activation_operation("hard_silu"),
}
"""Layers of keras.layers and operations of keras.ops, by the names of their classes; several share theirs."""
