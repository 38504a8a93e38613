"""The losses against SciPy, in float64, by the modules' own `loss`."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache, partial
from typing import Any

import numpy as np
import pytest
from scipy import integrate, special, stats

from common.chance import Seeded
from common.lazy import tf
from common.training import Losses
from reproductions import conv_vae, elbo_cvae, mlp_vae, rmsprop_vae, tfp_cvae
from reproductions.evidence.documents import RECORDED_MODULES

Array = np.ndarray

BATCH = 6
ROUNDING = 1e-12  # relative; measured: 6e-16, and 2.4e-14 where two log-densities nearly cancel
INTEGRAL = 1e-11  # relative, and what quad is asked for; measured: 7e-16

# Far from z_mean = 0, z_log_var = 0, where every KL is small whatever its formula.
Z_MEAN = np.array([1.5, -0.7])
Z_LOG_VAR = np.array([-2.0, 0.8])


def images() -> Array:
    """uint8 [BATCH, 28, 28] of every grey level, black and white among them."""
    x = np.random.RandomState(0).randint(0, 256, (BATCH, 28, 28)).astype(np.uint8)
    x[:, 0, 0], x[:, 0, 1] = 0, 255
    return x


def labels() -> Array:
    return (np.arange(BATCH) % 10).astype(np.uint8)


def noise() -> Any:
    return tf.constant(np.random.RandomState(1).standard_normal((BATCH, 2)))


# --- The models, with posteriors moved away from the prior ----------------------------------------


@cache
def mlp_model() -> Any:
    config = mlp_vae.Config(hidden=16, initial_stddev=0.1)
    model = mlp_vae.build(config, Seeded(0).initializer(), "float64")
    model.z_mean_b.assign(Z_MEAN)
    model.z_log_var_b.assign(Z_LOG_VAR)
    return model


@cache
def rmsprop_model() -> Any:
    model = rmsprop_vae.build(rmsprop_vae.Config(hidden=16), Seeded(0).initializer(), "float64")
    model.z_mean_b.assign_add(Z_MEAN)
    model.z_log_var_b.assign_add(Z_LOG_VAR)
    return model


@cache
def conv_model() -> Any:
    model = conv_vae.build(conv_vae.Config(filters=2), Seeded(0).initializer(), "float64")
    model.encoder.trainable_variables[-3].assign(Z_MEAN)
    model.encoder.trainable_variables[-1].assign(Z_LOG_VAR)
    return model


@cache
def elbo_model() -> Any:
    model = elbo_cvae.build(elbo_cvae.Config(latent_dim=2), Seeded(0).initializer(), "float64")
    model.encoder.trainable_variables[-1].assign(np.concatenate([Z_MEAN, Z_LOG_VAR]))
    return model


@cache
def tfp_model() -> Any:
    model = tfp_cvae.build(tfp_cvae.Config(base_depth=2), Seeded(0).initializer(), "float64")
    model.encoder.trainable_variables[-1].assign([1.5, -0.7, -1.0, 0.8, 0.4])
    model.class_mean.trainable_variables[-1].assign([0.3, -0.2])
    return model


MODELS: dict[str, tuple[Any, Callable[[], Any]]] = {
    "mlp_vae": (mlp_vae, mlp_model),
    "conv_vae": (conv_vae, conv_model),
    "elbo_cvae": (elbo_cvae, elbo_model),
    "rmsprop_vae": (rmsprop_vae, rmsprop_model),
    "tfp_cvae": (tfp_cvae, tfp_model),
}


def codes(name: str) -> tuple[Array, Array, Array]:
    """Mean and log-variance of the images' diagonal posteriors, and the z of `noise()`."""
    module, model = MODELS[name]
    x = module.inputs(images(), "float64")
    encoded = model().encoder(x) if module is conv_vae else module.encode(model(), x)
    z_mean, z_log_var = (part.numpy() for part in encoded)
    return z_mean, z_log_var, z_mean + np.exp(z_log_var / 2) * noise().numpy()


