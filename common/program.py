"""A module as a command: open a run, train, draw, save; and load what was saved.

A module ends with `PROGRAM = Program(...)`. `PROGRAM.main` is its command, and `PROGRAM.load` gives
back a trained model.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import inspect
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from common import datasets, devices, evaluation, plotting
from common.chance import Chance, Initializer, Seeded
from common.cli import parse, quoted, run_command
from common.datasets import Dataset
from common.display import Display, Preview, TensorBoard
from common.errors import BadInput, Failure, Interrupted, TrainingFailed
from common.expected import expectation
from common.lazy import tf
from common.pictures import gif
from common.runs import Record, Run, new_run, read_finished, source_digest, unfinished_run
from common.training import Experiment, Listener, Posterior, Progress, assign, fit

PREVIEW = "preview.png"  # stands in the folder of a run until it is finished


@dataclass(frozen=True)
class Program:
    """What a module hands over to become a command."""

    name: str  # of the module
    document: str  # number and section
    dataset: str  # "mnist" or "fashion_mnist"
    likelihood: str  # of an image given its code: a key of common.evaluation.LIKELIHOODS
    summary: str  # one line, for --help and the list
    cmap: str  # the document's colour map
    config: type  # the module's Config
    build: Callable[[Any, Initializer, str], Any]  # -> the model
    experiment: Callable[[Any, Dataset, Chance, str], Experiment]
    # The document's own pictures: file name -> a figure, or the bytes of a file.
    pictures: Callable[[Experiment, Progress], dict[str, plotting.Picture]]
    quick: dict[str, Any]  # settings of a short run
    total: tuple[str, str] = ("Loss", "nats per image")  # of the curves: title and unit
    # Columns of the history that the first panel shows, with their legends.
    columns: Mapping[str, str] = field(default_factory=lambda: {"loss": "training"})
    reconstruction_unit: str = "nats per image"
    results: Callable[[Experiment], dict[str, Any]] = lambda _: {}  # what is computed last
    # Conditional models: (model, digit, standard normal codes) -> pictures.
    draw: Callable[[Any, int, Any], Any] | None = None

    @property
    def source_digest(self) -> str:
        """SHA-256 of what can move a number of this module's runs."""
        return source_digest(Path(inspect.getfile(self.config)))

    def total_axis(self, config: Any) -> tuple[str, str]:
        """Title and unit of the first panel of the curves: `total`, or the ELBO's if it trains."""
        trains_elbo = getattr(config, "objective", "document") == "elbo"
        return ("ELBO, negated", "nats per image") if trains_elbo else self.total

    def changed_settings(self, config: Mapping[str, Any]) -> list[str]:
        """The settings of a run that are not the document's, in words: "objective elbo", ..."""
        defaults = dataclasses.asdict(self.config())
        return [
            f"{name.replace('_', '-')} {value}".removesuffix(".0")
            for name, value in config.items()
            if value != defaults.get(name)
        ]

    def expected(self, record: Record) -> str | None:
        """A finished run's last value, compared with those of the kept runs, in one line.

        None for settings that are neither the document's nor those of `--quick`.
        """
        usual = self.config(**(self.quick if record.quick else {}))
        if self.config(**record.config).trained != usual.trained:
            return None
        return expectation(self.name, dataclasses.asdict(record))

    def config_of(self, record: Record, folder: Path) -> Any:
        """The Config of a run; a setting that is younger than the run has its default.

        Raises:
          BadInput: its settings are not those of this module.
        """
        try:
            return self.config(**record.config)
        except (TypeError, BadInput) as error:
            raise BadInput(
                f"{folder / 'run.json'} has settings that {self.name} cannot have ({error})"
            ) from error

    def load(self, folder: str | Path) -> Any:
        """The trained model of a finished run.

        Args:
          folder: of the run, for example `artifacts/runs/tfp_cvae/0001`.

        Raises:
          BadInput: there is no finished run of this module.
        """
        config, chance, dtype, weights = self._finished(folder)
        model = self.build(config, chance.initializer(), dtype)
        assign(model.variables, weights, _unfit(folder))
        return model

    def reopen(self, folder: str | Path, data: Dataset) -> Experiment:
        """The experiment of a finished run, with its trained weights.

        Args:
          folder: of the run.
          data: the module's data set.

        Raises:
          BadInput: there is no finished run of this module, or the data set is another one.
        """
        if data.name != self.dataset:
            raise BadInput(f"{self.name} was trained on {self.dataset}, not on {data.name}")
        config, chance, dtype, weights = self._finished(folder)
        experiment = self.experiment(config, data, chance, dtype)
        assign(experiment.variables, weights, _unfit(folder))
        return experiment

    def _finished(self, folder: str | Path) -> tuple[Any, Chance, str, Sequence[np.ndarray]]:
        """With what a finished run was made, and its trained weights."""
        record, weights = read_finished(Path(folder), [self.name])
        return self.config_of(record, Path(folder)), Seeded(record.seed), record.dtype, weights

    def evaluate(
        self,
        experiment: Experiment,
        z_mean: np.ndarray | None = None,
        drawn: int | None = None,
        **sizes: Any,
    ) -> dict[str, Any]:
        """The metrics of a trained model, see `common.evaluation`.

        Args:
          experiment: with the trained model.
          z_mean: posterior means of the test images, [n, latent]; computed if left out.
          drawn: how many pictures of each digit a conditional model draws; None: as many as a run.
          **sizes: `images`, `samples` and `track` of `evaluation.evaluate`.

        Raises:
          TrainingFailed: the loss of a test image is not finite.
        """
        if z_mean is None:
            z_mean = evaluation.encode_test_set(experiment).z_mean
        metrics = evaluation.evaluate(experiment, z_mean, self.likelihood, **sizes)
        if self.draw:
            drawn = drawn or evaluation.DRAWN
            wanted = evaluation.wanted_digits(experiment, z_mean, self.draw, drawn)
            metrics["wanted_digits"] = wanted
        return metrics

    def main(self, argv: Sequence[str] | None = None) -> int:
        """Runs the command; returns its exit code."""
        arguments = sys.argv[1:] if argv is None else argv
        return run_command(self.name, lambda: self._command(arguments), "--debug" in arguments)

    def options(self, arguments: Sequence[str]) -> argparse.Namespace:
        """Reads the command line, see `common.cli.parse`.

        Raises:
          BadInput: an option is unknown, or its value cannot be used.
        """
        description = (
            f"{self.summary} (document {self.document}). Without options it has the document's"
            " own settings."
        )
        return parse(self.name, description, self.config, self.quick, arguments)

    def record(self, given: Mapping[str, Any]) -> Record:
        """The record of a new run.

        Args:
          given: the settings, the seed and so on that are not left at their defaults.
        """
        quick = given.get("quick", False)
        names = {item.name for item in dataclasses.fields(self.config)}
        chosen = {k: v for k, v in given.items() if k in names}
        if quick:
            chosen |= self.quick
        return Record(
            module=self.name,
            document=self.document,
            dataset=self.dataset,
            config=dataclasses.asdict(self.config(**chosen)),
            seed=given.get("seed", 0),
            dtype=given.get("dtype", "float32"),
            quick=quick,
        )

    def _command(self, arguments: Sequence[str]) -> None:
        options = self.options(arguments)
        with _opened(self, options) as (run, data):
            _train(self, run, data, options)


