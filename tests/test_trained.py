"""The kept trained models, evaluated once more by NumPy's networks and SciPy's densities alone."""

from __future__ import annotations

import dataclasses
from functools import cache
from typing import Any

import numpy as np
import pytest
from scipy.special import logsumexp, xlog1py, xlogy
from scipy.stats import multivariate_normal, norm

from common.datasets import Dataset
from common.evaluation import LIKELIHOODS, count_right
from reproductions import MODULES, program
from reproductions.evidence.kept import REFERENCE
from reproductions.explorer import models
from tests.conftest import CONDITIONAL, FACTORS, Load

IMAGES = 40
SAMPLED, SAMPLES = 3, 50  # images and draws of the log-likelihood
LIKELIHOOD = {
    "mlp_vae": "gaussian",
    "mlp_cvae": "gaussian",
    "conv_vae": "grey",
    "elbo_cvae": "binarised",
    "rmsprop_vae": "grey",
    "tfp_cvae": "grey",
}
NATS = 2e-4  # float32 networks, relative


@cache
def kept(module: str) -> Any:
    """A kept model, in TensorFlow."""
    return program(module).load(REFERENCE / module)


class Twin:
    """A kept model in NumPy and SciPy: nothing here is the port's."""

    def __init__(self, module: str) -> None:
        self.module, self.model = module, models.load(REFERENCE / module)

    def prior_mean(self, labels: np.ndarray) -> np.ndarray:
        means = self.model.class_mean
        return np.zeros([len(labels), self.model.latent]) if means is None else means[labels]

    def reconstruction(self, images: np.ndarray, pictures: np.ndarray) -> np.ndarray:
        """Minus log p(x|z) as the document takes it, but for constants, [n]."""
        p = pictures.reshape(len(pictures), -1).astype(np.float64)
        x = images.reshape(len(images), -1) / 255.0
        if self.module in ("mlp_vae", "mlp_cvae"):
            return ((x - p) ** 2).sum(axis=1) / 2
        if self.module == "elbo_cvae":
            x = (x >= 0.5).astype(np.float64)
        p = np.clip(p, 1e-7, 1 - 1e-7)
        return -(xlogy(x, p) + xlog1py(1 - x, -p)).sum(axis=1)

    def terms(self, images: np.ndarray, labels: np.ndarray, eps: np.ndarray) -> np.ndarray:
        """Reconstruction, KL in closed form and log-weight of each image, [3, n]."""
        means, scales = (a.astype(np.float64) for a in self.model.encode(images, labels))
        z = means + np.einsum("nij,nj->ni", scales, eps)
        reconstruction = self.reconstruction(images, self.model.decode(z, labels))
        rows = []
        for k, prior in enumerate(self.prior_mean(labels).astype(np.float64)):
            covariance = scales[k] @ scales[k].T
            offset = means[k] - prior
            kl = 0.5 * (
                np.trace(covariance) + offset @ offset - len(prior)
                - np.linalg.slogdet(covariance)[1]
            )  # fmt: skip
            log_q = multivariate_normal(means[k], covariance).logpdf(z[k])
            log_p = multivariate_normal(prior, np.eye(len(prior))).logpdf(z[k])
            rows.append([reconstruction[k], kl, log_p - log_q - reconstruction[k]])
        return np.transpose(rows)


def few(data: Dataset) -> Dataset:
    return dataclasses.replace(
        data, test_images=data.test_images[:IMAGES], test_labels=data.test_labels[:IMAGES]
    )


