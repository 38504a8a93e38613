"""A module's command: options made from its Config, exit codes, errors of one line."""

from __future__ import annotations

import argparse
import dataclasses
import shlex
import signal
import sys
import time
import types
import typing
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from common.errors import BadInput, Failure, Interrupted, TrainingFailed
from common.signals import handled

if TYPE_CHECKING:
    import numpy as np
    from matplotlib.figure import Figure

    from common.chance import Chance, Weights
    from common.datasets import Dataset
    from common.runs import Run
    from common.training import Experiment, Progress

MAX_SEED = 2**63 - 1


def setting(default: Any, text: str, at_least: float, at_most: float) -> Any:
    """A number of the document, as a field of a Config, with its meaning, unit and bounds."""
    metadata = {"text": text, "at_least": at_least, "at_most": at_most}
    return field(default=default, metadata=metadata)


def choice(options: Sequence[str], text: str) -> Any:
    """A named variant, as a field of a Config; the first option is the document's."""
    return field(default=options[0], metadata={"text": text, "options": options})


@dataclass(frozen=True)
class Program:
    """What a module hands over to become a command."""

    name: str  # of the module
    document: str  # number and section
    dataset: str  # "mnist" or "fashion_mnist"
    likelihood: str  # what `reconstruction` is one of: a key of common.evaluation.LIKELIHOODS
    summary: str  # one line, for --help
    config: type  # the module's Config
    build: Callable[[Any, Weights, str], Any]  # -> the model
    quick: dict[str, Any]  # settings of a short run
    experiment: Callable[[Any, Dataset, Chance, str], Experiment]
    figures: Callable[[Any, Experiment, Dataset, Progress], dict[str, Figure | bytes]]
    results: Callable[[Any, Experiment, Dataset], dict[str, Any]] = lambda *_: {}  # final figures
    # Conditional models: (model, digit, standard normal codes) -> pictures.
    draw: Callable[[Any, int, Any], Any] | None = None

    @property
    def source_digest(self) -> str:
        """SHA-256 of the module's source and of `common`."""
        from common.runs import source_digest

        return source_digest(Path(self.experiment.__code__.co_filename))

    def changed_settings(self, config: Mapping[str, Any]) -> list[str]:
        """The settings of a run that are not the document's, in words: "objective elbo", ..."""
        defaults = dataclasses.asdict(self.config())
        return [
            f"{name.replace('_', '-')} {value}".removesuffix(".0")
            for name, value in config.items()
            if value != defaults.get(name)
        ]

    def load(self, folder: str | Path) -> Any:
        """The trained model of a finished run.

        Args:
          folder: of the run, for example `artifacts/runs/tfp_cvae/latest`.

        Raises:
          BadInput: there is no finished run of this module.
        """
        config, chance, dtype, weights = self._finished(folder)
        model = self.build(config, chance.weights(), dtype)
        _assign(list(model.values()) if isinstance(model, dict) else model.variables, weights)
        return model

    def reopen(self, folder: str | Path, data: Dataset) -> Experiment:
        """The experiment of a finished run, with its trained weights.

        Args:
          folder: of the run.
          data: the module's data set.

        Raises:
          BadInput: there is no finished run of this module.
        """
        config, chance, dtype, weights = self._finished(folder)
        experiment = self.experiment(config, data, chance, dtype)
        _assign(experiment.variables, weights)
        return experiment

    def _finished(self, folder: str | Path) -> tuple[Any, Chance, str, Sequence[np.ndarray]]:
        """What a finished run was made with, and its trained weights."""
        from common.chance import Seeded
        from common.runs import read_finished

        record, weights = read_finished(self.name, Path(folder))
        config = self.config_of(record, Path(folder))
        return config, Seeded(record["seed"]), record["dtype"], weights

    def config_of(self, record: Mapping[str, Any], folder: Path) -> Any:
        """The Config of a run; a setting that is younger than the run has its default.

        Raises:
          BadInput: its settings are not those of this module.
        """
        try:
            return self.config(**record["config"])
        except TypeError as error:
            raise BadInput(
                f"{folder / 'run.json'} has settings that {self.name} has not ({error})"
            ) from error

    def evaluate(self, run: Experiment, data: Dataset, **sizes: Any) -> dict[str, Any]:
        """The figures of a trained model, see `common.evaluation`; `sizes` go to `evaluate`."""
        from common import evaluation

        figures = evaluation.evaluate(run, data, self.likelihood, **sizes)
        if self.draw:
            figures["wanted_digits"] = evaluation.wanted_digits(run, data, self.draw)
        return figures

    def main(self, argv: Sequence[str] | None = None) -> int:
        """Runs the command; returns its exit code."""
        arguments = sys.argv[1:] if argv is None else argv
        return run_command(
            self.name, lambda: _train(self, _parse(self, arguments)), "--debug" in arguments
        )


