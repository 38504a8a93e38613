"""Whole runs compared as distributions: beyond the lockstep's horizon nothing else can be compared.

The originals' seeds are in `golden/<number>/full-runs.json`, ours in
`artifacts/reference/<module>/seeds.json`. Two one-sided t-tests (Welch) ask whether the ratio of
our mean to theirs lies between 1 - margin and 1 + margin, which is more than "not significantly
different". The 90 % confidence interval of the ratio is the set of ratios that neither test
rejects, so a margin is shown exactly if the interval lies within it. A side that has one run has no
spread: there the other side's prediction interval says whether that run is an unusual one.

#### References
D. J. Schuirmann. A comparison of the two one-sided tests procedure and the power approach for
assessing the equivalence of average bioavailability. J. Pharmacokinet. Biopharm. 15, 1987.
E. C. Fieller. Some problems in interval estimation. J. R. Stat. Soc. B 16, 1954.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from scipy.optimize import brentq
from scipy.stats import f, ks_2samp, t, ttest_ind

from reproductions.evidence import kept
from reproductions.evidence.documents import RECORDED, Document

# Of the original's mean, fixed before the runs were made. The tighter one is asked only where the
# wider one was shown: tests in a fixed order need no correction of ALPHA.
MARGINS = (0.02, 0.01)
ALPHA = 0.05
ENOUGH = 8  # seeds: with as many on both sides a row that is not shown equivalent fails


class Spread(NamedTuple):
    """Our standard deviation between seeds, as a multiple of the original's."""

    ratio: float
    low: float  # of the 90 % confidence interval
    high: float
    p: float  # of the two-sided F-test that both are the same


@dataclass(frozen=True)
class Comparison:
    """One quantity of the original's runs and of ours."""

    module: str
    quantity: str  # in words
    ours: np.ndarray  # [seeds]
    theirs: np.ndarray  # [seeds]

    @property
    def seeds(self) -> int:
        """Number of runs of the side that has fewer."""
        return min(len(self.ours), len(self.theirs))

    @property
    def difference(self) -> float:
        """Difference of the means, relative to the size of the original's.

        It is below zero where ours is lower, also of an ELBO, which is a negative number.
        """
        return float((self.ours.mean() - self.theirs.mean()) / abs(self.theirs.mean()))

    @property
    def in_spreads(self) -> float | None:
        """Difference in standard deviations between seeds; None where each side has one run."""
        spread = self._pooled_spread
        return None if spread is None else self.difference * abs(self.theirs.mean()) / spread

    @property
    def _pooled_spread(self) -> float | None:
        """Standard deviation between seeds, from both sides."""
        degrees = len(self.ours) + len(self.theirs) - 2
        if degrees == 0:
            return None
        squares = sum(float(np.sum((x - x.mean()) ** 2)) for x in (self.ours, self.theirs))
        return math.sqrt(squares / degrees)

    @cached_property
    def interval(self) -> tuple[float, float] | None:
        """The 90 % confidence interval of `difference`; None where a side has one run."""
        if self.seeds < 2:
            return None

        def excess(ratio: float, sign: int) -> float:
            test = self._ratio_test(ratio)
            return sign * float(test.statistic) - float(t.ppf(1 - ALPHA, test.df))

        inside = float(self.ours.mean() / self.theirs.mean())
        ends = []
        for sign in (1, -1):  # the lower end, the upper end
            step = 0.01
            while excess(inside - sign * step, sign) < 0 and step < 10:
                step *= 2
            outside = inside - sign * step
            end = brentq(excess, inside, outside, args=(sign,)) if step < 10 else -sign * math.inf
            ends.append(float(end - 1))
        low, high = sorted(float(np.sign(self.theirs.mean())) * end for end in ends)
        return low, high

    def _ratio_test(self, ratio: float) -> Any:
        """Welch's test of "our mean is `ratio` times theirs"; values below zero compare by size."""
        sign = np.sign(self.theirs.mean())
        return ttest_ind(sign * self.ours, sign * ratio * self.theirs, equal_var=False)

    def p(self, margin: float = MARGINS[0]) -> float | None:
        """The larger p-value of the two one-sided tests; None where a side has one run."""
        if self.seeds < 2:
            return None
        below, above = self._ratio_test(1 - margin), self._ratio_test(1 + margin)
        return float(max(t.sf(below.statistic, below.df), t.cdf(above.statistic, above.df)))

    @property
    def margin_shown(self) -> float | None:
        """The smallest margin within which the data show equivalence."""
        return None if self.interval is None else max(map(abs, self.interval))

    @property
    def power(self) -> float | None:
        """Probability that equal distributions with these spreads are shown equivalent within 2 %.

        It is reported beside the verdict and decides nothing.
        """
        if self.seeds < 2:
            return None
        margin = MARGINS[0]
        test = self._ratio_test(1 - margin)
        error = abs(self.ours.mean() - (1 - margin) * self.theirs.mean()) / abs(test.statistic)
        reach = margin * abs(self.theirs.mean()) / error - t.ppf(1 - ALPHA, test.df)
        return max(0.0, float(2 * t.cdf(reach, test.df) - 1))

    @property
    def spread(self) -> Spread | None:
        """Our standard deviation against theirs; None where a side has one run."""
        if self.seeds < 2:
            return None
        ratio = float(self.ours.var(ddof=1) / self.theirs.var(ddof=1))
        if_same = f(len(self.ours) - 1, len(self.theirs) - 1)  # the ratio's distribution
        low, high = ratio / if_same.ppf(1 - ALPHA), ratio / if_same.ppf(ALPHA)
        p = 2 * min(if_same.cdf(ratio), if_same.sf(ratio))
        return Spread(ratio**0.5, float(low**0.5), float(high**0.5), float(p))

    @property
    def shape(self) -> float | None:
        """The p-value of the Kolmogorov-Smirnov test; None where a side has one run."""
        if self.seeds < 2:
            return None
        with warnings.catch_warnings():  # where hardly anything differs SciPy's exact p exceeds 1
            warnings.simplefilter("ignore", RuntimeWarning)
            return float(ks_2samp(self.ours, self.theirs).pvalue)

    @property
    def single(self) -> tuple[float, float, float] | None:
        """Of a side's only run and the 95 % prediction interval of the other: (run, low, high).

        None where both sides have more runs, or both have one.
        """
        fewer, more = sorted((self.ours, self.theirs), key=len)
        if len(fewer) > 1 or len(more) < 2:
            return None
        return float(fewer[0]), *prediction_interval(more)

    @property
    def beyond(self) -> bool:
        """Whether the whole interval lies outside the margin of 2 %."""
        low, high = self.interval or (0.0, 0.0)
        return low > MARGINS[0] or high < -MARGINS[0]

    @property
    def equivalent(self) -> bool | None:
        """Whether equivalence within 2 % is shown.

        False, which fails the verification, if the interval lies wholly beyond the margin; if
        nothing is shown with enough seeds on both sides; or if a side's only run lies outside the
        other's prediction interval. None if the seeds are too few to decide.
        """
        if self.single is not None:
            run, low, high = self.single
            return None if low <= run <= high else False
        if self.margin_shown is None:
            return None
        if self.margin_shown <= MARGINS[0]:
            return True
        return False if self.beyond or self.seeds >= ENOUGH else None

    @property
    def verdict(self) -> str:
        """What the data say, in words."""
        if self.single is not None:
            run, low, high = self.single
            runs = max(len(self.ours), len(self.theirs))
            where = "inside" if low <= run <= high else "OUTSIDE"
            width = (high - low) / 2 / abs(run)
            return f"single run {where} the 95 % interval of {runs} runs (±{ceil_percent(width)})"
        if self.margin_shown is None:
            return "one run each: a difference, no test"
        if self.equivalent:
            margin = min(m for m in MARGINS if self.margin_shown <= m)
            return f"equivalent within {margin:.0%}".replace("%", " %")
        return "DIFFERENT" if self.beyond else "not shown within 2 %"