def _unfit(folder: str | Path) -> str:
    return f"{folder}: weights.npz does not fit the settings in run.json"


# --- Opening a run --------------------------------------------------------------------------------


@contextlib.contextmanager
def _opened(program: Program, options: argparse.Namespace) -> Iterator[tuple[Run, Dataset]]:
    """Holds the folder of a new or an unfinished run."""
    if options.tensorboard:
        TensorBoard.check()
    if options.resume:
        with unfinished_run(program.name, options.output) as run:
            _refuse_other_settings(run, program, options.given)
            yield run, datasets.load(program.dataset, options.data_dir, options.quiet)
    else:
        data = datasets.load(program.dataset, options.data_dir, options.quiet)
        with new_run(program.record(options.given), options.output) as run:
            yield run, data


def _refuse_other_settings(run: Run, program: Program, given: Mapping[str, Any]) -> None:
    record = run.record
    stored = dataclasses.asdict(program.config_of(record, run.folder))
    stored |= {"seed": record.seed, "dtype": record.dtype, "quick": record.quick}
    for name, value in given.items():
        if stored[name] != value:
            raise BadInput(
                f"the run in {run.folder} has {name} {stored[name]}, not {value}: resume it without"
                f" --{name.replace('_', '-')}"
            )


# --- Training, drawing, saving --------------------------------------------------------------------


