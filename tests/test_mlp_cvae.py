"""The proof of document 000 §3, which has no program to record: it is §2 where the label is mute.

And where it is not, its formulas and gradients are right.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from common.chance import Seeded
from common.lazy import tf
from common.training import Losses
from reproductions import mlp_cvae, mlp_vae

Array = np.ndarray
Model = Any  # of either module

BATCH = 32
OF_THE_LABEL = ("y_w1", "y_w2")
NUMPY = 1e-12  # relative; the same sums in another order; measured: 2e-14, where a KL is 5e-3
STEP = 1e-4  # of the central differences
# The differences' own error, relative to the largest gradient. Measured: 8e-11, and 1e-9 with steps
# of 1e-3 (the third derivative) as of 1e-5 (the loss's rounding).
DIFFERENCES = 1e-9


def images() -> Any:
    return tf.constant(np.random.RandomState(0).randint(0, 256, (BATCH, 28, 28)).astype(np.uint8))


def labels() -> Any:
    """All digits but 9."""
    return tf.constant((np.arange(BATCH) % 9).astype(np.uint8))


def noise() -> Any:
    return tf.constant(np.random.RandomState(1).standard_normal((BATCH, 2)))


def build(module: Any, hidden: int = 256, initial_stddev: float = 1e-3) -> Model:
    """A float64 model. With equal seeds the variables that both modules have start equal."""
    config = module.Config(hidden=hidden, initial_stddev=initial_stddev)
    model: Model = module.build(config, Seeded(5).initializer(), "float64")
    random = np.random.RandomState(2)
    for name in mlp_vae_names():
        if name.startswith("b") or name.endswith("_b"):  # zeros would hide a lost bias
            bias = getattr(model, name)
            bias.assign(random.normal(0, 0.1, bias.shape))
    return model


def mlp_vae_names() -> list[str]:
    return list(mlp_vae.Model._fields)


def mute(model: Model) -> Model:
    for name in OF_THE_LABEL:
        getattr(model, name).assign(tf.zeros_like(getattr(model, name)))
    return model


def losses_and_gradients(
    module: Any, model: Model, y: Any, graph: bool = False, xla: bool = False
) -> tuple[Losses, dict[str, Array | None]]:
    """The module's loss, and its gradients by name."""

    def compute() -> Any:
        with tf.GradientTape() as tape:
            losses = module.loss(model, images(), y, noise())
        return losses, tape.gradient(losses.loss, model._asdict())

    run = tf.function(compute, jit_compile=xla) if graph else compute
    losses, gradients = run()
    return (
        Losses(*(t.numpy() for t in losses)),
        {name: None if g is None else g.numpy() for name, g in gradients.items()},
    )


# --- The label mute: document 000 §2 --------------------------------------------------------------


def test_the_variables_are_those_of_mlp_vae_and_two_more() -> None:
    """In its order and of its shapes; the rows of the label come last, so they disturb no draw."""
    plain, labelled = (
        m.build(m.Config(), Seeded(5).initializer(), "float64") for m in (mlp_vae, mlp_cvae)
    )
    assert list(labelled._fields) == [*plain._fields, *OF_THE_LABEL]
    for name, variable in plain._asdict().items():
        assert getattr(labelled, name).numpy().tobytes() == variable.numpy().tobytes(), name
    for name in OF_THE_LABEL:
        rows = getattr(labelled, name).numpy()
        assert rows.shape == (10, 256)
        assert 0.5e-3 < rows.std() < 1e-3  # a truncated normal of 0.001: 0.88e-3
        assert np.abs(rows).max() <= np.float32(2e-3)


