"""What each module hands to the loop, compared with its document's settings, written down here."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import pytest

from common.chance import Seeded
from common.lazy import tf
from reproductions import MODULES, program
from tests.conftest import Load


class Handed(NamedTuple):
    """What a document's program trains with."""

    held_back: int  # training images that are left out, from the first on
    batch_size: int
    carried: bool  # the images left over by a pass begin the next one's first batch
    buffer: int | None  # images that the shuffle chooses from; None: all
    steps: int
    optimizer: str
    learning_rate: float
    trained: int  # numbers in the variables
    row: int  # steps between two rows of the history


MLP = 784 * 256 + 256 + 2 * (256 * 2 + 2) + 2 * 256 + 256 + 2 * 256 * 784 + 784
HANDED = {
    "mlp_vae": Handed(5_000, 128, True, None, 50 * 429, "TF1Adam", 1e-3, MLP, 429),
    "mlp_cvae": Handed(5_000, 128, True, None, 50 * 429, "TF1Adam", 1e-3, MLP + 2 * 10 * 256, 429),
    "conv_vae": Handed(0, 100, False, None, 30 * 600, "LegacyNadam", 1e-3, 129_893, 600),
    "elbo_cvae": Handed(0, 100, False, None, 100 * 600, "KerasAdam", 1e-4, 366_533, 600),
    "rmsprop_vae": Handed(5_000, 64, True, None, 3_000, "TF1RMSProp", 1e-3, 807_700, 100),
    "tfp_cvae": Handed(0, 256, False, 10_000, 15 * 235, "KerasAdam", 1e-3, 138_428, 235),
}


@pytest.mark.parametrize("module", MODULES)
def test_the_loop_gets_what_the_document_trains_with(module: str, whole: Load) -> None:
    port: Any = program(module)
    expected = HANDED[module]
    data = whole(port.dataset)
    experiment = port.experiment(port.config(), data, Seeded(7))
    np.testing.assert_array_equal(experiment.images, data.train_images[expected.held_back :])
    np.testing.assert_array_equal(experiment.labels, data.train_labels[expected.held_back :])
    assert experiment.steps == expected.steps
    assert experiment.steps_per_round == expected.row
    assert type(experiment.optimizer).__name__ == expected.optimizer
    assert experiment.optimizer.learning_rate == pytest.approx(expected.learning_rate)
    assert experiment.dtype == "float32"
    trained = {id(v) for v in experiment.variables}
    assert trained == {id(v) for v in experiment.model.variables}
    assert len(trained) == len(experiment.variables)
    assert sum(int(np.prod(v.shape)) for v in experiment.variables) == expected.trained


@pytest.mark.parametrize("module", MODULES)
def test_the_batches_are_cut_by_the_documents_rule(module: str, whole: Load) -> None:
    port: Any = program(module)
    expected = HANDED[module]
    experiment = port.experiment(port.config(), whole(port.dataset), Seeded(7))
    n = len(experiment.images)
    steps_of_a_pass = -(-n // expected.batch_size)
    batches = [experiment.batches(step) for step in range(steps_of_a_pass + 1)]
    sizes = [len(batch) for batch in batches]
    full = [expected.batch_size] * (n // expected.batch_size)
    left_over = n - sum(full)
    stream = np.concatenate(batches)
    np.testing.assert_array_equal(np.sort(stream[:n]), np.arange(n))  # every image once
    if expected.carried:
        assert sizes == [expected.batch_size] * (steps_of_a_pass + 1)
    else:
        assert sizes[: len(full)] == full
        assert left_over == 0 or sizes[len(full)] == left_over
    # How early an image comes: by 9,999 places at most where the shuffle has a buffer of 10,000.
    early = int((stream[:n] - np.arange(n)).max())
    if expected.buffer is None:
        assert early > 0.9 * n
    else:
        assert 0.9 * expected.buffer < early < expected.buffer


@pytest.mark.parametrize("module", MODULES)
def test_the_loss_reads_the_batch_that_it_is_given(module: str, whole: Load) -> None:
    """The terms of an image depend on it, and on its label where the model is told the label."""
    port: Any = program(module)
    data = whole(port.dataset)
    experiment = port.experiment(port.config(), data, Seeded(7), "float64")
    for i, variable in enumerate(experiment.variables):  # so that nothing is near zero
        variable.assign_add(0.05 * np.random.default_rng(i).normal(size=variable.shape))
    images, labels = data.train_images[6_000:6_008], data.train_labels[6_000:6_008]
    eps = tf.constant(np.random.default_rng(0).normal(size=(8, experiment.latent_dim)))

    def terms(images: Any, labels: Any, eps: Any) -> np.ndarray:
        losses = experiment.loss(images, labels, eps)
        return np.stack([losses.reconstruction.numpy(), losses.kl.numpy()])

    plain = terms(images, labels, eps)
    turned = terms(images[::-1], labels[::-1], eps[::-1])
    np.testing.assert_allclose(turned[:, ::-1], plain, rtol=1e-9, atol=1e-9)
    other_images = np.abs(terms(images[::-1], labels, eps) - plain)
    assert (other_images > 1e-6).all()
    hears = {"mlp_cvae": [True, True], "tfp_cvae": [False, True]}.get(module, [False, False])
    other_labels = np.abs(terms(images, (labels + 1) % 10, eps) - plain)
    assert [(row > 1e-6).all() for row in other_labels] == hears
    assert [(row > 1e-12).any() for row in other_labels] == hears