@pytest.mark.parametrize("module", MODULES)
def test_the_metrics_of_a_trained_model(module: str, whole: Load) -> None:
    port = program(module)
    data = few(whole(port.dataset))
    experiment, twin = port.reopen(REFERENCE / module, data), Twin(module)
    metrics = port.evaluate(experiment, images=SAMPLED, samples=SAMPLES, drawn=20)
    assert metrics["likelihood"] == LIKELIHOODS[LIKELIHOOD[module]]

    def codes(name: str, n: int) -> np.ndarray:
        return experiment.chance.codes(name, (n, experiment.latent_dim)).astype(np.float64)

    reconstruction, kl, _ = twin.terms(data.test_images, data.test_labels, codes("elbo", IMAGES))
    assert metrics["reconstruction"] == pytest.approx(reconstruction.mean(), rel=NATS)
    assert metrics["kl"] == pytest.approx(kl.mean(), rel=NATS)
    constant = 392 * np.log(2 * np.pi) if LIKELIHOOD[module] == "gaussian" else 0  # of 784 pixels
    elbo = -reconstruction.mean() - kl.mean() - constant
    assert metrics["elbo"] == pytest.approx(elbo, rel=NATS)
    gaps, effective, spreads = [], [], []
    for i in range(SAMPLED):
        image, label = (
            np.repeat(a[i : i + 1], SAMPLES, 0) for a in (data.test_images, data.test_labels)
        )
        log_weights = twin.terms(image, label, codes(f"importance {i}", SAMPLES))[2]
        spreads.append(log_weights.var())
        gaps.append(logsumexp(log_weights) - np.log(SAMPLES) - log_weights.mean())
        effective.append(np.exp(2 * logsumexp(log_weights) - logsumexp(2 * log_weights)))
    assert metrics["log_likelihood"] - metrics["elbo"] == pytest.approx(np.mean(gaps), abs=0.02)
    assert metrics["effective_samples"] == pytest.approx(np.median(effective), rel=0.02)
    error = np.hypot(np.std(gaps, ddof=1) / SAMPLED**0.5, (np.mean(spreads) / IMAGES) ** 0.5)
    assert metrics["log_likelihood_se"] == pytest.approx(error, rel=0.02)
    z_mean = twin.model.encode(data.test_images, data.test_labels)[0]
    assert metrics["active_units"] == sum(np.var(unit) > 0.01 for unit in z_mean.T)
    assert (metrics["images_sampled"], metrics["samples"]) == (SAMPLED, SAMPLES)
    # As the document reduces it over a batch of its size.
    of_reconstruction, of_kl = FACTORS.get(module, (1, 1))
    objective = of_reconstruction * reconstruction.mean() + of_kl * kl.mean()
    assert metrics["objective"] == pytest.approx(objective, rel=2e-3)
    assert metrics["kl_weight"] == pytest.approx(of_kl / of_reconstruction, rel=0.02)
    if port.draw is not None:
        centres = twin.model.class_mean
        if centres is None:
            first = slice(0, 10_000)
            images, labels = data.train_images[first], data.train_labels[first]
            z = twin.model.encode(images, labels)[0]
            centres = np.stack([z[labels == digit].mean(axis=0) for digit in range(10)])
        nearest = np.linalg.norm(z_mean[:, np.newaxis] - centres, axis=2).argmin(axis=1)
        wanted = metrics["wanted_digits"]
        assert wanted["nearest_class_mean"] == np.mean(nearest == data.test_labels)
        quantiles = norm.ppf(np.linspace(0.05, 0.95, 15))
        grid = np.stack(np.meshgrid(quantiles, quantiles), axis=-1).reshape(-1, 2)
        pictures = [
            twin.model.decode(grid + twin.prior_mean(labels), labels)
            for labels in np.repeat(np.arange(10)[:, np.newaxis], len(grid), axis=1)
        ]
        right = count_right(np.stack(pictures).reshape(10, -1, 28, 28))
        assert np.abs(right - wanted["grid_right"]).max() <= 1  # one may lie between two digits


def test_the_result_of_mlp_cvae_is_the_cost_of_all_test_images(
    whole: Load,
) -> None:
    port, twin = program("mlp_cvae"), Twin("mlp_cvae")
    data = few(whole(port.dataset))
    experiment = port.reopen(REFERENCE / "mlp_cvae", data)
    eps = experiment.chance.codes("result", (IMAGES, 2)).astype(np.float64)
    reconstruction, kl, _ = twin.terms(data.test_images, data.test_labels, eps)
    assert port.results(experiment) == {
        "result": pytest.approx(reconstruction.sum() + kl.mean(), rel=NATS)
    }


@pytest.mark.parametrize("module", CONDITIONAL)
@pytest.mark.parametrize("digit", range(10))
def test_the_digit_that_is_asked_for_is_drawn_around_its_prior(module: str, digit: int) -> None:
    port, twin = program(module), Twin(module)
    eps = np.random.default_rng(digit).normal(size=(3, 5, 2)).astype(np.float32)
    labels = np.full(15, digit)
    z = eps.reshape(15, 2) + twin.prior_mean(labels)
    expected = twin.model.decode(z, labels).reshape(3, 5, 28, 28)
    assert port.draw is not None
    drawn = port.draw(kept(module), digit, eps)
    np.testing.assert_allclose(drawn, expected, atol=1e-4)
    others = twin.model.decode(eps.reshape(15, 2) + twin.prior_mean((labels + 1) % 10),
                               (labels + 1) % 10)  # fmt: skip
    assert np.abs(drawn.reshape(15, 28, 28) - others).max() > 0.1  # another digit is another draw