def _assign(variables: Sequence[Any], values: Sequence[np.ndarray]) -> None:
    if [tuple(v.shape) for v in variables] != [v.shape for v in values]:
        raise BadInput("the run's weights.npz does not fit the settings in its run.json")
    for variable, value in zip(variables, values, strict=True):
        variable.assign(value)


def run_command(name: str, command: Callable[[], None], debug: bool = False) -> int:
    """Runs a command and turns its failures into one line on stderr and an exit code.

    Args:
      name: how the line begins.
      command: what to run.
      debug: let failures through, with their tracebacks.
    """
    try:
        # SIGTERM ends a command as Ctrl-C does: in one line, with nothing half-written.
        with handled(signal.default_int_handler, signal.SIGTERM):
            command()
        return 0
    except (Failure, KeyboardInterrupt, OSError) as error:
        if debug:
            raise
        failure = _as_failure(error)
        print(f"{name}: {failure}", file=sys.stderr)
        return failure.exit_code


def _as_failure(error: BaseException) -> Failure:
    if isinstance(error, Failure):
        return error
    if isinstance(error, OSError):
        where = f" ({error.filename})" if error.filename else ""
        return Failure(f"{error.strerror or error}{where}")
    return Interrupted("interrupted")


# --- Options --------------------------------------------------------------------------------------


class OneLineParser(argparse.ArgumentParser):
    """A parser whose complaint is one line."""

    def error(self, message: str) -> NoReturn:
        raise BadInput(f"{message} (--help lists the options)")


def _parse(program: Program, argv: Sequence[str]) -> argparse.Namespace:
    """Reads the command line. Settings that were not given are absent from `options.given`."""
    parser = OneLineParser(
        prog=f"python -m reproductions.{program.name}",
        description=f"{program.summary} (document {program.document}). Without options: exactly as"
        " the document says.",
        allow_abbrev=False,
    )
    settings = parser.add_argument_group("the document's settings")
    fields = dataclasses.fields(program.config)
    hints = typing.get_type_hints(program.config)
    for item in fields:
        if "options" in item.metadata:
            settings.add_argument(
                f"--{item.name.replace('_', '-')}",
                choices=item.metadata["options"],
                default=argparse.SUPPRESS,
                help=f"{item.metadata['text']} (default: {item.default})",
            )
            continue
        if item.metadata["at_least"] == item.metadata["at_most"]:
            continue  # the document's pictures allow no other
        kind = _number_type(hints[item.name])
        default = "" if item.default is None else f" (default: {item.default})"
        settings.add_argument(
            f"--{item.name.replace('_', '-')}",
            dest=item.name,
            type=_bounded(kind, item.metadata["at_least"], item.metadata["at_most"]),
            default=argparse.SUPPRESS,
            metavar="N" if kind is int else "X",
            help=item.metadata["text"] + default,
        )
    run = parser.add_argument_group("the run")
    run.add_argument(
        "--seed",
        type=_bounded(int, 0, MAX_SEED),
        default=argparse.SUPPRESS,
        metavar="N",
        help="of everything random (default: 0)",
    )
    run.add_argument(
        "--dtype",
        choices=["float32", "float64"],
        default=argparse.SUPPRESS,
        help="of the whole computation (default: float32)",
    )
    quick = ", ".join(f"{name} {value}" for name, value in program.quick.items())
    run.add_argument(
        "--quick",
        action="store_true",
        default=argparse.SUPPRESS,
        help=f"a short run, marked as such: {quick}",
    )
    run.add_argument(
        "--output",
        type=_folder,
        metavar="DIR",
        help=f"the run's own folder (default: the next number below artifacts/runs/{program.name})",
    )
    run.add_argument(
        "--resume",
        action="store_true",
        help="continue the unfinished run in --output, or the latest unfinished one",
    )
    run.add_argument(
        "--data-dir",
        type=_folder,
        metavar="DIR",
        help="where the data set lies (default: $VAE_DATA_DIR, else it is fetched and cached)",
    )
    run.add_argument(
        "--tensorboard",
        action="store_true",
        help="write the history and samples for TensorBoard into the run's folder",
    )
    run.add_argument("--quiet", action="store_true", help="print nothing but errors")
    run.add_argument("--debug", action="store_true", help="show tracebacks")
    options = parser.parse_args(argv)

    names = {item.name for item in fields} | {"seed", "dtype", "quick"}
    options.given = {k: v for k, v in vars(options).items() if k in names}
    both = set(program.quick) & set(options.given) if "quick" in options.given else set()
    if both:
        parser.error(f"--quick sets {', '.join(sorted(both))} itself: leave out one of the two")
    return options


