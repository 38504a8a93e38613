"""Controls that must fail: each porting trap, put into a port on purpose, is rejected by lockstep.

A wrong variant is the real module with a constant, a loss or an optimiser replaced. For each, the
table says at which step the loss is rejected at the latest, in either precision; None where that
precision cannot tell, with the reason. The steps are those measured; chance plays no part in them.

Traps that no lockstep can catch, because both readings compute the same numbers: `>= .5` for `> .5`
in elbo_cvae (no grey level of 255 is exactly .5), sqrt(exp(v)) for exp(v / 2) in mlp_vae, and
rows drawn top down for bottom up in rmsprop_vae, which is a picture's matter (test_plotting.py).
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import pytest

from common import chance, lockstep
from common.chance import Batches, Recorded
from common.datasets import Dataset
from common.errors import BadInput
from common.lazy import tf, tfp
from common.optimizers import KerasAdam, LegacyNadam, TF1Adam, TF1RMSProp
from common.training import Losses
from reproductions import (
    GOLDEN,
    conv_vae,
    elbo_cvae,
    mlp_vae,
    program,
    rmsprop_vae,
    tfp_cvae,
)
from reproductions.evidence.documents import DOCUMENTS, RECORDED
from reproductions.evidence.lockstep import verify

Patch = Callable[[pytest.MonkeyPatch], object]


class Control(NamedTuple):
    """A wrong variant, and the step (from 1) at which each precision rejects its loss."""

    module: str
    trap: str
    patch: Patch
    float32: int | None
    float64: int | None


# --- Ways to be wrong -----------------------------------------------------------------------------


def set_to(module: Any, name: str, value: Any) -> Patch:
    """A constant, a layer or an optimiser replaced."""
    return lambda monkeypatch: monkeypatch.setattr(module, name, value)


def reduced(module: Any, total: Callable[[Losses], Any]) -> Patch:
    """The module's own reconstruction and KL, reduced in another way."""
    good = module.loss

    def wrong(model: Any, images: Any, labels: Any, eps: Any, **_: Any) -> Losses:
        losses = good(model, images, labels, eps)
        return losses._replace(loss=total(losses))

    return set_to(module, "loss", wrong)


class LateNoise(Recorded):
    """The noise of the next step."""

    def noise(self, step: int, shape: tuple[int, ...]) -> np.ndarray:
        return super().noise(step + 1, shape)


class LateBatches(Recorded):
    """The batches of the next step."""

    def batches(self, *args: Any, **options: Any) -> Any:
        return NextStep(super().batches(*args, **options))


class NextStep:
    """Gives for each step the batch of the next one."""

    def __init__(self, batches: Batches) -> None:
        self._batches = batches

    def __call__(self, step: int) -> np.ndarray:
        return self._batches(step + 1)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._batches, name)


def multiplied(images: Any, dtype: str) -> Any:
    """x * float32(1/255) where the document divides."""
    x = tf.cast(images, tf.float32)[..., tf.newaxis] * np.float32(1 / 255)
    return tf.cast(x, dtype)


def divided(images: Any, dtype: str) -> Any:
    """x / 255 where the document multiplies by float32(1/255)."""
    x = tf.cast(tf.cast(tf.reshape(images, [-1, 784]), tf.float64) / 255.0, tf.float32)
    return tf.cast(x, dtype)


def closed_form_elbo(model: Any, images: Any, labels: Any, eps: Any) -> Losses:
    """elbo_cvae with the KL that its posterior allows in closed form."""
    losses = GOOD_ELBO(model, images, labels, eps)
    z_mean, z_log_var = elbo_cvae.encode(model, elbo_cvae.inputs(images, eps.dtype))
    kl = -0.5 * tf.reduce_sum(1 + z_log_var - z_mean**2 - tf.exp(z_log_var), axis=1)
    return Losses(tf.reduce_mean(losses.reconstruction + kl), losses.reconstruction, kl)


def closed_form_tfp(model: Any, images: Any, labels: Any, eps: Any, **_: Any) -> Losses:
    """tfp_cvae with KL(posterior || prior) in closed form."""
    losses = GOOD_TFP(model, images, labels, eps)
    posterior = model.encoder(tfp_cvae.inputs(images, eps.dtype))
    prior = tfp.distributions.MultivariateNormalDiag(
        model.class_mean(tf.one_hot(labels, 10, dtype=eps.dtype)), tf.ones([2], eps.dtype)
    )
    base = tfp.distributions.MultivariateNormalTriL(
        posterior.mean(), tf.linalg.cholesky(posterior.covariance())
    )
    kl = tfp.distributions.kl_divergence(base, prior)
    total = tf.reduce_sum(losses.reconstruction) + 2 * tf.reduce_mean(kl)
    return Losses(total, losses.reconstruction, kl)


