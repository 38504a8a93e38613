"""Whole runs compared as distributions: beyond the lockstep's horizon only the law can be the same.

The originals' seeds are in `golden/<document>/full-runs.json`, ours in
`artifacts/reference/<module>/seeds.json`. Where both sides have enough seeds, two one-sided t-tests
(Welch) ask whether the means are **equivalent** within a margin that was fixed beforehand, which is
more than "not significantly different". Where the originals' spread leaves such a test no power,
the difference is given in standard deviations between seeds instead.

#### References
D. J. Schuirmann. A comparison of the two one-sided tests procedure and the power approach for
assessing the equivalence of average bioavailability. J. Pharmacokinet. Biopharm. 15, 1987.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from reproductions import GOLDEN, RECORDED
from reproductions.reference import REFERENCE, load_seeds

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Array = np.ndarray

MARGIN = 0.02  # of the originals' mean: what a reader of the curves would not notice
ALPHA = 0.05
MIN_SEEDS = 3  # a side with fewer has no spread to test with
POWER = 0.8  # a test that would show equal laws to be equal less often than this is not made

# document: curves as (name in full-runs.json, column of our history, what it is)
CURVES = {
    "000": (("epoch_mean_cost", "loss", "mean cost of an epoch"),),
    "001": (
        ("epoch_loss", "loss", "training loss"),
        ("epoch_val_loss", "val_loss", "validation loss"),
    ),
    "002": (("test_elbo", "test_elbo", "test ELBO"),),
    "003": (("mean_loss_per_100_steps", "loss", "mean loss of 100 steps"),),
    "004": (
        ("epoch_loss", "loss", "training loss"),
        ("epoch_val_loss", "val_loss", "validation loss"),
    ),
}
UNITS = {"000": "cost of a batch", "004": "nats per batch"}  # others: nats per image


class Printed(NamedTuple):
    """Losses that a document, or its upstream, printed: each that of a single batch or epoch."""

    source: str
    at: tuple[int, ...]  # epochs or steps
    values: tuple[float, ...]
    column: str  # of our history


PRINTED = {
    "000": Printed(
        "printed by the document (last batch)",
        tuple(range(1, 44, 3)),
        (2961.34, 2265.61, 2255.56, 2235.31, 2167.91, 2352.41, 2194.37, 2146.91, 2127.26, 1911.38,
         2092.75, 1870.27, 2143.29, 1938.21, 1950.55),
        "last_loss",
    ),
    "002": Printed("printed upstream", (100, 100), (-78.338, -78.327), "test_elbo"),
    "003": Printed(
        "printed upstream (single batch)", (1000, 2000, 3000), (173.02, 165.30, 172.93), "last_loss"
    ),
}  # fmt: skip


@dataclass(frozen=True)
class Comparison:
    """One figure of the originals' runs and of ours."""

    module: str
    figure: str  # which, in words
    ours: Array  # [seeds]
    theirs: Array  # [seeds]

    @property
    def difference(self) -> float:
        """Of the means, relative to theirs."""
        return float(self.ours.mean() / self.theirs.mean() - 1)

    @property
    def power(self) -> float:
        """How often the test would show equivalence if our law were theirs, from their spread."""
        from scipy.stats import t

        seeds = len(self.ours), len(self.theirs)
        if min(seeds) < MIN_SEEDS:
            return 0.0
        error = self.theirs.std(ddof=1) * (1 / seeds[0] + 1 / seeds[1]) ** 0.5
        degrees = sum(seeds) - 2
        reach = MARGIN * abs(self.theirs.mean()) / error - t.ppf(1 - ALPHA, degrees)
        return max(0.0, float(2 * t.cdf(reach, degrees) - 1))

    @property
    def p(self) -> float | None:
        """The larger p-value of the two one-sided tests; None where there are too few seeds."""
        from scipy.stats import ttest_ind

        if self.power < POWER:
            return None
        margin = MARGIN * abs(self.theirs.mean())
        above = ttest_ind(self.ours, self.theirs - margin, equal_var=False, alternative="greater")
        below = ttest_ind(self.ours, self.theirs + margin, equal_var=False, alternative="less")
        return float(max(above.pvalue, below.pvalue))

    @property
    def in_spreads(self) -> float | None:
        """The difference in standard deviations between seeds; None where no side has three."""
        more = max(self.theirs, self.ours, key=len)
        if len(more) < MIN_SEEDS:
            return None
        return float((self.ours.mean() - self.theirs.mean()) / more.std(ddof=1))

    @property
    def equivalent(self) -> bool | None:
        """Whether the means are shown to be equivalent; None where there are too few seeds."""
        return None if self.p is None else self.p < ALPHA

    @property
    def verdict(self) -> str:
        """In words."""
        if self.equivalent is not None:
            return "equivalent" if self.equivalent else "NOT SHOWN"
        if self.in_spreads is not None:
            return f"{self.in_spreads:+.1f} sd (too few seeds to test)"
        return "too few seeds to test"


