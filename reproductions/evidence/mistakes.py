"""Mistakes to plant in a module, each of a kind that a port of a TensorFlow 1 program can have.

A mistake replaces one name of the module (a constant, its loss, its optimiser) and leaves the rest
of the program as it is. `planted` makes the replacement for as long as its block lasts, and the
experiment has to be built and run inside that block.
"""

from __future__ import annotations

import dataclasses
import importlib
import inspect
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any, NamedTuple
from unittest import mock

import numpy as np

from common import chance
from common.datasets import Dataset
from common.lazy import tf
from common.training import Losses

OPTIMIZER = {  # the name by which each module calls its optimiser
    "mlp_vae": "TF1Adam",
    "conv_vae": "LegacyNadam",
    "elbo_cvae": "KerasAdam",
    "rmsprop_vae": "TF1RMSProp",
    "tfp_cvae": "KerasAdam",
}


class Mistake(NamedTuple):
    """One wrong thing in one module."""

    module: str
    what: str  # in words
    name: str  # that is replaced
    wrong: Callable[[Any], Any]  # from what the name means to what it means by mistake


@contextmanager
def planted(mistake: Mistake) -> Iterator[None]:
    """The module with the mistake in it."""
    module = importlib.import_module(f"reproductions.{mistake.module}")
    good = getattr(module, mistake.name)
    with mock.patch.object(module, mistake.name, mistake.wrong(good)):
        yield


def learning_rate(module: str, factor: float) -> Mistake:
    """A learning rate that is multiplied by `factor`."""

    def wrong(optimizer: Any) -> Any:
        return lambda variables, rate: optimizer(variables, factor * rate)

    return Mistake(module, f"learning rate × {factor:.12g}", OPTIMIZER[module], wrong)


def optimizer_setting(module: str, what: str, **settings: float) -> Mistake:
    """An optimiser with other settings, such as its epsilon."""
    return Mistake(module, what, OPTIMIZER[module], lambda good: partial(good, **settings))


def epsilon(module: str, factor: float) -> Mistake:
    """An epsilon of the optimiser that is multiplied by `factor`."""

    def wrong(optimizer: Any) -> Any:
        default = inspect.signature(optimizer).parameters["epsilon"].default
        return partial(optimizer, epsilon=factor * default)

    return Mistake(module, f"epsilon × {factor:.12g}", OPTIMIZER[module], wrong)


def kl_weight(module: str, factor: float) -> Mistake:
    """A KL that is multiplied by `factor` in the loss."""
    return reduced(module, f"KL × {factor:.12g}", partial(_total, module, factor))


def reduced(module: str, what: str, total: Callable[[Losses], tf.Tensor]) -> Mistake:
    """The module's own reconstruction and KL, made into a loss in another way."""

    def wrong(good: Callable[..., Losses]) -> Callable[..., Losses]:
        def loss(*args: Any, **settings: Any) -> Losses:
            losses = good(*args, **settings)
            return losses._replace(loss=total(losses))

        return loss

    return Mistake(module, what, "loss", wrong)


def batch_sum(losses: Losses) -> tf.Tensor:
    """The sum over the batch."""
    return tf.reduce_sum(losses.reconstruction + losses.kl)


def batch_mean(losses: Losses) -> tf.Tensor:
    """The mean over the batch."""
    return tf.reduce_mean(losses.reconstruction + losses.kl)


def _total(module: str, factor: float, losses: Losses) -> tf.Tensor:
    """Each document's reduction, with a factor at the KL."""
    reconstruction, kl = losses.reconstruction, factor * losses.kl
    if module == "mlp_vae":
        return tf.reduce_mean(tf.reduce_sum(reconstruction) + kl)
    if module == "tfp_cvae":
        return tf.reduce_sum(reconstruction) + 2 * tf.reduce_mean(kl)
    return batch_mean(losses._replace(kl=kl))


def constant(module: str, what: str, name: str, value: Any) -> Mistake:
    """Another value of a constant."""
    return Mistake(module, what, name, lambda _: value)


def divided_pixels(module: str) -> Mistake:
    """Pixels x / 255 where the reader multiplied by float32(1/255): they differ in the last bit."""

    def divided(images: tf.Tensor, dtype: str) -> tf.Tensor:
        x = tf.cast(tf.cast(tf.reshape(images, [-1, 784]), tf.float64) / 255.0, tf.float32)
        return tf.cast(x, dtype)

    return constant(module, "pixels x / 255 instead of x · float32(1/255)", "inputs", divided)


def multiplied_pixels(module: str) -> Mistake:
    """Pixels x · float32(1/255) where the document divides."""

    def multiplied(images: tf.Tensor, dtype: str) -> tf.Tensor:
        x = tf.cast(images, tf.float32)[..., tf.newaxis] * np.float32(1 / 255)
        return tf.cast(x, dtype)

    return constant(module, "pixels x · float32(1/255) instead of x / 255", "inputs", multiplied)


def other_chance(module: str, what: str, other: Callable[[int], chance.Chance]) -> Mistake:
    """Other chance, made from the seed of the recorded one, in its place."""

    def wrong(good: Any) -> Any:
        def experiment(config: Any, data: Dataset, recorded: chance.Recorded, dtype: str) -> Any:
            return good.experiment(config, data, other(recorded.seed), dtype)

        return dataclasses.replace(good, experiment=experiment)

    return Mistake(module, what, "PROGRAM", wrong)


def late_noise(module: str) -> Mistake:
    """For each step the noise of the next one: the stream has been started a step too late."""

    class Late(chance.Recorded):
        def noise(self, step: int, shape: tuple[int, ...]) -> np.ndarray:
            return super().noise(step + 1, shape)

    return other_chance(module, "noise one step late", Late)


def late_batches(module: str) -> Mistake:
    """For each step the batch of the next one: the stream has been started a step too late."""

    class NextStep(chance.Batches):
        def __call__(self, step: int) -> np.ndarray:
            return super().__call__(step + 1)

    class Late(chance.Recorded):
        def batches(
            self, n: int, batch_size: int, tail: chance.Tail, buffer: int | None = None
        ) -> chance.Batches:
            return NextStep(self._permutation(n), n, batch_size, tail="drop")

    return other_chance(module, "batches one step late", Late)
