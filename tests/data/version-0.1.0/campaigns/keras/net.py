"""A network of one's own in Keras: `build` is what `[reference] factory` names.

Shapes are channel-last, as Keras and the data have them. The softmax at the end is left out where it is trained and
deployed: a classifier gives logits.
"""

import keras
from keras import layers


def build(width: float, depth: int) -> keras.Model:
    """Depthwise-separable blocks with batch norm, the later ones with a residual sum."""

    def channels(base: int) -> int:
        return max(4, round(base * width / 4) * 4)

    image = keras.Input((28, 28, 1), name="x")
    x = normalized(layers.Conv2D(channels(12), 3, strides=2, padding="same", use_bias=False)(image))
    x = separable(x, channels(24), strides=2)
    x = separable(x, channels(48), strides=2)
    for _ in range(1 + depth):
        x = layers.Add()([x, separable(x, channels(48))])
    x = layers.Dropout(0.1)(layers.GlobalAveragePooling2D()(x))
    return keras.Model(image, layers.Dense(10, activation="softmax")(x))


def separable(x: keras.KerasTensor, channels: int, strides: int = 1) -> keras.KerasTensor:
    """Each channel by itself, then all channels at each place."""
    x = normalized(layers.DepthwiseConv2D(3, strides=strides, padding="same", use_bias=False)(x))
    return normalized(layers.Conv2D(channels, 1, use_bias=False)(x))


def normalized(x: keras.KerasTensor) -> keras.KerasTensor:
    """Keras's own momentum, 0.99, would still remember the start after a training of a few hundred steps."""
    return layers.ReLU(max_value=6.0)(layers.BatchNormalization(momentum=0.9)(x))
