"""The loop: resume to the same bits, the stop at NaN, signals, evaluation."""

from __future__ import annotations

import dataclasses
import os
import signal
from collections.abc import Callable
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
from reproductions import mlp_vae, rmsprop_vae, tfp_cvae
from tests.conftest import ROOT

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


def mlp(data: Dataset, seed: int = 0, block: int = 5) -> Experiment:
    experiment = mlp_vae.experiment(SMALL, data, Seeded(seed))
    return dataclasses.replace(experiment, block=block, compile_with_xla=False)


def checkpoints(folder: Path) -> CheckpointFolder:
    return CheckpointFolder(folder, lambda rows: None)


def outcome(experiment: Experiment, progress: Progress) -> list[np.ndarray]:
    rows = [[v for k, v in row.items() if k != "seconds"] for row in progress.rows]
    weights = [v.numpy() for v in experiment.variables]
    return [np.array(rows), progress.losses, np.array(progress.frames), *weights]


def assert_same_bits(one: list[np.ndarray], other: list[np.ndarray]) -> None:
    for a, b in zip(one, other, strict=True):
        np.testing.assert_array_equal(a, b)


def test_same_seed_same_bits_and_another_seed_others(
    sample: Callable[[str], Dataset], tmp_path: Path
) -> None:
    results = []
    for number, seed in enumerate([0, 0, 1]):
        experiment = mlp(sample("mnist"), seed)
        progress = fit(experiment, checkpoints(tmp_path / str(number)), [Silent()])
        results.append(outcome(experiment, progress))
    assert_same_bits(results[0], results[1])
    assert not np.array_equal(results[0][1], results[2][1])


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("step", [5, 20, 25, 40])  # within a round, at its end, in the next, last
def test_a_stopped_run_resumes_to_the_same_bits(
    number: int, step: int, sample: Callable[[str], Dataset], tmp_path: Path
) -> None:
    whole = mlp(sample("mnist"))
    expected = outcome(whole, fit(whole, checkpoints(tmp_path / "whole"), [Silent()]))

    folder = checkpoints(tmp_path / "stopped")
    with pytest.raises(Interrupted, match=f"after step {step}"):
        fit(mlp(sample("mnist")), folder, [StopAt(step, number)])
    resumed = mlp(sample("mnist"))
    assert_same_bits(expected, outcome(resumed, fit(resumed, folder, [Silent()])))


@pytest.mark.long
def test_a_convolutional_run_resumes_to_the_same_bits(
    sample: Callable[[str], Dataset], tmp_path: Path
) -> None:
    config = tfp_cvae.Config(epochs=2, batch_size=4000, base_depth=2)  # batches of 4,000 and 2,000

    def make() -> Experiment:
        experiment = tfp_cvae.experiment(config, sample("mnist"), Seeded(0))
        return dataclasses.replace(experiment, block=1)

    whole = make()
    expected = outcome(whole, fit(whole, checkpoints(tmp_path / "whole"), [Silent()]))
    folder = checkpoints(tmp_path / "stopped")
    with pytest.raises(Interrupted):
        fit(make(), folder, [StopAt(3, signal.SIGTERM)])
    resumed = make()
    assert_same_bits(expected, outcome(resumed, fit(resumed, folder, [Silent()])))


def test_blocks_of_any_length_make_the_same_steps(sample: Callable[[str], Dataset]) -> None:
    data = sample("mnist")
    losses = [Trainer(mlp(data, block=n)).run(0, 20) for n in (1, 7, 20)]
    np.testing.assert_array_equal(losses[0], losses[1])
    np.testing.assert_array_equal(losses[0], losses[2])


def test_a_kill_loses_no_more_than_is_promised() -> None:
    promised = "At most 20 seconds of work" in (ROOT / "docs" / "reliability.md").read_text()
    assert promised and training.CHECKPOINT_SECONDS <= 20


def test_xla_and_plain_graphs_agree(sample: Callable[[str], Dataset]) -> None:
    data = sample("mnist")
    losses = []
    for xla in (False, True):
        experiment = mlp_vae.experiment(SMALL, data, Seeded(0), "float64")
        experiment = dataclasses.replace(experiment, compile_with_xla=xla)
        losses.append(Trainer(experiment).run(0, 20))
    # 1e-15 measured; the KL is 1e-6 here and a sum of terms of order 1, hence the 1e-15.
    np.testing.assert_allclose(losses[0], losses[1], rtol=1e-12, atol=1e-15)


