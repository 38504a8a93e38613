"""The loop: resume to the same bits, the stop at NaN, signals, evaluation."""

from __future__ import annotations

import dataclasses
import os
import signal
from pathlib import Path

import numpy as np
import pytest

from common import training
from common.chance import Seeded
from common.datasets import Dataset
from common.errors import BadInput, Interrupted, TrainingFailed
from common.lazy import tf
from common.runs import CheckpointFolder
from common.training import (
    Experiment,
    Listener,
    Losses,
    Progress,
    Trainer,
    Validation,
    fit,
    in_batches,
)
from reproductions import mlp_vae, tfp_cvae
from tests.conftest import ROOT, small

SMALL = mlp_vae.Config(epochs=2, batch_size=50, hidden=8)  # 20 steps an epoch on the sample


class Silent(Listener):
    """A listener that keeps what it hears."""

    def __init__(self) -> None:
        self.reports: list[str | None] = []

    def on_round(self, progress: Progress, report: str | None) -> None:
        self.reports.append(report)


class StopAt(Silent):
    """Sends a signal to this process after a step."""

    def __init__(self, step: int, number: int) -> None:
        super().__init__()
        self._step, self._number = step, number

    def on_steps(self, progress: Progress) -> None:
        if progress.step == self._step:
            os.kill(os.getpid(), self._number)


def mlp(data: Dataset, block: int = 5) -> Experiment:
    experiment = mlp_vae.experiment(SMALL, data, Seeded(0))
    return dataclasses.replace(experiment, block=block, compile_with_xla=False)


def outcome(experiment: Experiment, progress: Progress) -> list[np.ndarray]:
    rows = [[v for k, v in row.items() if k != "seconds"] for row in progress.rows]
    weights = [v.numpy() for v in experiment.variables]
    return [np.array(rows), progress.losses, np.array(progress.frames), *weights]


def assert_same_bits(one: list[np.ndarray], other: list[np.ndarray]) -> None:
    for a, b in zip(one, other, strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("step", [5, 20, 25, 40])  # within a round, at its end, in the next, last
def test_a_stopped_run_resumes_to_the_same_bits(number: int, step: int, tmp_path: Path) -> None:
    whole = mlp(small("mnist"))
    expected = outcome(whole, fit(whole, listeners=[Silent()]))

    folder = CheckpointFolder(tmp_path)
    with pytest.raises(Interrupted, match=f"after step {step}"):
        fit(mlp(small("mnist")), folder, [StopAt(step, number)])
    resumed = mlp(small("mnist"))
    assert_same_bits(expected, outcome(resumed, fit(resumed, folder, [Silent()])))


def test_a_training_without_checkpoints_says_nothing_of_saving() -> None:
    with pytest.raises(Interrupted, match=r"^stopped after step 5$"):
        fit(mlp(small("mnist")), listeners=[StopAt(5, signal.SIGINT)])


def test_blocks_of_any_length_make_the_same_steps() -> None:
    data = small("mnist")
    losses = [Trainer(mlp(data, block=n)).run(0, 20) for n in (1, 7, 20)]
    np.testing.assert_array_equal(losses[0], losses[1])
    np.testing.assert_array_equal(losses[0], losses[2])


def test_a_kill_loses_no_more_than_is_promised() -> None:
    text = (ROOT / "docs" / "reliability.md").read_text()
    assert "loses 20 seconds of training at most" in text
    assert training.CHECKPOINT_SECONDS <= 20


def test_a_checkpoint_of_another_model_is_refused() -> None:
    trainer = Trainer(mlp(small("mnist")))
    state = trainer.state
    trainer.restore(state)
    first, *_ = state
    wrong = {"missing": {k: v for k, v in state.items() if k != first},
             "surplus": state | {"state_999": state[first]},
             "shape": state | {first: state[first][:-1]},
             "type": state | {first: state[first].astype(np.float64)}}  # fmt: skip
    for damaged in wrong.values():
        with pytest.raises(BadInput, match="of another model or optimiser"):
            trainer.restore(damaged)


def test_a_smaller_last_batch_weighs_less_in_the_means_of_an_epoch() -> None:
    config = tfp_cvae.Config(epochs=1, batch_size=4000, base_depth=1)
    experiment = tfp_cvae.experiment(config, small("mnist"), Seeded(0))
    progress = fit(experiment, listeners=[Silent()])
    losses = progress.losses
    assert len(losses) == 2
    for column, name in enumerate(("loss", "reconstruction", "kl")):
        expected = (4000 * losses[0, column] + 2000 * losses[1, column]) / 6000
        assert progress.rows[0][name] == pytest.approx(expected)


@pytest.mark.parametrize("value", ["nan", "inf"])
def test_a_loss_that_is_not_finite_stops_the_run_at_its_step(value: str, tmp_path: Path) -> None:
    experiment = mlp(small("mnist"))
    good = experiment.loss
    count = tf.Variable(0)

    def spoiled(images: tf.Tensor, labels: tf.Tensor, eps: tf.Tensor) -> Losses:
        losses = good(images, labels, eps)
        bad = tf.where(count.assign_add(1) == 23, np.float32(value), 1.0)
        return losses._replace(loss=losses.loss * bad)

    folder = CheckpointFolder(tmp_path)
    with pytest.raises(TrainingFailed, match=rf"loss of step 23 is {value}, after \d+.*rate 0.001"):
        fit(dataclasses.replace(experiment, loss=spoiled), folder, [Silent()])
    found = folder.latest()
    assert found is None or found[0].step < 23


def test_a_checkpoint_of_a_longer_run_is_refused(tmp_path: Path) -> None:
    data, folder = small("mnist"), CheckpointFolder(tmp_path)
    fit(mlp(data), folder)
    with pytest.raises(BadInput, match=r"of step 40, but the run has only 20 steps"):
        fit(dataclasses.replace(mlp(data), steps=20), folder)


def test_validation_returns_every_image_once() -> None:
    data = small("mnist")
    experiment = mlp(data)
    eps = Seeded(0).validation_noise(1, (len(data.test_images), 2))
    batched = Validation(experiment.loss, data, 64, "float32")(eps)
    at_once = experiment.loss(data.test_images, data.test_labels, tf.constant(eps))
    assert len(batched.loss) == 8
    np.testing.assert_allclose(batched.reconstruction, at_once.reconstruction, rtol=1e-5)
    np.testing.assert_allclose(batched.kl, at_once.kl, rtol=1e-5, atol=1e-9)


def test_in_batches_concatenates() -> None:
    array, sizes = np.arange(2 * training.BATCH + 1), []

    def double(part: np.ndarray) -> np.ndarray:
        sizes.append(len(part))
        return part * 2

    np.testing.assert_array_equal(in_batches(double, array), array * 2)
    assert sizes == [training.BATCH, training.BATCH, 1]
