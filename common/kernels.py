"""The same sums in an order that fills a processor's vectors: used by modules, explained here.

**One output channel.** The kernels for convolutions put output channels side by side in a vector,
eight or sixteen of them. A decoder's last layer has one, and takes as long as if it had them all.
Here each input channel is convolved by itself, with these side by side, and then they are added.

**Two narrow heads.** The gradients of two products with two columns each take longer than those of
one product with four columns.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from common.lazy import tf

STRIDES = [1, 1, 1, 1]


def two_heads(h: tf.Tensor, w1: tf.Tensor, w2: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """`h @ w1` and `h @ w2` in one product.

    Args:
      h: [batch, n].
      w1: [n, columns].
      w2: the same shape.

    Returns:
      Both, [batch, columns] each.
    """
    first, second = tf.split(h @ tf.concat([w1, w2], axis=1), num_or_size_splits=2, axis=1)
    return first, second


def one_channel(conv2d: type) -> Any:
    """A subclass of tf_keras's `Conv2D` that computes the same in less time.

    It is for a layer with one filter of an odd size, stride 1 and padding "same".
    """

    class OneChannel(conv2d):
        def convolution_op(self, inputs: tf.Tensor, kernel: tf.Tensor) -> tf.Tensor:
            return to_one_channel(inputs, kernel)

    return OneChannel


def one_channel_transposed(conv2d_transpose: type) -> Any:
    """A subclass of Keras's `Conv2DTranspose` that computes the same in less time.

    It is for a layer with one filter of an odd size, stride 1, padding "same" and a linear output:
    it applies no activation.
    """

    class OneChannelTransposed(conv2d_transpose):
        def call(self, inputs: tf.Tensor) -> tf.Tensor:
            kernel = tf.transpose(tf.reverse(self.kernel, axis=[0, 1]), [0, 1, 3, 2])
            return to_one_channel(inputs, kernel) + self.bias

    return OneChannelTransposed


def to_one_channel(x: tf.Tensor, kernel: tf.Tensor) -> tf.Tensor:
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
