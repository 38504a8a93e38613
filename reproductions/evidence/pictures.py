"""The pictures of the proof: how a port follows its recording, and the bands of whole runs."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from common import lockstep
from reproductions import GOLDEN
from reproductions.evidence import kept
from reproductions.evidence.documents import RECORDED, Document
from reproductions.evidence.whole_runs import in_history

COLOURS = {"float64": "tab:blue", "float32": "tab:orange"}
PLANTED = "tab:red"
LOWEST, HIGHEST = 1e-17, 1.0  # relative differences; equal losses are drawn at the lower edge


def proof(*documents: Document) -> Figure:
    """The largest relative difference of the loss up to every step, on a log scale.

    One panel a document, by default all that are recorded, and one that explains the lines. Shaded
    is what the rule of `common/lockstep.py` allows.
    """
    documents = documents or RECORDED
    columns = min(3, len(documents) + 1)
    rows = -(-(len(documents) + 1) // columns)
    figure = Figure(figsize=(4.3 * columns, 3.3 * rows), layout="constrained")
    panels = figure.subplots(rows, columns, sharey=True, squeeze=False).ravel()
    for document, axes in zip(documents, panels, strict=False):
        _steps(axes, document)
    for axes in panels[::columns]:
        axes.set_ylabel("relative difference of the loss,\nlargest so far")
    for axes in panels[len(documents) :]:
        axes.set_axis_off()
    handles, labels = panels[0].get_legend_handles_labels()
    panels[len(documents)].legend(handles, labels, loc="center left", frameon=False, fontsize=9)
    return figure


def _steps(axes: Axes, document: Document) -> None:
    """A panel: both precisions, what is allowed, the horizon, and the planted error."""
    content = kept.load_lockstep(document.module)
    for entry in reversed(content["entries"]):  # float64 first
        precision, colour = entry["precision"], COLOURS[entry["precision"]]
        recording = lockstep.load(GOLDEN / document.number / f"lockstep-{precision}.json")
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
        [], [], color="grey", ls=":", lw=1.2, label="horizon: here the original leaves itself"
    )
    axes.set(
        title=f"{document.module} ({document.name})", xlabel="step", xscale="log", yscale="log",
        ylim=(LOWEST, HIGHEST),
    )  # fmt: skip
    axes.grid(alpha=0.3)


def _largest_so_far(difference: Sequence[float]) -> np.ndarray:
    """The largest difference up to each step; equal losses lie at the lower edge of the axis."""
    return np.maximum(np.maximum.accumulate(np.array(difference)), LOWEST)


def whole_runs(document: Document) -> Figure:
    """Both sides' curves as bands from the lowest to the highest seed, with the printed numbers."""
    curves = document.curves
    figure = Figure(figsize=(6.4 * len(curves), 4.4), layout="constrained")
    for axes, (recorded, column, label) in zip(
        figure.subplots(1, len(curves), squeeze=False)[0], curves, strict=True
    ):
        for values, colour, side in (
            (kept.original_curves(document.number, recorded), "tab:orange", "original"),
            (kept.our_curves(document.module, column, short=True), "tab:blue", "port"),
        ):
            rounds = max(map(len, values))
            whole = np.stack([np.pad(v, (0, rounds - len(v)), constant_values=np.nan)
                              for v in values])  # fmt: skip
            x = document.steps_per_row * np.arange(1, rounds + 1)
            axes.fill_between(
                x, np.nanmin(whole, 0), np.nanmax(whole, 0), color=colour, alpha=0.3, lw=0
            )
            seeds = f"{len(values)} seed" + ("s" if len(values) > 1 else "")
            axes.plot(x, np.nanmean(whole, 0), color=colour, label=f"{side}, {seeds}")
        if document.printed and axes is figure.axes[0]:
            at, printed = zip(*in_history(document), strict=True)
            axes.plot(at, printed, "kx", ms=5, label=document.printed.source)
        axes.set(title=label, xlabel=document.round_name, ylabel=document.unit)
        axes.grid(alpha=0.3)
        axes.legend()
    figure.suptitle(f"{document.module}: whole runs of the original and of the port")
    return figure