def prediction_interval(runs: np.ndarray, level: float = 0.95) -> tuple[float, float]:
    """Where a further run of the same distribution lies with probability `level`."""
    n = len(runs)
    reach = t.ppf((1 + level) / 2, n - 1) * runs.std(ddof=1) * math.sqrt(1 + 1 / n)
    return float(runs.mean() - reach), float(runs.mean() + reach)


def ceil_percent(share: float) -> str:
    """A share in per cent, with two decimals, rounded up."""
    return f"{math.ceil(share * 1e4 - 1e-9) / 100:.2f} %"


def signed(value: float, decimals: int) -> str:
    """A number with its sign, which is no hyphen."""
    return f"{value:+.{decimals}f}".replace("-", "\N{MINUS SIGN}")


def available() -> list[Comparison]:
    """The comparisons of every recorded module whose whole runs are kept."""
    there = [document for document in RECORDED if kept.has_seeds(document.module)]
    return [comparison for document in there for comparison in compare(document)]


def compare(document: Document, folder: Path = kept.REFERENCE) -> list[Comparison]:
    """The final value and the mean of every curve of a document that both sides kept.

    Args:
      document: which.
      folder: where our results lie.
    """
    comparisons: list[Comparison] = []
    for recorded, column, label in document.curves:
        ours = kept.our_curves(document.module, column, folder, short=True)
        theirs = kept.original_curves(document.number, recorded)
        ends = document.printed_ends(column)
        comparisons += of_curves(document, label, ours, theirs, ends)
    return comparisons