def from_logits(x: Any, x_decoded: Any) -> Any:
    """Cross-entropy without the clipping: what falling back to the logits would compute."""
    logits = tf.math.log(x_decoded) - tf.math.log1p(-x_decoded)
    return tf.nn.sigmoid_cross_entropy_with_logits(labels=x, logits=logits)


def keras3_cross_entropy(x: Any, x_decoded: Any) -> Any:
    """Clipped, without the second epsilon: Keras 3's."""
    p = tf.clip_by_value(x_decoded, 1e-7, 1 - 1e-7)
    return -(x * tf.math.log(p) + (1 - x) * tf.math.log(1 - p))


GOOD_ELBO, GOOD_TFP = elbo_cvae.loss, tfp_cvae.loss
sum_, mean = tf.reduce_sum, tf.reduce_mean

CONTROLS = [
    Control("mlp_vae", "Adam's epsilon 1e-7 for 1e-8",
            set_to(mlp_vae, "TF1Adam", partial(TF1Adam, epsilon=1e-7)), 4, 2),
    Control("mlp_vae", "Adam's beta powers in double precision",
            set_to(mlp_vae, "TF1Adam", partial(KerasAdam, epsilon=1e-8)), None, 3),
    Control("mlp_vae", "mean for sum over the batch",
            reduced(mlp_vae, lambda x: tf.reduce_mean(x.reconstruction + x.kl)), 1, 1),
    Control("mlp_vae", "KL not divided by the batch",
            reduced(mlp_vae, lambda x: tf.reduce_sum(x.reconstruction + x.kl)), 4, 1),
    Control("mlp_vae", "60,000 images for 55,000", set_to(mlp_vae, "HELD_BACK", 0), 1, 1),
    Control("mlp_vae", "x / 255 for x * float32(1/255)",
            set_to(mlp_vae, "inputs", divided), None, 1),
    Control("mlp_vae", "noise one step late", set_to(chance, "Recorded", LateNoise), 2, 1),
    Control("mlp_vae", "batches one step late", set_to(chance, "Recorded", LateBatches), 1, 1),
    Control("rmsprop_vae", "mean square from zeros",
            set_to(rmsprop_vae, "TF1RMSProp",
                   partial(TF1RMSProp, initial_mean_square=0.0)), 2, 2),
    Control("rmsprop_vae", "RMSProp's epsilon 1e-7 for 1e-10",
            set_to(rmsprop_vae, "TF1RMSProp", partial(TF1RMSProp, epsilon=1e-7)), None, 2),
    Control("rmsprop_vae", "no guard in the logarithms",
            set_to(rmsprop_vae, "LOG_GUARD", 0.0), None, 1),
    Control("rmsprop_vae", "60,000 images for 55,000", set_to(rmsprop_vae, "HELD_BACK", 0), 1, 1),
    Control("rmsprop_vae", "sum for mean over the batch",
            reduced(rmsprop_vae, lambda x: tf.reduce_sum(x.reconstruction + x.kl)), 1, 1),
    Control("rmsprop_vae", "x / 255 for x * float32(1/255)",
            set_to(rmsprop_vae, "inputs", divided), None, 1),
    Control("rmsprop_vae", "noise one step late", set_to(chance, "Recorded", LateNoise), 1, 1),
    Control("rmsprop_vae", "batches one step late", set_to(chance, "Recorded", LateBatches), 1, 1),
    Control("conv_vae", "Keras 3's Nadam: 0.96^t",
            set_to(conv_vae, "LegacyNadam", partial(LegacyNadam, schedule_decay=1.0)), 4, 2),
    Control("conv_vae", "Nadam's epsilon 1e-8 for 1e-7",
            set_to(conv_vae, "LegacyNadam", partial(LegacyNadam, epsilon=1e-8)), None, 2),
    Control("conv_vae", "sum for mean over the batch",
            reduced(conv_vae, lambda x: tf.reduce_sum(x.reconstruction + x.kl)), 1, 1),
    Control("conv_vae", "half the KL",
            reduced(conv_vae, lambda x: tf.reduce_mean(x.reconstruction + x.kl / 2)), 2, 1),
    Control("conv_vae", "x * float32(1/255) for x / 255",
            set_to(conv_vae, "inputs", multiplied), None, 1),
    Control("conv_vae", "noise one step late", set_to(chance, "Recorded", LateNoise), 2, 1),
    Control("conv_vae", "batches one step late", set_to(chance, "Recorded", LateBatches), 2, 1),
    Control("elbo_cvae", "Adam's epsilon 1e-8 for 1e-7",
            set_to(elbo_cvae, "KerasAdam", partial(KerasAdam, epsilon=1e-8)), None, 2),
    Control("elbo_cvae", "closed-form KL for one sample",
            set_to(elbo_cvae, "loss", closed_form_elbo), 1, 1),
    Control("elbo_cvae", "sum for mean over the batch",
            reduced(elbo_cvae, lambda x: tf.reduce_sum(x.reconstruction + x.kl)), 1, 1),
    Control("elbo_cvae", "binarised at 64", set_to(elbo_cvae, "THRESHOLD", 64), 1, 1),
    Control("elbo_cvae", "noise one step late", set_to(chance, "Recorded", LateNoise), 1, 1),
    Control("elbo_cvae", "batches one step late", set_to(chance, "Recorded", LateBatches), 2, 1),
    Control("tfp_cvae", "one KL for two", set_to(tfp_cvae, "KL_COUNT", 1), 4, 1),
    Control("tfp_cvae", "KL not divided by the batch",
            reduced(tfp_cvae, lambda x: tf.reduce_sum(x.reconstruction + 2 * x.kl)), 1, 1),
    Control("tfp_cvae", "mean for sum over the batch",
            reduced(tfp_cvae, lambda x: tf.reduce_mean(x.reconstruction + 2 * x.kl)), 1, 1),
    Control("tfp_cvae", "closed-form KL for one sample",
            set_to(tfp_cvae, "loss", closed_form_tfp), 4, 1),
    Control("tfp_cvae", "cross-entropy from logits",
            set_to(tfp_cvae, "cross_entropy", from_logits), None, 1),
    Control("tfp_cvae", "Keras 3's cross-entropy",
            set_to(tfp_cvae, "cross_entropy", keras3_cross_entropy), None, 1),
    Control("tfp_cvae", "leaky slope 0.3 for 0.2", set_to(tfp_cvae, "LEAKY_SLOPE", 0.3), 1, 1),
    Control("tfp_cvae", "Adam's epsilon 1e-8 for 1e-7",
            set_to(tfp_cvae, "KerasAdam", partial(KerasAdam, epsilon=1e-8)), None, 2),
    Control("tfp_cvae", "x * float32(1/255) for x / 255",
            set_to(tfp_cvae, "inputs", multiplied), None, 1),
    Control("tfp_cvae", "noise one step late", set_to(chance, "Recorded", LateNoise), 2, 1),
    Control("tfp_cvae", "batches one step late", set_to(chance, "Recorded", LateBatches), 2, 1),
]  # fmt: skip


