"""Forty mistakes that a port can have, and the step at which the lockstep rejects each of them.

`tests/test_negative_controls.py` plants each of them and asserts the step.

Some traps no lockstep can catch. `> .5` for `>= .5` in elbo_cvae computes the same numbers (no grey
level of 255 is exactly .5); sqrt(exp(v)) for exp(v / 2) in mlp_vae differs by rounding alone.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

from common.lazy import tf, tfp
from common.optimizers import KerasAdam
from common.training import Losses
from reproductions.evidence.mistakes import (
    Mistake,
    batch_mean,
    batch_sum,
    constant,
    divided_pixels,
    kl_weight,
    late_batches,
    late_noise,
    multiplied_pixels,
    optimizer_setting,
    reduced,
)


class Control(NamedTuple):
    """A mistake, and the step (from 1) at which each precision rejects its loss at the latest.

    None: that precision cannot tell. The steps are those measured; chance plays no part in them.
    """

    mistake: Mistake
    float32: int | None
    float64: int | None


def closed_form_of_elbo_cvae(good: Callable[..., Losses]) -> Callable[..., Losses]:
    """The loss with the KL that its posterior allows in closed form."""
    from reproductions.elbo_cvae import encode, inputs

    def loss(model: Any, images: Any, labels: Any, eps: Any, **_: Any) -> Losses:
        reconstruction = good(model, images, labels, eps).reconstruction
        z_mean, z_log_var = encode(model, inputs(images, eps.dtype))
        kl = -0.5 * tf.reduce_sum(1 + z_log_var - z_mean**2 - tf.exp(z_log_var), axis=1)
        return Losses(tf.reduce_mean(reconstruction + kl), reconstruction, kl)

    return loss


def closed_form_of_tfp_cvae(good: Callable[..., Losses]) -> Callable[..., Losses]:
    """The loss with KL(posterior || prior) in closed form."""
    from reproductions.tfp_cvae import inputs

    def loss(model: Any, images: Any, labels: Any, eps: Any, **_: Any) -> Losses:
        reconstruction = good(model, images, labels, eps).reconstruction
        q = model.encoder(inputs(images, eps.dtype))
        prior = tfp.distributions.MultivariateNormalDiag(
            model.class_mean(tf.one_hot(labels, 10, dtype=eps.dtype)), tf.ones([2], eps.dtype)
        )
        normal = tfp.distributions.MultivariateNormalTriL(
            q.mean(), tf.linalg.cholesky(q.covariance())
        )
        kl = tfp.distributions.kl_divergence(normal, prior)
        total = tf.reduce_sum(reconstruction) + 2 * tf.reduce_mean(kl)
        return Losses(total, reconstruction, kl)

    return loss


def from_logits(x: tf.Tensor, x_decoded: tf.Tensor) -> tf.Tensor:
    """Cross-entropy without the clipping: what falling back to the logits would compute."""
    logits = tf.math.log(x_decoded) - tf.math.log1p(-x_decoded)
    return tf.nn.sigmoid_cross_entropy_with_logits(labels=x, logits=logits)


def keras3_cross_entropy(x: tf.Tensor, x_decoded: tf.Tensor) -> tf.Tensor:
    """Clipped, without the second epsilon: Keras 3's."""
    p = tf.clip_by_value(x_decoded, 1e-7, 1 - 1e-7)
    return -(x * tf.math.log(p) + (1 - x) * tf.math.log(1 - p))