def of_curves(
    document: Document,
    label: str,
    ours: Sequence[np.ndarray],
    theirs: Sequence[np.ndarray],
    ends: Sequence[float] = (),
) -> list[Comparison]:
    """The final value and the mean of a curve.

    Where some runs were stopped early, all runs are compared up to there, and the whole ones to the
    end.

    Args:
      document: whose.
      label: what the curve is.
      ours: for each seed [rounds].
      theirs: for each seed [rounds].
      ends: final values of further runs of theirs, whose curves are not known.
    """
    whole = max(map(len, ours), default=0)
    found: list[Comparison] = []
    for rounds in sorted({min(len(curve), whole) for curve in (*ours, *theirs)}, reverse=True):
        a = [curve[:rounds] for curve in ours if len(curve) >= rounds]
        b = [curve[:rounds] for curve in theirs if len(curve) >= rounds]
        final, mean = f"{label}, final", f"{label}, whole curve"
        if rounds < whole:
            count = rounds * document.steps_per_row
            final = f"{label}, {document.round_name} {count}"
            mean = f"{label}, first {count} {document.round_name}s"
        last = [curve[-1] for curve in b] + list(ends if rounds == whole else ())
        if a and last:
            finals = np.array([curve[-1] for curve in a]), np.array(last)
            found.append(Comparison(document.module, final, *finals))
        if a and b:
            means = np.mean(a, axis=1), np.mean(b, axis=1)
            found.append(Comparison(document.module, mean, *means))
    return found


class Expected(NamedTuple):
    """A printed number, and where our runs let one expect it."""

    at: int
    printed: float
    low: float
    high: float


def expected(document: Document) -> list[Expected]:
    """What a document printed, with the prediction intervals of our runs.

    A printed number is one draw. Its interval is that of our seeds' numbers at the same place and
    its two neighbours, at ALPHA over all that the document printed. The first round, which no other
    is like, stands alone. The list is empty where we have one run, which has no interval, and where
    the printed numbers are compared as ends of whole runs.
    """
    printed = document.printed
    curves = kept.our_curves(document.module, printed.column) if printed else []
    if printed is None or printed.ends or len(curves) < 2:
        return []
    ours = np.stack(curves)
    found = []
    for at, value in in_history(document):
        row = at // document.steps_per_row - 1
        draws = ours[:, row - 1 : row + 2] if row else ours[:, :1]
        level = 1 - ALPHA / len(printed.at)
        low, high = prediction_interval(draws.ravel(), level)
        found.append(Expected(at, value, low, high))
    return found


def outliers(document: Document) -> list[Expected]:
    """The printed numbers of a document that lie outside their intervals."""
    return [e for e in expected(document) if not e.low <= e.printed <= e.high]


def about_printed(document: Document, found: Sequence[Expected]) -> str:
    """Whether the printed numbers of a document lie where our runs would put them, in words.

    Args:
      document: which.
      found: its `outliers`, each of which has a line of its own.
    """
    if document.printed and document.printed.ends:
        return f"{document.module:12} the printed numbers are ends of whole runs: see above"
    places = len(expected(document))
    if not places:
        return f"{document.module:12} no printed numbers, or one run: not compared"
    lines = [f"{document.module:12} {places - len(found)} of {places} printed numbers lie inside"]
    lines += [f"  at {o.at}: {o.printed:g}, not in {o.low:g} to {o.high:g}" for o in found]
    return "\n".join(lines)


def in_history(document: Document) -> list[tuple[int, float]]:
    """What a document printed at places that the history has."""
    if document.printed is None:
        return []
    pairs = zip(document.printed.at, document.printed.values, strict=True)
    return [(at, value) for at, value in pairs if at >= document.steps_per_row]


def as_entry(comparison: Comparison) -> dict[str, Any]:
    """A comparison as JSON."""
    c = comparison
    return {
        "module": c.module,
        "quantity": c.quantity,
        "ours": {"mean": float(c.ours.mean()), "seeds": len(c.ours)},
        "theirs": {"mean": float(c.theirs.mean()), "seeds": len(c.theirs)},
        "relative_difference": c.difference,
        "in_standard_deviations": c.in_spreads,
        "interval_90": c.interval,
        "margin_shown": c.margin_shown,
        "p": c.p(),
        "power": c.power,
        "spread": c.spread and c.spread._asdict(),
        "kolmogorov_smirnov_p": c.shape,
        "equivalent": c.equivalent,
        "verdict": c.verdict,
    }


HEADER = (
    f"{'module':12} {'whole runs':35} {'ours':>10} {'theirs':>10} {'seeds':>6} {'difference':>10} "
    f"{'90 % interval':>18}  verdict"
)


def as_line(comparison: Comparison) -> str:
    """A comparison as a line of the table."""
    c = comparison
    seeds = f"{len(c.ours)}:{len(c.theirs)}"
    interval = "–" if c.interval is None else "{:+.2%} to {:+.2%}".format(*c.interval)
    return (
        f"{c.module:12} {c.quantity:35} {c.ours.mean():10.6g} {c.theirs.mean():10.6g} {seeds:>6} "
        f"{c.difference:+10.2%} {interval:>18}  {c.verdict}"
    )
