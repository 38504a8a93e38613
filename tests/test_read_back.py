"""One run by its command, with `--quick --seed 3 --dtype float64`, read back file by file.

Beside it the same experiment is run step by step, without `fit` and without a folder: what stands
in the files and on the terminal must be what that computes.
"""

from __future__ import annotations

import contextlib
import dataclasses
import io
import json
import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import imageio.v3 as iio
import numpy as np
import pytest

from common.chance import Seeded
from common.runs import CheckpointFolder, read_csv
from common.training import Trainer
from reproductions import MODULES, program
from tests.conftest import evaluate_little, long_where, noted, small_of, train_on

SEED = 3
OPTIONS = ["--quick", "--seed", str(SEED), "--dtype", "float64"]
# That of tfp_cvae takes minutes in double precision; its notebook makes one.
RUNS = [module for module in MODULES if module != "tfp_cvae"]
QUICK: dict[str, dict[str, Any]] = {  # what a quick run is
    "mlp_vae": {"epochs": 10},
    "mlp_cvae": {"epochs": 10},
    "conv_vae": {"epochs": 5},
    "elbo_cvae": {"epochs": 3},
    "rmsprop_vae": {"steps": 1_000},
}
# Given besides, so that a step costs less; by the higher rate 18 of them change the pictures.
SMALLER: dict[str, dict[str, Any]] = {
    "conv_vae": {"filters": 2},
    "elbo_cvae": {"latent_dim": 5, "learning_rate": 1e-3},
    "rmsprop_vae": {"hidden": 32},
}
LINES = {
    "mlp_vae": re.compile(r"^epoch: (\d+) cost= (\S+)$", re.MULTILINE),
    "mlp_cvae": re.compile(r"^epoch: (\d+) cost= (\S+)$", re.MULTILINE),
    "elbo_cvae": re.compile(r"^Epoch: (\d+), Test set ELBO: (\S+),", re.MULTILINE),
    "rmsprop_vae": re.compile(r"^Step (\d+), Loss: (\S+)$", re.MULTILINE),
}


class Pair(NamedTuple):
    """A run by its command, and what a direct run of the same experiment computes."""

    module: str
    folder: Path
    printed: str
    record: dict[str, Any]
    rows: list[dict[str, float]]
    seconds: float  # that the command took
    captions: list[str]  # of the training's GIF
    drawn: list[tuple[str, str]]  # title and note of each picture, preview included
    losses: np.ndarray  # [step, 3], of the direct run
    expected_rows: list[dict[str, float]]
    experiment: Any  # of the direct run, trained


@pytest.fixture(
    scope="module",
    params=long_where(lambda module: module != "mlp_cvae", RUNS),
)
def pair(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Pair]:
    module, folder = request.param, tmp_path_factory.mktemp("read-back") / "run"
    port, printed = program(module), io.StringIO()
    options = [f"--{k.replace('_', '-')}={v}" for k, v in SMALLER.get(module, {}).items()]
    with pytest.MonkeyPatch.context() as patch:
        train_on(patch, lambda name: small_of(module))
        if module != "rmsprop_vae":  # which evaluates as much as a user's run
            evaluate_little(patch)
        captions, drawn = noted(patch)
        began = time.monotonic()
        with contextlib.redirect_stdout(printed):
            assert port.main([*OPTIONS, *options, "--output", str(folder)]) == 0
        seconds = time.monotonic() - began
        experiment = port.experiment(config(module), small_of(module), Seeded(SEED), "float64")
        losses, rows = directly(experiment)
        yield Pair(
            module, folder, printed.getvalue(), json.loads((folder / "run.json").read_text()),
            read_csv((folder / "history.csv").read_text()), seconds, captions, drawn,
            losses, rows, experiment,
        )  # fmt: skip


def config(module: str) -> Any:
    """The settings of the run, from the document's."""
    return program(module).config(**QUICK[module], **SMALLER.get(module, {}))