@pytest.mark.parametrize("how", ["eager", "graph", "xla"])
@pytest.mark.parametrize("initial_stddev", [1e-3, 0.1])
def test_with_a_mute_label_it_is_mlp_vae_to_the_last_bit(how: str, initial_stddev: float) -> None:
    plain = build(mlp_vae, initial_stddev=initial_stddev)
    labelled = mute(build(mlp_cvae, initial_stddev=initial_stddev))
    options = {"graph": how != "eager", "xla": how == "xla"}
    expected, their_gradients = losses_and_gradients(mlp_vae, plain, labels(), **options)
    ours, gradients = losses_and_gradients(mlp_cvae, labelled, labels(), **options)
    for field in Losses._fields:
        assert getattr(ours, field).tobytes() == getattr(expected, field).tobytes(), field
    for name, gradient in their_gradients.items():
        mine = gradients[name]
        if gradient is None or mine is None:
            assert gradient is mine is None
            assert name == "w3_inner"
        else:
            assert mine.tobytes() == gradient.tobytes(), name
            assert np.abs(gradient).max() > 0, name


# --- The label heard ------------------------------------------------------------------------------


def by_concatenation(model: Model, x: Array, digits: Array, eps: Array) -> Losses:
    """Section 3 as it is told: the one-hot label joins the image and the code; in NumPy."""
    w = {name: variable.numpy() for name, variable in model._asdict().items()}
    y = np.eye(10)[digits]
    pixels = (x.reshape(len(x), 784).astype(np.float32) * np.float32(1 / 255)).astype(np.float64)
    h1 = np.maximum(np.hstack([pixels, y]) @ np.vstack([w["w1"], w["y_w1"]]) + w["b1"], 0)
    z_mean = h1 @ w["z_mean_w"] + w["z_mean_b"]
    z_log_var = h1 @ w["z_log_var_w"] + w["z_log_var_b"]
    z = z_mean + np.exp(z_log_var / 2) * eps
    h2 = np.maximum(np.hstack([z, y]) @ np.vstack([w["w2"], w["y_w2"]]) + w["b2"], 0)
    x_decoded = h2 @ w["w3"] + w["b3"]
    reconstruction = ((x_decoded - pixels) ** 2).sum(axis=1) / 2
    kl = (z_mean**2 + np.exp(z_log_var) - 1 - z_log_var).sum(axis=1) / 2
    return Losses(reconstruction.sum() + kl.mean(), reconstruction, kl)


def test_the_label_joins_the_image_and_the_code() -> None:
    model = build(mlp_cvae, hidden=16, initial_stddev=0.1)
    ours, _ = losses_and_gradients(mlp_cvae, model, labels())
    expected = by_concatenation(model, images().numpy(), labels().numpy(), noise().numpy())
    for field in Losses._fields:
        np.testing.assert_allclose(getattr(ours, field), getattr(expected, field), rtol=NUMPY)


def central_differences(value: Callable[[], float], variable: Any) -> Array:
    """The gradient of `value` with respect to a variable, entry by entry."""
    start = variable.numpy()
    gradient = np.empty_like(start)
    for place in np.ndindex(*start.shape):
        sides = []
        for sign in (1, -1):
            moved = start.copy()
            moved[place] += sign * STEP
            variable.assign(moved)
            sides.append(value())
        gradient[place] = (sides[0] - sides[1]) / (2 * STEP)
    variable.assign(start)
    return gradient


@pytest.mark.parametrize("name", OF_THE_LABEL)
def test_gradients_of_the_labels_rows_are_those_of_central_differences(name: str) -> None:
    model = build(mlp_cvae, hidden=6, initial_stddev=0.3)
    x, y, eps = images(), labels(), noise()

    @tf.function
    def loss() -> Any:
        return mlp_cvae.loss(model, x, y, eps).loss

    _, gradients = losses_and_gradients(mlp_cvae, model, y)
    gradient = gradients[name]
    assert gradient is not None
    expected = central_differences(lambda: float(loss()), getattr(model, name))
    largest = np.abs(expected).max()
    assert largest > 1
    assert np.abs(gradient - expected).max() <= DIFFERENCES * largest
