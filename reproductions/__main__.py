"""`python -m reproductions` lists the six reproductions and the commands."""

from __future__ import annotations

import difflib
import sys
from collections.abc import Sequence

from common.cli import OneLineParser, run_command
from common.datasets import SPECS
from common.errors import BadInput
from reproductions import MODULES, program
from reproductions.evidence import kept
from reproductions.evidence.documents import DOCUMENTS

COMMANDS = {
    "verify": "compares the ports with recordings of the originals",
    "evaluate": "measures trained models: ELBO, likelihood, wanted digits",
    "gallery": "shows all results on one page",
    "explorer": "makes the page in which the trained models run live",
}


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command; returns its exit code."""
    return run_command("reproductions", lambda: _list(argv))


def _list(argv: Sequence[str] | None) -> None:
    parser = OneLineParser(
        "reproductions",
        "Lists the reproductions. To train one: python -m reproductions.<module>",
    )
    _, others = parser.parse_known_args(argv)
    if others:
        raise BadInput(_hint(others))
    print("To train a model and draw its document's pictures:\n")
    for module in MODULES:
        port, document = program(module), DOCUMENTS[module]
        title = SPECS[port.dataset].title
        print(
            f"  python -m reproductions.{module:12} {document.name:7} {title:14}"
            f" {kept.duration(module):>9}  {port.summary}"
        )
    print("\nWith --quick: a short run. With --help: the settings.\n")
    for command, does in COMMANDS.items():
        print(f"  python -m reproductions.{command:12} {does}")


def _hint(arguments: Sequence[str]) -> str:
    """What the user probably meant."""
    name, rest = arguments[0], " ".join(["", *arguments[1:]])
    if name.startswith("-"):
        return f"{name} is an option of the modules: python -m reproductions.<module> {name}{rest}"
    known = [*MODULES, *COMMANDS]
    near = difflib.get_close_matches(name.replace("-", "_").lower(), known, n=1)
    if not near:
        return f"no module or command {name!r}: python -m reproductions lists them"
    if near[0] == name:
        return f"{name} is a module of its own: python -m reproductions.{name}{rest}"
    return f"no module or command {name!r}: is it python -m reproductions.{near[0]}{rest}?"


if __name__ == "__main__":
    sys.exit(main())