def directly(experiment: Any) -> tuple[np.ndarray, list[dict[str, float]]]:
    """Every step's losses, and the rows of the history, without `fit`."""
    trainer, size, losses = Trainer(experiment), experiment.steps_per_round, np.zeros([0, 3])
    rows: list[dict[str, float]] = []
    for start in range(0, experiment.steps, size):
        stop = min(start + size, experiment.steps)
        part = trainer.run(start, stop)
        losses = np.concatenate([losses, part])
        images = np.array([len(experiment.batches(step)) for step in range(start, stop)])
        loss, reconstruction, kl = (images[:, np.newaxis] * part).sum(axis=0) / images.sum()
        rows.append(
            {
                "loss": loss, "reconstruction": reconstruction, "kl": kl, "last_loss": part[-1, 0],
                **experiment.validate(len(rows) + 1),
            }
        )  # fmt: skip
    return losses, rows


def test_the_record_says_what_was_run(pair: Pair) -> None:
    record, port = pair.record, program(pair.module)
    assert record["module"] == pair.module
    assert record["config"] == dataclasses.asdict(config(pair.module))
    assert (record["seed"], record["dtype"], record["quick"]) == (SEED, "float64", True)
    assert record["finished"] is True
    assert record["source_sha256"] == port.source_digest


def test_every_step_is_that_of_the_direct_run(pair: Pair) -> None:
    with np.load(pair.folder / "steps.npz") as steps:
        assert sorted(steps.files) == ["kl", "loss", "reconstruction"]
        for column, name in enumerate(("loss", "reconstruction", "kl")):
            assert steps[name].dtype == np.float64
            np.testing.assert_array_equal(steps[name], pair.losses[:, column])
    # A run in float32 whose numbers were cast afterwards would have none between two float32s.
    assert (pair.losses[:, 0] != pair.losses[:, 0].astype(np.float32)).all()


def test_the_weights_are_those_of_the_direct_run(pair: Pair) -> None:
    with np.load(pair.folder / "weights.npz") as weights:
        saved = [weights[name] for name in sorted(weights.files)]
    assert all(array.dtype == np.float64 for array in saved)
    for array, variable in zip(saved, pair.experiment.variables, strict=True):
        np.testing.assert_array_equal(array, variable.numpy())


def test_the_history_has_the_means_of_the_steps(pair: Pair) -> None:
    name, size = pair.experiment.round_name, pair.experiment.steps_per_round
    assert len(pair.rows) == len(pair.expected_rows)
    rows = [dict(row) for row in pair.rows]
    for k, (row, expected) in enumerate(zip(rows, pair.expected_rows, strict=True)):
        assert row.pop(name) == (k + 1 if name == "epoch" else (k + 1) * size)
        assert row.pop("seconds") > 0
        assert row == pytest.approx(expected, rel=1e-12)
    final = {k: v for k, v in pair.record["results"].items() if k.startswith("final_")}
    last = {f"final_{k}": v for k, v in pair.expected_rows[-1].items()}
    assert {k: final[k] for k in last} == pytest.approx(last, rel=1e-12)


def test_the_lines_on_the_terminal_are_the_documents(pair: Pair) -> None:
    if pair.module not in LINES:
        assert not re.search("cost=|ELBO:|Loss:", pair.printed)
        return
    lines = {int(k): v for k, v in LINES[pair.module].findall(pair.printed)}
    if pair.module == "rmsprop_vae":  # step 1, and every thousandth
        expected = {1: pair.losses[0, 0], 1_000: pair.losses[999, 0]}
        digits = 6
    elif pair.module == "elbo_cvae":
        expected = {k + 1: row["test_elbo"] for k, row in enumerate(pair.expected_rows)}
        digits = 4
    else:  # the cost of the last batch of every third epoch
        expected = {k: pair.expected_rows[k - 1]["last_loss"] for k in (1, 4, 7, 10)}
        digits = 9
    assert lines == {k: f"{value:.{digits}f}" for k, value in expected.items()}


