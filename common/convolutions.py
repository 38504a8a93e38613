"""A convolution to one channel, in an order of sums that fills a processor's vectors.

The kernels for convolutions put output channels side by side in a vector, eight or sixteen of them.
A decoder's last layer has one, and takes as long as if it had them all. Here each input channel is
convolved by itself, with these side by side, and then they are added.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from common.lazy import tf

STRIDES = [1, 1, 1, 1]


def to_one_channel(x: Any, kernel: Any) -> tf.Tensor:
    """What `tf.nn.conv2d(x, kernel, 1, "SAME")` computes, for one output channel.

    Args:
      x: [batch, height, width, channels].
      kernel: [size, size, channels, 1]; size is odd.

    Returns:
      [batch, height, width, 1].
    """

    @tf.custom_gradient
    def convolve(x: tf.Tensor, kernel: tf.Tensor) -> tuple[tf.Tensor, Callable[..., Any]]:
        def gradients(dy: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
            dx = tf.nn.conv2d_transpose(dy, kernel, tf.shape(x), 1, "SAME")
            # With x and dy in each other's role its channels are side by side here, too. What comes
            # out is the kernel's gradient turned by 180 degrees: [size, size, 1, channels].
            turned = tf.raw_ops.Conv2DBackpropFilter(
                input=dy,
                filter_sizes=[*kernel.shape[:2], 1, kernel.shape[2]],
                out_backprop=x,
                strides=STRIDES,
                padding="SAME",
            )
            return dx, tf.transpose(tf.reverse(turned, axis=[0, 1]), [0, 1, 3, 2])

        by_channel = tf.nn.depthwise_conv2d(x, kernel, STRIDES, "SAME")
        return tf.reduce_sum(by_channel, axis=-1, keepdims=True), gradients

    return convolve(x, kernel)