def _train(program: Program, run: Run, data: Dataset, options: argparse.Namespace) -> None:
    record, quiet = run.record, options.quiet
    listeners: list[Listener] = []
    try:
        changed = run.begin_session(program.source_digest, devices.describe())
        if not quiet:
            _warn(program, changed, devices.other_versions())
        config = program.config_of(record, run.folder)
        record.config = dataclasses.asdict(config)
        experiment = program.experiment(config, data, Seeded(record.seed), record.dtype)
        if not quiet:
            print(f"{program.name}: {experiment.steps:,} steps, in {run.folder}", flush=True)
        listeners.append(Display(experiment, quiet))
        draw = partial(_preview, program, run, experiment)
        listeners.append(Preview(experiment, run.folder / PREVIEW, draw, quiet))
        if options.tensorboard:
            listeners.append(TensorBoard(run.folder / "tensorboard", experiment.round_name))
        progress = fit(experiment, run.checkpoints, listeners)
        _save(program, run, experiment, progress)
    except (Interrupted, KeyboardInterrupt) as error:
        again = _how_to_continue(program, run, options)
        raise Interrupted(f"{str(error) or 'stopped'}. Continue with: {again}") from error
    except BrokenPipeError:  # the reader of the output is gone
        raise
    except OSError as error:  # a full disk, for example
        again = _how_to_continue(program, run, options)
        what = f"{error.strerror or error}, in {error.filename or run.folder}"
        raise Failure(f"{what}. When that is mended, continue with: {again}") from error
    except (tf.errors.ResourceExhaustedError, MemoryError) as error:
        again = _how_to_continue(program, run, options)
        raise Failure(
            f"the memory is too small for batches of {record.config['batch_size']} images: start"
            f" a new run with a smaller --batch-size, or with more memory continue with: {again}"
        ) from error
    except TrainingFailed as error:
        saved = run.checkpoints.latest()
        where = (
            f"the last checkpoint is of step {saved[0].step:,}" if saved else "no checkpoint yet"
        )
        raise TrainingFailed(f"{error}; {where}, in {run.folder}") from error
    finally:
        for listener in listeners:
            listener.close()
    if not quiet:
        _show_what_was_made(program, run)


def _how_to_continue(program: Program, run: Run, options: argparse.Namespace) -> str:
    """The command that takes up a run."""
    again = f"python -m reproductions.{program.name} --resume"
    again += f" --output={quoted(run.folder)}"
    if options.data_dir:
        again += f" --data-dir={quoted(options.data_dir)}"
    if options.tensorboard:
        again += " --tensorboard"
    return again


def _warn(program: Program, changed: Sequence[str], other_versions: Sequence[str]) -> None:
    if changed:
        words = {"source_sha256": "code", "onednn": "oneDNN setting"}
        what = " and ".join(words.get(name, name) for name in changed)
        print(
            f"{program.name}: resumed with other {what} (run.json has both): the"
            " results may differ in their last bits from those of a run in one piece",
            file=sys.stderr,
        )
    if other_versions:
        print(
            f"{program.name}: the reference results were made with {', '.join(other_versions)}"
            " (constraints.txt); here other versions are installed",
            file=sys.stderr,
        )


def _save(program: Program, run: Run, experiment: Experiment, progress: Progress) -> None:
    """Writes everything that a finished run leaves."""
    began = time.monotonic()
    record = run.record
    run.write_history(progress.rows)
    names = ("loss", "reconstruction", "kl")
    run.write_arrays("steps.npz", dict(zip(names, progress.losses.T, strict=True)))
    weights = {f"{i:02d}": v.numpy() for i, v in enumerate(experiment.variables)}
    run.write_arrays("weights.npz", weights)
    record.results = program.results(experiment)
    posterior = evaluation.encode_test_set(experiment)
    record.evaluation = program.evaluate(experiment, posterior.z_mean)
    evaluated = time.monotonic()
    note = _note(run, program)
    pictures = usual_pictures(program, experiment, progress, posterior)
    for name, picture in (pictures | program.pictures(experiment, progress)).items():
        content = picture if isinstance(picture, bytes) else plotting.to_png(picture, note)
        run.write(name, content)
    captions = [f"{experiment.round_name} {row[experiment.round_name]}" for row in progress.rows]
    captions = [f"{c} (quick run)" if record.quick else c for c in captions]
    digits = "asked for 0, 1, … 9: " if program.draw else ""
    captions = [f"{digits}{caption}" for caption in ("before training", *captions)]
    run.write("training.gif", gif(progress.frames, captions))
    record.results |= {f"final_{k}": v for k, v in progress.rows[-1].items() if k != "seconds"}
    record.seconds = {
        "training": progress.seconds,
        "evaluation": evaluated - began,
        "pictures": time.monotonic() - evaluated,
    }
    with contextlib.suppress(PermissionError):  # on Windows: a viewer has it open
        (run.folder / PREVIEW).unlink(missing_ok=True)
    record.finished = True
    run.save()