def loss_of(name: str) -> Losses:
    """The module's loss of a batch, as NumPy arrays."""
    module, model = MODELS[name]
    losses = module.loss(model(), tf.constant(images()), tf.constant(labels()), noise())
    return Losses(*(t.numpy() for t in losses))


# --- KL in closed form ----------------------------------------------------------------------------


def kl_by_integration(mean: float, log_var: float) -> float:
    """KL(N(mean, exp(log_var)) || N(0, 1)) in nats, from its definition."""
    q, p = stats.norm(mean, np.exp(log_var / 2)), stats.norm(0, 1)
    low, high = mean - 12 * q.std(), mean + 12 * q.std()
    value, _ = integrate.quad(
        lambda z: q.pdf(z) * (q.logpdf(z) - p.logpdf(z)),
        low,
        high,
        epsabs=INTEGRAL,
        epsrel=INTEGRAL,
    )
    return float(value)


@pytest.mark.parametrize("name", ["mlp_vae", "conv_vae", "rmsprop_vae"])
def test_kl_is_the_integral_that_defines_it(name: str) -> None:
    z_mean, z_log_var, _ = codes(name)
    assert np.abs(z_mean - z_mean[0]).max() > 1e-3  # the images differ
    expected = [
        sum(kl_by_integration(m, v) for m, v in zip(*pair, strict=True))
        for pair in zip(z_mean, z_log_var, strict=True)
    ]
    losses = loss_of(name)
    assert losses.kl.shape == (BATCH,)
    np.testing.assert_allclose(losses.kl, expected, rtol=INTEGRAL)


# --- Reconstruction -------------------------------------------------------------------------------


def test_squared_error_of_mlp_vae_is_a_gaussian_up_to_its_constant() -> None:
    _, _, z = codes("mlp_vae")
    x = mlp_vae.inputs(images(), "float64").numpy()
    density = stats.norm(mlp_vae.decode(mlp_model(), z).numpy(), 1).logpdf(x).sum(axis=1)
    constant = 784 / 2 * np.log(2 * np.pi)
    np.testing.assert_allclose(
        loss_of("mlp_vae").reconstruction, -density - constant, rtol=ROUNDING
    )


@pytest.mark.parametrize("name", ["conv_vae", "elbo_cvae"])
def test_cross_entropy_of_logits(name: str) -> None:
    module, model = MODELS[name]
    _, _, z = codes(name)
    x, logits = module.inputs(images(), "float64").numpy(), model().decoder(z).numpy()
    bernoulli = x * special.log_expit(logits) + (1 - x) * special.log_expit(-logits)
    np.testing.assert_allclose(
        loss_of(name).reconstruction, -bernoulli.sum(axis=(1, 2, 3)), rtol=ROUNDING
    )


def test_guarded_cross_entropy_of_rmsprop_vae() -> None:
    _, _, z = codes("rmsprop_vae")
    x = rmsprop_vae.inputs(images(), "float64").numpy()
    p = rmsprop_vae.decode(rmsprop_model(), z).numpy()
    likelihood = x * np.log(1e-10 + p) + (1 - x) * np.log(1e-10 + 1 - p)
    np.testing.assert_allclose(
        loss_of("rmsprop_vae").reconstruction, -likelihood.sum(axis=1), rtol=ROUNDING
    )


