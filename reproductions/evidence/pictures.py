"""`python -m reproductions.evidence.pictures`: draws what the kept results say.

docs/proof.png                                  how each port follows its recording
docs/dose-response.png, docs/sharpness.png      which mistakes are found
docs/scale.png                                  time and memory of a step
artifacts/reference/<module>/wholeruns.png      the bands of whole runs
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine

from common import plotting
from common.cli import OneLineParser, run_command
from common.files import write_atomically
from reproductions.evidence import dose_response, kept, lockstep, sharpness, speed
from reproductions.evidence.documents import RECORDED, Document
from reproductions.evidence.equivalence import MARGINS, expected, in_history

COLOURS = {"float64": "tab:blue", "float32": "tab:orange"}
PLANTED = "tab:red"
VERDICTS = {"accepted": "tab:green", "rejected": "tab:red", "not rejected": "tab:gray"}
STEPS_AT = ((1.1, "float32"), (1.22, "float64"))  # in widths of the plot
INTERVAL = "where a further run of the port is expected"
LOWEST, HIGHEST = 1e-17, 1.0  # relative differences; equal losses are drawn at the lower edge


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command; returns its exit code."""
    return run_command("pictures", lambda: _draw(argv))


def _draw(argv: Sequence[str] | None) -> None:
    OneLineParser(
        "reproductions.evidence.pictures",
        "Draws the pictures of docs and of whole runs, from the kept results.",
    ).parse_args(argv)
    machine = speed.load("scale")
    rows = dose_response.rows(kept.load_results(dose_response.RESULTS))
    found = kept.load_results(sharpness.RESULTS)[sharpness.SMALLEST_FOUND]
    docs = kept.ROOT / "docs"
    _write(docs / "proof.png", proof(), "recordings in reproductions/golden, ports on TensorFlow 2")
    _write(docs / "dose-response.png", mistakes(rows), "artifacts/reference/dose-response.json")
    _write(docs / "sharpness.png", smallest_mistakes(found), "artifacts/reference/sharpness.json")
    note = f"{machine['processor']}, {machine['threads']} threads, {machine['date']}"
    _write(docs / "scale.png", scale(), note)
    for document in RECORDED:
        note = f"{document.module}: TensorFlow {document.tensorflow} and this project"
        path = kept.REFERENCE / document.module / "wholeruns.png"
        _write(path, whole_runs(document), note)


def _write(path: Path, figure: Figure, note: str) -> None:
    write_atomically(path, plotting.to_png(figure, note))
    print(f"{path}: drawn")


