"""How large a mistake has to be before whole runs show it, and at which step lockstep finds it.

    python -m reproductions.evidence.dose_response rmsprop_vae --seeds 10

Wrong variants of a module are trained whole, with the document's settings, and compared with the
whole runs of the original exactly as the right module is. The results go to
`artifacts/reference/dose-response.json`, one run at a time, so a command that was stopped goes on
where it was.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from common import datasets, lockstep
from common.chance import Seeded
from common.lazy import tf
from common.training import Trainer
from reproductions import GOLDEN, program
from reproductions.evidence import kept
from reproductions.evidence.documents import DOCUMENTS
from reproductions.evidence.lockstep import verify
from reproductions.evidence.mistakes import (
    constant,
    divided_pixels,
    kl_weight,
    learning_rate,
    optimizer_setting,
    planted,
    reduced,
)
from reproductions.evidence.whole_runs import MARGINS, Comparison, signed

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from common.datasets import Dataset

RESULTS = kept.REFERENCE / "dose-response.json"
MISTAKES = (
    learning_rate("rmsprop_vae", 1.03),
    learning_rate("rmsprop_vae", 1.1),
    learning_rate("rmsprop_vae", 1.3),
    kl_weight("rmsprop_vae", 0.9),
    kl_weight("rmsprop_vae", 0.5),
    optimizer_setting("rmsprop_vae", "epsilon 1e-7 for 1e-10", epsilon=1e-7),
    optimizer_setting("rmsprop_vae", "mean square from zeros", initial_mean_square=0.0),
    divided_pixels("rmsprop_vae"),
    constant("rmsprop_vae", "60,000 images for 55,000", "HELD_BACK", 0),
    reduced("rmsprop_vae", "sum for mean over the batch",
            lambda x: tf.reduce_sum(x.reconstruction + x.kl)),
    learning_rate("mlp_vae", 1.03),
    learning_rate("mlp_vae", 1.1),
    learning_rate("mlp_vae", 1.3),
    kl_weight("mlp_vae", 0.9),
    kl_weight("mlp_vae", 0.5),
    optimizer_setting("mlp_vae", "epsilon 1e-7 for 1e-8", epsilon=1e-7),
    divided_pixels("mlp_vae"),
    reduced("mlp_vae", "mean for sum over the batch",
            lambda x: tf.reduce_mean(x.reconstruction + x.kl)),
    optimizer_setting("conv_vae", "Keras 3's Nadam", schedule_decay=1.0),
    kl_weight("conv_vae", 0.5),
)  # fmt: skip


# --- Making the results ---------------------------------------------------------------------------


def whole_run(module: str, data: Dataset, seed: int) -> list[float]:
    """The loss of each row of the history, as a whole run of the module as it now is writes it.

    The list ends early where a loss is not a number.
    """
    port: Any = program(module)
    experiment = port.experiment(port.config(), data, Seeded(seed))
    trainer, size = Trainer(experiment), experiment.steps_per_round
    rows: list[float] = []
    for start in range(0, experiment.steps, size):
        loss = trainer.run(start, min(start + size, experiment.steps))[:, 0].mean()
        if not np.isfinite(loss):
            break
        rows.append(float(f"{loss:.7g}"))
    return rows


def found_at(module: str, data: Dataset) -> dict[str, Any]:
    """For each precision, the step at which lockstep rejects the module's loss as it now is.

    None: at none up to the horizon.
    """
    steps = {}
    for precision in lockstep.FLOOR:
        number = DOCUMENTS[module].number
        recording = lockstep.load(GOLDEN / number / f"lockstep-{precision}.json")
        steps[precision] = verify(program(module), recording, data).first_bad_step
    return steps


def make(modules: Sequence[str], seeds: int, path: Path = RESULTS) -> None:
    """Makes what the file does not have yet: all mistakes with seed 0, then with seed 1, ..."""
    content = load(path)
    for seed in range(seeds):
        for mistake in (m for m in MISTAKES if m.module in modules):
            entry = content.setdefault(mistake.module, {}).setdefault(
                mistake.what, {"found_at": None, "runs": {}}
            )
            data = datasets.load(program(mistake.module).dataset, quiet=True)
            with planted(mistake):
                if entry["found_at"] is None:
                    entry["found_at"] = found_at(mistake.module, data)
                if str(seed) not in entry["runs"]:
                    entry["runs"][str(seed)] = whole_run(mistake.module, data, seed)
            tf.keras.backend.clear_session()
            kept.save_results(path, content)
            print(seed, mistake.module, mistake.what, entry["runs"][str(seed)][-1:], flush=True)


def load(path: Path = RESULTS) -> dict[str, Any]:
    """The results: module -> mistake -> {"found_at": {precision: step}, "runs": {seed: curve}}."""
    return kept.load_results(path)


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
        """Whether the whole runs count as the original's, by the rule of `whole_runs`."""
        equivalent = (self.final.equivalent, self.curve.equivalent)
        if self.stopped or False in equivalent:
            return "rejected"
        return "accepted" if all(equivalent) else "not rejected"

    @property
    def p(self) -> float | None:
        """Of the two-sided test (Welch) that the final losses do not differ; None for one run."""
        from scipy.stats import ttest_ind

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


