"""The command line: options made from a Config, failures as one line and an exit code."""

from __future__ import annotations

import argparse
import dataclasses
import difflib
import io
import os
import shlex
import signal
import subprocess
import sys
import typing
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn

from common.errors import BadInput, Failure, Interrupted
from common.settings import MAX_SEED, checked_number, number_type
from common.signals import signals_handled_by


def run_command(name: str, command: Callable[[], None], debug: bool = False) -> int:
    """Runs a command and turns its failures into one line on stderr and an exit code.

    Args:
      name: how the line begins.
      command: what to run.
      debug: let failures through, with their tracebacks.
    """
    _ready_streams()
    try:
        # SIGTERM ends a command as Ctrl-C does: in one line, with nothing half-written.
        with signals_handled_by(signal.default_int_handler, signal.SIGTERM):
            command()
            sys.stdout.flush()
        return 0
    except BrokenPipeError:  # nobody reads the output any more: the command stops
        sys.stdout = None  # so that Python does not flush it again
        return Failure.exit_code
    except (Failure, KeyboardInterrupt, OSError) as error:
        if debug:
            raise
        failure = _as_failure(error)
        print(f"{name}: {' '.join(str(failure).splitlines())}", file=sys.stderr)
        return failure.exit_code


def _ready_streams() -> None:
    """Text that the terminal cannot show, or that nobody wants, does not end a command."""
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:  # it was closed by the caller
            setattr(sys, name, open(os.devnull, "w"))  # noqa: SIM115
        elif isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")


def _as_failure(error: BaseException) -> Failure:
    if isinstance(error, Failure):
        return error
    if isinstance(error, OSError):
        where = f" ({error.filename})" if error.filename else ""
        return Failure(f"{error.strerror or error}{where}")
    return Interrupted("interrupted")


class OneLineParser(argparse.ArgumentParser):
    """A parser whose error message is one line, with a hint where an option is misspelt.

    Args:
      module: that is run with `python -m`.
      description: for --help.
    """

    def __init__(self, module: str, description: str) -> None:
        super().__init__(prog=f"python -m {module}", description=description, allow_abbrev=False)

    def parse_args(self, args: Any = None, namespace: Any = None) -> Any:
        options, unknown = self.parse_known_args(args, namespace)
        if unknown:
            name = unknown[0].partition("=")[0]
            close = difflib.get_close_matches(name, self._option_string_actions, n=1)
            hint = f"; did you mean {close[0]}?" if close else ""
            self.error(f"unrecognized arguments: {' '.join(unknown)}{hint}")
        return options

    def error(self, message: str) -> NoReturn:
        raise BadInput(f"{message} (--help lists the options)")


def parse(
    name: str, description: str, config: type, quick: Mapping[str, Any], argv: Sequence[str]
) -> argparse.Namespace:
    """Reads the command line of a module.

    Args:
      name: of the module.
      description: for --help.
      config: the module's Config, whose fields become options.
      quick: the settings of a short run.
      argv: the arguments.

    Returns:
      The options; `given` holds the settings, the seed and so on that were given, and no others.

    Raises:
      BadInput: an option is unknown, or its value cannot be used.
    """
    parser = OneLineParser(f"reproductions.{name}", description)
    document = parser.add_argument_group("the document's settings")
    variants = parser.add_argument_group("variants of ours, which the document does not have")
    hints = typing.get_type_hints(config)
    for item in dataclasses.fields(config):
        _add_setting(
            variants if item.metadata["variant"] else document, item, number_type(hints[item.name])
        )
    _add_run_options(parser, name, quick)
    options = parser.parse_args(argv)

    names = {item.name for item in dataclasses.fields(config)} | {"seed", "dtype", "quick"}
    options.given = {k: v for k, v in vars(options).items() if k in names}
    both = set(quick) & set(options.given) if "quick" in options.given else set()
    if both:
        parser.error(f"--quick sets {', '.join(sorted(both))} itself: leave out one of the two")
    return options


