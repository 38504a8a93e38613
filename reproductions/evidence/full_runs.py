"""`python -m reproductions.evidence.full_runs`: makes the whole runs that are kept as evidence.

For each module, below `artifacts/reference/<module>/`:

    run.json, history.csv, weights.npz, *.png, *.gif    the run with seed 0
    seeds.json      curves of all seeds, short and quick runs, the probe's numbers
    <variant>/      a run with a setting that is not the document's
    lockstep.json   the lockstep's verdicts, and the series behind them
    miniature.json  the verdicts on the whole program in miniature

`--renew` is for a change of code that leaves the computation alone: it repeats the first steps of
seed 0, the first round of each variant, the probe and, where there is a recording, the lockstep and
the miniature. If all of them hold, the digests are brought up to date. Otherwise the runs have to
be made again.
"""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable, Container, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from common import datasets
from common.chance import Seeded
from common.cli import OneLineParser, bounded, one_of, run_command
from common.errors import VerificationFailed
from common.program import Program
from common.runs import read_csv, read_record
from common.training import Trainer
from reproductions import GOLDEN, MODULES, program
from reproductions.evidence import kept, lockstep, miniature, mistakes
from reproductions.evidence.documents import DOCUMENTS, Document
from reproductions.evidence.many_seeds import MOST, completed_runs
from reproductions.evidence.probe import differences, probe

