"""The pictures of docs and of whole runs: what is drawn, against the kept JSON files."""

from __future__ import annotations

import json
from itertools import accumulate
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from matplotlib.colors import to_hex

from reproductions import GOLDEN, MODULES
from reproductions.evidence import dose_response, equivalence, pictures, sharpness
from reproductions.evidence.documents import DOCUMENTS, RECORDED, Document
from reproductions.evidence.kept import REFERENCE

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Array = np.ndarray

BLUE, ORANGE, RED, GREEN, GREY = map(
    to_hex, ("tab:blue", "tab:orange", "tab:red", "tab:green", "tab:gray")
)
COLOURS = {"float64": BLUE, "float32": ORANGE}
FLOOR = {"float64": 1e-12, "float32": 1e-5}  # of the rule of equality
HORIZON = {"float64": 1e-6, "float32": 1e-3}
LOWEST = 1e-17  # where equal losses are drawn
ROUNDING = 1e-12  # relative, of the same numbers computed in another order


def read(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


def legend(axes: Axes) -> dict[str, Any]:
    """What is drawn, by the name that the legend gives it."""
    handles, labels = axes.get_legend_handles_labels()
    assert len(set(labels)) == len(labels)
    return dict(zip(labels, handles, strict=True))


def points(line: Any) -> list[tuple[float, float]]:
    return [(float(x), float(y)) for x, y in zip(*line.get_data(), strict=True)]


def edges(band: Any) -> Array:
    """Of a shaded band: x, its lower and its upper edge, [3, n]."""
    [path] = band.get_paths()
    found: dict[float, list[float]] = {}
    for x, y in path.vertices:
        found.setdefault(float(x), []).append(float(y))
    return np.array([(x, min(ys), max(ys)) for x, ys in sorted(found.items())]).T


def shade(band: Any) -> str:
    """The colour of a band, without its transparency."""
    return to_hex(band.get_facecolor()[0])


# --- Lockstep -------------------------------------------------------------------------------------


def test_proof_draws_the_largest_difference_up_to_every_step() -> None:
    """And what is allowed at each, the horizons, and where the planted error is found."""
    for document, axes in zip(RECORDED, pictures.proof().axes, strict=False):
        assert axes.get_title() == f"{document.module} ({document.name})"
        assert (axes.get_xscale(), axes.get_yscale()) == ("log", "log")
        named = legend(axes)
        content = read(REFERENCE / document.module / "lockstep.json")
        horizons = []
        for entry in content["entries"]:
            precision = entry["precision"]
            line = named[f"{precision}: port against original"]
            largest = list(accumulate(entry["difference"], max))
            assert points(line) == [(step, max(d, LOWEST)) for step, d in enumerate(largest, 1)]
            assert to_hex(line.get_color()) == COLOURS[precision]

            recording = read(GOLDEN / document.number / f"lockstep-{precision}.json")
            allowed = FLOOR[precision] + 10 * np.array(recording["envelope"])
            band = named[f"{precision}: what counts as equal"]
            x, low, high = edges(band)
            assert x.tolist() == list(range(1, len(largest) + 1))
            assert set(low) == {LOWEST}
            np.testing.assert_allclose(high, allowed[: len(x)], rtol=ROUNDING)
            assert shade(band) == COLOURS[precision]
            close = [step for step, e in enumerate(recording["envelope"], 1)
                     if e <= HORIZON[precision]]  # fmt: skip
            if close[-1] < len(allowed):
                horizons.append((close[-1], COLOURS[precision]))
            if precision == "float64":
                wrong = list(accumulate(content["ten_times_epsilon"], max))
                found = next(n for n, d in enumerate(wrong) if d > allowed[n])
                planted, mark = (
                    next(drawn for name, drawn in named.items() if text in name)
                    for text in ("an error is planted", "found at this step")
                )
                assert points(planted) == [(n, max(d, LOWEST)) for n, d in enumerate(wrong, 1)]
                assert points(mark) == [(found + 1, wrong[found])]
        dotted = [line for line in axes.lines if line.get_linestyle() == ":" and points(line)]
        drawn = [(points(line)[0][0], to_hex(line.get_color())) for line in dotted]
        assert sorted(drawn) == sorted(horizons)


def test_smallest_mistakes_stand_at_their_size_in_their_row() -> None:
    found = read(REFERENCE / sharpness.RESULTS)["smallest mistake found"]
    [axes] = pictures.smallest_mistakes(found).axes
    rows = [(module, kind) for module in found for kind in sharpness.GRADED]
    assert [t.get_text() for t in axes.get_yticklabels()] == [f"{m}: {kind}" for m, kind in rows]
    assert axes.yaxis_inverted()
    assert axes.xaxis_inverted(), "smaller to the right"
    expected: dict[str, list[Any]] = {}
    for y, (module, kind) in enumerate(rows):
        for precision in COLOURS:
            entry = found[module][precision][kind]
            name = precision if entry["step"] else f"{precision}: none up to 0.1"
            expected.setdefault(name, []).append((pytest.approx(10.0 ** -entry["k"]), y))
    drawn = legend(axes)
    assert {name: points(line) for name, line in drawn.items()} == expected
    for name, line in drawn.items():
        assert to_hex(line.get_color()) == (ORANGE if "float32" in name else BLUE)
        assert (line.get_markerfacecolor() == "none") == ("none" in name)


# --- Whole runs -----------------------------------------------------------------------------------


def spread(curves: list[list[float]], steps_per_row: int) -> Array:
    """Of curves that may end early: x, the lowest, the highest and the mean, [4, rounds]."""
    rounds = range(max(map(len, curves)))
    rows = [[curve[i] for curve in curves if len(curve) > i] for i in rounds]
    found = [(min(row), max(row), sum(row) / len(row)) for row in rows]
    return np.array([(steps_per_row * i, *row) for i, row in enumerate(found, 1)]).T


@pytest.mark.parametrize("document", RECORDED, ids=lambda document: document.module)
def test_whole_runs_are_means_and_bands_of_all_seeds_with_the_printed_numbers(
    document: Document,
) -> None:
    original = read(GOLDEN / document.number / "full-runs.json")["runs"]
    port = read(REFERENCE / document.module / "seeds.json")
    figure = pictures.whole_runs(document)
    for axes, (recorded, column, label) in zip(figure.axes, document.curves, strict=True):
        assert (axes.get_title(), axes.get_xlabel()) == (label, document.round_name)
        named, bands = legend(axes), list(axes.collections)
        theirs = [run[recorded] for run in original if recorded in run]
        ours = [run[column] for run in [*port["runs"], *port.get("short_runs", [])]]
        for side, curves, colour in (("port", ours, BLUE), ("original", theirs, ORANGE)):
            x, low, high, mean = spread(curves, document.steps_per_row)
            lengths = [len(curve) for curve in curves]
            early = lengths.count(min(lengths)) if min(lengths) < max(lengths) else 0
            seeds = f"{len(curves)} seed{'s' * (len(curves) > 1)}"
            seeds += f" ({early} of them to {min(lengths)})" if early else ""
            line = named.pop(f"{side}, {seeds}: mean, lowest to highest")
            np.testing.assert_allclose(line.get_data(), [x, mean], rtol=ROUNDING)
            band = bands.pop(0)
            np.testing.assert_array_equal(edges(band), [x, low, high])
            assert to_hex(line.get_color()) == shade(band) == colour
        if document.printed and axes is figure.axes[0]:
            crosses = points(named.pop(document.printed.source))
            pairs = zip(document.printed.at, document.printed.values, strict=True)
            assert crosses == [pair for pair in pairs if pair[0] >= document.steps_per_row]
            rounds = {document.steps_per_row * i for i in range(1, max(map(len, ours)) + 1)}
            assert {at for at, _ in crosses} <= rounds, "where the curve has a number, too"
            if len(port["runs"]) > 1:
                assert bands == [named.pop(pictures.INTERVAL)]
                segments = bands.pop().get_segments()  # type: ignore[attr-defined]
                intervals = [segment[:, 1].tolist() for segment in segments]
                assert intervals == [[e.low, e.high] for e in equivalence.expected(document)]
                assert [low < value < high for (_, value), (low, high) in
                        zip(crosses, intervals, strict=True)] == [True] * len(crosses)  # fmt: skip
        assert not named
        assert not bands


def test_mistakes_have_the_colour_of_the_verdict_of_whole_runs() -> None:
    """Each row's difference, its interval, and the steps at which the lockstep rejects it."""
    results = read(REFERENCE / dose_response.RESULTS)
    rows = dose_response.rows(results)
    [axes] = pictures.mistakes(rows).axes
    dots = [line for line in axes.lines if line.get_marker() == "o"]
    bars = {points(b)[0][1]: b for b in axes.lines if len({y for _, y in points(b)}) == 1}
    beside = {text.get_position(): text.get_text() for text in axes.texts}
    names = [label.get_text() for label in axes.get_yticklabels()]
    assert axes.yaxis_inverted(), "the first row is on top"
    assert [beside[x, -1] for x in (1.1, 1.22)] == ["float32", "float64"]
    for y, (row, dot, name) in enumerate(zip(rows, dots, names, strict=True)):
        assert name == f"{row.module}: " * (len(results) > 1) + row.what
        document = DOCUMENTS[row.module]
        recorded, column, _ = document.curves[0]
        full_runs = read(GOLDEN / document.number / "full-runs.json")["runs"]
        theirs = [run[recorded] for run in full_runs]
        entry = results[row.module].get(row.what)
        if entry is None:  # the right module
            ours = [run[column] for run in read(REFERENCE / row.module / "seeds.json")["runs"]]
            steps = ["–", "–"]
        else:
            ours = list(entry["runs"].values())
            found_at = [entry["found_at"][precision] for precision in ("float32", "float64")]
            steps = ["not found" if step is None else str(step) for step in found_at]
        assert [beside[x, y] for x in (1.1, 1.22)] == steps

        whole = [curve[-1] for curve in ours if len(curve) == len(theirs[0])]
        percent = 100 * (np.mean(whole) / np.mean([curve[-1] for curve in theirs]) - 1)
        assert points(dot) == [(pytest.approx(min(percent, 100)), y)]
        assert beside.get((80, y)) == (f"+{percent:,.0f} %" if percent > 100 else None)
        rejected = row.verdict == "rejected"
        colours = {"rejected": RED, "accepted": GREEN, "not rejected": GREY}
        assert to_hex(dot.get_color()) == colours[row.verdict]
        if abs(percent) > 8 or len(whole) < len(ours):
            assert rejected, "far away, or some of its runs never ended"
        if entry is None:
            assert row.verdict == "accepted", "the right module"
        if row.final.interval and percent <= 100:
            assert points(bars[y]) == [(pytest.approx(100 * x), y) for x in row.final.interval]
            assert bars[y].get_color() == dot.get_color()


# --- Scale ----------------------------------------------------------------------------------------


def test_scale_draws_milliseconds_above_gibibytes() -> None:
    kept = read(REFERENCE / "speed-scale.json")["points"]
    panels = np.array(pictures.scale().axes).reshape(2, 3)
    colours: dict[str, set[str]] = {}
    for column, (axis, title) in zip(panels.T, pictures.speed.AXES.items(), strict=True):
        measured = {p["module"] for p in kept if p["axis"] == axis}
        missing = ", ".join(m for m in MODULES if m not in measured)
        assert column[0].get_title() == title + (f"\nnot measured: {missing}" if missing else "")
        for axes, key, unit in zip(column, ("seconds", "peak_mib"), (1e3, 1 / 1024), strict=True):
            assert (axes.get_xscale(), axes.get_yscale()) == ("log", "log")
            expected: dict[str, list[Any]] = {}
            for p in (p for p in kept if p["axis"] == axis):
                point = (p["factor"], pytest.approx(unit * p[key]))
                expected.setdefault(p["module"], []).append(point)
            drawn = legend(axes)
            assert {name: points(line) for name, line in drawn.items()} == expected
            for name, line in drawn.items():
                colours.setdefault(name, set()).add(line.get_color())
    assert len(set.union(*colours.values())) == len(colours) > 1
    assert all(len(own) == 1 for own in colours.values()), "a module has one colour everywhere"
