"""The one loop: many steps per call inside the graph, a loss for every step, resumable at any step.

A module hands over an `Experiment`; `Trainer` runs its steps; `fit` adds what a run needs: history,
pictures for the GIF, checkpoints, the stop when the loss is no longer a number. The proofs drive
the same `Trainer` with recorded chance.
"""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol

import numpy as np

from common.chance import Batches, Chance
from common.datasets import Dataset
from common.errors import BadInput, Interrupted, TrainingFailed
from common.lazy import tf
from common.optimizers import Optimizer
from common.signals import signals_handled_by

Row = dict[str, float]

BATCH = 1_000  # images that are evaluated at a time
CHECKPOINT_SECONDS = 20.0  # at most this much work, and one block of steps, is lost to a kill


class Losses(NamedTuple):
    """What a module's loss function returns for a batch."""

    loss: tf.Tensor  # scalar, as the document reduces it
    reconstruction: tf.Tensor  # [batch], nats per image (000: up to a constant)
    kl: tf.Tensor  # [batch], nats per image


class Posterior(NamedTuple):
    """q(z|x), a Gaussian, and the mean of its prior, whose variance is 1."""

    z_mean: tf.Tensor  # [batch, latent]
    scale_tril: tf.Tensor  # [batch, latent, latent], lower triangular
    prior_mean: tf.Tensor  # [batch, latent]

    @staticmethod
    def diagonal(z_mean: tf.Tensor, z_log_var: tf.Tensor) -> Posterior:
        """The posterior of most documents: independent units, a standard normal prior."""
        return Posterior(z_mean, tf.linalg.diag(tf.exp(z_log_var / 2)), tf.zeros_like(z_mean))


LossFunction = Callable[[Any, Any, Any], Losses]  # (images uint8, labels uint8, eps) -> Losses