RUNS = kept.ROOT / "artifacts" / "runs" / "reference"  # whole runs with weights; not committed
QUICK_SEEDS = 10
# Columns of the history that are kept.
COLUMNS = ("loss", "reconstruction", "kl", "last_loss", "val_loss", "test_elbo")
FIRST_STEPS = 20  # whose losses `--renew` makes again
# Float32 losses of the same code on another machine; the envelopes of the recordings stay below
# 1e-4 over the first 20 steps.
RENEW_TOLERANCE = 1e-3
ROUND_TOLERANCE = 1e-2  # of the mean loss of a first round; 003's hundred steps stray by 2e-3


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command; returns its exit code."""
    return run_command("full_runs", lambda: _full_runs(argv))


def _full_runs(argv: Sequence[str] | None) -> None:
    parser = OneLineParser(
        "reproductions.evidence.full_runs",
        "Makes the kept results: whole runs with the documents' own settings. Kept seeds and short"
        " runs of the present code are not made again (remove seeds.json to train them anew);"
        " variants and quick runs are, unless their folders lie in DIR.",
    )
    parser.add_argument(
        "modules", nargs="*", type=one_of(MODULES), metavar="module",
        help="which modules to run (default: all)",
    )  # fmt: skip
    parser.add_argument(
        "--runs", type=Path, default=RUNS, metavar="DIR",
        help=f"where the whole runs lie; what is there is not made again (default: {RUNS})",
    )  # fmt: skip
    parser.add_argument(
        "--processes", type=bounded(int, 1, MOST), default=1, metavar="N",
        help="how many runs to make at a time; the times of runs that share a machine are longer"
        " (default: 1)",
    )  # fmt: skip
    parser.add_argument(
        "--part", choices=PARTS, action="append",
        help="make only this part of the results (may be repeated; default: all parts)",
    )  # fmt: skip
    parser.add_argument(
        "--renew", action="store_true", help="check that a change of code left the results alone"
    )
    options = parser.parse_args(argv)
    if options.renew and options.part:
        parser.error("--renew makes no part of the results: leave out --part")
    for module in options.modules or MODULES:
        if options.renew:
            renew(DOCUMENTS[module])
            continue
        for part in options.part or PARTS:
            PARTS[part](DOCUMENTS[module], options.runs, options.processes)
            print(f"{module}: {part} kept in {kept.REFERENCE / module}", flush=True)


# --- Making ---------------------------------------------------------------------------------------


def make_seeds(document: Document, runs: Path, processes: int) -> None:
    """Keeps the run with seed 0, and the curves of all seeds.

    Seeds that the present code has made and that are kept are not made again, unless their folders
    are there.
    """
    module = document.module
    content = kept.load_seeds(module) if kept.has_seeds(module) else {}
    digest = program(module).source_digest
    if content.get("source_sha256") != digest:  # quick runs of other code are no longer ours
        content = {"module": module, "source_sha256": digest, "runs": []}
    made = {entry["seed"]: entry for entry in content["runs"]}
    folders = {seed: runs / module / f"seed-{seed}" for seed in range(document.seeds)}
    new = _made(module, folders, made, [], processes)
    if 0 in new:
        content |= _first_run(module, folders[0])
    made |= new
    content["runs"] = [made[seed] for seed in range(document.seeds)]
    kept.write(f"{module}/seeds.json", content)


def _made(
    module: str,
    folders: dict[int, Path],
    before: Container[int],
    options: list[str],
    processes: int,
) -> dict[int, dict[str, Any]]:
    """Runs, by seed: those that are not made yet, and those whose folder is there.

    Args:
      folders: of each seed's run.
      before: the seeds whose runs are kept.
      options: of the runs, beside their seed.
    """
    wanted = [seed for seed, folder in folders.items() if seed not in before or folder.exists()]
    jobs = {folders[seed]: ["--seed", str(seed), *options] for seed in wanted}
    done = completed_runs(module, jobs, processes)
    return {
        seed: {"seed": seed, **curves(folder)} for seed, folder in zip(wanted, done, strict=True)
    }


def _first_run(module: str, folder: Path) -> dict[str, Any]:
    """Keeps the run with seed 0; what it says of the others."""
    keep_folder(folder, kept.REFERENCE / module)
    with np.load(folder / "steps.npz", allow_pickle=False) as steps:
        first = steps["loss"][:FIRST_STEPS].astype(float).tolist()
    environment = read_record(folder).environment
    return {"environment": environment, "first_losses": first, "probe": _probe(module)}


def make_quick(document: Document, runs: Path, processes: int) -> None:
    """Keeps the last row of the history of `--quick` runs."""
    module = document.module
    jobs = {
        runs / module / f"quick-{seed}": ["--quick", "--seed", str(seed)]
        for seed in range(QUICK_SEEDS)
    }
    rows = []
    for seed, folder in enumerate(completed_runs(module, jobs, processes)):
        last = read_csv((folder / "history.csv").read_text(encoding="utf-8"))[-1]
        rows.append({"seed": seed, **{c: last[c] for c in COLUMNS if c in last}})
    kept.write(f"{module}/seeds.json", kept.load_seeds(module) | {"quick_runs": rows})


def make_short(document: Document, runs: Path, processes: int) -> None:
    """Keeps the curves of the runs that end where runs of the original were stopped."""
    if document.short is None:
        return
    module = document.module
    content = kept.load_seeds(module)
    ours = content["source_sha256"] == program(module).source_digest
    made = {run["seed"]: run for run in content.get("short_runs", []) if ours}
    seeds = range(document.seeds, document.seeds + document.short.runs)
    folders = {seed: runs / module / f"short-{seed}" for seed in seeds}
    made |= _made(module, folders, made, ["--epochs", str(document.short.epochs)], processes)
    content["short_runs"] = [made[seed] for seed in seeds]
    kept.write(f"{module}/seeds.json", content)


def make_variants(document: Document, runs: Path, processes: int) -> None:
    """Keeps a run with seed 0 of every variant that the documentation uses."""
    jobs = {
        runs / document.module / variant.name: ["--seed", "0", *variant.options]
        for variant in document.variants
    }
    for folder in completed_runs(document.module, jobs, processes):
        target = kept.REFERENCE / document.module / folder.name
        keep_folder(folder, target, (".csv", ".json"))


def keep_folder(
    run: Path, target: Path, suffixes: Sequence[str] = (".png", ".gif", ".csv", ".json")
) -> None:
    """Copies what is kept of a run; what an earlier run left there goes."""
    target.mkdir(parents=True, exist_ok=True)
    for old in target.iterdir():
        if old.is_file() and old.name not in MADE_HERE:
            old.unlink()
    for path in sorted(run.iterdir()):
        if path.suffix in suffixes or path.name == "weights.npz":
            shutil.copy(path, target / path.name)


MADE_HERE = ("seeds.json", "lockstep.json", "miniature.json", "wholeruns.png", "explorer.npz")


def curves(run: Path) -> dict[str, Any]:
    """What is kept of a run: the curves of its history, its final results and its evaluation."""
    rows = read_csv((run / "history.csv").read_text(encoding="utf-8"))
    record = read_record(run)
    found: dict[str, Any] = {
        name: [row[name] for row in rows] for name in COLUMNS if name in rows[0]
    }
    results = {k: v for k, v in record.results.items() if not k.startswith("final_")}
    # The median round, so that a machine that was busy for a while does not show.
    seconds = float(np.median([row["seconds"] for row in rows])) * len(rows)
    return found | {"results": results, "evaluation": record.evaluation, "seconds": seconds}


# --- Proving --------------------------------------------------------------------------------------


def renew(document: Document) -> None:
    """Brings the digests up to date if the code still computes what it did.

    Raises:
      VerificationFailed: it does not.
    """
    module, port = document.module, program(document.module)
    content = kept.load_seeds(module)
    experiment = port.experiment(port.config(), datasets.load(port.dataset), Seeded(0), "float32")
    losses = Trainer(experiment).run(0, FIRST_STEPS)[:, 0]
    difference = float(np.max(np.abs(losses / np.array(content["first_losses"]) - 1)))
    if not difference <= RENEW_TOLERANCE:
        raise VerificationFailed(
            f"{module}: the first {FIRST_STEPS} losses differ by {difference:.1e}: make the runs"
            " again"
        )
    for run in document.kept_variants:
        check_variant(port, kept.REFERENCE / run)
    now = _probe(module)
    changed = next(differences(now, content["probe"]), None)
    if changed is not None:
        raise VerificationFailed(f"{module}: {changed}: make the runs again")
    make_proof(document)
    kept.renew_stamps(module, content["source_sha256"], port.source_digest)
    content |= {"probe": now, "source_sha256": port.source_digest}
    kept.write(f"{module}/seeds.json", content)
    print(f"{module}: the same computation (first losses within {difference:.1e}), renewed")


def check_variant(port: Program, folder: Path) -> None:
    """Repeats the first round of a variant's kept run.

    Raises:
      VerificationFailed: its loss is another.
    """
    config = port.config_of(read_record(folder), folder)
    experiment = port.experiment(config, datasets.load(port.dataset), Seeded(0), "float32")
    steps = experiment.steps_per_round
    losses = Trainer(experiment).run(0, steps)[:, 0]
    now = np.average(losses, weights=[experiment.batches.size(step) for step in range(steps)])
    was = read_csv((folder / "history.csv").read_text(encoding="utf-8"))[0]["loss"]
    if not abs(now / was - 1) <= ROUND_TOLERANCE:
        raise VerificationFailed(
            f"{folder}: the first loss of the history was {was:.6g} and is {now:.6g}: make the"
            " variants again"
        )


def _probe(module: str) -> dict[str, Any]:
    port = program(module)
    return probe(port, datasets.load(port.dataset))


def make_proof(document: Document) -> None:
    """Keeps the verdicts on a recorded module: of the lockstep, and of the whole in miniature.

    With them it keeps how an error that is planted on purpose leaves the recording.

    Raises:
      VerificationFailed: the port does not follow its recordings.
    """
    if document.unrecorded:
        return
    module, port = document.module, program(document.module)
    data = datasets.load(port.dataset)
    progress = sys.stderr.isatty()
    entries, planted = [], []
    for _, recording in lockstep.find(GOLDEN, [module], "both"):
        verdict = lockstep.verify(port, recording, data, progress=progress)
        if verdict.problems:
            raise VerificationFailed(f"{module}: {verdict.problems[0]}")
        entries.append(lockstep.as_entry(module, recording, verdict))
        if recording.precision == "float64":
            with mistakes.planted(mistakes.epsilon(module, 10)):
                wrong = lockstep.verify(port, recording, data, progress=progress)
            planted = lockstep.series(wrong)
    content = {
        "source_sha256": port.source_digest,
        "entries": entries,
        "ten_times_epsilon": planted,  # relative difference of each float64 step
    }
    kept.write(f"{module}/lockstep.json", content)
    small = [
        miniature.as_entry(module, recording, miniature.replay(port, recording, data))
        for _, recording in miniature.find(GOLDEN, [module], "both")
    ]
    problems = [problem for entry in small for problem in entry["problems"]]
    if problems:
        raise VerificationFailed(f"{module}: {problems[0]}")
    content = {"source_sha256": port.source_digest, "entries": small}
    kept.write(f"{module}/miniature.json", content)


PARTS: dict[str, Callable[[Document, Path, int], None]] = {
    "seeds": make_seeds,
    "variants": make_variants,
    "short": make_short,
    "quick": make_quick,
    "proof": lambda document, *_: make_proof(document),
}

if __name__ == "__main__":
    sys.exit(main())
