"""Networks in NumPy alone compute what TensorFlow computes."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from common.evaluation import encode_test_set
from common.lazy import tf
from common.training import Experiment
from reproductions import program
from reproductions.evidence.kept import REFERENCE
from reproductions.explorer import models, networks
from reproductions.explorer.measure import codes_to_try
from tests.conftest import small

# Pixels between 0 and 1; measured: 1.9e-6. A pixel is the sum of some hundred float32 products.
PIXELS = 1e-5
# Means of q(z|x), up to 22; measured: 1.1e-5. Scales: 3.5e-6.
CODES = 5e-5

RUNS = [f.parent.relative_to(REFERENCE) for f in REFERENCE.rglob("explorer.npz")]


@pytest.fixture(scope="module", params=sorted(map(str, RUNS)))
def trained(request) -> tuple[Experiment, models.Model]:
    """A kept run in TensorFlow, with twenty test images as its test set, and in NumPy."""
    folder = REFERENCE / request.param
    port = program(request.param.split("/")[0])
    with np.load(folder / "explorer.npz") as measured:
        images, digits = measured["images"], measured["digits"]
    data = dataclasses.replace(small(port.dataset), test_images=images, test_labels=digits)
    return port.reopen(folder, data), models.load(folder)


def test_numpys_decoder_is_tensorflows(trained):
    experiment, model = trained
    images, digits = experiment.data.test_images, experiment.data.test_labels
    z = codes_to_try(model, images, digits)
    expected = experiment.pictures_of(z, digits)
    assert np.abs(model.decode(z, digits) - expected).max() < PIXELS


def test_numpys_encoder_is_tensorflows(trained):
    experiment, model = trained
    digits = experiment.data.test_labels
    mean, scale = model.encode(experiment.data.test_images, digits)
    prior_mean = np.zeros_like(mean) if model.class_mean is None else model.class_mean[digits]
    q = encode_test_set(experiment)
    for ours, theirs in zip((mean, scale, prior_mean), q, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=0, atol=CODES)


@pytest.mark.parametrize("padding", ["same", "valid"])
@pytest.mark.parametrize("stride", [1, 2, 3])
@pytest.mark.parametrize(("height", "size"), [(7, 3), (8, 5), (9, 2), (28, 7), (5, 1)])
def test_convolutions(height, size, stride, padding):
    chance = np.random.default_rng(height + size + stride)
    x = chance.standard_normal((2, height, height, 3)).astype(np.float32)
    kernel = chance.standard_normal((size, size, 3, 4)).astype(np.float32)
    expected = tf.nn.conv2d(x, kernel, stride, padding.upper()).numpy()
    np.testing.assert_allclose(networks.conv(x, kernel, stride, padding), expected, atol=1e-4)

    n = height * stride if padding == "same" else (height - 1) * stride + size
    turned = kernel.transpose(0, 1, 3, 2)  # TensorFlow has [size, size, out, in]
    expected = tf.nn.conv2d_transpose(x, turned, [2, n, n, 4], stride, padding.upper()).numpy()
    found = networks.conv_transpose(x, kernel, stride, padding)
    np.testing.assert_allclose(found, expected, atol=1e-4)


@pytest.mark.parametrize("name", networks.ACTIVATIONS)
def test_activations(name):
    x = np.array([-1000, -3, -1e-3, 0, 0.5, 4, 1000], np.float32)
    ours = {"linear": tf.identity, "leaky_relu": lambda x: tf.nn.leaky_relu(x, 0.2)}
    function = ours.get(name) or getattr(tf.nn, name)
    np.testing.assert_allclose(networks.ACTIVATIONS[name](x), function(x).numpy(), atol=1e-6)


def test_rounding_keeps_sixteen_bits():
    chance = np.random.default_rng(0)
    for array in (chance.standard_normal(10_000) * 0.02, chance.standard_normal(20), np.ones(1)):
        step = models.step_of(array)
        assert np.abs(np.rint(array / step)).max() < 2**15
        assert np.abs(models.as_rounded(array) - array).max() <= step / 2 + 1e-9
        assert step <= max(array.std() / 500, np.abs(array).max() / 2**13)
