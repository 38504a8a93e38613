"""The six models in JAX, for a comparison of speed. They start from our weights."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.workload import Workload

Array = Any
Parameters = Sequence[Array]  # in the order of our variables

# --- The models -----------------------------------------------------------------------------------


def closed_form_kl(z_mean: Array, z_log_var: Array) -> Array:
    return -0.5 * jnp.sum(1 + z_log_var - z_mean**2 - jnp.exp(z_log_var), axis=1)


def conv(x: Array, w: Array, b: Array, stride: int, padding: str = "SAME") -> Array:
    layout = ("NHWC", "HWIO", "NHWC")
    return (
        jax.lax.conv_general_dilated(x, w, (stride, stride), padding, dimension_numbers=layout) + b
    )


def conv_transpose(x: Array, w: Array, b: Array, stride: int, padding: str = "SAME") -> Array:
    y = jax.lax.conv_transpose(x, w, (stride, stride), padding, transpose_kernel=True)
    return y + b


def cross_entropy_with_logits(x: Array, logits: Array) -> Array:
    return jnp.sum(jnp.maximum(logits, 0) - logits * x + jnp.log1p(jnp.exp(-jnp.abs(logits))))


def mlp_vae(p: Parameters, x: Array, y: Array, eps: Array) -> Array:
    w1, b1, mean_w, var_w, mean_b, var_b, w2, b2, _, w3, b3 = p
    x = x.reshape(len(x), -1)
    h = jax.nn.relu(x @ w1 + b1)
    z_mean, z_log_var = h @ mean_w + mean_b, h @ var_w + var_b
    z = z_mean + jnp.sqrt(jnp.exp(z_log_var)) * eps
    x_decoded = jax.nn.relu(z @ w2 + b2) @ w3 + b3
    return 0.5 * jnp.sum((x_decoded - x) ** 2) + closed_form_kl(z_mean, z_log_var).mean()


def mlp_cvae(p: Parameters, x: Array, y: Array, eps: Array) -> Array:
    w1, b1, mean_w, var_w, mean_b, var_b, w2, b2, _, w3, b3, y_w1, y_w2 = p
    x = x.reshape(len(x), -1)
    h = jax.nn.relu(x @ w1 + y @ y_w1 + b1)
    z_mean, z_log_var = h @ mean_w + mean_b, h @ var_w + var_b
    z = z_mean + jnp.sqrt(jnp.exp(z_log_var)) * eps
    x_decoded = jax.nn.relu(z @ w2 + y @ y_w2 + b2) @ w3 + b3
    return 0.5 * jnp.sum((x_decoded - x) ** 2) + closed_form_kl(z_mean, z_log_var).mean()


def rmsprop_vae(p: Parameters, x: Array, y: Array, eps: Array) -> Array:
    w1, mean_w, var_w, w2, out_w, b1, mean_b, var_b, b2, out_b = p
    x = x.reshape(len(x), -1)
    h = jnp.tanh(x @ w1 + b1)
    z_mean, z_log_var = h @ mean_w + mean_b, h @ var_w + var_b
    z = z_mean + jnp.exp(z_log_var / 2) * eps
    x_decoded = jax.nn.sigmoid(jnp.tanh(z @ w2 + b2) @ out_w + out_b)
    likelihood = x * jnp.log(1e-10 + x_decoded) + (1 - x) * jnp.log(1e-10 + 1 - x_decoded)
    return jnp.mean(-likelihood.sum(1) + closed_form_kl(z_mean, z_log_var))


def conv_vae(p: Parameters, x: Array, y: Array, eps: Array) -> Array:
    h = jax.nn.relu(conv(x, p[0], p[1], 2))
    h = jax.nn.relu(conv(h, p[2], p[3], 2)).reshape(len(x), -1)
    h = jax.nn.relu(h @ p[4] + p[5])
    z_mean, z_log_var = h @ p[6] + p[7], h @ p[8] + p[9]
    z = z_mean + jnp.exp(z_log_var / 2) * eps
    h = jax.nn.relu(z @ p[10] + p[11]).reshape(-1, 7, 7, 32)
    h = jax.nn.relu(conv_transpose(h, p[12], p[13], 2))
    h = jax.nn.relu(conv_transpose(h, p[14], p[15], 2))
    logits = conv_transpose(h, p[16], p[17], 1)
    kl = closed_form_kl(z_mean, z_log_var).mean()
    return cross_entropy_with_logits(x, logits) / len(x) + kl


def log_normal(z: Array, mean: Array, log_var: Array) -> Array:
    return -0.5 * jnp.sum((z - mean) ** 2 * jnp.exp(-log_var) + log_var, axis=1)


def elbo_cvae(p: Parameters, x: Array, y: Array, eps: Array) -> Array:
    h = jax.nn.relu(conv(x, p[0], p[1], 2, "VALID"))
    h = jax.nn.relu(conv(h, p[2], p[3], 2, "VALID")).reshape(len(x), -1)
    z_mean, z_log_var = jnp.split(h @ p[4] + p[5], 2, axis=1)
    z = z_mean + jnp.exp(z_log_var * 0.5) * eps
    h = jax.nn.relu(z @ p[6] + p[7]).reshape(-1, 7, 7, 32)
    h = jax.nn.relu(conv_transpose(h, p[8], p[9], 2))
    h = jax.nn.relu(conv_transpose(h, p[10], p[11], 2))
    logits = conv_transpose(h, p[12], p[13], 1)
    kl = log_normal(z, z_mean, z_log_var) - log_normal(z, 0.0, jnp.zeros_like(z))
    return cross_entropy_with_logits(x, logits) / len(x) + kl.mean()


def tfp_cvae(p: Parameters, x: Array, y: Array, eps: Array) -> Array:
    leaky_relu = partial(jax.nn.leaky_relu, negative_slope=0.2)
    h = x
    for i, stride in enumerate((1, 2, 1, 2)):
        h = leaky_relu(conv(h, p[2 * i], p[2 * i + 1], stride))
    h = leaky_relu(conv(h, p[8], p[9], 1, "VALID")).reshape(len(x), -1)
    out = h @ p[10] + p[11]
    z_mean, a, b, c = out[:, :2], out[:, 2], out[:, 3], out[:, 4]
    s0, s1 = jax.nn.softplus(c) + 1e-5, jax.nn.softplus(a) + 1e-5  # the diagonal of scale_tril
    z = z_mean + jnp.stack([s0 * eps[:, 0], b * eps[:, 0] + s1 * eps[:, 1]], 1)
    h = leaky_relu(conv_transpose(z[:, None, None, :], p[12], p[13], 1, "VALID"))
    for i, stride in enumerate((1, 2, 1, 2, 1)):
        h = leaky_relu(conv_transpose(h, p[14 + 2 * i], p[15 + 2 * i], stride))
    q = jnp.clip(jax.nn.sigmoid(conv(h, p[24], p[25], 1)), 1e-7, 1 - 1e-7)
    cross_entropy = -jnp.sum(x * jnp.log(q + 1e-7) + (1 - x) * jnp.log(1 - q + 1e-7))
    prior_mean = (y @ p[26] + p[27]) @ p[28] + p[29]
    log_posterior = -0.5 * jnp.sum(eps**2, 1) - jnp.log(s0) - jnp.log(s1)
    log_prior = -0.5 * jnp.sum((z - prior_mean) ** 2, 1)
    return cross_entropy + 2 * jnp.mean(log_posterior - log_prior)


# --- Optimisers -----------------------------------------------------------------------------------


def adam(rate: float, eps: float, t: Array, g: Array, m: Array, v: Array) -> tuple[Array, ...]:
    m, v = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g * g
    rate = rate * jnp.sqrt(1 - 0.999**t) / (1 - 0.9**t)
    return rate * m / (jnp.sqrt(v) + eps), m, v


def rmsprop(t: Array, g: Array, m: Array, v: Array) -> tuple[Array, ...]:
    v = v + 0.1 * (g * g - v)
    return 1e-3 * g / jnp.sqrt(v + 1e-10), m, v


_mu = 0.9 * (1 - 0.5 * 0.96 ** (0.004 * np.arange(100_000)))  # Nadam's momentum of step t
MU = jnp.asarray(_mu, jnp.float32)
MU_PRODUCT = jnp.asarray(np.concatenate([[1.0], np.cumprod(_mu[1:])]), jnp.float32)


def nadam(t: Array, g: Array, m: Array, v: Array) -> tuple[Array, ...]:
    i = t.astype(int)
    mu, mu_next, product = MU[i], MU[i + 1], MU_PRODUCT[i]
    m, v = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g * g
    m_bar = (1 - mu) * g / (1 - product) + mu_next * m / (1 - product * mu_next)
    return 1e-3 * m_bar / (jnp.sqrt(v / (1 - 0.999**t)) + 1e-7), m, v


OPTIMIZERS: dict[str, Callable[..., tuple[Array, ...]]] = {
    "mlp_vae": partial(adam, 1e-3, 1e-8),
    "mlp_cvae": partial(adam, 1e-3, 1e-8),
    "conv_vae": nadam,
    "elbo_cvae": partial(adam, 1e-4, 1e-7),
    "rmsprop_vae": rmsprop,
    "tfp_cvae": partial(adam, 1e-3, 1e-7),
}

# --- The side -------------------------------------------------------------------------------------


def use_tf32(wanted: bool) -> None:
    """Chooses how a GPU multiplies float32 numbers."""
    if jax.default_backend() == "gpu":
        precision = "tensorfloat32" if wanted else "float32"
        jax.config.update("jax_default_matmul_precision", precision)


def steps(work: Workload, variant: str) -> Callable[[int], list[float]]:
    """A function that makes n steps and returns their losses."""
    loss, update = globals()[work.module], OPTIMIZERS[work.module]
    second = jnp.ones_like if work.module == "rmsprop_vae" else jnp.zeros_like
    p = [jnp.asarray(value) for value in work.values]
    state = (p, [jnp.zeros_like(x) for x in p], [second(x) for x in p], jnp.float32(0))
    xs = jnp.asarray(np.stack([work.pixels(images) for images in work.images])[..., None])
    ys = jax.nn.one_hot(np.stack(work.labels), 10)
    all_eps = jnp.asarray(np.stack(work.eps))

    def step(state: Any, batch: Any) -> tuple[Any, Array]:
        p, m, v, t = state
        t = t + 1
        value, gradients = jax.value_and_grad(loss)(p, *batch)
        updated = [update(t, *parts) for parts in zip(gradients, m, v, strict=True)]
        p = [old - change for old, (change, _, _) in zip(p, updated, strict=True)]
        return (p, [m for _, m, _ in updated], [v for _, _, v in updated], t), value

    position = 0
    if variant == "scan":

        @partial(jax.jit, donate_argnums=0)
        def scan(state: Any, indices: Array) -> tuple[Any, Array]:
            return jax.lax.scan(lambda s, i: step(s, (xs[i], ys[i], all_eps[i])), state, indices)

        def run_scan(n: int) -> list[float]:
            nonlocal state, position
            indices = (position + np.arange(n)) % len(xs)
            state, losses = scan(state, jnp.asarray(indices))
            position += n
            return losses.tolist()

        return run_scan

    batches = [(xs[i], ys[i], all_eps[i]) for i in range(len(xs))]
    compiled = jax.jit(step, donate_argnums=0)

    def run(n: int) -> list[float]:
        nonlocal state, position
        losses = []
        for _ in range(n):
            state, value = compiled(state, batches[position % len(batches)])
            losses.append(value)
            position += 1
        return [float(value) for value in losses]

    return run
