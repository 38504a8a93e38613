"""Everything random: initial weights, the order of the images, the noise.

A run is a pure function of its settings and its seed. Each draw is keyed by what it is for (the
noise of step 1,234; the order of pass 7), not by what was drawn before, so there is no generator
state to save and a resumed run ends with the same bits as one that was never stopped.

`Seeded` serves a run; `Recorded` puts the streams of a recording of an original program in its
place. The training loop cannot tell which of them it has: that is what makes the proof a proof of
the code that trains.

`Seeded` draws from NumPy's Philox (counter-based: any position can be reached directly). Initial
weights and noise are float32 in every run and then cast, so a float64 run starts from the same
numbers.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable
from functools import lru_cache
from typing import Any, Literal, Protocol

import numpy as np

from common.errors import BadInput
from common.settings import MAX_SEED, check_whole

Tail = Literal["carry", "drop", "keep"]


class Initializer(Protocol):
    """Draws initial weights, one variable after the other, in the document's order."""

    def normal(self, shape: tuple[int, ...], stddev: float) -> np.ndarray: ...

    def truncated_normal(self, shape: tuple[int, ...], stddev: float) -> np.ndarray: ...

    def glorot_uniform(self, shape: tuple[int, ...]) -> np.ndarray: ...


class Chance(Protocol):
    """What a module needs of chance. Shapes are given by the caller; all floats are float32."""

    def initializer(self) -> Initializer:
        """What draws the initial weights. Each call starts again from the first."""

    def batches(self, n: int, batch_size: int, tail: Tail, buffer: int | None = None) -> Batches:
        """The batches of n images.

        `Batches` explains `tail`. With a `buffer` the shuffle is partial, see `buffered_shuffle`.
        """

    def noise(self, step: int, shape: tuple[int, ...]) -> np.ndarray:
        """Standard normal noise of a training step, counted from 0; shape [batch, latent]."""

    def validation_noise(self, round_number: int, shape: tuple[int, ...]) -> np.ndarray:
        """Standard normal noise of the validation after a round, counted from 1.

        Its shape is [test images, latent].
        """

    def codes(self, name: str, shape: tuple[int, ...]) -> np.ndarray:
        """Standard normal codes for a picture or a metric; equal names give equal codes."""