def available() -> list[Comparison]:
    """The comparisons of every document whose reference runs are at hand."""
    kept = [d for d, module in RECORDED.items() if (REFERENCE / module / "seeds.json").exists()]
    return [comparison for document in sorted(kept) for comparison in compare(document)]


def compare(document: str) -> list[Comparison]:
    """The final figure and the mean of every curve of a document ("000", ...)."""
    module = RECORDED[document]
    comparisons = []
    for name, column, label in CURVES[document]:
        comparisons += of_curves(module, label, curve(module, column), original(document, name))
    return comparisons


def of_curves(module: str, label: str, ours: Array, theirs: Array) -> list[Comparison]:
    """The final figure and the mean of a curve [seeds, rounds]; ours may be longer than theirs."""
    ours = ours[:, : theirs.shape[1]]
    return [
        Comparison(module, f"{label}, final", ours[:, -1], theirs[:, -1]),
        Comparison(module, f"{label}, whole curve", ours.mean(1), theirs.mean(1)),
    ]


def original(document: str, name: str) -> Array:
    """A curve of the original's whole runs, [seeds, rounds]."""
    content = json.loads((GOLDEN / document / "full-runs.json").read_text())
    return np.array([run[name] for run in content["runs"]])


def curve(module: str, column: str) -> Array:
    """A curve of our reference runs, [seeds, rounds]."""
    return np.array([run[column] for run in load_seeds(module)["runs"]])


def outside(document: str) -> list[tuple[int, float, float, float]]:
    """Printed losses that our runs would not be expected to print: (where, printed, low, high).

    A printed loss is one draw. It is held against the prediction interval of our seeds' losses at
    the same place and its two neighbours, at ALPHA over all that the document printed.
    """
    from scipy.stats import t

    printed = PRINTED[document]
    per_row = 100 if document == "003" else 1
    ours = curve(RECORDED[document], printed.column)
    found = []
    for where, value in zip(printed.at, printed.values, strict=True):
        row = where // per_row - 1
        draws = ours[:, max(0, row - 1) : row + 2] if row else ours[:, :1]
        n = draws.size
        reach = (
            t.ppf(1 - ALPHA / 2 / len(printed.at), n - 1) * draws.std(ddof=1) * (1 + 1 / n) ** 0.5
        )
        low, high = float(draws.mean() - reach), float(draws.mean() + reach)
        if not low <= value <= high:
            found.append((where, value, low, high))
    return found


def picture(document: str) -> Figure:
    """Both sides' curves as bands from the lowest to the highest seed, with the printed numbers."""
    from matplotlib.figure import Figure

    curves = CURVES[document]
    figure = Figure(figsize=(6.4 * len(curves), 4.4), layout="constrained")
    for axes, (name, column, label) in zip(
        figure.subplots(1, len(curves), squeeze=False)[0], curves, strict=True
    ):
        for values, colour, side in (
            (original(document, name), "tab:orange", "original"),
            (curve(RECORDED[document], column), "tab:blue", "port"),
        ):
            x = np.arange(1, values.shape[1] + 1) * (100 if document == "003" else 1)
            axes.fill_between(x, values.min(0), values.max(0), color=colour, alpha=0.3, lw=0)
            seeds = f"{len(values)} seed" + ("s" if len(values) > 1 else "")
            axes.plot(x, values.mean(0), color=colour, label=f"{side}, {seeds}")
        printed = PRINTED.get(document)
        if printed and axes is figure.axes[0]:
            axes.plot(printed.at, printed.values, "kx", ms=5, label=printed.source)
        axes.set(
            title=label,
            xlabel="step" if document == "003" else "epoch",
            ylabel=UNITS.get(document, "nats per image"),
        )
        axes.grid(alpha=0.3)
        axes.legend()
    figure.suptitle(f"{RECORDED[document]}: whole runs of the original and of the port")
    return figure


def as_entry(comparison: Comparison) -> dict[str, Any]:
    """A comparison as JSON."""
    return {
        "module": comparison.module,
        "figure": comparison.figure,
        "ours": {"mean": float(comparison.ours.mean()), "seeds": len(comparison.ours)},
        "theirs": {"mean": float(comparison.theirs.mean()), "seeds": len(comparison.theirs)},
        "relative_difference": comparison.difference,
        "p": comparison.p,
        "in_standard_deviations": comparison.in_spreads,
        "verdict": comparison.verdict,
    }


HEADER = (
    f"{'module':12} {'whole runs':30} {'ours':>10} {'theirs':>10} {'difference':>10} "
    f"{'seeds':>6}  verdict (margin {MARGIN:.0%})"
)


def as_line(comparison: Comparison) -> str:
    """A comparison as a line of the table."""
    seeds = f"{len(comparison.ours)}:{len(comparison.theirs)}"
    p = f", p {comparison.p:.2g}" if comparison.p is not None else ""
    return (
        f"{comparison.module:12} {comparison.figure:30} {comparison.ours.mean():10.6g} "
        f"{comparison.theirs.mean():10.6g} {comparison.difference:+10.2%} {seeds:>6}  "
        f"{comparison.verdict}{p}"
    )
