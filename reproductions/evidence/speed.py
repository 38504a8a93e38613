"""What the benchmarks measured, as it is kept, and the lines of the tables.

`python -m benchmarks --output FILE` writes

    {"date", "processor", "avx512", "device", "threads", "python", "versions", "precision",
     "rounds", "matrix",
     "modules": {module: {"steps", "flops", "seconds": {side: [one for each round]}}}}

`seconds` are those of a step; the sides "peak ..." multiply two square matrices of `matrix` rows.
`python -m benchmarks.layers` and `python -m benchmarks.scale` keep the same of the machine, and
their measurements in `layers` and `points`.
"""

from __future__ import annotations

import json
import statistics
from collections.abc import Sequence
from typing import Any

from reproductions.evidence import kept

HEADER = (
    "module", "ms per step", "over the bare step", "GFLOP", "of the peak", "× PyTorch's best",
    "× JAX's best", "× the original", "steps of a run", "minutes",
)  # fmt: skip


def load(name: str) -> dict[str, Any]:
    """The kept measurement `artifacts/reference/speed-<name>.json`."""
    path = kept.REFERENCE / f"speed-{name}.json"
    content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return content


def median(entry: dict[str, Any], side: str) -> float:
    """Seconds of a step."""
    return statistics.median(entry["seconds"][side])


def best(entry: dict[str, Any], name: str) -> float | None:
    """Seconds of a step of the fastest side whose name begins so."""
    return min((median(entry, s) for s in entry["seconds"] if s.startswith(name)), default=None)


def peak(entry: dict[str, Any], matrix: int) -> float:
    """The fastest float32 product's floating-point operations in a second."""
    seconds = best(entry, "peak")
    assert seconds is not None  # always measured
    return 2 * matrix**3 / seconds


def over(loop: float, bare: float) -> str:
    """How much longer a step takes in the loop than alone: "+2%"."""
    return f"{loop / bare - 1:+.0%}".replace("-", "\N{MINUS SIGN}")


def row(module: str, entry: dict[str, Any], matrix: int) -> list[str]:
    """The cells of a module's line, see HEADER."""
    loop, flops = median(entry, "ours loop"), entry["flops"]
    cells = [f"`{module}`", f"{loop * 1e3:.2f}", over(loop, median(entry, "ours bare"))]
    if flops is None:
        cells += ["–", "–"]
    else:
        cells += [f"{flops / 1e9:.2f}", f"{flops / loop / peak(entry, matrix):.0%}"]
    cells += against(entry, ("pytorch", "jax", "original"), loop)
    return [*cells, f"{entry['steps']:,}", f"{entry['steps'] * loop / 60:.1f}"]


def against(entry: dict[str, Any], names: Sequence[str], ours: float) -> list[str]:
    """How many times as long as ours the fastest side of each of these takes."""
    found = [best(entry, name) for name in names]
    return ["–" if seconds is None else f"{seconds / ours:.2f}" for seconds in found]


def rows(name: str) -> list[list[str]]:
    """The table of a kept measurement."""
    content = load(name)
    return [row(m, entry, content["matrix"]) for m, entry in content["modules"].items()]


# --- On a GPU -------------------------------------------------------------------------------------

GPU_SIDES = ("pytorch eager", "pytorch compile", "pytorch graph", "jax step", "jax scan")


def gpu_rows() -> list[list[str]]:
    """A row for each module: milliseconds of every side, and the rivals' best against ours."""
    found = []
    for module, entry in load("gpu")["modules"].items():
        ours = ["ours with XLA", "ours loop"]
        if "ours without XLA" in entry["seconds"]:  # the loop is compiled by itself
            ours = ["ours loop", "ours without XLA"]
        cells = [
            f"{1e3 * median(entry, side):.2f}" if side in entry["seconds"] else "–"
            for side in (*ours, *GPU_SIDES)
        ]
        used = next(side for side in ours if side in entry["seconds"])
        cells += against(entry, ("pytorch", "jax"), median(entry, used))
        found.append([f"`{module}`", *cells])
    return found


# --- Scale ----------------------------------------------------------------------------------------

AXES = {
    "batch size": "images in a batch",
    "images": "images of the data set",
    "width": "units, or filters, of the layers",
}


def scale_rows() -> list[list[str]]:
    """A row for each module and batch size."""
    found = []
    for point in load("scale")["points"]:
        if point["axis"] == "batch size":
            seconds = point["seconds"]
            found.append(
                [f"`{point['module']}`", f"{point['batch_size']:,}", f"{seconds * 1e3:,.1f}",
                 f"{point['batch_size'] / seconds:,.0f}", over(seconds, point["bare_seconds"]),
                 f"{point['numpy_seconds'] / seconds:.1%}", f"{point['peak_mib']:,}"]
            )  # fmt: skip
    return found
