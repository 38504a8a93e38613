"""The integrated log-likelihood, against models whose likelihood is known."""

from __future__ import annotations

import dataclasses
import importlib
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from scipy.stats import multivariate_normal

from common.lazy import tf
from common.training import Posterior
from reproductions import program
from reproductions.evidence import kept, likelihood
from reproductions.evidence.documents import DOCUMENTS
from tests.conftest import small

CHANCE = np.random.default_rng(0)
W, BIAS = CHANCE.normal(size=(2, 784)) * 0.2, CHANCE.uniform(size=(10, 784))
MEANS = CHANCE.normal(size=(10, 2))  # of the classes' priors


def linear(told: bool, means: np.ndarray) -> Any:
    """x = z W + a bias + normal noise; the bias is the label's where the decoder is told it."""
    data = small("mnist")
    data = dataclasses.replace(
        data, test_images=data.test_images[:60], test_labels=data.test_labels[:60]
    )

    def posterior(images: Any, labels: Any) -> Posterior:
        prior_mean = tf.gather(means, tf.cast(labels, tf.int32))
        return Posterior(prior_mean, tf.zeros([len(labels), 2, 2], tf.float64), prior_mean)

    def pictures_of(z: np.ndarray, labels: np.ndarray) -> np.ndarray:
        return (z @ W + BIAS[labels if told else 0 * labels]).reshape(-1, 28, 28)

    return SimpleNamespace(data=data, posterior=posterior, pictures_of=pictures_of)


@pytest.mark.parametrize("told", [False, True])
@pytest.mark.parametrize("means", [np.zeros([10, 2]), MEANS], ids=["one prior", "ten priors"])
def test_the_likelihood_of_a_linear_model_is_found(told: bool, means: np.ndarray) -> None:
    experiment = linear(told, means)
    x = experiment.data.test_images.reshape(-1, 784) / 255
    labels = experiment.data.test_labels
    exact = np.zeros(len(x))
    for y in np.unique(labels):
        mean = means[y] @ W + BIAS[y if told else 0]
        exact[labels == y] = multivariate_normal(mean, W.T @ W + np.eye(784)).logpdf(x[labels == y])
    conditional = told or bool(means.any())
    found = likelihood.integrated(experiment, "gaussian", conditional, step=0.1, reach=4)
    np.testing.assert_allclose(found, exact, atol=1e-4)


@pytest.mark.parametrize("module", likelihood.PLANE)
def test_a_picture_has_the_probability_that_the_document_gives_it(module: str) -> None:
    port, data = program(module), small(program(module).dataset)
    model = port.load(kept.REFERENCE / module)
    images, labels = data.test_images[:20], data.test_labels[:20]
    loss = importlib.import_module(f"reproductions.{module}").loss
    experiment = port.reopen(kept.REFERENCE / module, data)
    theirs = loss(model, images, labels, tf.zeros([20, 2])).reconstruction
    pictures = experiment.pictures_of(experiment.posterior(images, labels).z_mean.numpy(), labels)
    found = likelihood.log_probability(
        images.reshape(20, -1) / 255, pictures.reshape(20, -1), port.likelihood
    )
    np.testing.assert_allclose(-np.diag(found), theirs, rtol=1e-4)


def table() -> dict[str, list[float]]:
    rows = likelihood.rows(kept.load_results(likelihood.RESULTS))
    return {name: [float(cell.replace("−", "-")) for cell in cells] for name, *cells in rows}


def test_every_kept_model_of_two_dimensions_is_integrated() -> None:
    results = kept.load_results(likelihood.RESULTS)
    assert {m: list(runs) for m, runs in results.items()} == {
        module: ["document", *(v.name for v in DOCUMENTS[module].variants)]
        for module in likelihood.PLANE
    }
    for elbo, _, integrated in table().values():
        assert elbo < integrated


def test_sampling_from_a_narrow_q_misses_the_likelihood_of_mlp_vae() -> None:
    _, sampled, integrated = table()["`mlp_vae`"]
    assert integrated - sampled > 5
    _, sampled, integrated = table()["`mlp_vae --objective elbo`"]
    assert abs(integrated - sampled) < 0.1