def _number_type(hint: Any) -> type:
    """int for `int | None`, and so on."""
    if isinstance(hint, types.UnionType):
        return next(t for t in typing.get_args(hint) if t is not type(None))
    return hint


def _bounded(kind: type, low: float, high: float) -> Callable[[str], Any]:
    def parse(text: str) -> Any:
        what = "a whole number" if kind is int else "a number"
        try:
            value = kind(text)
        except ValueError:
            raise argparse.ArgumentTypeError(f"{text!r} is not {what}") from None
        if not low <= value <= high:  # NaN and infinity fail this, too
            raise argparse.ArgumentTypeError(f"{text} is not {what} from {low:g} to {high:g}")
        return value

    return parse


def _folder(text: str) -> Path:
    if not text or "\0" in text:
        raise argparse.ArgumentTypeError("the name of a folder is empty or impossible")
    return Path(text)


# --- A run ----------------------------------------------------------------------------------------


def _train(program: Program, options: argparse.Namespace) -> None:
    """Opens a run, trains, draws, saves."""
    from common import datasets
    from common.progress import TensorBoard
    from common.runs import Run

    if options.tensorboard:
        TensorBoard.check()
    if options.resume:
        run = Run.reopen(program.name, options.output)
        try:
            _refuse_other_settings(run, program, options.given)
            data = datasets.load(program.dataset, options.data_dir, options.quiet)
        except BaseException:
            run.release()
            raise
    else:
        data = datasets.load(program.dataset, options.data_dir, options.quiet)
        run = Run.create(program.name, _record(program, options.given), options.output)
    try:
        _train_in(run, program, data, options)
    finally:
        run.release()


def _record(program: Program, given: dict[str, Any]) -> dict[str, Any]:
    """What run.json says of the settings."""
    quick = given.get("quick", False)
    names = {item.name for item in dataclasses.fields(program.config)}
    chosen = {k: v for k, v in given.items() if k in names} | (program.quick if quick else {})
    return {
        "document": program.document,
        "dataset": program.dataset,
        "config": dataclasses.asdict(program.config(**chosen)),
        "seed": given.get("seed", 0),
        "dtype": given.get("dtype", "float32"),
        "quick": quick,
        "source_sha256": program.source_digest,
    }


def _refuse_other_settings(run: Run, program: Program, given: dict[str, Any]) -> None:
    stored = dataclasses.asdict(program.config_of(run.record, run.folder))
    stored |= {name: run.record[name] for name in ("seed", "dtype", "quick")}
    for name, value in given.items():
        if stored[name] != value:
            raise BadInput(
                f"the run in {run.folder} has {name} {stored[name]}, not {value}: resume it without"
                f" --{name.replace('_', '-')}"
            )