CONTROLS = (
    Control(
        optimizer_setting("mlp_vae", "Adam's epsilon 1e-7 instead of 1e-8", epsilon=1e-7),
        4, 2,
    ),
    Control(
        Mistake(
            "mlp_vae", "Adam's beta powers in double precision", "TF1Adam",
            lambda _: partial(KerasAdam, epsilon=1e-8),
        ),
        None, 3,
    ),
    Control(reduced("mlp_vae", "mean instead of sum over the batch", batch_mean), 1, 1),
    Control(reduced("mlp_vae", "KL not divided by the batch", batch_sum), 4, 1),
    Control(constant("mlp_vae", "60,000 images instead of 55,000", "HELD_BACK", 0), 1, 1),
    Control(divided_pixels("mlp_vae"), None, 1),
    Control(late_noise("mlp_vae"), 2, 1),
    Control(late_batches("mlp_vae"), 1, 1),
    Control(
        optimizer_setting("rmsprop_vae", "mean square from zeros", initial_mean_square=0.0), 2, 2
    ),
    Control(
        optimizer_setting("rmsprop_vae", "RMSProp's epsilon 1e-7 instead of 1e-10", epsilon=1e-7),
        None, 2,
    ),
    Control(constant("rmsprop_vae", "no guard in the logarithms", "LOG_GUARD", 0.0), None, 1),
    Control(constant("rmsprop_vae", "60,000 images instead of 55,000", "HELD_BACK", 0), 1, 1),
    Control(reduced("rmsprop_vae", "sum instead of mean over the batch", batch_sum), 1, 1),
    Control(divided_pixels("rmsprop_vae"), None, 1),
    Control(late_noise("rmsprop_vae"), 1, 1),
    Control(late_batches("rmsprop_vae"), 1, 1),
    Control(optimizer_setting("conv_vae", "Keras 3's Nadam: 0.96^t", schedule_decay=1.0), 4, 2),
    Control(
        optimizer_setting("conv_vae", "Nadam's epsilon 1e-8 instead of 1e-7", epsilon=1e-8),
        None, 2,
    ),
    Control(reduced("conv_vae", "sum instead of mean over the batch", batch_sum), 1, 1),
    Control(kl_weight("conv_vae", 0.5), 2, 1),
    Control(multiplied_pixels("conv_vae"), None, 1),
    Control(late_noise("conv_vae"), 2, 1),
    Control(late_batches("conv_vae"), 2, 1),
    Control(
        optimizer_setting("elbo_cvae", "Adam's epsilon 1e-8 instead of 1e-7", epsilon=1e-8),
        None, 2,
    ),
    Control(
        Mistake(
            "elbo_cvae", "closed-form KL instead of one sample",
            "loss", closed_form_of_elbo_cvae,
        ),
        1, 1,
    ),
    Control(reduced("elbo_cvae", "sum instead of mean over the batch", batch_sum), 1, 1),
    Control(constant("elbo_cvae", "binarised at 64", "THRESHOLD", 64), 1, 1),
    Control(late_noise("elbo_cvae"), 1, 1),
    Control(late_batches("elbo_cvae"), 2, 1),
    Control(constant("tfp_cvae", "one KL instead of two", "KL_COUNT", 1), 4, 1),
    Control(
        reduced(
            "tfp_cvae", "KL not divided by the batch",
            lambda x: tf.reduce_sum(x.reconstruction + 2 * x.kl),
        ),
        1, 1,
    ),
    Control(
        reduced(
            "tfp_cvae", "mean instead of sum over the batch",
            lambda x: tf.reduce_mean(x.reconstruction + 2 * x.kl),
        ),
        1, 1,
    ),
    Control(
        Mistake(
            "tfp_cvae", "closed-form KL instead of one sample",
            "loss", closed_form_of_tfp_cvae,
        ),
        4, 1,
    ),
    Control(
        constant("tfp_cvae", "cross-entropy from logits", "cross_entropy", from_logits), None, 1
    ),
    Control(
        constant("tfp_cvae", "Keras 3's cross-entropy", "cross_entropy", keras3_cross_entropy),
        None, 1,
    ),
    Control(constant("tfp_cvae", "leaky slope 0.3 instead of 0.2", "LEAKY_SLOPE", 0.3), 1, 1),
    Control(
        optimizer_setting("tfp_cvae", "Adam's epsilon 1e-8 instead of 1e-7", epsilon=1e-8),
        None, 2,
    ),
    Control(multiplied_pixels("tfp_cvae"), None, 1),
    Control(late_noise("tfp_cvae"), 2, 1),
    Control(late_batches("tfp_cvae"), 2, 1),
)  # fmt: skip
