"""A process in which TensorFlow has two logical CPUs: what `MirroredStrategy` makes of a batch. Prints JSON.

It shows why `finetune.devices` needs JAX (docs/decisions/0026-several-devices.md).
"""

from __future__ import annotations

import json

import numpy as np
import tensorflow as tf

tf.config.set_logical_device_configuration(
    tf.config.list_physical_devices("CPU")[0], [tf.config.LogicalDeviceConfiguration()] * 2
)

import keras  # noqa: E402  # after the devices


def main() -> None:
    strategy = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
    with strategy.scope():
        dropout = keras.layers.Dropout(0.5, seed=1)
        norm = keras.layers.BatchNormalization(momentum=0.0)
        norm.build((None, 1))

    def halves(layer: keras.layers.Layer, batch: np.ndarray) -> list[np.ndarray]:
        """What each replica makes of its half of a batch, in training."""
        parts = np.split(batch, 2)
        values = strategy.experimental_distribute_values_from_function(
            lambda context: tf.constant(parts[context.replica_id_in_sync_group])
        )
        run = tf.function(lambda part: strategy.run(lambda x: layer(x, training=True), args=(part,)))
        return [part.numpy() for part in strategy.experimental_local_results(run(values))]

    masks = halves(dropout, np.ones((4, 8), np.float32))
    halves(norm, np.float32([[0], [8], [16], [24]]))
    print(
        json.dumps({"masks_are_equal": bool((masks[0] == masks[1]).all()), "variance": float(norm.moving_variance[0])})
    )


if __name__ == "__main__":
    main()