def usual_pictures(
    program: Program, experiment: Experiment, progress: Progress, posterior: Posterior
) -> dict[str, plotting.Picture]:
    """The pictures that every run draws.

    Args:
      program: the module.
      experiment: with the trained model.
      progress: the training.
      posterior: of the test images, NumPy arrays.
    """
    data, z_mean = experiment.data, posterior.z_mean
    shown = slice(0, 30)
    pictures: dict[str, plotting.Picture] = {
        "reconstructions.png": plotting.reconstructions(
            data.test_images[shown] / 255,
            experiment.pictures_of(z_mean[shown], data.test_labels[shown]),
            "Test images, and their reconstructions from z_mean",
            program.cmap,
        ),
        "curves.png": plotting.curves(
            progress.rows,
            experiment.round_name,
            program.total_axis(experiment.config),
            columns=program.columns,
            title=f"{program.name}: training on {data.title}",
            reconstruction_unit=program.reconstruction_unit,
        ),
    }
    if experiment.latent_dim == 2:
        pictures["latent.png"] = plotting.latent_scatter(
            z_mean, data.test_labels, data.class_names, posterior.prior_mean
        )
    if program.draw:
        codes = experiment.chance.codes("sheet", (12, experiment.latent_dim))
        digits = range(10)
        pictures["samples.png"] = plotting.image_grid(
            np.stack([program.draw(experiment.model, digit, codes) for digit in digits]),
            "Each digit drawn from its prior, by the same 12 draws of noise",
            program.cmap,
            row_labels=[f"asked for {digit}" for digit in digits],
        )
    return pictures


def _preview(program: Program, run: Run, experiment: Experiment, progress: Progress) -> bytes:
    """The picture that stands in the run's folder while it trains."""
    name = experiment.round_name
    figure = plotting.preview(
        progress.frames[-1],
        progress.rows,
        name,
        experiment.last_round,
        program.total_axis(experiment.config),
        program.columns,
        f"{program.name} after {name} {progress.rows[-1][name]:.0f} of {experiment.last_round}",
    )
    return plotting.to_png(figure, _note(run, program))


def _note(run: Run, program: Program) -> str:
    """The line of provenance below every picture."""
    config = run.record.config
    length = [
        f"{config[name]} {name if config[name] != 1 else name.removesuffix('s')}"
        for name in program.quick
    ]
    others = {name: value for name, value in config.items() if name not in program.quick}
    settings = [*length, *program.changed_settings(others), *run.record.seed_in_words]
    quick = "QUICK RUN, not the document's training: " if run.record.quick else ""
    return f"{quick}{program.name}, {', '.join(settings)}"


def _show_what_was_made(program: Program, run: Run) -> None:
    for name, value in run.record.results.items():
        if not name.startswith("final_") and isinstance(value, float):
            print(f"{name}: {value:,.6g}")
    wanted = run.record.evaluation.get("wanted_digits")
    if wanted:
        print(
            f"Asked for a digit, the model drew that digit {wanted['share']:.0%} of the time, as a"
            " classifier sees it (docs/quirks.md compares the models)"
        )
    expected = program.expected(run.record)
    if expected:
        print(expected)
    print(f"made in {run.folder}:")
    for path in sorted(run.folder.iterdir()):
        if pictures := list(path.glob("*.png")):
            print(f"  {path.name}/ ({len(pictures)} pictures)")
        elif path.is_file() and not path.name.startswith("."):
            print(f"  {path.name}")
