"""How large a mistake has to be before whole runs show it, and at which step lockstep finds it.

    python -m reproductions.evidence.dose_response rmsprop_vae --seeds 10

Wrong variants of a module are trained whole, with the document's settings, and compared with the
whole runs of the original exactly as the right module is. The results go to
`artifacts/reference/dose-response.json`, one run at a time, so a command that was stopped goes on
where it was.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from scipy.stats import ttest_ind

from common import datasets
from common.chance import Seeded
from common.cli import OneLineParser, bounded, one_of, run_command
from common.datasets import Dataset
from common.errors import Failure
from common.lazy import tf
from common.training import Trainer
from reproductions import program
from reproductions.evidence import kept, lockstep
from reproductions.evidence.documents import DOCUMENTS
from reproductions.evidence.equivalence import Comparison, signed
from reproductions.evidence.mistakes import (
    batch_mean,
    batch_sum,
    constant,
    divided_pixels,
    kl_weight,
    learning_rate,
    optimizer_setting,
    planted,
    reduced,
)

RESULTS = "dose-response.json"  # module -> mistake -> {"found_at", "runs": {seed: curve}}
MISTAKES = (
    learning_rate("rmsprop_vae", 1.03),
    learning_rate("rmsprop_vae", 1.1),
    learning_rate("rmsprop_vae", 1.3),
    kl_weight("rmsprop_vae", 0.9),
    kl_weight("rmsprop_vae", 0.5),
    optimizer_setting("rmsprop_vae", "epsilon 1e-7 instead of 1e-10", epsilon=1e-7),
    optimizer_setting("rmsprop_vae", "mean square from zeros", initial_mean_square=0.0),
    divided_pixels("rmsprop_vae"),
    constant("rmsprop_vae", "60,000 images instead of 55,000", "HELD_BACK", 0),
    reduced("rmsprop_vae", "sum instead of mean over the batch", batch_sum),
    learning_rate("mlp_vae", 1.03),
    learning_rate("mlp_vae", 1.1),
    learning_rate("mlp_vae", 1.3),
    kl_weight("mlp_vae", 0.9),
    kl_weight("mlp_vae", 0.5),
    optimizer_setting("mlp_vae", "epsilon 1e-7 instead of 1e-8", epsilon=1e-7),
    divided_pixels("mlp_vae"),
    reduced("mlp_vae", "mean instead of sum over the batch", batch_mean),
    optimizer_setting("conv_vae", "Keras 3's Nadam", schedule_decay=1.0),
    kl_weight("conv_vae", 0.5),
)  # fmt: skip


# --- Making the results ---------------------------------------------------------------------------


def whole_run(module: str, data: Dataset, seed: int) -> list[float]:
    """The loss of each row of the history, as a whole run of the module as it now is writes it.

    The list ends early where a loss is not a number.
    """
    port = program(module)
    experiment = port.experiment(port.config(), data, Seeded(seed), "float32")
    trainer, size = Trainer(experiment), experiment.steps_per_round
    rows: list[float] = []
    for start in range(0, experiment.steps, size):
        loss = trainer.run(start, min(start + size, experiment.steps))[:, 0].mean()
        if not np.isfinite(loss):
            break
        rows.append(float(f"{loss:.7g}"))
    return rows


def found_at(module: str) -> dict[str, int | None]:
    """For each precision, the step at which lockstep rejects the module's loss as it now is.

    None: at none up to the horizon.
    """
    return {
        precision: lockstep.follow(module, precision).first_bad_step for precision in lockstep.FLOOR
    }


def make(modules: Sequence[str], seeds: int) -> None:
    """Makes what the file does not have yet: all mistakes with seed 0, then with seed 1, ..."""
    content = kept.load_results(RESULTS)
    for module in modules:
        kept.stamp(RESULTS, module, program(module).source_digest)
    for seed in range(seeds):
        for mistake in (m for m in MISTAKES if m.module in modules):
            entry = content.setdefault(mistake.module, {}).setdefault(
                mistake.what, {"found_at": None, "runs": {}}
            )
            if entry["found_at"] is not None and str(seed) in entry["runs"]:
                continue
            data = datasets.load(program(mistake.module).dataset, quiet=True)
            with planted(mistake):
                if entry["found_at"] is None:
                    entry["found_at"] = found_at(mistake.module)
                if str(seed) not in entry["runs"]:
                    entry["runs"][str(seed)] = whole_run(mistake.module, data, seed)
            tf.keras.backend.clear_session()
            kept.write(RESULTS, content)
            print(seed, mistake.module, mistake.what, entry["runs"][str(seed)][-1:], flush=True)


# --- What they say --------------------------------------------------------------------------------


class Row(NamedTuple):
    """A wrong variant, or the right module, compared with its original."""

    module: str
    what: str
    final: Comparison  # of the last row of the curves
    curve: Comparison  # of their means
    stopped: int  # seeds whose loss was not a number at some step; they are not compared
    found_at: dict[str, int | None] | None  # precision -> step; None: the right module

    @property
    def verdict(self) -> str:
        """Whether the whole runs count as the original's, by the rule of `equivalence`."""
        equivalent = (self.final.equivalent, self.curve.equivalent)
        if self.stopped or False in equivalent:
            return "rejected"
        return "accepted" if all(equivalent) else "not rejected"

    def step(self, precision: str) -> str:
        """At which step the lockstep rejects it, in words."""
        if self.found_at is None:
            return "–"
        step = self.found_at[precision]
        return "not found" if step is None else str(step)

    @property
    def p(self) -> float | None:
        """Of the two-sided test (Welch) that the final losses do not differ; None for one run."""
        if self.final.seeds < 2:
            return None
        return float(ttest_ind(self.final.ours, self.final.theirs, equal_var=False).pvalue)


