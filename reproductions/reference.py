"""`python -m reproductions.reference`: full runs with the documents' settings, kept as evidence.

For each module, below `artifacts/reference/<module>/`:

    run.json, history.csv, *.png, training.gif    the run with seed 0, without its weights
    seeds.json                                    the curves of all seeds, and the digest of the
    code

`--renew` is for a change of code that leaves the computation alone: it re-runs the first steps of
seed 0 and, where there is a recording, the lockstep; if both hold, the digests are brought up to
date. Otherwise the runs have to be made again.
"""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from common.cli import OneLineParser, run_command
from common.errors import Failure, Interrupted, VerificationFailed
from common.files import write_atomically
from common.runs import read_csv
from reproductions import GOLDEN, RECORDED, program

REFERENCE = Path("artifacts") / "reference"
RUNS = Path("artifacts") / "runs" / "reference"  # the whole runs, with weights; not committed
SEEDS = {
    "mlp_vae": 20,  # its seeds spread twice as wide as those of the original
    "mlp_cvae": 3,
    "conv_vae": 3,
    "elbo_cvae": 1,
    "rmsprop_vae": 10,
    "tfp_cvae": 2,
}
CURVES = ("loss", "last_loss", "val_loss", "test_elbo")  # columns of the history that are kept
FIRST_STEPS = 20  # whose losses `--renew` makes again
# Float32 losses of the same code on another machine; the envelopes of the recordings stay below
# 1e-4 over the first 20 steps.
RENEW_TOLERANCE = 1e-3


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command; returns its exit code."""
    return run_command("reference", lambda: _reference(sys.argv[1:] if argv is None else argv))


def _reference(argv: Sequence[str]) -> None:
    parser = OneLineParser(
        prog="python -m reproductions.reference",
        description="Makes the reference results: full runs with the documents' own settings.",
        allow_abbrev=False,
    )
    parser.add_argument("modules", nargs="*", metavar="module", help="default: all")
    parser.add_argument(
        "--renew", action="store_true", help="check that a change of code left the results alone"
    )
    options = parser.parse_args(argv)
    for module in options.modules:
        if module not in SEEDS:
            parser.error(f"no module {module!r}: choose from {', '.join(SEEDS)}")
    for module in options.modules or SEEDS:
        (renew if options.renew else make)(program(module))


def make(port: Any) -> None:
    """Runs a module with each seed (a run that was interrupted goes on) and keeps the results."""
    runs = [run_seed(port, seed) for seed in range(SEEDS[port.name])]
    target = REFERENCE / port.name
    target.mkdir(parents=True, exist_ok=True)
    for old in target.iterdir():
        if old.is_file():
            old.unlink()
    for path in sorted(runs[0].iterdir()):
        if path.suffix in (".png", ".gif", ".csv", ".json"):
            shutil.copy(path, target / path.name)
    with np.load(runs[0] / "steps.npz", allow_pickle=False) as steps:
        first = steps["loss"][:FIRST_STEPS].astype(float).tolist()
    record = json.loads((runs[0] / "run.json").read_text())
    content = {
        "module": port.name,
        "source_sha256": port.source_digest,
        "environment": record["environment"],
        "first_losses": first,
        "runs": [{"seed": seed, **curves(run)} for seed, run in enumerate(runs)],
    }
    write(port.name, "seeds.json", content)
    prove(port)
    print(f"{port.name}: {len(runs)} runs kept in {target}")


def run_seed(port: Any, seed: int) -> Path:
    """The folder of the finished run with a seed; makes or completes it if need be."""
    folder = RUNS / port.name / f"seed-{seed}"
    record = json.loads((folder / "run.json").read_text()) if (folder / "run.json").exists() else {}
    if not record.get("finished"):
        how = ["--resume"] if record else ["--seed", str(seed)]
        exit_code = port.main([*how, "--output", str(folder)])
        if exit_code == Interrupted.exit_code:
            raise Interrupted("stopped: the same command goes on with it")
        if exit_code != 0:
            raise Failure(f"the run of {port.name} with seed {seed} failed")
    return folder


def curves(run: Path) -> dict[str, Any]:
    """What is kept of a run: the curves of its history, its final results and its evaluation."""
    rows = read_csv((run / "history.csv").read_text())
    record = json.loads((run / "run.json").read_text())
    kept: dict[str, Any] = {name: [row[name] for row in rows] for name in CURVES if name in rows[0]}
    results = {k: v for k, v in record["results"].items() if not k.startswith("final_")}
    # The median round, so that a machine that was busy for a while does not show.
    seconds = float(np.median([row["seconds"] for row in rows])) * len(rows)
    return kept | {
        "results": results,
        "evaluation": record.get("evaluation", {}),
        "seconds": seconds,
    }


def load_seeds(module: str) -> dict[str, Any]:
    """The kept curves of a module.

    Raises:
      Failure: there are none.
    """
    path = REFERENCE / module / "seeds.json"
    try:
        return json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise Failure(
            f"{path} cannot be read: make it with python -m reproductions.reference"
        ) from error


def write(module: str, name: str, content: dict[str, Any]) -> None:
    """Writes a JSON file of a module's reference results."""
    write_atomically(REFERENCE / module / name, json.dumps(content, indent=1) + "\n")


def renew(port: Any) -> None:
    """Brings the digests up to date if the code still computes what it did.

    Raises:
      VerificationFailed: it does not.
    """
    from common import datasets
    from common.chance import Seeded
    from common.training import Trainer

    content = load_seeds(port.name)
    data = datasets.load(port.dataset)
    run = port.experiment(port.config(), data, Seeded(0), "float32")
    losses = Trainer(run).run(0, FIRST_STEPS)[:, 0]
    difference = float(np.max(np.abs(losses / np.array(content["first_losses"]) - 1)))
    if not difference <= RENEW_TOLERANCE:
        raise VerificationFailed(
            f"{port.name}: the first {FIRST_STEPS} losses differ by {difference:.1e}: make the runs"
            " again"
        )
    prove(port)
    write(port.name, "seeds.json", content | {"source_sha256": port.source_digest})
    print(f"{port.name}: the same computation (first losses within {difference:.1e}), renewed")


def prove(port: Any) -> None:
    """Keeps the lockstep's verdicts, and the picture of the whole runs, of a recorded module.

    Raises:
      VerificationFailed: the port does not follow its recordings.
    """
    from common import datasets, plotting
    from reproductions import verify, wholeruns

    document = next((d for d, module in RECORDED.items() if module == port.name), None)
    if document is None:
        return
    data = datasets.load(port.dataset)
    entries = []
    for _, recording in verify.find(GOLDEN, [port.name], "both"):
        verdict = verify.verify(port, recording, data, progress=sys.stderr.isatty())
        if verdict.problems:
            raise VerificationFailed(f"{port.name}: {verdict.problems[0]}")
        entries.append(verify.as_entry(port.name, recording, verdict))
    write(port.name, "lockstep.json", {"source_sha256": port.source_digest, "entries": entries})
    note = f"{port.name}: TensorFlow {'2.0' if document == '002' else '1.14'} and this project"
    figure = wholeruns.picture(document)
    write_atomically(REFERENCE / port.name / "wholeruns.png", plotting.to_png(figure, note))


if __name__ == "__main__":
    sys.exit(main())