def _train_in(run: Run, program: Program, data: Dataset, options: argparse.Namespace) -> None:
    from common import devices
    from common.chance import Seeded
    from common.progress import Display, TensorBoard
    from common.training import fit

    record = run.record
    listeners: list[Display | TensorBoard] = []
    try:
        _describe_sitting(run, program, devices.describe(), options.quiet)
        config = program.config_of(record, run.folder)
        experiment = program.experiment(config, data, Seeded(record["seed"]), record["dtype"])
        if not options.quiet:
            print(f"{program.name}: {experiment.steps:,} steps, in {run.folder}", flush=True)
        listeners.append(Display(experiment, options.quiet))
        if options.tensorboard:
            listeners.append(TensorBoard(run.folder / "tensorboard", experiment.round_name))
        progress = fit(experiment, run.checkpoints, listeners)
        _save(run, program, config, experiment, data, progress)
    except (Interrupted, KeyboardInterrupt) as error:
        folder = shlex.quote(str(run.folder))
        again = f"python -m reproductions.{program.name} --resume --output {folder}"
        raise Interrupted(f"{str(error) or 'stopped'}. Continue with: {again}") from error
    except TrainingFailed as error:
        saved = run.checkpoints.latest()
        where = (
            f"the last checkpoint is of step {saved[0].step:,}" if saved else "no checkpoint yet"
        )
        raise TrainingFailed(f"{error}; {where}, in {run.folder}") from error
    finally:
        for listener in listeners:
            listener.close()
    if not options.quiet:
        _show_what_was_made(run, program)


def _describe_sitting(run: Run, program: Program, environment: dict[str, Any], quiet: bool) -> None:
    """Keeps what a run is made with; says so if it goes on with something else."""
    now = {"source_sha256": program.source_digest, **environment}
    last = (
        now | {"source_sha256": run.record.get("source_sha256")} | run.record.get("environment", {})
    )
    changed = [name for name in now if now[name] != last[name]]
    earlier = run.record.get("earlier_sittings", [])
    run.update(
        source_sha256=now["source_sha256"],
        environment=environment,
        **({"earlier_sittings": [*earlier, last]} if changed else {}),
    )
    if changed and not quiet:
        print(
            f"{program.name}: goes on with other {' and '.join(changed)} (run.json has both): the"
            " last bits may differ from those of a run in one piece",
            file=sys.stderr,
        )


def _save(
    run: Run,
    program: Program,
    config: Any,
    experiment: Experiment,
    data: Dataset,
    progress: Progress,
) -> None:
    """Writes everything that a finished run leaves."""
    from common import animation, plotting

    began = time.monotonic()
    run.write_history(progress.rows)
    names = ("loss", "reconstruction", "kl")
    run.write_arrays("steps.npz", dict(zip(names, progress.losses.T, strict=True)))
    weights = {f"{i:02d}": v.numpy() for i, v in enumerate(experiment.variables)}
    run.write_arrays("weights.npz", weights)
    results = program.results(config, experiment, data)
    note = _note(run, program)
    for name, picture in program.figures(config, experiment, data, progress).items():
        content = picture if isinstance(picture, bytes) else plotting.to_png(picture, note)
        run.write(name, content)
    captions = [f"{experiment.round_name} {row[experiment.round_name]}" for row in progress.rows]
    captions = [f"{c} (quick run)" if run.record["quick"] else c for c in captions]
    run.write("training.gif", animation.gif(progress.frames, ["before training", *captions]))
    results |= {f"final_{k}": v for k, v in progress.rows[-1].items() if k != "seconds"}
    drawn = time.monotonic()
    evaluation = program.evaluate(experiment, data)
    run.finish(
        results=results,
        evaluation=evaluation,
        seconds={
            "training": progress.seconds,
            "pictures": drawn - began,
            "evaluation": time.monotonic() - drawn,
        },
    )


def _note(run: Run, program: Program) -> str:
    """The line of provenance below every picture."""
    config = run.record["config"]
    length = [f"{config[name]} {name}" for name in program.quick]
    others = {name: value for name, value in config.items() if name not in program.quick}
    settings = [*length, *program.changed_settings(others), f"seed {run.record['seed']}"]
    quick = "QUICK RUN, not the document's training: " if run.record["quick"] else ""
    return f"{quick}{program.name}, {', '.join(settings)}"


def _show_what_was_made(run: Run, program: Program) -> None:
    for name, value in run.record["results"].items():
        if not name.startswith("final_") and isinstance(value, float):
            print(f"{name}: {value:,.6g}")
    wanted = run.record["evaluation"].get("wanted_digits")
    if wanted:
        print(
            f"Asked for a digit, it drew that digit {wanted['share']:.0%} of the time, says a"
            " classifier. Why, and what helps: docs/quirks.md"
        )
    print(f"made in {run.folder}:")
    for path in sorted(run.folder.iterdir()):
        if path.is_file() and not path.name.startswith("."):
            print(f"  {path.name}")