def rows(results: dict[str, Any]) -> list[Row]:
    """The rows of the table: for each module the right one, then its mistakes."""
    found = []
    for module, mistakes in results.items():
        document = DOCUMENTS[module]
        recorded, column, _ = document.curves[0]
        theirs = np.stack(kept.original_curves(document.number, recorded))
        ours = np.stack(kept.our_curves(module, column))
        found.append(_row(module, "none: the right module", ours, theirs, 0, None))
        for what in (m.what for m in MISTAKES if m.module == module and m.what in mistakes):
            runs = list(mistakes[what]["runs"].values())
            whole = np.array([run for run in runs if len(run) == theirs.shape[1]])
            stopped = len(runs) - len(whole)
            if stopped == len(runs):
                raise Failure(f"{module}, {what}: no run came to its end, so none can be compared")
            found.append(_row(module, what, whole, theirs, stopped, mistakes[what]["found_at"]))
    return found


def _row(
    module: str,
    what: str,
    ours: np.ndarray,
    theirs: np.ndarray,
    stopped: int,
    found_at: dict[str, int | None] | None,
) -> Row:
    """A row from curves [seeds, rounds]."""
    final = Comparison(module, "final", ours[:, -1], theirs[:, -1])
    curve = Comparison(module, "whole curve", ours.mean(1), theirs.mean(1))
    return Row(module, what, final, curve, stopped, found_at)


def table(results: dict[str, Any]) -> list[list[str]]:
    """The rows as text."""
    lines = []
    for row in rows(results):
        steps = [row.step(precision) for precision in lockstep.FLOOR]
        p = "–" if row.p is None else "< 0.01" if row.p < 0.01 else f"{row.p:.2f}"
        spreads = row.final.in_spreads
        in_spreads = "–" if spreads is None else signed(spreads, 1)
        lines.append(
            [f"`{row.module}`", row.what, f"{len(row.final.ours)}:{len(row.final.theirs)}",
             *map(_with_interval, (row.final, row.curve)), in_spreads, p,
             row.verdict, *steps]
        )  # fmt: skip
    return lines


def _with_interval(comparison: Comparison) -> str:
    """+1.23 (+1.00 … +1.46), in per cent; for one run the difference alone."""
    difference = signed(100 * comparison.difference, 2)
    if comparison.interval is None:
        return difference
    low, high = (signed(100 * bound, 2) for bound in comparison.interval)
    return f"{difference} ({low} … {high})"


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command; returns its exit code."""
    return run_command("dose_response", lambda: _dose_response(argv))


def _dose_response(argv: Sequence[str] | None) -> None:
    parser = OneLineParser(
        "reproductions.evidence.dose_response",
        "Trains wrong variants of modules whole, and compares them with the originals.",
    )
    parser.add_argument(
        "modules", nargs="*", type=one_of(dict.fromkeys(m.module for m in MISTAKES)),
        metavar="module", help="whose mistakes to train; none: only the table",
    )  # fmt: skip
    parser.add_argument(
        "--seeds", type=bounded(int, 1, 1000), default=10, metavar="N",
        help="how many runs of each variant to make (default: 10)",
    )  # fmt: skip
    options = parser.parse_args(argv)
    make(options.modules, options.seeds)
    for line in table(kept.load_results(RESULTS)):
        print(" | ".join(line))


if __name__ == "__main__":
    sys.exit(main())