def first_rejected(
    module: str, precision: str, whole: Callable[[str], Dataset], steps: int
) -> int | None:
    """The step at which lockstep rejects the loss of a module as it now is."""
    number = DOCUMENTS[module].number
    recording = lockstep.load(GOLDEN / number / f"lockstep-{precision}.json")
    port = program(module)
    verdict = verify(port, recording, whole(port.dataset), steps)
    return verdict.first_bad_step


@pytest.mark.parametrize("precision", ["float32", "float64"])
@pytest.mark.parametrize("control", CONTROLS, ids=lambda c: f"{c.module}: {c.trap}")
def test_the_wrong_variant_is_rejected(
    control: Control,
    precision: str,
    whole: Callable[[str], Dataset],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    latest = control.float32 if precision == "float32" else control.float64
    if latest is None:
        assert control.float64 is not None  # what float32 cannot see, float64 does
        return
    control.patch(monkeypatch)
    rejected = first_rejected(control.module, precision, whole, steps=latest)
    assert rejected is not None
    assert rejected <= latest


@pytest.mark.parametrize("module", [document.module for document in RECORDED])
@pytest.mark.parametrize("precision", ["float32", "float64"])
def test_the_right_program_is_not_rejected(
    module: str, precision: str, whole: Callable[[str], Dataset]
) -> None:
    """What the controls are measured against: unpatched, the same few steps pass."""
    assert first_rejected(module, precision, whole, steps=4) is None


def test_swapped_filters_do_not_even_fit(
    whole: Callable[[str], Dataset], monkeypatch: pytest.MonkeyPatch
) -> None:
    """conv_vae's transposed convolutions with 8, then 16 filters have other shapes."""
    good = conv_vae.keras.layers.Conv2DTranspose

    def swapped(filters: int, *args: Any, **options: Any) -> Any:
        return good({16: 8, 8: 16}.get(filters, filters), *args, **options)

    monkeypatch.setattr(conv_vae.keras.layers, "Conv2DTranspose", swapped)
    with pytest.raises(BadInput, match="variables are not those of conv_vae"):
        first_rejected("conv_vae", "float64", whole, steps=1)
