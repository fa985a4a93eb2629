"""Real Keras models for tests, trained on the digits by TensorFlow: `python keras_models.py FOLDER`.

m1.keras, m1.h5, m1_saved/   8x8x1 -> 10 probabilities, a small convolutional network
open.keras                   any height and width, one channel -> 4 values
two.keras                    {"left": 4, "right": 2} -> {"s": 2, "t": 4}
lambda.keras                 a Lambda layer, which is Python code
many/                        a SavedModel with the signatures f and g
odd/                         a SavedModel with an operator that TFLite does not have
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

os.environ.update(KERAS_BACKEND="tensorflow", TF_CPP_MIN_LOG_LEVEL="3", CUDA_VISIBLE_DEVICES="-1")


def main(folder: Path) -> None:
    import keras
    import tensorflow as tf
    from keras import layers

    from edgeloop.core.campaign import Data
    from edgeloop.data.load import load

    train = load(Data(provider="digits")).train
    keras.utils.set_random_seed(0)
    m1 = keras.Sequential(
        [
            keras.Input((8, 8, 1), name="image"),
            layers.Conv2D(12, 3, padding="same"),
            layers.BatchNormalization(),
            layers.ReLU(),
            layers.Conv2D(16, 3, padding="same", strides=2, activation="relu"),
            layers.GlobalAveragePooling2D(),
            layers.Dense(10, activation="softmax"),
        ]
    )
    m1.compile("adam", "sparse_categorical_crossentropy")
    m1.fit(train.x["x"], train.y["y"], epochs=20, batch_size=32, verbose=0)
    m1.save(folder / "m1.keras")
    m1.save(folder / "m1.h5")
    m1.export(folder / "m1_saved", verbose=False)

    image = keras.Input((None, None, 1), name="image")
    pooled = layers.GlobalAveragePooling2D()(layers.Conv2D(4, 3)(image))
    keras.Model(image, pooled).save(folder / "open.keras")
    left, right = keras.Input((4,), name="left"), keras.Input((2,), name="right")
    keras.Model({"left": left, "right": right}, {"s": layers.Dense(2)(left) + right, "t": left * 2}).save(
        folder / "two.keras"
    )
    flat = keras.Input((4,))
    keras.Model(flat, layers.Lambda(lambda values: values * 2)(flat)).save(folder / "lambda.keras")

    class Functions(tf.Module):  # type: ignore[misc, name-defined]
        @tf.function(input_signature=[tf.TensorSpec((None, 4))])  # type: ignore[untyped-decorator]
        def f(self, x: Any) -> Any:
            return tf.math.erfinv(x)

        @tf.function(input_signature=[tf.TensorSpec((None, 4))])  # type: ignore[untyped-decorator]
        def g(self, x: Any) -> Any:
            return x * 2

    made = Functions()
    tf.saved_model.save(made, str(folder / "many"), signatures={"f": made.f, "g": made.g})
    tf.saved_model.save(made, str(folder / "odd"), signatures={"serving_default": made.f})


if __name__ == "__main__":
    main(Path(sys.argv[1]))