class Batches:
    """Which images make up the batch of each step: a pure function of the step.

    Attributes:
      steps_per_epoch: steps that the document counts as one epoch.
    """

    def __init__(
        self, permutation: Callable[[int], np.ndarray], n: int, batch_size: int, tail: Tail
    ) -> None:
        """Cuts the permutations of pass 0, 1, 2, ... into batches.

        Args:
          permutation: the order of the `n` images in pass k, int [n].
          n: number of images.
          batch_size: images in a batch.
          tail: what happens to the images of a pass that do not fill a batch. "carry": they begin
            the next batch, which the next pass completes (TF1's `next_batch`); "keep": they are a
            smaller batch of their own (tf.data, Keras); "drop": they are left out.

        Raises:
          BadInput: there is not one batch.
        """
        self.n, self.batch_size, self.tail = n, batch_size, tail
        self.steps_per_epoch = -(-n // batch_size) if tail == "keep" else n // batch_size
        if self.steps_per_epoch < 1:
            raise BadInput(
                f"{n:,} training images do not fill a batch of {batch_size:,}: take more images, or"
                " a smaller batch_size"
            )
        self._permutation = lru_cache(maxsize=2)(permutation)

    def size(self, step: int) -> int:
        """Number of images in the batch of `step`."""
        if self.tail != "keep":
            return self.batch_size
        return min(self.batch_size, self.n - step % self.steps_per_epoch * self.batch_size)

    def __call__(self, step: int) -> np.ndarray:
        """Indices of the images of `step` (counted from 0), int [batch]."""
        if self.tail != "carry":
            pass_number, position = divmod(step, self.steps_per_epoch)
            start = position * self.batch_size
            return self._permutation(pass_number)[start : start + self.batch_size]
        pass_number, start = divmod(step * self.batch_size, self.n)
        batch = self._permutation(pass_number)[start : start + self.batch_size]
        missing = self.batch_size - len(batch)
        return (
            np.concatenate([batch, self._permutation(pass_number + 1)[:missing]])
            if missing
            else batch
        )


# Each purpose has a stream of its own; the numbers are part of what a seed means.
_STREAMS = {"weights": 0, "order": 1, "noise": 2, "validation": 3, "codes": 4}


class Seeded:
    """Chance for a run: every draw a function of (seed, what it is for, which one)."""

    def __init__(self, seed: int) -> None:
        """Takes a seed.

        Raises:
          BadInput: it is no whole number from 0 to MAX_SEED.
        """
        self.seed = check_whole("seed", seed, MAX_SEED)

    def _generator(self, stream: str, index: int = 0) -> np.random.Generator:
        counter = [0, 0, index, _STREAMS[stream]]  # 2^128 numbers apart
        return np.random.Generator(np.random.Philox(key=self.seed, counter=counter))

    def initializer(self) -> Initializer:
        return SeededInitializer(self._generator("weights"))

    def batches(self, n: int, batch_size: int, tail: Tail, buffer: int | None = None) -> Batches:
        def permutation(pass_number: int) -> np.ndarray:
            generator = self._generator("order", pass_number)
            return (
                generator.permutation(n)
                if buffer is None
                else buffered_shuffle(generator, n, buffer)
            )

        return Batches(permutation, n, batch_size, tail)

    def noise(self, step: int, shape: tuple[int, ...]) -> np.ndarray:
        return self._generator("noise", step).standard_normal(shape, np.float32)

    def validation_noise(self, round_number: int, shape: tuple[int, ...]) -> np.ndarray:
        return self._generator("validation", round_number).standard_normal(shape, np.float32)

    def codes(self, name: str, shape: tuple[int, ...]) -> np.ndarray:
        index = zlib.crc32(name.encode())
        return self._generator("codes", index).standard_normal(shape, np.float32)


class SeededInitializer:
    """Initial weights of a run, drawn in sequence from one generator."""

    def __init__(self, generator: np.random.Generator) -> None:
        self._generator = generator

    def normal(self, shape: tuple[int, ...], stddev: float) -> np.ndarray:
        return self._generator.standard_normal(shape, np.float32) * np.float32(stddev)

    def truncated_normal(self, shape: tuple[int, ...], stddev: float) -> np.ndarray:
        """Normal, redrawn where it lies more than two standard deviations out, as TF does."""
        z = self._generator.standard_normal(shape, np.float32)
        while (outside := np.abs(z) > 2).any():
            z[outside] = self._generator.standard_normal(int(outside.sum()), np.float32)
        return z * np.float32(stddev)

    def glorot_uniform(self, shape: tuple[int, ...]) -> np.ndarray:
        limit = glorot_limit(shape)
        return self._generator.uniform(-limit, limit, shape).astype(np.float32)


class Recorded:
    """Chance for a proof: the three streams of a recording, see `reproductions/golden/README.md`.

    The streams are sequential. What has been drawn is kept, so any step can be asked for again.
    """

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self._orders: list[np.ndarray] = []
        self._noises: list[np.ndarray] = []
        self._order_stream = np.random.RandomState(seed + 1)
        self._noise_stream = np.random.RandomState(seed + 2)

    def initializer(self) -> Initializer:
        return RecordedInitializer(np.random.RandomState(self.seed))

    def batches(self, n: int, batch_size: int, tail: Tail, buffer: int | None = None) -> Batches:
        """The recorded order: full permutations, the tail dropped, whatever the document's rule."""
        return Batches(self._permutation(n), n, batch_size, tail="drop")

    def _permutation(self, n: int) -> Callable[[int], np.ndarray]:
        def permutation(pass_number: int) -> np.ndarray:
            while len(self._orders) <= pass_number:
                self._orders.append(self._order_stream.permutation(n))
            return self._orders[pass_number]

        return permutation

    def noise(self, step: int, shape: tuple[int, ...]) -> np.ndarray:
        while len(self._noises) <= step:
            self._noises.append(self._noise_stream.standard_normal(shape).astype(np.float32))
        return self._noises[step]

    def validation_noise(self, round_number: int, shape: tuple[int, ...]) -> np.ndarray:
        raise NotImplementedError("recordings hold training steps only")

    def codes(self, name: str, shape: tuple[int, ...]) -> np.ndarray:
        return np.zeros(shape, np.float32)  # pictures are no part of a recording


class Miniature(Recorded):
    """Chance for a whole program in miniature: batches by the document's own rule, validations and
    codes from streams of their own."""

    def batches(self, n: int, batch_size: int, tail: Tail, buffer: int | None = None) -> Batches:
        return Batches(self._permutation(n), n, batch_size, tail)

    def validation_noise(self, round_number: int, shape: tuple[int, ...]) -> np.ndarray:
        stream = np.random.RandomState([self.seed + 3, round_number])
        return stream.standard_normal(shape).astype(np.float32)

    def codes(self, name: str, shape: tuple[int, ...]) -> np.ndarray:
        stream = np.random.RandomState([self.seed + 3, 0])
        return stream.standard_normal(shape).astype(np.float32)


class RecordedInitializer:
    """The weight stream of a recording."""

    def __init__(self, stream: np.random.RandomState) -> None:
        self._stream = stream

    def normal(self, shape: tuple[int, ...], stddev: float) -> np.ndarray:
        return self._stream.normal(0, stddev, shape).astype(np.float32)

    truncated_normal = normal  # the recordings do not truncate

    def glorot_uniform(self, shape: tuple[int, ...]) -> np.ndarray:
        limit = glorot_limit(shape)
        return self._stream.uniform(-limit, limit, shape).astype(np.float32)


def glorot_limit(shape: tuple[int, ...]) -> float:
    """Bound of Glorot's uniform distribution for a kernel, Keras's default."""
    receptive_field = int(np.prod(shape[:-2]))
    return float(np.sqrt(6 / ((shape[-2] + shape[-1]) * receptive_field)))


def assign_glorot(variables: list[Any], initializer: Initializer) -> None:
    """Gives Keras layers their default start: Glorot-uniform kernels, zero biases."""
    for variable in variables:
        shape = tuple(variable.shape)
        variable.assign(initializer.glorot_uniform(shape) if len(shape) > 1 else np.zeros(shape))


def buffered_shuffle(generator: np.random.Generator, n: int, buffer: int) -> np.ndarray:
    """The order in which `tf.data`'s `shuffle(buffer)` hands out 0 .. n-1: a partial shuffle.

    A buffer holds the next `buffer` items; each draw takes one of them at random and puts the next
    item in its place. An item can come out arbitrarily late, but at most `buffer - 1` places early.
    """
    size = min(buffer, n)
    held = list(range(size))
    order = np.empty(n, np.int64)
    remaining = np.minimum(size, n - np.arange(n))  # items to choose from at each draw
    for i, choice in enumerate((generator.random(n) * remaining).astype(np.int64).tolist()):
        order[i] = held[choice]
        if i + size < n:
            held[choice] = i + size
        else:
            held[choice] = held[-1]
            held.pop()
    return order
