"""`python -m reproductions.verify`: the ports against the recordings of the originals.

Each port is run on the weights, batches and noise of a recording, by the very loop that trains, and
compared with it step by step (see `common/lockstep.py`). Exits 0 only if every comparison holds, 5
if one does not.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from common.cli import OneLineParser, run_command
from common.errors import BadInput, VerificationFailed
from common.files import write_atomically
from reproductions import GOLDEN, RECORDED, UNRECORDED, program

if TYPE_CHECKING:
    from common.datasets import Dataset
    from common.lockstep import Recording, Verdict

DIGITS_AT = (1, 10, 100)  # steps


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command; returns its exit code."""
    return run_command("verify", lambda: _verify(_parse(sys.argv[1:] if argv is None else argv)))


def _parse(argv: Sequence[str]) -> argparse.Namespace:
    parser = OneLineParser(
        prog="python -m reproductions.verify",
        description="Compares the ports with recordings of the original programs, step by step.",
        allow_abbrev=False,
    )
    parser.add_argument(
        "modules", nargs="*", metavar="module", help="default: all that have a recording"
    )
    parser.add_argument(
        "--golden", type=Path, default=GOLDEN, metavar="DIR",
        help="recordings in the format of golden/README.md (default: the project's own)",
    )  # fmt: skip
    parser.add_argument("--precision", choices=["float32", "float64", "both"], default="both")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the table as JSON, too")
    parser.add_argument("--data-dir", type=Path, metavar="DIR", help="where the data sets lie")
    options = parser.parse_args(argv)
    for module in options.modules:
        if module in UNRECORDED:
            parser.error(f"{module} has no recording: {UNRECORDED[module]}")
        if module not in RECORDED.values():
            parser.error(f"no module {module!r}: choose from {', '.join(RECORDED.values())}")
    return options


def _verify(options: argparse.Namespace) -> None:
    from common import datasets
    from reproductions import wholeruns
    from reproductions.reference import REFERENCE

    every = list(RECORDED.values()) if options.golden == GOLDEN else []
    recordings = list(find(options.golden, options.modules or every, options.precision))
    data: dict[str, Dataset] = {}
    entries = []
    print(HEADER)
    for module, recording in recordings:
        port = program(module)
        if port.dataset not in data:
            data[port.dataset] = datasets.load(port.dataset, options.data_dir)
        verdict = verify(port, recording, data[port.dataset], progress=sys.stderr.isatty())
        entries.append(as_entry(module, recording, verdict))
        print(as_line(entries[-1]), flush=True)
    whole_runs = wholeruns.available() if options.golden == GOLDEN else []
    whole_runs = [c for c in whole_runs if not options.modules or c.module in options.modules]
    if whole_runs:
        print("\n" + "\n".join([wholeruns.HEADER, *map(wholeruns.as_line, whole_runs)]))
    elif options.golden == GOLDEN:
        print(f"\nWhole runs are not compared: {REFERENCE} has none of these modules here.")
    if options.json:
        content = {"lockstep": entries, "whole_runs": [wholeruns.as_entry(c) for c in whole_runs]}
        write_atomically(options.json, json.dumps(content, indent=1) + "\n")
    failed = [entry for entry in entries if not entry["passed"]]
    for entry in failed:
        for problem in entry["problems"]:
            print(f"{entry['module']} {entry['precision']}: {problem}")
    different = [c for c in whole_runs if c.equivalent is False]
    if failed or different:
        raise VerificationFailed(
            f"{len(failed)} of {len(entries)} recordings are not followed, {len(different)} of"
            f" {len(whole_runs)} figures of whole runs not shown equivalent"
        )


def find(folder: Path, modules: Sequence[str], precision: str) -> Iterator[tuple[str, Recording]]:
    """The recordings in a folder, or in its subfolders, that are asked for: (module, recording).

    Raises:
      BadInput: there are none, or one of them is not whole.
    """
    from common import lockstep

    paths = sorted([*folder.glob("lockstep-*.json"), *folder.glob("*/lockstep-*.json")])
    found = set()
    for path in paths:
        recording = lockstep.load(path)
        module = RECORDED.get(recording.document)
        if module is None:
            raise BadInput(f"{path}: there is no module for document {recording.document!r}")
        if (modules and module not in modules) or precision not in ("both", recording.precision):
            continue
        found.add(module)
        yield module, recording
    missing = [module for module in modules if module not in found]
    if missing or not found:
        raise BadInput(
            f"{folder} has no recording lockstep-*.json of {' and '.join(missing) or 'any module'}"
            + ("" if precision == "both" else f" in {precision}")
        )


def verify(
    program: Any,
    recording: Recording,
    data: Dataset,
    steps: int | None = None,
    progress: bool = False,
) -> Verdict:
    """Runs a port in lockstep with a recording, up to its horizon or `steps`."""
    from tqdm import tqdm

    from common import lockstep
    from common.chance import Recorded
    from common.training import Trainer

    config = program.config()
    if (config.batch_size, config.latent_dim) != (recording.batch_size, recording.latent_dim):
        raise BadInput(
            f"the recording has batches of {recording.batch_size} and {recording.latent_dim} latent"
            f" dimensions, {program.name} {config.batch_size} and {config.latent_dim}"
        )
    steps = min(recording.horizon, steps or recording.horizon)
    run = program.experiment(config, data, Recorded(recording.seed), recording.precision)
    shapes = tuple(tuple(v.shape) for v in run.variables)
    if shapes != recording.shapes:
        raise BadInput(f"the recording's variables are not those of {program.name}")
    title = f"{program.name} {recording.precision}"
    with tqdm(total=steps, desc=title, unit="step", disable=not progress, leave=False) as bar:
        ours = lockstep.replay(
            Trainer(run), recording, steps, lambda step: bar.update(step - bar.n)
        )
    return lockstep.compare(recording, ours)


HEADER = (
    f"{'module':12} {'precision':9} {'steps':>5} {'horizon':>7} {'largest difference':>18} "
    f"{'at step':>7} {'digits agreed by step 1, 10, 100':>32}  verdict"
)


def as_entry(module: str, recording: Recording, verdict: Verdict) -> dict[str, Any]:
    """A line of the table, as JSON."""
    largest, step = verdict.largest
    return {
        "module": module,
        "precision": recording.precision,
        "steps": verdict.steps,
        "horizon": verdict.horizon,
        "largest_difference": largest,
        "largest_step": step,
        "digits": {str(n): verdict.digits(n) for n in DIGITS_AT},
        "first_step_over_the_limit": verdict.first_bad_step,
        "passed": not verdict.problems,
        "problems": list(verdict.problems),
    }


def as_line(entry: dict[str, Any]) -> str:
    """A line of the table, as text."""
    digits = "  ".join(f"{d:4.1f}" if d is not None else "   -" for d in entry["digits"].values())
    return (
        f"{entry['module']:12} {entry['precision']:9} {entry['steps']:5} {entry['horizon']:7} "
        f"{entry['largest_difference']:18.1e} {entry['largest_step']:7} {digits:>32}  "
        f"{'equal' if entry['passed'] else 'DIFFERENT'}"
    )


if __name__ == "__main__":
    sys.exit(main())
