"""Networks in NumPy alone: dense layers, convolutions and transposed convolutions, forwards only.

What a trained decoder or encoder computes needs no TensorFlow. These few functions compute the same
sums, in another order: the tests compare them with TensorFlow, and the explorer's JavaScript with
them. Images are [batch, height, width, channels], as in TensorFlow.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np


class Layer(NamedTuple):
    """One layer of a network that has no branches."""

    kind: str  # "dense", "conv" or "conv_transpose"
    kernel: np.ndarray  # [in, out], or [height, width, in, out]: also for "conv_transpose"
    bias: np.ndarray  # [out]
    activation: str  # a key of ACTIVATIONS
    shape: tuple[int, ...] = ()  # height, width and channels of what a convolution takes
    stride: int = 1
    padding: str = "same"  # or "valid"


Network = Sequence[Layer]


def leaky_relu(x: np.ndarray) -> np.ndarray:
    """TensorFlow's, of slope 0.2 below zero."""
    return np.where(x > 0, x, np.float32(0.2) * x)


def sigmoid(x: np.ndarray) -> np.ndarray:
    """1 / (1 + exp(-x)), without an overflow on either side."""
    small = np.exp(-np.abs(x))
    return np.where(x >= 0, 1, small) / (1 + small)


ACTIVATIONS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "linear": lambda x: x,
    "relu": lambda x: np.maximum(x, 0),
    "leaky_relu": leaky_relu,
    "tanh": np.tanh,
}


def apply(network: Network, x: np.ndarray) -> np.ndarray:
    """Runs x [batch, ...] through the layers; the result is flat, [batch, outputs]."""
    for layer in network:
        if layer.kind == "dense":
            x = x.reshape(len(x), -1) @ layer.kernel
        else:
            convolve = conv if layer.kind == "conv" else conv_transpose
            x = convolve(x.reshape(-1, *layer.shape), layer.kernel, layer.stride, layer.padding)
        x = ACTIVATIONS[layer.activation](x + layer.bias)
    return x.reshape(len(x), -1)


def conv(x: np.ndarray, kernel: np.ndarray, stride: int, padding: str) -> np.ndarray:
    """What `tf.nn.conv2d` computes.

    Args:
      x: [batch, height, width, in].
      kernel: [size, size, in, out].
      stride: pixels from one output to the next.
      padding: "same" or "valid".
    """
    size = len(kernel)
    if padding == "same":
        pads = [padding_of(n, size, stride) for n in x.shape[1:3]]
        x = np.pad(x, [(0, 0), *pads, (0, 0)])
    height, width = ((n - size) // stride + 1 for n in x.shape[1:3])
    y = np.zeros((len(x), height, width, kernel.shape[-1]), x.dtype)
    for i in range(size):
        for j in range(size):
            rows = slice(i, i + stride * height, stride)
            columns = slice(j, j + stride * width, stride)
            y += x[:, rows, columns] @ kernel[i, j]
    return y


def conv_transpose(x: np.ndarray, kernel: np.ndarray, stride: int, padding: str) -> np.ndarray:
    """What Keras's `Conv2DTranspose` computes: the gradient of `conv` with respect to its input.

    Args:
      x: [batch, height, width, in].
      kernel: [size, size, in, out]; Keras keeps the last two the other way round.
      stride: pixels of the output from one input to the next.
      padding: "same" for stride times the size of x, "valid" for all that an input reaches.
    """
    size = len(kernel)
    height, width = x.shape[1:3]
    whole = [(n - 1) * stride + size for n in (height, width)]
    # With a stride beyond the kernel's size, "same" has rows that no input reaches.
    shape = [max(n, m * stride) for n, m in zip(whole, (height, width), strict=True)]
    y = np.zeros((len(x), *shape, kernel.shape[-1]), x.dtype)
    for i in range(size):
        for j in range(size):
            rows = slice(i, i + stride * height, stride)
            columns = slice(j, j + stride * width, stride)
            y[:, rows, columns] += x @ kernel[i, j]
    if padding == "valid":
        return y[:, : whole[0], : whole[1]]
    top, left = (padding_of(n * stride, size, stride)[0] for n in (height, width))
    return y[:, top : top + height * stride, left : left + width * stride]


def padding_of(n: int, size: int, stride: int) -> tuple[int, int]:
    """The zeros that "same" puts before and after n pixels; where odd, one more after."""
    total = max((-(-n // stride) - 1) * stride + size - n, 0)
    return total // 2, total - total // 2