def proof() -> Figure:
    """The largest relative difference of the loss up to every step, on a log scale.

    One panel a recorded document, and one that explains the lines. Shaded is what the rule of
    `lockstep.py` allows.
    """
    columns = 3
    rows = -(-(len(RECORDED) + 1) // columns)
    figure = Figure(figsize=(4.3 * columns, 3.3 * rows), layout="constrained")
    panels = figure.subplots(rows, columns, sharey=True, squeeze=False).ravel()
    for document, axes in zip(RECORDED, panels, strict=False):
        _steps(axes, document)
    for axes in panels[::columns]:
        axes.set_ylabel("relative difference of the loss,\nlargest so far")
    for axes in panels[len(RECORDED) :]:
        axes.set_axis_off()
    handles, labels = panels[0].get_legend_handles_labels()
    panels[len(RECORDED)].legend(handles, labels, loc="center left", frameon=False, fontsize=9)
    return figure


def _steps(axes: Axes, document: Document) -> None:
    """A panel: both precisions, what is allowed, the horizon, and the planted error."""
    content = kept.load_results(f"{document.module}/lockstep.json")
    for entry in reversed(content["entries"]):  # float64 first
        precision, colour = entry["precision"], COLOURS[entry["precision"]]
        recording = lockstep.recording_of(document.module, precision)
        ours = _largest_so_far(entry["difference"])
        steps = np.arange(1, len(ours) + 1)
        allowed = recording.tolerance[: len(steps)]
        axes.fill_between(
            steps, LOWEST, allowed, color=colour, alpha=0.13, lw=0,
            label=f"{precision}: what counts as equal",
        )  # fmt: skip
        axes.plot(steps, ours, color=colour, lw=1.4, label=f"{precision}: port against original")
        if recording.horizon < len(recording.loss):
            axes.axvline(recording.horizon, color=colour, ls=":", lw=1.2)
        if precision == "float64":
            planted = _largest_so_far(content["ten_times_epsilon"])
            left = int(np.argmax(planted > allowed[: len(planted)]))
            axes.plot(
                steps[: len(planted)], planted, color=PLANTED, lw=1.4,
                label="float64: an error is planted\n(ten times the optimiser's epsilon)",
            )  # fmt: skip
            axes.plot(
                steps[left],
                planted[left],
                "o",
                color=PLANTED,
                ms=5,
                label="… and found at this step",
            )
    axes.plot(
        [], [], color="grey", ls=":", lw=1.2,
        label="horizon: here the original leaves itself\n(without it the recording ends first)",
    )  # fmt: skip
    axes.plot([], [], " ", label="the lower edge: no difference at all")
    axes.set(
        title=f"{document.module} ({document.name})", xlabel="step", xscale="log", yscale="log",
        ylim=(LOWEST, HIGHEST),
    )  # fmt: skip
    axes.grid(alpha=0.3)


def _largest_so_far(difference: Sequence[float]) -> np.ndarray:
    """The largest difference up to each step; equal losses lie at the lower edge of the axis."""
    return np.maximum(np.maximum.accumulate(np.array(difference)), LOWEST)


def whole_runs(document: Document) -> Figure:
    """Both sides' curves as bands from the lowest to the highest seed, with the printed numbers.

    Those are of single batches, or of single epochs, so each has its own prediction interval.
    """
    curves = document.curves
    figure = Figure(figsize=(6.4 * len(curves), 4.4), layout="constrained")
    for axes, (recorded, column, label) in zip(
        figure.subplots(1, len(curves), squeeze=False)[0], curves, strict=True
    ):
        for values, colour, side, style in (
            (kept.our_curves(document.module, column, short=True), "tab:blue", "port", "-"),
            (kept.original_curves(document.number, recorded), "tab:orange", "original", "--"),
        ):
            low, mean, high = kept.band(values)
            x = document.steps_per_row * np.arange(1, len(mean) + 1)
            axes.fill_between(x, low, high, lw=0, color=colour, alpha=0.3)
            label_of_side = f"{side}, {_seeds(values)}: mean, lowest to highest"
            axes.plot(x, mean, style, color=colour, label=label_of_side)
        if document.printed and axes is figure.axes[0]:
            at, printed = zip(*in_history(document), strict=True)
            axes.plot(at, printed, "kx", ms=5, label=document.printed.source)
            places = expected(document)
            if places:
                at, _, lowest, highest = zip(*places, strict=True)
                axes.vlines(at, lowest, highest, "grey", alpha=0.6, label=INTERVAL)
        axes.set(title=label, xlabel=document.round_name, ylabel=document.unit)
        axes.grid(alpha=0.3)
        axes.legend()
    figure.suptitle(f"{document.module}: whole runs of the original and of the port")
    return figure


def _seeds(curves: Sequence[np.ndarray]) -> str:
    """How many seeds there are, and how many of them end early, all of them at one place."""
    lengths = [len(curve) for curve in curves]
    early = [length for length in lengths if length < max(lengths)]
    seeds = f"{len(lengths)} seed" + ("s" if len(lengths) > 1 else "")
    return f"{seeds} ({len(early)} of them to {max(early)})" if early else seeds


def mistakes(found: Sequence[dose_response.Row]) -> Figure:
    """Each row's difference of the final loss, with what it is held against, and the steps."""
    layout = ConstrainedLayoutEngine(rect=(0, 0, 0.97, 1))  # room for what stands beside the plot
    figure = Figure(figsize=(11, 0.33 * len(found) + 2.3), layout=layout)
    axes = figure.subplots()
    modules = list(dict.fromkeys(row.module for row in found))
    margin = 100 * MARGINS[0]
    axes.axvspan(-margin, margin, color="tab:green", alpha=0.12, lw=0)
    for y, row in enumerate(found):
        colour = VERDICTS[row.verdict]
        axes.plot(min(100 * row.final.difference, 100), y, "o", color=colour, ms=5)
        if row.final.difference > 1:
            axes.text(
                80, y, f"+{100 * row.final.difference:,.0f} %", ha="right", va="center", size=8
            )
        if row.final.single is not None:  # of one run: where the original's next run would lie
            _, low, high = np.array(row.final.single) / row.final.theirs.mean() - 1
            axes.plot([100 * low, 100 * high], [y, y], color="grey", lw=1)
        elif row.final.interval is not None and row.final.difference <= 1:
            low, high = row.final.interval
            axes.plot([100 * low, 100 * high], [y, y], color=colour, lw=3, solid_capstyle="butt")
        for x, precision in STEPS_AT:
            _beside(axes, x, y, row.step(precision))
    for x, precision in STEPS_AT:
        _beside(axes, x, -1, precision)
    _beside(axes, 1.16, -2, "lockstep rejects\nat step")
    axes.set_xscale("symlog", linthresh=2 * margin)
    ticks = [-100, -10, -2, 0, 2, 10, 100]
    axes.set_xticks(ticks, [f"{tick:+d} %" if tick else "0" for tick in ticks])
    axes.minorticks_off()
    names = [row.what if len(modules) == 1 else f"{row.module}: {row.what}" for row in found]
    axes.set_yticks(range(len(found)), names)
    for y, (above, below) in enumerate(pairwise(found)):
        if above.module != below.module:
            axes.axhline(y + 0.5, color="black", lw=0.8)
    figure.suptitle(f"{', '.join(modules)} with one mistake each: whole runs and lockstep")
    axes.set_ylim(len(found) - 0.4, -0.6)
    axes.axvline(0, color="black", lw=0.8)
    axes.grid(axis="x", alpha=0.3)
    label = "final loss against the original's, with its 90 % interval"
    label += f" (linear to ±{2 * margin:.0f} %, then logarithmic)\n"
    label += "shaded: the margin; green: whole runs accept it; red: they reject it"
    if any(row.verdict == "not rejected" for row in found):
        label += "; grey: too few runs to say"
    if any(row.final.single for row in found):
        label += "\nthin line: of one run, where the original's next run would lie"
    axes.set_xlabel(label)
    return figure


def _beside(axes: Axes, x: float, y: float, text: str) -> None:
    """Writes to the right of the plot."""
    axes.text(x, y, text, transform=axes.get_yaxis_transform(), ha="center", va="center")


def smallest_mistakes(found: dict[str, Any]) -> Figure:
    """The smallest mistake that each precision finds.

    Args:
      found: module -> precision -> kind of mistake -> {"k", "step"}, see `sharpness`.
    """
    rows = [(module, kind) for module in found for kind in sharpness.GRADED]
    figure = Figure(figsize=(8, 0.3 * len(rows) + 1.4), layout="constrained")
    axes = figure.subplots()
    for precision, colour in zip(lockstep.FLOOR, ("tab:orange", "tab:blue"), strict=True):
        entries = [found[module][precision][kind] for module, kind in rows]
        seen = [(10.0 ** -e["k"], y) for y, e in enumerate(entries) if e["step"] is not None]
        axes.plot(*zip(*seen, strict=True), "o", color=colour, label=precision)
        unseen = [y for y, e in enumerate(entries) if e["step"] is None]
        if unseen:
            axes.plot(
                [1.0] * len(unseen), unseen, "o", color=colour, mfc="none",
                label=f"{precision}: none up to 0.1",
            )  # fmt: skip
    axes.set_xscale("log")
    axes.set_xlim(2, 0.5 * 10.0**-sharpness.FINEST)
    axes.set_yticks(range(len(rows)), [f"{module}: {kind}" for module, kind in rows])
    axes.invert_yaxis()
    axes.grid(alpha=0.3)
    axes.set_xlabel("smallest relative mistake that the lockstep rejects (smaller to the right)")
    axes.set_title("How small a mistake the lockstep finds")
    axes.legend(loc="upper right")
    return figure


def scale() -> Figure:
    """Time and memory of a step against each axis, for each module; all axes are logarithmic."""
    points = speed.load("scale")["points"]
    figure = Figure(figsize=(13, 7.5), layout="constrained")
    panels = figure.subplots(2, len(speed.AXES), sharex=True, sharey="row")
    modules = list(dict.fromkeys(point["module"] for point in points))
    ticks = sorted({point["factor"] for point in points})
    for column, (axis, label) in enumerate(speed.AXES.items()):
        for axes, key, unit in zip(
            panels[:, column], ("seconds", "peak_mib"), (1e3, 1 / 1024), strict=True
        ):
            for module in modules:
                line = [p for p in points if (p["module"], p["axis"]) == (module, axis)]
                if line:
                    x, y = [p["factor"] for p in line], [p[key] * unit for p in line]
                    axes.plot(x, y, "o-", ms=4, label=module)
                else:  # so that every module keeps its colour
                    axes.plot([], [])
            axes.set(xscale="log", yscale="log")
            axes.set_xticks(ticks, [f"{t:g}" if t >= 1 else f"1/{1 / t:g}" for t in ticks])
            if key == "peak_mib":
                axes.set_yticks([0.5, 1, 2, 4], ["0.5", "1", "2", "4"])
            axes.minorticks_off()
            axes.grid(alpha=0.3)
        measured = {point["module"] for point in points if point["axis"] == axis}
        without = [module for module in modules if module not in measured]
        panels[0, column].set_title(
            label + (f"\nnot measured: {', '.join(without)}" if without else "")
        )
        panels[1, column].set_xlabel("times the document's")
    panels[0, 0].set_ylabel("a step of the loop, ms")
    panels[1, 0].set_ylabel("peak memory of the process, GiB")
    handles, labels = panels[0, 0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper center", ncols=len(labels))
    return figure


if __name__ == "__main__":
    sys.exit(main())
