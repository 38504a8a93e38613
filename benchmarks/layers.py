"""`python -m benchmarks.layers [--output FILE]`: what bounds each layer of conv_vae and elbo_cvae.

For each convolution its three computations (forward, gradient of the input, gradient of the
kernel): floating-point operations, bytes that must move, milliseconds alone, and the least time
that the machine's fastest product and fastest copy allow. Beside TensorFlow's kernels stand other
forms: XLA; the patches of the image written out (im2col) with one large product; and for a layer
with one output channel that of `common/kernels.py`.
"""

from __future__ import annotations

import json
import statistics
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from benchmarks import MATRIX, command, machine, seconds_of
from common import kernels
from common.cli import output_file
from common.files import write_atomically
from common.lazy import tf

BATCH = 100
SIZE = 3  # pixels along a side of every kernel
SECONDS = 0.4  # of each measurement, its rounds together
ROUNDS = 5
COPIES = 8  # of the images that a call works on, one after the other
COPY = 2**21  # numbers: 8 MiB, the size of the larger images here


class Layer(NamedTuple):
    """A convolution, or a transposed one, which is a convolution's gradient read forwards."""

    name: str
    large: int  # pixels along a side of the larger image
    large_channels: int
    small: int
    small_channels: int
    stride: int
    padding: str = "SAME"
    transposed: bool = False

    @property
    def flops(self) -> float:
        """Of each of the three computations."""
        products = self.small**2 * SIZE**2 * self.large_channels * self.small_channels
        return 2.0 * BATCH * products

    @property
    def bytes(self) -> float:
        """That each of them must read and write at least: both images and the kernel."""
        images = self.large**2 * self.large_channels + self.small**2 * self.small_channels
        kernel = SIZE**2 * self.large_channels * self.small_channels
        return 4.0 * (BATCH * images + kernel)


LAYERS = {
    "conv_vae": (
        Layer("encoder 1", 28, 1, 14, 32, 2),
        Layer("encoder 2", 14, 32, 7, 64, 2),
        Layer("decoder 1", 14, 16, 7, 32, 2, transposed=True),
        Layer("decoder 2", 28, 8, 14, 16, 2, transposed=True),
        Layer("decoder 3", 28, 1, 28, 8, 1, transposed=True),
    ),
    "elbo_cvae": (
        Layer("encoder 1", 28, 1, 13, 32, 2, "VALID"),
        Layer("encoder 2", 13, 32, 6, 64, 2, "VALID"),
        Layer("decoder 1", 14, 64, 7, 32, 2, transposed=True),
        Layer("decoder 2", 28, 32, 14, 64, 2, transposed=True),
        Layer("decoder 3", 28, 1, 28, 32, 1, transposed=True),
    ),
}


def computations(layer: Layer) -> Iterator[tuple[str, Callable[..., Any], tuple[Any, ...]]]:
    """The three computations of a layer: name, function, arguments."""
    large = tf.random.normal([BATCH, layer.large, layer.large, layer.large_channels])
    small = tf.random.normal([BATCH, layer.small, layer.small, layer.small_channels])
    kernel = tf.random.normal([SIZE, SIZE, layer.large_channels, layer.small_channels])
    settings = {"strides": [1, layer.stride, layer.stride, 1], "padding": layer.padding}

    def to_small(large: Any, kernel: Any) -> Any:
        return tf.raw_ops.Conv2D(input=large, filter=kernel, **settings)

    def to_large(small: Any, kernel: Any) -> Any:
        return tf.raw_ops.Conv2DBackpropInput(
            input_sizes=large.shape, filter=kernel, out_backprop=small, **settings
        )

    def to_kernel(large: Any, small: Any) -> Any:
        return tf.raw_ops.Conv2DBackpropFilter(
            input=large, filter_sizes=kernel.shape, out_backprop=small, **settings
        )

    forward, backward = ("to large", "to small") if layer.transposed else ("to small", "to large")
    functions = {"to small": (to_small, (large, kernel)), "to large": (to_large, (small, kernel))}
    yield ("forward", *functions[forward])
    yield ("input gradient", *functions[backward])
    yield ("kernel gradient", to_kernel, (large, small))


