"""The convolution to one channel is the convolution: values, gradients, and what is exported."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from common.chance import Seeded
from common.kernels import to_one_channel
from common.lazy import tf
from reproductions import elbo_cvae, tfp_cvae

ROUNDING = 1e-13  # relative to the largest entry, in float64; 3e-15 measured


def value_and_gradients(convolve: Any, x: Any, kernel: Any, dy: Any) -> list[Any]:
    with tf.GradientTape() as tape:
        tape.watch([x, kernel])
        y = convolve(x, kernel)
    return [y, *tape.gradient(y, [x, kernel], output_gradients=dy)]


@pytest.mark.parametrize(("size", "channels", "side"), [(5, 16, 28), (3, 4, 7), (1, 2, 5)])
@pytest.mark.parametrize("in_graph", [False, True], ids=["eager", "graph"])
def test_is_the_convolution(size: int, channels: int, side: int, in_graph: bool) -> None:
    random = np.random.RandomState(0)
    shapes = ([3, side, side, channels], [size, size, channels, 1], [3, side, side, 1])
    x, kernel, dy = (tf.constant(random.standard_normal(shape)) for shape in shapes)

    def plain(x: Any, kernel: Any) -> Any:
        return tf.nn.conv2d(x, kernel, 1, "SAME")

    run = tf.function(value_and_gradients) if in_graph else value_and_gradients
    ours, theirs = run(to_one_channel, x, kernel, dy), run(plain, x, kernel, dy)
    for mine, other in zip(ours, theirs, strict=True):
        assert mine.shape == other.shape
        error = np.abs(mine - other).max() / np.abs(other).max()
        assert error <= ROUNDING


@pytest.mark.parametrize("module", [elbo_cvae, tfp_cvae])
def test_a_decoder_with_it_can_be_exported(module: Any, tmp_path: Path) -> None:
    decoder, other = (
        module.build(module.Config(), Seeded(seed).initializer()).decoder for seed in (0, 1)
    )
    z = np.random.RandomState(0).standard_normal([2, decoder.input_shape[1]]).astype("f")
    decoder.export(str(tmp_path / "decoder"))
    loaded = tf.saved_model.load(str(tmp_path / "decoder"))
    np.testing.assert_allclose(loaded.serve(z), decoder(z), rtol=1e-4, atol=1e-6)
    assert not np.allclose(other(z), decoder(z))
    decoder.save_weights(tmp_path / "decoder.weights.h5")
    other.load_weights(tmp_path / "decoder.weights.h5")
    np.testing.assert_array_equal(other(z), decoder(z))