def test_a_checkpoint_of_another_model_is_refused(sample: Callable[[str], Dataset]) -> None:
    trainer = Trainer(mlp(sample("mnist")))
    state = trainer.state
    trainer.restore(state)
    first, *_ = state
    wrong = {"missing": {k: v for k, v in state.items() if k != first},
             "surplus": state | {"state_999": state[first]},
             "shape": state | {first: state[first][:-1]}}  # fmt: skip
    for damaged in wrong.values():
        with pytest.raises(BadInput, match="of another model or optimiser"):
            trainer.restore(damaged)


def test_history_rows_average_the_steps(sample: Callable[[str], Dataset], tmp_path: Path) -> None:
    experiment = mlp(sample("mnist"))
    progress = fit(experiment, checkpoints(tmp_path), [Silent()])
    assert [row["epoch"] for row in progress.rows] == [1, 2]
    assert len(progress.frames) == 3  # before training, and after each epoch
    for k, row in enumerate(progress.rows):
        steps = progress.losses[20 * k : 20 * (k + 1)]
        assert row["loss"] == pytest.approx(steps[:, 0].mean(), rel=1e-12)
        assert row["reconstruction"] == pytest.approx(steps[:, 1].mean(), rel=1e-12)
        assert row["last_loss"] == steps[-1, 0]


def test_a_smaller_last_batch_weighs_less_in_the_means_of_an_epoch(
    sample: Callable[[str], Dataset], tmp_path: Path
) -> None:
    config = tfp_cvae.Config(epochs=1, batch_size=4000, base_depth=1)
    experiment = tfp_cvae.experiment(config, sample("mnist"), Seeded(0))
    progress = fit(experiment, checkpoints(tmp_path), [Silent()])
    losses = progress.losses
    assert len(losses) == 2
    for column, name in enumerate(("loss", "reconstruction", "kl")):
        expected = (4000 * losses[0, column] + 2000 * losses[1, column]) / 6000
        assert progress.rows[0][name] == pytest.approx(expected)


def test_a_loss_that_is_not_finite_stops_the_run_at_its_step(
    sample: Callable[[str], Dataset], tmp_path: Path
) -> None:
    experiment = mlp(sample("mnist"))
    good = experiment.loss
    count = tf.Variable(0)

    def spoiled(images: tf.Tensor, labels: tf.Tensor, eps: tf.Tensor) -> Losses:
        losses = good(images, labels, eps)
        bad = tf.where(count.assign_add(1) == 23, np.float32("nan"), 1.0)
        return losses._replace(loss=losses.loss * bad)

    folder = checkpoints(tmp_path)
    with pytest.raises(TrainingFailed, match=r"loss of step 23 is nan, after \d+.*rate 0.001"):
        fit(dataclasses.replace(experiment, loss=spoiled), folder, [Silent()])
    found = folder.latest()
    assert found is None or found[0].step < 23


def test_the_unguarded_logarithm_of_document_003_is_caught(
    sample: Callable[[str], Dataset], tmp_path: Path
) -> None:
    """In float32 1e-10 + 1 is 1, so a pixel saturated at 1 where the image is 0 costs infinity."""
    experiment = rmsprop_vae.experiment(rmsprop_vae.Config(steps=5), sample("mnist"), Seeded(0))
    experiment.model.out_b.assign(tf.fill([784], 50.0))
    with pytest.raises(TrainingFailed, match=r"step 1 is (inf|nan)"):
        fit(experiment, checkpoints(tmp_path), [Silent()])


def test_document_003_survives_saturation_in_double_precision(
    sample: Callable[[str], Dataset],
) -> None:
    """Where 1e-10 + 1 is more than 1 the guard holds: the same model has a finite loss."""
    config = rmsprop_vae.Config(steps=5)
    experiment = rmsprop_vae.experiment(config, sample("mnist"), Seeded(0), "float64")
    experiment.model.out_b.assign(tf.fill([784], tf.constant(50.0, tf.float64)))
    assert np.isfinite(Trainer(experiment).run(0, 1)).all()


def test_validation_returns_every_image_once(sample: Callable[[str], Dataset]) -> None:
    data = sample("mnist")
    experiment = mlp(data)
    eps = Seeded(0).validation_noise(1, (len(data.test_images), 2))
    batched = Validation(experiment.loss, data, 64, "float32")(eps)
    at_once = experiment.loss(data.test_images, data.test_labels, tf.constant(eps))
    assert len(batched.loss) == 8
    np.testing.assert_allclose(batched.reconstruction, at_once.reconstruction, rtol=1e-5)
    np.testing.assert_allclose(batched.kl, at_once.kl, rtol=1e-5, atol=1e-9)


def test_in_batches_concatenates(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("common.training.BATCH", 3)
    array, sizes = np.arange(10), []

    def double(part: np.ndarray) -> np.ndarray:
        sizes.append(len(part))
        return part * 2

    np.testing.assert_array_equal(in_batches(double, array), array * 2)
    assert sizes == [3, 3, 3, 1]