def _add_setting(group: Any, item: dataclasses.Field[Any], kind: type) -> None:
    option = f"--{item.name.replace('_', '-')}"
    default = "" if item.default is None else f" (default: {item.default})"
    common = {"default": argparse.SUPPRESS, "help": item.metadata["text"] + default}
    if "options" in item.metadata:
        group.add_argument(option, choices=item.metadata["options"], **common)
    else:
        parse_number = bounded(kind, *item.metadata["bounds"])
        metavar = "N" if kind is int else "X"
        group.add_argument(option, type=parse_number, metavar=metavar, **common)


def _add_run_options(parser: argparse.ArgumentParser, name: str, quick: Mapping[str, Any]) -> None:
    run = parser.add_argument_group("the run")
    run.add_argument(
        "--seed", type=bounded(int, 0, MAX_SEED), default=argparse.SUPPRESS, metavar="N",
        help="seed of the initial weights, the order of the images and the noise (default: 0)",
    )  # fmt: skip
    run.add_argument(
        "--dtype", choices=["float32", "float64"], default=argparse.SUPPRESS,
        help="precision of the whole computation (default: float32)",
    )  # fmt: skip
    settings = ", ".join(f"{setting} {value}" for setting, value in quick.items())
    run.add_argument(
        "--quick", action="store_true", default=argparse.SUPPRESS,
        help=f"make a short run, which is marked as such: {settings}",
    )  # fmt: skip
    run.add_argument(
        "--output", type=named_folder, metavar="DIR",
        help=f"the run's own folder (default: the next number below artifacts/runs/{name})",
    )  # fmt: skip
    run.add_argument(
        "--resume", action="store_true",
        help="continue the unfinished run in --output, or the latest unfinished one",
    )  # fmt: skip
    run.add_argument(
        "--data-dir", type=named_folder, metavar="DIR",
        help="folder that holds the data set (default: $VAE_DATA_DIR, else it is fetched)",
    )  # fmt: skip
    run.add_argument(
        "--tensorboard", action="store_true",
        help="write the history and samples for TensorBoard into the run's folder",
    )  # fmt: skip
    run.add_argument("--quiet", action="store_true", help="print nothing but errors")
    run.add_argument("--debug", action="store_true", help="show tracebacks of errors")


def bounded(kind: type, low: float, high: float) -> Callable[[str], Any]:
    """The `type` of an option that is a number between two bounds, for `add_argument`."""

    def parse_number(text: str) -> Any:
        try:
            value = kind(text)
        except ValueError:
            value = text  # no number, as the check says
        try:
            return checked_number(kind, value, low, high)
        except ValueError as error:
            raise argparse.ArgumentTypeError(str(error)) from None

    return parse_number


def one_of(names: Iterable[str]) -> Callable[[str], str]:
    """The `type` of an argument that is one of some names, for `add_argument`.

    Unlike `choices` it lets `nargs="*"` be empty, and does not list the names in --help.
    """
    known = list(names)

    def parse_name(text: str) -> str:
        if text not in known:
            raise argparse.ArgumentTypeError(f"{text!r} is none of {', '.join(known)}")
        return text

    return parse_name


def new_file(text: str) -> Path:
    """The `type` of an option that names a file to write, whose folder may have to be made."""
    path = Path(text)
    if path.is_dir():
        raise argparse.ArgumentTypeError(f"{path} is a folder, not a file")
    if path.exists() and not path.is_file():  # a device or a pipe, which would be replaced
        raise argparse.ArgumentTypeError(f"{path} is no ordinary file")
    nearest = next((folder for folder in path.absolute().parents if folder.exists()), None)
    if nearest is None or not nearest.is_dir() or not os.access(nearest, os.W_OK):
        raise argparse.ArgumentTypeError(f"cannot write to {nearest or path}")
    return path


def output_file(text: str) -> Path:
    """The `type` of an option that names a file to write, in a folder that exists.

    A mistyped folder is found before the work begins.
    """
    path = new_file(text)
    if not path.parent.is_dir():
        raise argparse.ArgumentTypeError(f"there is no folder {path.parent}")
    return path


def named_folder(text: str) -> Path:
    """The `type` of an option that names a folder, so that an empty name is not the working one."""
    if not text or "\0" in text:
        raise argparse.ArgumentTypeError("the name of a folder is empty or impossible")
    return Path(text)


def quoted(path: Path) -> str:
    """A path as the user's shell takes it."""
    if os.name == "nt":
        return subprocess.list2cmdline([str(path)])
    return shlex.quote(str(path))