def table(results: dict[str, Any] | None = None) -> list[list[str]]:
    """The rows as text."""
    lines = []
    for row in rows(load() if results is None else results):
        steps = ["–", "–"]
        if row.found_at is not None:
            steps = [_step(row.found_at[precision]) for precision in lockstep.FLOOR]
        p = "–" if row.p is None else "< 0.01" if row.p < 0.01 else f"{row.p:.2f}"
        spreads = row.final.in_spreads
        in_spreads = "–" if spreads is None else signed(spreads, 1)
        lines.append(
            [f"`{row.module}`", row.what, f"{len(row.final.ours)}:{len(row.final.theirs)}",
             *map(_with_interval, (row.final, row.curve)), in_spreads, p,
             row.verdict, *steps]
        )  # fmt: skip
    return lines


def _step(step: int | None) -> str:
    """The step of a rejection, or that there was none."""
    return "not found" if step is None else str(step)


def _with_interval(comparison: Comparison) -> str:
    """+1.23 (+1.00 … +1.46), in per cent; for one run the difference alone."""
    difference = signed(100 * comparison.difference, 2)
    if comparison.interval is None:
        return difference
    low, high = (signed(100 * bound, 2) for bound in comparison.interval)
    return f"{difference} ({low} … {high})"


def picture(found: Sequence[Row]) -> Figure:
    """Each row's difference of the final loss, with what it is held against, and the steps."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9.5, 0.33 * len(found) + 1.9), layout="constrained")
    axes = figure.subplots()
    margin = 100 * MARGINS[0]
    axes.axvspan(-margin, margin, color="tab:green", alpha=0.12, lw=0)
    for y, row in enumerate(found):
        colour = "tab:red" if row.verdict == "rejected" else "tab:green"
        axes.plot(100 * row.final.difference, y, "o", color=colour, ms=5)
        if row.final.single is not None:  # of one run: where the original's next run would lie
            _, low, high = np.array(row.final.single) / row.final.theirs.mean() - 1
            axes.plot([100 * low, 100 * high], [y, y], color="grey", lw=1)
        elif row.final.interval is not None:
            low, high = row.final.interval
            axes.plot([100 * low, 100 * high], [y, y], color=colour, lw=3, solid_capstyle="butt")
        if row.found_at is not None:
            for x, precision in STEPS_AT:
                _beside(axes, x, y, _step(row.found_at[precision]))
    for x, precision in STEPS_AT:
        _beside(axes, x, -1, precision)
    _beside(axes, 1.17, -2, "lockstep rejects\nat step")
    axes.set_xscale("symlog", linthresh=2 * margin)
    ticks = [-100, -10, -2, 0, 2, 10, 100]
    axes.set_xticks(ticks, [f"{tick:+d} %" if tick else "0" for tick in ticks])
    axes.minorticks_off()
    axes.set_yticks(range(len(found)), [f"{row.module}: {row.what}" for row in found])
    axes.set_ylim(len(found) - 0.4, -0.6)
    axes.axvline(0, color="black", lw=0.8)
    axes.grid(axis="x", alpha=0.3)
    label = "final loss against the original's, with its 90 % interval\n"
    label += "shaded: the margin; red: whole runs reject it"
    if any(row.final.single for row in found):
        label += "\nthin line: of one run, where the original's next run would lie"
    axes.set_xlabel(label)
    return figure


STEPS_AT = ((1.1, "float32"), (1.24, "float64"))  # in widths of the plot


def _beside(axes: Axes, x: float, y: float, text: str) -> None:
    """Writes to the right of the plot."""
    axes.text(x, y, text, transform=axes.get_yaxis_transform(), ha="center", va="center")


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command; returns its exit code."""
    parser = argparse.ArgumentParser(prog="python -m reproductions.evidence.dose_response")
    parser.add_argument("modules", nargs="*", help="whose mistakes to train; none: only the table")
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--results", type=Path, default=RESULTS)
    parser.add_argument("--picture", type=Path, help="where to draw the results")
    options = parser.parse_args(argv)
    for module in options.modules:
        if module not in {mistake.module for mistake in MISTAKES}:
            parser.error(f"no mistakes are known for {module!r}")
    make(options.modules, options.seeds, options.results)
    results = load(options.results)
    for line in table(results):
        print(" | ".join(line))
    if options.picture:
        picture(rows(results)).savefig(options.picture, dpi=120, bbox_inches="tight")
    return 0


if __name__ == "__main__":
    sys.exit(main())
