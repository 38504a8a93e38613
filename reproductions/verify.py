"""`python -m reproductions.verify`: the ports against the recordings of the originals.

Each port is run on the weights, batches and noise of a recording, by the very loop that trains, and
compared with it step by step. Then it is run whole on a few hundred images, and what it prints and
draws is compared, too. The kept whole runs are compared as distributions. (See `lockstep.py`,
`miniature.py` and `equivalence.py` in `reproductions/evidence/`.)
Exits 5 if a recording is not followed, if whole runs are shown to differ or many seeds do not show
them equivalent, or if a printed number lies outside its interval.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from common import datasets, devices
from common.cli import OneLineParser, named_folder, output_file, run_command
from common.datasets import Dataset
from common.errors import BadInput, VerificationFailed
from common.files import write_atomically
from common.lazy import tf
from reproductions import GOLDEN, MODULES, program
from reproductions.evidence import kept, lockstep, miniature
from reproductions.evidence.documents import DOCUMENTS, RECORDED_MODULES


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command; returns its exit code."""
    return run_command("verify", lambda: _verify(_parse(argv)))


def _parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = OneLineParser(
        "reproductions.verify",
        "Compares the ports with recordings of the original programs, step by step,"
        " then whole in miniature, and the kept whole runs.",
    )
    parser.add_argument(
        "modules",
        nargs="*",
        metavar="module",
        help="what to verify (default: all with a recording)",
    )
    parser.add_argument(
        "--golden", type=Path, default=GOLDEN, metavar="DIR",
        help="a folder of recordings, see golden/README.md (default: the project's own)",
    )  # fmt: skip
    parser.add_argument(
        "--precision", choices=["float32", "float64", "both"], default="both",
        help="which recordings to follow (default: both)",
    )  # fmt: skip
    parser.add_argument(
        "--device", choices=["cpu", "gpu"],
        help="where to compute (default: on a GPU if TensorFlow finds one)",
    )  # fmt: skip
    parser.add_argument(
        "--json", type=output_file, metavar="FILE", help="write the table as JSON, too"
    )
    parser.add_argument(
        "--data-dir", type=named_folder, metavar="DIR", help="a folder that holds the data sets"
    )
    options = parser.parse_args(argv)
    for module in options.modules:
        if module in MODULES and DOCUMENTS[module].unrecorded:
            parser.error(f"{module} has no recording: {DOCUMENTS[module].unrecorded}")
        if module not in MODULES:
            names = ", ".join(RECORDED_MODULES)
            parser.error(f"no module {module!r}: choose from {names}")
    return options


def _verify(options: argparse.Namespace) -> None:
    from reproductions.evidence import equivalence  # which imports SciPy

    if options.device == "cpu" and devices.on_gpu():
        tf.config.set_visible_devices([], "GPU")
    if options.device == "gpu" and not devices.on_gpu():
        raise BadInput("--device gpu: TensorFlow finds no GPU (see docs/performance.md)")
    own = os.path.realpath(options.golden) == os.path.realpath(GOLDEN)
    modules = options.modules or (RECORDED_MODULES if own else ())
    recordings = list(lockstep.find(options.golden, modules, options.precision))
    followed = {module for module, _ in recordings}
    small_ones = list(miniature.find(options.golden, followed, options.precision))
    data: dict[str, Dataset] = {}
    entries = []
    print(lockstep.HEADER)
    for module, recording in recordings:
        port = program(module)
        if port.dataset not in data:
            data[port.dataset] = datasets.load(port.dataset, options.data_dir)
        verdict = lockstep.verify(port, recording, data[port.dataset], progress=sys.stderr.isatty())
        entries.append(lockstep.as_entry(module, recording, verdict))
        print(lockstep.as_line(entries[-1]), flush=True)
    miniatures: list[dict[str, Any]] = []
    for module, small in small_ones:
        if not miniatures:
            print(f"\nThe whole program in miniature\n{miniature.HEADER}")
        port = program(module)
        ours = miniature.replay(port, small, data[port.dataset])
        miniatures.append(miniature.as_entry(module, small, ours))
        print(miniature.as_line(miniatures[-1]), flush=True)
    compared = [c for c in equivalence.available() if c.module in modules] if own else []
    documents = [DOCUMENTS[module] for module in dict.fromkeys(c.module for c in compared)]
    outliers = {document.module: equivalence.outliers(document) for document in documents}
    if compared:
        print("\n" + "\n".join([equivalence.HEADER, *map(equivalence.as_line, compared)]))
        print("\n".join(equivalence.about_printed(d, outliers[d.module]) for d in documents))
    elif own:
        print(f"\nWhole runs are not compared: {kept.REFERENCE} has none of these modules.")
    if options.json:
        content = {
            "lockstep": entries,
            "miniature": miniatures,
            "whole_runs": [equivalence.as_entry(c) for c in compared],
            "printed_outside": {m: [o._asdict() for o in found] for m, found in outliers.items()},
        }
        write_atomically(options.json, json.dumps(content, indent=1) + "\n")
    failed = [entry for entry in [*entries, *miniatures] if not entry["passed"]]
    for entry in failed:
        for problem in entry["problems"]:
            print(f"{entry['module']} {entry['precision']}: {problem}")
    different = [c for c in compared if c.equivalent is False]
    outside = sum(map(len, outliers.values()))
    if failed or different or outside:
        raise VerificationFailed(
            f"{len(failed)} of {len(entries) + len(miniatures)} recordings are not followed,"
            f" {len(different)} of {len(compared)} comparisons of whole runs fail,"
            f" {outside} printed numbers lie outside the interval of our runs"
        )


if __name__ == "__main__":
    sys.exit(main())