def test_the_log_has_a_line_for_each_row_of_the_history(pair: Pair) -> None:
    name, end = pair.experiment.round_name, pair.experiment.last_round
    lines = re.findall(rf"^{name} (\d+)/{end}  loss (\S+)  .*  (\S+) s$", pair.printed, re.M)
    assert lines == [
        (f"{row[name]:.0f}", f"{row['loss']:.6g}", f"{row['seconds']:.1f}") for row in pair.rows
    ]


def test_the_seconds_add_up(pair: Pair) -> None:
    parts = pair.record["seconds"]
    assert list(parts) == ["training", "evaluation", "pictures"]
    assert min(parts.values()) > 0
    assert sum(row["seconds"] for row in pair.rows) <= parts["training"]
    assert sum(parts.values()) <= pair.seconds


def test_pictures_and_captions_say_what_they_are_of(pair: Pair) -> None:
    name = pair.experiment.round_name
    rounds = [f"{name} {row[name]:.0f} (quick run)" for row in pair.rows]
    asked = "asked for 0, 1, … 9: " if program(pair.module).draw else ""
    assert pair.captions == [f"{asked}{caption}" for caption in ("before training", *rounds)]
    for _, note in pair.drawn:
        assert re.fullmatch(rf"QUICK RUN, .*: {pair.module}, .*, float64, seed {SEED}", note)
    if pair.module == "elbo_cvae":  # which draws two of the usual pictures in its own way
        titles = [title for title, _ in pair.drawn]
        assert "elbo_cvae: training on binarised MNIST" in titles
        assert "Binarised test images, and their reconstructions from z_mean" in titles


def test_the_end_of_a_run_tells_what_a_reader_asks_first(pair: Pair) -> None:
    wanted = pair.record["evaluation"].get("wanted_digits")
    if wanted is not None:
        assert wanted["share"] == sum(wanted["right"]) / 200  # of 20 pictures of each digit
        assert f"drew that digit {100 * wanted['share']:.0f}% of the time" in pair.printed
    # Quick runs whose other settings are the document's are compared with the kept ones.
    assert ("\nreference: " in pair.printed) is (pair.module not in SMALLER)


def test_the_results_and_the_evaluation_are_of_the_trained_model(pair: Pair) -> None:
    port, record = program(pair.module), pair.record
    results = {k: v for k, v in record["results"].items() if not k.startswith("final_")}
    assert results == port.results(pair.experiment)
    assert record["evaluation"] == port.evaluate(pair.experiment)
    for name, value in results.items():
        if isinstance(value, float):
            assert f"\n{name}: {value:,.6g}\n" in pair.printed


def test_the_last_frame_of_the_gif_is_the_trained_models(pair: Pair) -> None:
    frames = iio.imread(pair.folder / "training.gif", index=None)
    assert len(frames) == 1 + len(pair.rows)
    last = pair.experiment.frame()
    scale = frames.shape[2] // last.shape[1]
    shown = frames[-1, : scale * last.shape[0] : scale, : scale * last.shape[1] : scale]
    shown = shown[..., 0] if shown.ndim == 3 else shown
    assert np.abs(shown.astype(int) - last.astype(int)).max() <= 255 / 31 / 2 + 1  # levels of grey
    assert np.abs(frames[0].astype(int) - frames[-1].astype(int)).max() > 50


def test_the_latest_checkpoint_is_the_end(pair: Pair) -> None:
    found = CheckpointFolder(pair.folder / "checkpoints").latest()
    assert found is not None
    progress, state = found
    assert progress.step == pair.experiment.steps
    np.testing.assert_array_equal(progress.losses, pair.losses)
    for i, variable in enumerate(pair.experiment.variables):
        np.testing.assert_array_equal(state[f"state_{i:03d}"], variable.numpy())