@dataclass(frozen=True)
class Experiment:
    """A model with its loss, optimiser, data and chance: everything that the loop needs."""

    config: Any  # the module's Config
    data: Dataset
    chance: Chance
    model: Any
    optimizer: Optimizer
    loss: LossFunction
    posterior: Callable[[Any, Any], Posterior]  # of (images uint8, labels uint8)
    batches: Batches
    images: np.ndarray  # uint8 [n, 28, 28], the training set
    labels: np.ndarray  # uint8 [n]
    latent_dim: int
    steps: int  # length of the training
    frame: Callable[[], np.ndarray]  # uint8 [height, width]: a picture for the GIF
    # (z [..., latent], labels [...]) -> pictures [..., 28, 28]
    pictures_of: Callable[[np.ndarray, np.ndarray], np.ndarray]
    # After each round: further columns of the history, and what the document prints.
    validate: Callable[[int], Row] = lambda round_number: {}
    report: Callable[[Progress], str | None] = lambda progress: None
    steps_per_row: int | None = None  # of the history; None: a row is an epoch
    block: int | None = None  # steps that one call of the graph makes, see `steps_per_call`
    compile_with_xla: bool = False  # helps the MLPs; convolutions on a GPU, but not on a CPU

    @property
    def variables(self) -> Sequence[tf.Variable]:
        """What is trained and saved, in the document's order."""
        return self.optimizer.variables

    @property
    def dtype(self) -> str:
        """Precision of the whole computation."""
        return self.optimizer.dtype.name

    @property
    def round_name(self) -> str:
        """What a row of the history stands for: an "epoch", or a "step" and those before it."""
        return "epoch" if self.steps_per_row is None else "step"

    @property
    def steps_per_round(self) -> int:
        """Steps between two rows of the history."""
        return self.steps_per_row or self.batches.steps_per_epoch

    @property
    def last_round(self) -> int:
        """What the last row of the history is called: the number of epochs, or of steps."""
        rounds = -(-self.steps // self.steps_per_round)
        return rounds if self.round_name == "epoch" else self.steps

    @property
    def steps_per_call(self) -> int:
        """Steps that one call of the graph makes. Any number gives the same results; a stop waits
        for the end of the call, so about a second's work is a good choice."""
        return self.block or self.steps_per_round


class Trainer:
    """Runs the steps of an experiment inside one compiled graph."""

    def __init__(self, experiment: Experiment) -> None:
        self.experiment = experiment
        self._images = tf.constant(experiment.images)
        self._labels = tf.constant(experiment.labels)
        self._block = tf.function(
            self._run_block,
            jit_compile=experiment.compile_with_xla,
            input_signature=[
                tf.TensorSpec(experiment.images.shape, tf.uint8),
                tf.TensorSpec(experiment.labels.shape, tf.uint8),
                tf.TensorSpec([None, None], tf.int32),
                tf.TensorSpec([None, None, experiment.latent_dim], tf.float32),
            ],
        )

    def step(self, images: tf.Tensor, labels: tf.Tensor, eps: tf.Tensor) -> tf.Tensor:
        """Makes one step on a batch.

        Returns:
          [loss, mean reconstruction, mean KL], computed before the update.
        """
        experiment = self.experiment
        with tf.GradientTape() as tape:
            losses = experiment.loss(images, labels, tf.cast(eps, experiment.dtype))
        gradients = tape.gradient(losses.loss, experiment.optimizer.variables)
        experiment.optimizer.apply(gradients)
        return tf.stack(
            [losses.loss, tf.reduce_mean(losses.reconstruction), tf.reduce_mean(losses.kl)]
        )

    def _run_block(
        self, images: tf.Tensor, labels: tf.Tensor, indices: tf.Tensor, eps: tf.Tensor
    ) -> tf.Tensor:
        """indices [steps, batch], eps [steps, batch, latent] -> [steps, 3]."""
        steps = tf.shape(indices)[0]
        results = tf.TensorArray(self.experiment.dtype, size=steps, element_shape=[3])
        for i in tf.range(steps):
            batch = indices[i]
            result = self.step(tf.gather(images, batch), tf.gather(labels, batch), eps[i])
            results = results.write(i, result)
        return results.stack()

    def run(self, start: int, stop: int) -> np.ndarray:
        """Makes the steps start .. stop-1.

        Returns:
          [stop - start, 3]: for each step the loss as the document reduces it, and the batch's mean
          reconstruction and KL in nats per image, all computed before the step's update.
        """
        results: list[np.ndarray] = []
        for first, indices in self._blocks(start, stop):
            steps, size = indices.shape
            shape = (size, self.experiment.latent_dim)
            noise = [self.experiment.chance.noise(first + i, shape) for i in range(steps)]
            eps = np.stack(noise)
            results.append(self._block(self._images, self._labels, indices, eps).numpy())
        return np.concatenate(results)

    def _blocks(self, start: int, stop: int) -> Iterator[tuple[int, np.ndarray]]:
        """The steps start .. stop-1 as (first step, indices [steps, batch]), sizes not mixed."""
        batches, longest = self.experiment.batches, self.experiment.steps_per_call
        first = start
        for step in range(start + 1, stop + 1):
            full = step - first == longest
            if step == stop or full or batches.size(step) != batches.size(first):
                yield first, np.stack([batches(i) for i in range(first, step)]).astype(np.int32)
                first = step

    @property
    def state(self) -> dict[str, np.ndarray]:
        """The variables and the optimiser's state, by position."""
        return {f"state_{i:03d}": v.numpy() for i, v in enumerate(self._state_variables)}

    def restore(self, state: dict[str, np.ndarray]) -> None:
        """Puts back what `state` returned.

        Raises:
          BadInput: it is the state of another model or optimiser.
        """
        values = [state[name] for name in sorted(state)]
        other = "the checkpoint is of another model or optimiser: start a new run"
        assign(self._state_variables, values, other)

    @property
    def _state_variables(self) -> list[Any]:
        return [*self.experiment.variables, *self.experiment.optimizer.state]


def assign(variables: Sequence[Any], values: Sequence[np.ndarray], complaint: str) -> None:
    """Gives variables their values.

    Raises:
      BadInput: with this complaint; there are more or fewer values, or they have other shapes or
        types.
    """
    if [(tuple(v.shape), v.dtype) for v in variables] != [(v.shape, v.dtype) for v in values]:
        raise BadInput(complaint)
    for variable, value in zip(variables, values, strict=True):
        variable.assign(value)


class Validation:
    """Losses of the test set, computed batch by batch inside one graph."""

    def __init__(self, loss: LossFunction, data: Dataset, batch_size: int, dtype: str) -> None:
        self._size, self._batch_size = len(data.test_images), batch_size
        self._images, self._labels = tf.constant(data.test_images), tf.constant(data.test_labels)

        @tf.function(reduce_retracing=True)
        def batch_losses(images: tf.Tensor, labels: tf.Tensor, eps: tf.Tensor) -> Losses:
            return loss(images, labels, tf.cast(eps, dtype))

        self._batch_losses = batch_losses

    def __call__(self, eps: np.ndarray) -> Losses:
        """Computes the losses of all images with the noise `eps`, float32 [n, latent].

        Returns:
          NumPy arrays: the loss of each batch [batches], reconstruction [n] and KL [n].
        """
        results = []
        for start in range(0, self._size, self._batch_size):
            batch = slice(start, start + self._batch_size)
            results.append(
                self._batch_losses(
                    self._images[batch], self._labels[batch], tf.constant(eps[batch])
                )
            )
        return Losses(
            np.array([float(r.loss) for r in results]),
            np.concatenate([r.reconstruction.numpy() for r in results]),
            np.concatenate([r.kl.numpy() for r in results]),
        )


def in_batches(function: Callable[..., Any], *arrays: np.ndarray) -> Any:
    """Applies `function` to `arrays` a batch at a time.

    Returns:
      What `function` returns, a tensor or a named tuple of tensors, concatenated to NumPy arrays.
    """
    parts = [
        function(*(array[i : i + BATCH] for array in arrays))
        for i in range(0, len(arrays[0]), BATCH)
    ]
    return tf.nest.map_structure(lambda *tensors: np.concatenate(tensors), *parts)


@dataclass
class Progress:
    """How far a run has come; with `Trainer.state`, all that a checkpoint holds."""

    step: int = 0  # steps done
    seconds: float = 0.0  # spent on steps and rounds, over all sessions; saving is not counted
    round_seconds: float = 0.0  # spent in the steps of the round that is under way
    losses: np.ndarray = field(
        default_factory=lambda: np.zeros([0, 3])
    )  # [step, 3], see Trainer.run
    rows: list[Row] = field(default_factory=list)  # the history, one row a round
    frames: list[np.ndarray] = field(default_factory=list)  # for the GIF, from before training on


class Checkpoints(Protocol):
    """Where `fit` leaves and finds its checkpoints."""

    def save(self, progress: Progress, state: dict[str, np.ndarray]) -> None: ...

    def latest(self) -> tuple[Progress, dict[str, np.ndarray]] | None: ...


class Listener:
    """Is told how the training goes; each listener does something at some of these moments."""

    def on_start(self, progress: Progress) -> None:
        """Before the first step of this session; a resumed run has steps behind it."""

    def on_steps(self, progress: Progress) -> None:
        """After each call of the graph."""

    def on_round(self, progress: Progress, report: str | None) -> None:
        """After each row of the history, with what the document prints then."""

    def close(self) -> None:
        """For whoever made the listener to call after `fit`, however that ended."""


def fit(
    experiment: Experiment,
    checkpoints: Checkpoints | None = None,
    listeners: Sequence[Listener] = (),
) -> Progress:
    """Trains to the end, from the latest checkpoint if there is one.

    Args:
      experiment: what is trained.
      checkpoints: where they lie; None: nothing is saved.
      listeners: are told how the training goes.

    Returns:
      How far it came. `rows` is the history, one row a round.

    Raises:
      BadInput: the checkpoint is of a longer run, or of another model.
      TrainingFailed: a loss is not finite. The checkpoints are those from before.
      Interrupted: SIGINT or SIGTERM arrived; a checkpoint of this very step was saved.
    """
    trainer = Trainer(experiment)
    found = checkpoints.latest() if checkpoints else None
    if found is not None:
        progress, state = found
        if progress.step > experiment.steps:
            raise BadInput(
                f"the checkpoint is of step {progress.step:,}, but the run has only"
                f" {experiment.steps:,} steps: start a new run"
            )
        trainer.restore(state)
    else:
        progress = Progress(frames=[experiment.frame()])

    for listener in listeners:
        listener.on_start(progress)
    saved_at = time.monotonic()
    stop = threading.Event()  # instead of an end in the middle of a step
    with signals_handled_by(lambda *_: stop.set(), signal.SIGINT, signal.SIGTERM):
        while progress.step < experiment.steps:
            began = time.monotonic()
            _advance(trainer, progress)
            for listener in listeners:
                listener.on_steps(progress)
            if progress.step % experiment.steps_per_round == 0 or progress.step == experiment.steps:
                _close_round(experiment, progress)
                report = experiment.report(progress)
                for listener in listeners:
                    listener.on_round(progress, report)
            progress.seconds += time.monotonic() - began
            done = progress.step == experiment.steps
            due = done or stop.is_set() or time.monotonic() - saved_at >= CHECKPOINT_SECONDS
            if checkpoints and due:
                checkpoints.save(progress, trainer.state)
                saved_at = time.monotonic()
            if stop.is_set():
                saved = " and saved" if checkpoints else ""
                raise Interrupted(f"stopped{saved} after step {progress.step:,}")
    return progress


def _advance(trainer: Trainer, progress: Progress) -> None:
    """Makes the steps of one call, up to the end of the round at most."""
    experiment = trainer.experiment
    began = time.monotonic()
    round_end = (progress.step // experiment.steps_per_round + 1) * experiment.steps_per_round
    stop = min(progress.step + experiment.steps_per_call, round_end, experiment.steps)
    losses = trainer.run(progress.step, stop)
    finite = np.isfinite(losses[:, 0])
    if not finite.all():
        bad = int(np.argmin(finite))
        before = np.concatenate([progress.losses[:, 0], losses[:bad, 0]])
        raise TrainingFailed(
            f"the loss of step {progress.step + bad + 1:,} is {losses[bad, 0]}"
            + (f", after {before[-1]:.6g}" if len(before) else "")
            + f" (learning rate {experiment.optimizer.learning_rate:g})"
        )
    progress.losses = np.concatenate([progress.losses, losses])
    progress.step = stop
    progress.round_seconds += time.monotonic() - began


def _close_round(experiment: Experiment, progress: Progress) -> None:
    """Adds the round's row to the history, and its frame to the GIF."""
    rounds = len(progress.rows)
    steps = range(rounds * experiment.steps_per_round, progress.step)
    losses = progress.losses[steps.start :]
    images = [experiment.batches.size(step) for step in steps]
    loss, reconstruction, kl = np.average(losses, axis=0, weights=images)  # as Keras averages
    progress.rows.append(
        {
            experiment.round_name: rounds + 1
            if experiment.round_name == "epoch"
            else progress.step,
            "loss": float(loss),
            "reconstruction": float(reconstruction),
            "kl": float(kl),
            "last_loss": float(losses[-1, 0]),
            **experiment.validate(rounds + 1),
            "seconds": progress.round_seconds,
        }
    )
    progress.frames.append(experiment.frame())
    progress.round_seconds = 0.0
