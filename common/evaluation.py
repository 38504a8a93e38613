"""Evaluates a trained model: ELBO terms, log-likelihood, how often the wanted digit is drawn.

All metrics are of the test set; losses and likelihoods are in nats per image, `objective` as the
document reduces it. The documents have different likelihoods of an image: `LIKELIHOODS` describes
them, and metrics compare only where they are the same.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from common import classifier
from common.errors import TrainingFailed
from common.lazy import tf
from common.pictures import grid_codes, normal_quantiles
from common.training import Experiment, Posterior, in_batches

Draw = Callable[[Any, int, np.ndarray], np.ndarray]  # (model, digit, normal codes) -> pictures

SAMPLES = 500  # of z for each image's log-likelihood
IMAGES = 100  # whose log-likelihood the end of a run estimates; the whole test set takes minutes
ACTIVE = 0.01  # a latent unit is active if the variance of its z_mean over the images is larger
DRAWN = 1_000  # pictures of each digit, from the prior
LIKELIHOODS = {
    "binarised": "Bernoulli of binarised pixels",
    "grey": "grey levels taken as probabilities: not normalised, so no likelihood of grey pixels,"
    " and not comparable with binarised ones",
    "gaussian": "Gaussian of variance 1 around each pixel in 0 .. 1, a density",
}


class PerImage(NamedTuple):
    """Metrics of a batch, one for each image."""

    reconstruction: tf.Tensor  # [batch], with the z that eps makes
    kl: tf.Tensor  # [batch], in closed form
    log_weight: tf.Tensor  # [batch]: log p(x|z) + log p(z) - log q(z|x), without the constant


def per_image(experiment: Experiment, images: Any, labels: Any, eps: Any) -> PerImage:
    """The terms of the ELBO; the mean of `log_weight` over eps is the ELBO without its constant.

    `log_normaliser` gives the constant.

    Args:
      experiment: with a trained model.
      images: uint8 [batch, 28, 28].
      labels: uint8 [batch].
      eps: standard normal noise [batch, latent].
    """
    q = experiment.posterior(images, labels)
    log_det = tf.reduce_sum(tf.math.log(tf.linalg.diag_part(q.scale_tril)), axis=1)
    offset = q.z_mean - q.prior_mean
    trace = tf.reduce_sum(tf.square(q.scale_tril), axis=[1, 2])
    kl = 0.5 * (trace + tf.reduce_sum(tf.square(offset), axis=1) - experiment.latent_dim) - log_det
    z = offset + tf.linalg.matvec(q.scale_tril, eps)  # seen from the prior's mean
    log_q_over_p = 0.5 * tf.reduce_sum(tf.square(z) - tf.square(eps), axis=1) - log_det
    reconstruction = experiment.loss(images, labels, eps).reconstruction
    return PerImage(reconstruction, kl, -reconstruction - log_q_over_p)


def evaluate(
    experiment: Experiment,
    z_mean: np.ndarray,
    likelihood: str,
    images: int = IMAGES,
    samples: int = SAMPLES,
    track: Callable[[Any], Any] = iter,
) -> dict[str, Any]:
    """Computes the metrics of a trained model on the test set.

    The log-likelihood of an image is at least its ELBO. Importance sampling (Burda et al. 2016,
    arXiv:1509.00519) estimates the difference on the first `images` test images; `log_likelihood`
    is the ELBO of all images plus the mean of that difference. It is a lower bound on average, and
    several nats too low where q is much narrower than the true posterior. Neither the effective
    samples nor the standard error show that (`reproductions.evidence.likelihood` integrates
    instead). The standard error is that of the difference over the images, together with that of
    the ELBO's noise, for which the variance of the log-weights stands in; it says nothing of other
    test sets.

    Args:
      experiment: with a trained model.
      z_mean: posterior means of the test images, [n, latent], see `encode_test_set`.
      likelihood: a key of `LIKELIHOODS`.
      images: how many to sample for the log-likelihood.
      samples: of z for each of them.
      track: wraps the loop over the images, for a progress bar.

    Returns:
      `reconstruction`, `kl` (closed form), `elbo`, `log_likelihood`, its standard error
      `log_likelihood_se`, all in nats per image; `objective`, the document's own, as it reduces it
      over a batch; `kl_weight` that it gives the KL (1 in an ELBO); `active_units`;
      `effective_samples`, the median of (sum w)^2 / sum w^2; and what they were made from.

    Raises:
      TrainingFailed: the loss of a test image is not finite.
    """
    step = tf.function(
        lambda *batch: per_image(experiment, *batch), reduce_retracing=True,
        jit_compile=experiment.compile_with_xla,
    )  # fmt: skip
    data = experiment.data
    n = len(data.test_images)
    eps = experiment.chance.codes("elbo", (n, experiment.latent_dim)).astype(experiment.dtype)
    whole = in_batches(step, data.test_images, data.test_labels, eps)
    reconstruction, kl, _ = (part.astype(np.float64) for part in whole)
    if not np.isfinite(reconstruction + kl).all():
        raise TrainingFailed("the loss of some test images is not finite")
    elbo = log_normaliser(likelihood) - float(np.mean(reconstruction + kl))
    differences, spread, effective = [], [], []
    for i in track(range(min(images, n))):
        log_weights = _log_weights(step, experiment, i, samples)
        largest = log_weights.max()
        weights = np.exp(log_weights - largest)
        differences.append(largest + np.log(weights.mean()) - log_weights.mean())
        spread.append(log_weights.var())
        effective.append(weights.sum() ** 2 / (weights**2).sum())
    reconstruction_factor, kl_factor = objective_factors(experiment)
    se = np.sqrt(np.var(differences, ddof=1) / len(differences) + np.mean(spread) / n)
    return {
        "likelihood": LIKELIHOODS[likelihood],
        "reconstruction": float(reconstruction.mean()),
        "kl": float(kl.mean()),
        "elbo": elbo,
        "log_likelihood": elbo + float(np.mean(differences)),
        "log_likelihood_se": float(se),
        "effective_samples": float(np.median(effective)),
        "objective": float(np.mean(reconstruction_factor * reconstruction + kl_factor * kl)),
        "kl_weight": float(f"{kl_factor / reconstruction_factor:.2g}"),
        "active_units": int((z_mean.var(axis=0) > ACTIVE).sum()),
        "samples": samples,
        "images_sampled": len(differences),
    }


def log_normaliser(likelihood: str) -> float:
    """The constant of the log-likelihood, in nats per image.

    Only the Gaussian has one that `reconstruction` leaves out: 784 pixels times -log(2 pi) / 2.
    """
    return -392 * float(np.log(2 * np.pi)) if likelihood == "gaussian" else 0.0


def _log_weights(
    step: Callable[..., PerImage], experiment: Experiment, image: int, samples: int
) -> np.ndarray:
    """The log-weights of samples of z for one image of the test set, [samples]."""
    eps = experiment.chance.codes(f"importance {image}", (samples, experiment.latent_dim)).astype(
        experiment.dtype
    )
    data = experiment.data
    images = np.repeat(data.test_images[image : image + 1], samples, axis=0)
    labels = np.repeat(data.test_labels[image : image + 1], samples)
    return step(images, labels, eps).log_weight.numpy().astype(np.float64)


def objective_factors(experiment: Experiment) -> tuple[float, float]:
    """The factors of reconstruction and KL in the document's objective, (1, 1) in an ELBO.

    The objective is linear in a batch's mean reconstruction and mean KL. The factors are its
    derivatives by them, for a batch of the document's size.
    """
    data = experiment.data
    size = experiment.batches.batch_size
    chosen = np.arange(size) % len(data.test_images)
    eps = experiment.chance.codes("objective", (size, experiment.latent_dim))
    with tf.GradientTape() as tape:
        losses = experiment.loss(
            data.test_images[chosen],
            data.test_labels[chosen],
            tf.constant(eps, experiment.dtype),
        )
    of_each_image = tape.gradient(
        losses.loss,
        [losses.reconstruction, losses.kl],
        unconnected_gradients=tf.UnconnectedGradients.ZERO,
    )
    reconstruction_factor, kl_factor = (float(tf.reduce_sum(g)) for g in of_each_image)
    return reconstruction_factor, kl_factor


def encode_test_set(experiment: Experiment) -> Posterior:
    """The posteriors of all test images, as NumPy arrays [n, ...]."""
    data = experiment.data
    return in_batches(experiment.posterior, data.test_images, data.test_labels)


# --- Is the wanted digit drawn? -------------------------------------------------------------------


def wanted_digits(
    experiment: Experiment, z_mean: np.ndarray, draw: Draw, drawn: int
) -> dict[str, Any]:
    """Asks a conditional model for each digit, and a classifier what it drew.

    Args:
      experiment: with a trained model.
      z_mean: posterior means of the test images, [n, latent].
      draw: the module's `sample`.
      drawn: how many pictures of each digit to draw from the prior.

    Returns:
      `right`, how many of the pictures from the prior show the wanted digit, for each digit;
      `grid_right`, the same of the document's 225 quantiles; `share`, of all pictures from the
      prior; `nearest_class_mean`, the share of test images whose z_mean lies nearest to their own
      class's mean: the prior's, or where all classes have one prior, that of the codes of the first
      10,000 training images.
    """
    eps = experiment.chance.codes("wanted", (drawn, experiment.latent_dim))
    quantiles = normal_quantiles(15)
    grid = grid_codes(quantiles, quantiles).reshape(-1, 2)
    right = count_right(np.stack([draw(experiment.model, digit, eps) for digit in range(10)]))
    grid_right = count_right(np.stack([draw(experiment.model, digit, grid) for digit in range(10)]))
    distance = np.linalg.norm(z_mean[:, np.newaxis] - class_centres(experiment), axis=2)
    return {
        "right": right.tolist(),
        "grid_right": grid_right.tolist(),
        "share": float(right.sum() / (10 * drawn)),
        "nearest_class_mean": float(
            np.mean(distance.argmin(axis=1) == experiment.data.test_labels)
        ),
    }


def count_right(pictures: np.ndarray) -> np.ndarray:
    """How many pictures [10, n, 28, 28], values 0 .. 1, show the digit of their row, int [10]."""
    return (classifier.classify(pictures) == np.arange(10)[:, np.newaxis]).sum(axis=1)


def class_centres(experiment: Experiment) -> np.ndarray:
    """The classes' prior means, or their mean codes where these are all the same, [10, latent].

    The mean code of a class without images is infinitely far from everything.
    """
    data = experiment.data
    digits = np.arange(10, dtype=np.uint8)
    any_images = np.repeat(data.test_images[:1], 10, axis=0)
    prior_means = np.asarray(experiment.posterior(any_images, digits).prior_mean)
    if np.ptp(prior_means, axis=0).any():
        return prior_means
    labels = data.train_labels[:10_000]
    z_mean = in_batches(
        lambda *batch: experiment.posterior(*batch).z_mean, data.train_images[:10_000], labels
    )
    nowhere = np.full(experiment.latent_dim, np.inf)
    of_digits = (z_mean[labels == digit] for digit in digits)
    return np.stack([codes.mean(axis=0) if len(codes) else nowhere for codes in of_digits])