def by_patches(layer: Layer, what: str) -> Callable[..., Any] | None:
    """The computation as one product of patches, where it is one."""
    window = [1, SIZE, SIZE, 1]
    strides = [1, layer.stride, layer.stride, 1]
    inputs = SIZE**2 * layer.large_channels

    def patches(large: Any) -> Any:
        found = tf.image.extract_patches(large, window, strides, [1, 1, 1, 1], layer.padding)
        return tf.reshape(found, [-1, inputs])

    if what == "kernel gradient":
        return lambda large, small: tf.matmul(
            patches(large), tf.reshape(small, [-1, layer.small_channels]), transpose_a=True
        )
    if (what == "forward") != layer.transposed:
        return lambda large, kernel: patches(large) @ tf.reshape(kernel, [-1, layer.small_channels])
    return None  # the way back adds patches up


def by_channel(layer: Layer, what: str) -> Callable[..., Any] | None:
    """The forward pass of a layer with one output channel as elbo_cvae computes it."""
    if not layer.transposed or layer.large_channels != 1 or what != "forward":
        return None

    def forward(small: Any, kernel: Any) -> Any:
        turned = tf.transpose(tf.reverse(kernel, axis=[0, 1]), [0, 1, 3, 2])
        return kernels.to_one_channel(small, turned)

    return forward


def of_a_layer(
    function: Callable[..., Any] | None, images: Any, other: Any, xla: bool = False
) -> float | None:
    """Milliseconds of a computation: of several, on different images, in one call of a graph."""
    if function is None:
        return None

    @tf.function(jit_compile=xla)
    def one_after_the_other(*copies: Any) -> Any:
        done: list[Any] = []
        for copy in copies:
            with tf.control_dependencies(done[-1:]):
                done.append(tf.reshape(function(copy, other), [-1])[0])
        return tf.stack(done)

    times = milliseconds(one_after_the_other, *(images + k for k in range(COPIES)))
    return statistics.median(times) / COPIES


def milliseconds(function: Callable[..., Any], *arguments: Any) -> list[float]:
    """Of a call, the mean of each round."""
    return [s * 1e3 for s in seconds_of(lambda: function(*arguments), ROUNDS, SECONDS / ROUNDS)]


def main() -> None:
    """Prints a line for each computation."""
    parser = command("benchmarks.layers", __doc__)
    parser.add_argument("--output", type=output_file, help="a JSON file to keep the numbers in")
    options = parser.parse_args()

    square = tf.random.normal([MATRIX, MATRIX])
    peak = 2 * MATRIX**3 / min(milliseconds(tf.matmul, square, square)) / 1e6  # GFLOP/s
    numbers = tf.random.normal([COPY])
    bandwidth = 2 * 4 * COPY / min(milliseconds(lambda x: x + 1.0, numbers)) / 1e6  # GB/s
    print(f"fastest product {peak:.0f} GFLOP/s, fastest copy {bandwidth:.1f} GB/s")
    found = []
    for module, layers in LAYERS.items():
        for layer in layers:
            for what, function, (images, other) in computations(layer):
                if layer.name == "encoder 1" and what == "input gradient":
                    continue  # nobody asks for the gradient of the pictures
                flop_ms, copy_ms = layer.flops / peak / 1e6, layer.bytes / bandwidth / 1e6
                entry = {
                    "module": module,
                    "layer": layer.name,
                    "computation": what,
                    "mflop": layer.flops / 1e6,
                    "mbyte": layer.bytes / 1e6,
                    "least_ms": max(flop_ms, copy_ms),  # of both, the longer
                    "bound_by": "arithmetic" if flop_ms > copy_ms else "memory",
                    "ms": of_a_layer(function, images, other),
                    "xla_ms": of_a_layer(function, images, other, xla=True),
                    "patches_ms": of_a_layer(by_patches(layer, what), images, other),
                    "by_channel_ms": of_a_layer(by_channel(layer, what), images, other),
                }
                found.append(entry)
                print(json.dumps(entry), flush=True)
    if options.output:
        content = {**machine(), "peak_gflops": peak, "copy_gbytes": bandwidth, "layers": found}
        write_atomically(options.output, json.dumps(content, indent=1) + "\n")


if __name__ == "__main__":
    main()