@pytest.mark.parametrize(
    ("dtype", "saturated_at_1"), [("float64", -np.log(1e-10)), ("float32", np.inf)]
)
def test_the_guard_of_rmsprop_vae_guards_one_side_only_in_float32(
    dtype: str, saturated_at_1: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """1e-10 + 1 is 1 in float32: a black pixel decoded as 1 costs infinitely much."""
    model = rmsprop_vae.build(rmsprop_vae.Config(hidden=4), Seeded(0).initializer(), dtype)
    black, eps = tf.zeros([1, 28, 28], tf.uint8), tf.zeros([1, 2], dtype)
    for p, expected in [(1.0, saturated_at_1), (0.0, 0.0)]:
        decoded = tf.constant(np.eye(1, 784) * p, dtype)
        monkeypatch.setattr(rmsprop_vae, "decode", lambda model, z, d=decoded: d)
        losses = rmsprop_vae.loss(model, black, tf.zeros([1], tf.uint8), eps)
        # Each of the other pixels has -log(1 + 1e-10).
        assert float(losses.reconstruction[0]) == pytest.approx(expected, abs=1e-6)


F64 = partial(np.asarray, dtype=np.float64)
TWICE = 2e-7  # what clipping at 1e-7 and adding 1e-7 leave of a probability of 0


# (x, x_decoded, nats), the last from the formula by hand: p is clipped to [1e-7, 1 - 1e-7], then
# -x log(p + 1e-7) - (1 - x) log(1 - p + 1e-7).
CROSS_ENTROPIES = [
    (1.0, 1.0, 0.0),
    (0.0, 0.0, 0.0),
    (1.0, 0.5, -np.log(0.5 + 1e-7)),
    (0.0, 0.5, -np.log(0.5 + 1e-7)),
    (0.5, 0.5, -np.log(0.5 + 1e-7)),
    (0.25, 0.75, -0.25 * np.log(0.75 + 1e-7) - 0.75 * np.log(0.25 + 1e-7)),
    (1.0, 0.0, -np.log(TWICE)),
    (0.0, 1.0, -np.log(TWICE)),
    (1.0, 1e-9, -np.log(TWICE)),
    (0.5, 0.0, -0.5 * np.log(TWICE)),
]
CANCELLATION = 1e-9  # 1 - (1 - 1e-7) keeps nine digits in float64; measured: 2e-11


@pytest.mark.parametrize(("x", "x_decoded", "expected"), CROSS_ENTROPIES)
def test_clipped_cross_entropy_of_tfp_cvae(x: float, x_decoded: float, expected: float) -> None:
    value = float(tfp_cvae.cross_entropy(tf.constant(F64(x)), tf.constant(F64(x_decoded))))
    assert value == pytest.approx(expected, rel=CANCELLATION, abs=1e-15)


def test_a_saturated_pixel_of_tfp_cvae_has_no_gradient() -> None:
    p = tf.constant(F64([0.0, 1e-8, 0.5, 1.0]))
    with tf.GradientTape() as tape:
        tape.watch(p)
        total = tf.reduce_sum(tfp_cvae.cross_entropy(tf.constant(F64([1, 1, 1, 0])), p))
    np.testing.assert_allclose(tape.gradient(total, p), [0, 0, -1 / (0.5 + 1e-7), 0], rtol=ROUNDING)


def test_reconstruction_of_tfp_cvae_is_that_cross_entropy_summed_over_pixels() -> None:
    model = tfp_model()
    x = tfp_cvae.inputs(images(), "float64").numpy()
    posterior = model.encoder(x)
    factor = np.linalg.cholesky(posterior.covariance().numpy())
    z = posterior.loc.numpy() + np.einsum("bij,bj->bi", factor, noise().numpy())
    p = model.decoder(z).numpy().clip(1e-7, 1 - 1e-7)
    entropy = -(x * np.log(p + 1e-7) + (1 - x) * np.log(1 - p + 1e-7))
    np.testing.assert_allclose(
        loss_of("tfp_cvae").reconstruction, np.sum(entropy, axis=(1, 2, 3)), rtol=ROUNDING
    )


# --- Monte-Carlo KL -------------------------------------------------------------------------------


def test_log_normal_pdf_is_that_of_scipy() -> None:
    random = np.random.RandomState(3)
    z, mean, log_var = random.normal(0, 2, (3, 20, 50))
    ours = elbo_cvae.log_normal_pdf(*(tf.constant(a) for a in (z, mean, log_var)))
    theirs = stats.norm(mean, np.exp(log_var / 2)).logpdf(z).sum(axis=1)
    np.testing.assert_allclose(ours, theirs, rtol=ROUNDING)


def test_kl_of_elbo_cvae_is_the_difference_of_two_log_densities() -> None:
    z_mean, z_log_var, z = codes("elbo_cvae")
    posterior = stats.norm(z_mean, np.exp(z_log_var / 2))
    expected = (posterior.logpdf(z) - stats.norm.logpdf(z)).sum(axis=1)
    np.testing.assert_allclose(loss_of("elbo_cvae").kl, expected, rtol=ROUNDING, atol=ROUNDING)


def tfp_distributions() -> list[tuple[Any, Any, Array]]:
    """For each image posterior and prior, by SciPy, and the z of `noise()`."""
    model, eps = tfp_model(), noise().numpy()
    posterior = model.encoder(tfp_cvae.inputs(images(), "float64"))
    loc, covariance = posterior.loc.numpy(), posterior.covariance().numpy()
    means = model.class_mean(np.eye(10)[labels()]).numpy()
    return [
        (
            stats.multivariate_normal(loc[i], covariance[i]),
            stats.multivariate_normal(means[i], np.eye(2)),
            loc[i] + np.linalg.cholesky(covariance[i]) @ eps[i],
        )
        for i in range(BATCH)
    ]


def test_kl_of_tfp_cvae_is_the_difference_of_two_log_densities() -> None:
    distributions = tfp_distributions()
    assert all(abs(q.cov[0, 1]) > 0.01 for q, _, _ in distributions)  # a full covariance
    expected = [q.logpdf(z) - p.logpdf(z) for q, p, z in distributions]
    np.testing.assert_allclose(loss_of("tfp_cvae").kl, expected, rtol=ROUNDING, atol=ROUNDING)


@pytest.mark.parametrize("graph", [False, True], ids=["eager", "graph"])
def test_log_q_of_tfp_cvae_comes_from_the_noise_not_from_z(graph: bool) -> None:
    """In float32 z = 1000 + 1e-5 eps is 1000: solved back from z, eps would be lost.

    The documents' originals keep it by TFP's bijector cache; solving gave NaN near step 197.
    """
    model = tfp_cvae.build(tfp_cvae.Config(base_depth=2), Seeded(0).initializer(), "float32")
    kernel, bias = model.encoder.trainable_variables[-2:]
    kernel.assign(tf.zeros_like(kernel))
    bias.assign([1000, -1000, -40, 0, -40])  # softplus(-40) + 1e-5 on the diagonal
    kernel, bias = model.class_mean.trainable_variables[-2:]
    kernel.assign(tf.zeros_like(kernel))
    bias.assign([1000, -1000])

    call = partial(tfp_cvae.loss, model)
    eps = tf.cast(noise(), tf.float32)
    losses = (tf.function(call) if graph else call)(
        tf.constant(images()), tf.constant(labels()), eps
    )
    log_q = stats.norm.logpdf(eps.numpy().astype(np.float64)).sum(axis=1) - 2 * np.log(1e-5)
    log_p = 2 * stats.norm.logpdf(0)
    np.testing.assert_allclose(losses.kl, log_q - log_p, rtol=1e-5)  # float32; 1e-7 measured


# --- Reductions -----------------------------------------------------------------------------------

REDUCTIONS: dict[str, Callable[[Losses], float]] = {
    "mlp_vae": lambda v: v.reconstruction.sum() + v.kl.mean(),
    "conv_vae": lambda v: (v.reconstruction + v.kl).mean(),
    "elbo_cvae": lambda v: (v.reconstruction + v.kl).mean(),
    "rmsprop_vae": lambda v: (v.reconstruction + v.kl).mean(),
    "tfp_cvae": lambda v: v.reconstruction.sum() + 2 * v.kl.mean(),
}


@pytest.mark.parametrize("name", RECORDED_MODULES)
def test_the_loss_is_reduced_over_the_batch_as_it_is(name: str) -> None:
    """The divisor is the size of this batch; in the lockstep all have the document's size."""
    losses = loss_of(name)
    assert losses.reconstruction.shape == losses.kl.shape == (BATCH,)
    assert losses.loss == pytest.approx(REDUCTIONS[name](losses), rel=1e-14)
