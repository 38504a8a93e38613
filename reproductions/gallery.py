"""`python -m reproductions.gallery`: one HTML page of the originals and the reproductions.

The page shows the reference results in `artifacts/reference/<module>/` and runs of one's own, and
needs nothing but itself: pictures are embedded, and its Content-Security-Policy forbids it to
fetch. TensorFlow is not needed to make it.

`collect` reads folders and returns plain data, `render` makes a page of it. What comes out of a
run's folder is not trusted: text is escaped, pictures are decoded and encoded again.
"""

from __future__ import annotations

import argparse
import ast
import base64
import hashlib
import html
import io
import json
import math
import re
import string
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypedDict

import numpy as np
from PIL import Image

from common.animation import CAPTION_HEIGHT
from common.cli import OneLineParser, run_command
from common.errors import BadInput
from common.files import write_atomically
from common.runs import ROOT as RUNS
from common.runs import read_csv
from reproductions import CATALOGUE, GOLDEN, UNRECORDED, Entry
from reproductions.reference import REFERENCE
from reproductions.wholeruns import CURVES, PRINTED

Array = np.ndarray
Point = tuple[float, float]

PACKAGE = Path(__file__).parent
OUTPUT = Path("artifacts") / "gallery.html"

MAX_FRAMES = 120  # of a film: a longer GIF is thinned out evenly
MAX_WIDTH = 1000  # pixels of a picture: a wider one is scaled down
FILM_WIDTH = 560  # pixels on the page: frames are magnified by whole numbers up to this
FILM_QUALITY, PICTURE_QUALITY = 80, 90  # of WebP; pictures beside the original's are lossless

UNREADABLE = (OSError, ValueError, SyntaxError, EOFError, Image.DecompressionBombError)


# --- What belongs to which document ---------------------------------------------------------------


class Trace(NamedTuple):
    """A curve that a run has in its history and the original in its recording."""

    recorded: str  # key in full-runs.json
    column: str  # of history.csv
    name: str


class Exhibit(NamedTuple):
    """What the page shows of a module besides its docstring."""

    unit: str  # of the curves
    document: str | None = None  # number of the document whose program was recorded
    every: int = 1  # epochs or steps between two numbers of a curve
    pictures: tuple[str, ...] = ()  # those that the original drew, too

    @property
    def traces(self) -> tuple[Trace, ...]:
        if self.document is None:
            return (Trace("", "loss", "mean cost of an epoch"),)
        return tuple(Trace(*curve) for curve in CURVES[self.document])

    @property
    def printed(self) -> tuple[str, tuple[Point, ...]]:
        """What the document, or its upstream, printed: what that is, and the points."""
        if self.document not in PRINTED:
            return "", ()
        printed = PRINTED[self.document]
        points = tuple(zip(printed.at, printed.values, strict=True))
        return printed.source, PRINTED_FIRST.get(self.document, ()) + points


EXHIBITS = {
    "mlp_vae": Exhibit("cost of a batch of 128 images", "000", pictures=("manifold",)),
    "mlp_cvae": Exhibit("cost of a batch of 128 images"),
    "conv_vae": Exhibit("loss, nats per image", "001", pictures=("manifold",)),
    "elbo_cvae": Exhibit("test ELBO, nats per image", "002"),
    "rmsprop_vae": Exhibit("loss, nats per image", "003", every=100, pictures=("manifold",)),
    "tfp_cvae": Exhibit("loss, nats per batch of 256", "004", pictures=("class-8", "class-9")),
}
PRINTED_FIRST: dict[str, tuple[Point, ...]] = {"003": ((1, 645.08),)}  # before the history begins

CAPTIONS = {
    "manifold": "The plane of codes, decoded",
    "class-8": "Asked for an 8: the codes around the prior mean of class 8, decoded",
    "class-9": "Asked for a 9: the codes around the prior mean of class 9, decoded",
    "samples": "Samples",
    "latent": "Where the encoder puts the test images",
    "reconstructions": "Test images and what becomes of them",
}
NOT_SHOWN = ("curves", "wholeruns")  # the page draws its own


# --- The page as data -----------------------------------------------------------------------------


class Picture(TypedDict):
    """An image, encoded."""

    src: str  # a data URI
    width: int  # pixels
    height: int


class Film(TypedDict):
    """The frames of a GIF on one sheet, row by row."""

    sheet: Picture
    columns: int
    rows: int
    width: int  # of a frame, pixels
    height: int
    labels: list[str]  # one for each frame


class RunView(TypedDict):
    """A run."""

    name: str
    reference: bool
    record: dict[str, Any]  # run.json
    history: dict[str, list[float]]
    pictures: dict[str, Picture]  # by name without suffix
    film: Film | None
    last_frame: Picture | None  # small
    problems: list[str]


class Seeds(TypedDict):
    """Runs with several seeds."""

    count: int
    bands: dict[str, tuple[list[Point], list[Point]]]  # column of the history -> lowest, highest


class OriginalView(TypedDict):
    """What the original program left."""

    tensorflow: str
    seeds: Seeds
    pictures: dict[str, Picture]


class ModuleView(TypedDict):
    """A module and what there is of it."""

    entry: Entry
    text: dict[str, Any]  # see `read_docstring`
    original: OriginalView | None
    seeds: Seeds  # of the reference
    lockstep: list[dict[str, Any]]  # verdicts, see `verify.as_entry`
    whole_runs: list[dict[str, Any]]  # comparisons, see `wholeruns.as_entry`
    runs: list[RunView]  # the reference run first


class Page(TypedDict):
    """All there is to show."""

    modules: list[ModuleView]


# --- Collecting -----------------------------------------------------------------------------------


def collect(
    reference: Path,
    own: Iterable[tuple[Path, bool]],
    package: Path = PACKAGE,
    golden: Path = GOLDEN,
) -> Page:
    """Reads everything that the page shows. What is missing or broken is left out, and said.

    Args:
      reference: the folder with a subfolder for each module, and perhaps verify.json.
      own: folders of other runs, each with whether to take its pictures.
      package: where the modules lie.
      golden: where the recordings lie.
    """
    modules: dict[str, ModuleView] = {}
    for entry in CATALOGUE:
        exhibit, folder = EXHIBITS[entry.module], reference / entry.module
        original = read_original(golden, exhibit)
        own_columns = {trace.column: trace.column for trace in exhibit.traces}
        kept = _read_json(folder / "seeds.json").get("runs")
        lockstep, whole_runs = read_verdicts(reference, entry.module)
        modules[entry.module] = {
            "entry": entry,
            "text": read_docstring(package / f"{entry.module}.py"),
            "original": original,
            "seeds": read_seeds(kept, own_columns, exhibit.every),
            "lockstep": lockstep,
            "whole_runs": whole_runs,
            "runs": [],
        }
        if (folder / "run.json").exists():
            modules[entry.module]["runs"].append(read_run(folder, original, is_reference=True))
    for folder, with_pictures in own:
        view = modules.get(str(_read_json(folder / "run.json").get("module")))
        if view:
            view["runs"].append(read_run(folder, view["original"], with_pictures=with_pictures))
    return {"modules": list(modules.values())}


def read_docstring(path: Path) -> dict[str, Any]:
    """What a module says of itself, read without importing it.

    Returns:
      number, what, source, title, date, trains: text, or "" where the docstring does not say;
      quirks, deviations: lists of text. An empty dictionary if there is no such module.
    """
    try:
        text = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
    except (OSError, SyntaxError, ValueError):
        return {}
    first, _, rest = text.partition("\n")
    head = re.match(r"Document (.+?): (.+)", first)
    about = _joined(rest.strip().partition("\n\n")[0])
    source, *trains = re.split(r"(?<=\.) (?=Trains )", about, maxsplit=1)
    title = re.search(r'"(.+?)"', source)
    date = re.search(r"\d{4}-\d\d-\d\d", source)
    return {
        "number": head[1] if head else "",
        "what": head[2] if head else first,
        "source": source,
        "title": title[1] if title else "",
        "date": date[0] if date else "",
        "trains": trains[0] if trains else "",
        "quirks": _numbered_list(text, "Kept quirks"),
        "deviations": _numbered_list(text, "Deviations"),
    }


def _numbered_list(text: str, title: str) -> list[str]:
    """The points of the list below a line of a docstring."""
    found = re.search(rf"^{title}\n((?: +\S.*\n?)+)", text, re.MULTILINE)
    points = re.split(r"^ *\d+\. ", found[1] if found else "", flags=re.MULTILINE)
    return [_joined(point) for point in points[1:]]


def _joined(text: str) -> str:
    return " ".join(text.split())


def read_run(
    folder: Path,
    original: OriginalView | None,
    is_reference: bool = False,
    with_pictures: bool = True,
) -> RunView:
    """Reads a run's folder. Pictures that the original drew, too, are brought to its size."""
    theirs = original["pictures"] if original else {}
    problems: list[str] = []
    record = _read_json(folder / "run.json")
    if not record:
        problems.append("run.json cannot be read")
    elif record.get("finished") is not True:
        problems.append("this run is not finished")
    history: dict[str, list[float]] = {}
    try:
        rows = read_csv((folder / "history.csv").read_text(encoding="utf-8"))
        history = {name: [row[name] for row in rows] for name in (rows[0] if rows else ())}
    except (OSError, ValueError, TypeError, KeyError):
        problems.append("history.csv is missing or cannot be read")
    pictures: dict[str, Picture] = {}
    film, last_frame = None, None
    if with_pictures:
        for path in sorted(folder.glob("*.png")):
            if path.stem not in NOT_SHOWN:
                try:
                    pictures[path.stem] = read_picture(path, theirs.get(path.stem))
                except UNREADABLE:
                    problems.append(f"{path.name} cannot be read")
        try:
            film, last_frame = read_film(folder / "training.gif", _round_labels(history))
        except UNREADABLE:
            problems.append("training.gif is missing or cannot be read")
    return {
        "name": "reference run" if is_reference else f"your run {folder.resolve().name}",
        "reference": is_reference,
        "record": record,
        "history": history,
        "pictures": pictures,
        "film": film,
        "last_frame": last_frame,
        "problems": problems,
    }


def read_original(golden: Path, exhibit: Exhibit) -> OriginalView | None:
    """Reads what the original left: the range of its curves over the seeds, and its pictures."""
    if exhibit.document is None:
        return None
    folder = golden / exhibit.document
    content = _read_json(folder / "full-runs.json")
    columns = {trace.column: trace.recorded for trace in exhibit.traces}
    pictures: dict[str, Picture] = {}
    for name in exhibit.pictures:
        path = folder / f"picture-{name}.png"
        if path.exists():
            with Image.open(path) as image:
                pictures[name] = encode(image.convert("L"))
    return {
        "tensorflow": str(content.get("tensorflow", "")),
        "seeds": read_seeds(content.get("runs"), columns, exhibit.every),
        "pictures": pictures,
    }


def read_seeds(runs: Any, columns: Mapping[str, str], every: int) -> Seeds:
    """The range of curves over the runs of a list.

    Args:
      runs: for each seed a dictionary of curves; what is something else counts as nothing.
      columns: column of the history -> key in those dictionaries.
      every: epochs or steps between two numbers of a curve.
    """
    nothing: Seeds = {"count": 0, "bands": {}}
    seeds: Seeds = {"count": 0, "bands": {}}
    try:
        for column, key in columns.items():
            values = np.array([run[key] for run in runs], float)  # [seeds, rounds]
            x = [float(every * (i + 1)) for i in range(values.shape[1])]
            low, high = values.min(axis=0).tolist(), values.max(axis=0).tolist()
            seeds["bands"][column] = list(zip(x, low, strict=True)), list(zip(x, high, strict=True))
            seeds["count"] = len(values)
    except (TypeError, ValueError, KeyError, IndexError):
        return nothing
    return seeds


def read_verdicts(
    reference: Path, module: str
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """What was found of a module: in lockstep, and of whole runs.

    Read from what `verify --json` wrote to verify.json, else from the module's own lockstep.json.
    """
    found = _read_json(reference / "verify.json")
    own = _read_json(reference / module / "lockstep.json").get("entries")

    def entries(content: Any) -> list[dict[str, Any]]:
        content = content if isinstance(content, list) else []
        return [e for e in content if isinstance(e, dict) and e.get("module") == module]

    return entries(found.get("lockstep")) or entries(own), entries(found.get("whole_runs"))


def _read_json(path: Path) -> dict[str, Any]:
    """The dictionary that a JSON file holds; an empty one if it holds none."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return content if isinstance(content, dict) else {}


def _round_labels(history: Mapping[str, Sequence[float]]) -> list[str]:
    """Names of the frames: the first is drawn before training, then one for each row."""
    x = _x_column(history)
    return ["before training", *(f"{x} {value:,.0f}" for value in history.get(x, ()))]


def _x_column(history: Mapping[str, Sequence[float]]) -> str:
    return "step" if "epoch" not in history and "step" in history else "epoch"


# --- Pictures -------------------------------------------------------------------------------------


def read_picture(path: Path, counterpart: Picture | None = None) -> Picture:
    """Reads a figure; if the original drew it, too, its grid alone and of the original's size."""
    with Image.open(path) as file:
        image = file.convert("RGB")
    if counterpart:
        size = counterpart["width"], counterpart["height"]
        grid = inside_axes(image.convert("L"))
        return encode(grid.resize(size, Image.Resampling.LANCZOS))
    if image.width > MAX_WIDTH:
        image.thumbnail((MAX_WIDTH, 10 * MAX_WIDTH))
    return encode(image, PICTURE_QUALITY)


def inside_axes(figure: Image.Image) -> Image.Image:
    """What a figure shows within its axes, which end at the outermost long dark lines.

    A figure without such lines is returned whole.
    """
    dark = np.asarray(figure) < 200
    lines = np.flatnonzero(dark.mean(axis=1) > 0.8), np.flatnonzero(dark.mean(axis=0) > 0.8)
    if any(len(found) < 2 or np.ptp(found) < 0.7 * len(found) for found in lines):
        return figure
    (top, bottom), (left, right) = ((int(found[0]), int(found[-1])) for found in lines)
    if min(bottom - top, right - left) < 0.5 * min(figure.size):
        return figure
    return figure.crop((left + 1, top + 1, right, bottom))


def read_film(path: Path, labels: Sequence[str]) -> tuple[Film, Picture]:
    """Cuts a GIF into its frames and lays them out on one sheet.

    The captions are cut off, the magnification of the frames is undone: both are the page's.

    Args:
      path: training.gif of a run.
      labels: a name for each frame; not used if there are more or fewer frames.

    Returns:
      The film, and its last frame as a small picture.
    """
    with Image.open(path) as gif:
        if gif.height <= CAPTION_HEIGHT:
            raise ValueError(f"{path} has no room for a frame")
        count = getattr(gif, "n_frames", 1)
        if len(labels) != count:
            labels = [f"picture {i + 1}" for i in range(count)]
        kept = np.unique(np.linspace(0, count - 1, min(count, MAX_FRAMES)).round().astype(int))
        frames = []
        for i in kept:
            gif.seek(int(i))
            frames.append(np.asarray(gif.convert("L"))[:-CAPTION_HEIGHT])
    stack = _without_magnification(np.stack(frames))
    count, height, width = stack.shape
    columns = math.ceil(math.sqrt(count))
    rows = math.ceil(count / columns)
    sheet = np.zeros((rows * columns, height, width), np.uint8)
    sheet[:count] = stack
    sheet = sheet.reshape(rows, columns, height, width).swapaxes(1, 2)
    picture = Image.fromarray(sheet.reshape(rows * height, columns * width))
    last = Image.fromarray(stack[-1])
    last.thumbnail((160, 160))
    film: Film = {
        "sheet": encode(picture, FILM_QUALITY),
        "columns": columns,
        "rows": rows,
        "width": width,
        "height": height,
        "labels": [labels[i] for i in kept],
    }
    return film, encode(last, PICTURE_QUALITY)


def _without_magnification(frames: Array) -> Array:
    """Undoes the repetition of pixels in frames [n, height, width], as far as nothing is lost."""
    for factor in range(16, 1, -1):
        small = frames[:, ::factor, ::factor]
        again = small.repeat(factor, axis=1).repeat(factor, axis=2)
        if again.shape == frames.shape and np.array_equal(again, frames):
            return small
    return frames


def encode(image: Image.Image, quality: int | None = None) -> Picture:
    """Encodes an image as WebP: lossless if no quality is given."""
    content = io.BytesIO()
    if quality is None:
        image.save(content, "WEBP", lossless=True, method=6)
    else:
        image.save(content, "WEBP", quality=quality, method=6)
    data = base64.b64encode(content.getvalue()).decode()
    return {
        "src": f"data:image/webp;base64,{data}", "width": image.width, "height": image.height
    }  # fmt: skip


# --- Drawing curves -------------------------------------------------------------------------------


class Curve(NamedTuple):
    """Something to draw: a line, a band between two lines, or single points."""

    name: str
    points: Sequence[Point]
    style: str  # CSS classes
    upper: Sequence[Point] = ()  # of a band; then `points` is the lower line
    single: bool = False  # points without a line


LEFT, RIGHT, TOP, BOTTOM = 84, 30, 16, 58  # margins


def chart(
    curves: Sequence[Curve], x_name: str, y_name: str, size: tuple[int, int] = (720, 380)
) -> str:
    """Draws curves as an SVG with axes, and a legend below it.

    The vertical axis fits lines and bands; single points far beyond are named in the legend.

    Args:
      curves: what to draw; numbers that are not finite are left out.
      x_name: what is counted along the horizontal axis, which starts at 0.
      y_name: the vertical axis: quantity and unit.
      size: of the view box; text is about 12 units high.
    """
    width, height = size
    curves = [c._replace(points=_finite(c.points), upper=_finite(c.upper)) for c in curves]
    curves = [c for c in curves if c.points]
    if not curves:
        return "<p class=none>No numbers to draw.</p>"
    fitted = [c for c in curves if not c.single] or curves
    values = [y for c in fitted for _, y in (*c.points, *c.upper)]
    low, high = min(values), max(values)
    room = 0.5 * (high - low) or 0.05 * abs(high) or 1.0
    curves = [_within(c, low - room, high + room) if c.single else c for c in curves]
    values += [y for c in curves if c.single for _, y in c.points]
    low, high = min(values) - 0.1 * room, max(values) + 0.1 * room
    x_max = max(x for c in curves for x, _ in (*c.points, *c.upper)) or 1.0

    def across(x: float) -> float:
        return LEFT + x / x_max * (width - LEFT - RIGHT)

    def up(y: float) -> float:
        return TOP + (high - y) / (high - low) * (height - TOP - BOTTOM)

    def path(points: Sequence[Point]) -> str:
        return " ".join(f"{across(x):.1f},{up(y):.1f}" for x, y in points)

    parts = []
    for y in ticks(low, high):
        parts.append(f'<path class=grid d="M{LEFT} {up(y):.1f}H{width - RIGHT}"/>')
        parts.append(f"<text class=y x={LEFT - 10} y={up(y):.1f}>{_number(y)}</text>")
    for x in ticks(0, x_max, at_least=1):
        parts.append(f'<path class=tick d="M{across(x):.1f} {height - BOTTOM}v6"/>')
        parts.append(
            f"<text class=x x={across(x):.1f} y={height - BOTTOM + 10}>{_number(x)}</text>"
        )
    parts.append(f'<path class=axis d="M{LEFT} {TOP}V{height - BOTTOM}H{width - RIGHT}"/>')
    parts.append(
        f'<text class="x name" x={(LEFT + width - RIGHT) / 2} y={height - 22}>'
        f"{_text(x_name)}</text>"
    )
    for c in curves:
        title = f"<title>{_text(c.name)}</title>"
        if c.upper:
            outline = path([*c.points, *reversed(c.upper)])
            parts.append(f'<polygon class="{c.style}" points="{outline}">{title}</polygon>')
        elif not c.single and len(c.points) > 1:
            line = path(c.points)
            parts.append(f'<polyline class="{c.style}" points="{line}">{title}</polyline>')
        if c.single or (not c.upper and len(c.points) <= 60):
            for x, y in c.points:
                parts.append(
                    f'<circle class="{c.style}" cx={across(x):.1f} cy={up(y):.1f} r=4>'
                    f"<title>{_text(c.name)}, {_text(x_name)} {_number(x)}: {_number(y)}</title>"
                    "</circle>"
                )
    label = "; ".join(f"{c.name}: {_number(c.points[0][1])} to {_number(c.points[-1][1])}"
                      for c in curves if not c.single)  # fmt: skip
    kind = "chart large" if width > 600 else "chart"
    return (
        f'<figure class="{kind}"><p class=unit>{_text(_capital(y_name))}</p>'
        f'<svg viewBox="0 0 {width} {height}" role=img aria-label="{_text(label)}">'
        f"{''.join(parts)}</svg><figcaption class=legend>"
        f"{''.join(_legend(c) for c in curves)}</figcaption></figure>"
    )


def _legend(curve: Curve) -> str:
    if curve.upper:
        mark = f'<rect class="{curve.style}" x=1 y=2 width=26 height=10 />'
    elif curve.single:
        mark = f'<circle class="{curve.style}" cx=14 cy=7 r=4 />'
    else:
        mark = f'<path class="{curve.style}" d="M1 7H27"/>'
    return (
        f'<span><svg viewBox="0 0 28 14" width=28 height=14 aria-hidden=true>{mark}</svg>'
        f"{_text(curve.name)}</span>"
    )


def ticks(low: float, high: float, at_least: float = 0) -> list[float]:
    """About five round numbers from low to high, `at_least` apart."""
    raw = max((high - low) / 5, at_least)
    unit = 10.0 ** math.floor(math.log10(raw))
    step = next(unit * m for m in (1, 2, 2.5, 5, 10) if unit * m >= raw * 0.999)
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [i * step for i in range(first, last + 1)]


def _within(points: Curve, low: float, high: float) -> Curve:
    """Single points, those from low to high; the others move into the name."""
    inside = [(x, y) for x, y in points.points if low <= y <= high]
    outside = [f"{_number(y)} at {_number(x)}" for x, y in points.points if not low <= y <= high]
    name = f"{points.name} (not shown: {', '.join(outside)})" if outside else points.name
    return points._replace(name=name, points=inside)


def _finite(points: Sequence[Point]) -> list[Point]:
    """The points that can be drawn; what exceeds 1e30 is taken for infinite."""
    return [(x, y) for x, y in points if abs(x) < 1e30 and abs(y) < 1e30]


def curves_of(view: ModuleView) -> list[Curve]:
    """The loss curves of a module: the original's in grey, the document's numbers, the runs'."""
    exhibit, original = EXHIBITS[view["entry"].module], view["original"]
    drawn = []
    for trace in exhibit.traces:
        second = " second" if trace != exhibit.traces[0] else ""
        for whose, seeds, colour in (
            ("original", original["seeds"] if original else None, "original"),
            ("reference", view["seeds"], "run-0"),
        ):
            if seeds and trace.column in seeds["bands"]:
                low, high = seeds["bands"][trace.column]
                name = f"{whose}, {trace.name}, {_seeds(seeds)}"
                if seeds["count"] > 1:
                    drawn.append(Curve(name, low, f"band {colour}{second}", upper=high))
                elif whose == "original":
                    drawn.append(Curve(name, low, f"line {colour}{second}"))
    for i, run in enumerate(view["runs"]):
        for trace in exhibit.traces:
            second = " second" if trace != exhibit.traces[0] else ""
            points = _column(run, trace.column)
            name = f"{run['name']}{_quick(run)}, {trace.name}"
            drawn.append(Curve(name, points, f"line run-{i % 5}{second}"))
    what, printed = exhibit.printed
    return [*drawn, Curve(what, printed, "printed", single=True)]


def _seeds(seeds: Seeds) -> str:
    return f"{seeds['count']} seed{'s' * (seeds['count'] > 1)}"


def _column(run: RunView, name: str) -> list[Point]:
    history = run["history"]
    return list(zip(history.get(_x_column(history), ()), history.get(name, ()), strict=False))


def _quick(run: RunView) -> str:
    return " (quick)" if run["record"].get("quick") else ""


def comparisons(view: ModuleView, run: RunView) -> list[str]:
    """A sentence for each curve: where the run ends, and where the originals were by then."""
    exhibit, original = EXHIBITS[view["entry"].module], view["original"]
    what, printed = exhibit.printed
    sentences = []
    for trace in exhibit.traces:
        points = _finite(_column(run, trace.column))
        if not points:
            continue
        x, y = points[-1]
        said = [f"After {_x_column(run['history'])} {_number(x)}: {trace.name} {_number(y)}"]
        if run["reference"] and view["seeds"]["count"] > 1:
            said.append(_range_at(x, trace.column, "reference", view["seeds"]))
        if original:
            said.append(_range_at(x, trace.column, "original", original["seeds"]))
        values = [_number(value) for at, value in printed if at == x]
        said.append(f"{what}: {' and '.join(values)}" if values else "")
        sentences.append("; ".join(filter(None, said)) + ".")
    return sentences


def _range_at(x: float, column: str, whose: str, seeds: Seeds) -> str:
    """What seeds had reached by then, or nothing if they did not get so far."""
    low, high = (dict(side).get(x) for side in seeds["bands"].get(column, ([], [])))
    if low is None or high is None:
        return ""
    reached = _number(low) if low == high else f"{_number(low)} to {_number(high)}"
    return f"{whose}, {_seeds(seeds)}: {reached}"


# --- The page -------------------------------------------------------------------------------------


def render(page: Page, template: str) -> str:
    """Makes the HTML page.

    Args:
      page: what to show, see `collect`.
      template: gallery.html.
    """
    views = page["modules"]
    script = re.search(r"<script>(.*?)</script>", template, re.DOTALL)
    digest = hashlib.sha256(script[1].encode() if script else b"").digest()
    sections = [
        _module(view, views[i - 1] if i else None, views[i + 1] if i + 1 < len(views) else None)
        for i, view in enumerate(views)
    ]
    return string.Template(template).substitute(
        script_hash=base64.b64encode(digest).decode(),
        navigation="\n".join(_navigation(view) for view in views),
        cards="\n".join(_card(view) for view in views),
        modules="\n".join(sections),
    )


def _navigation(view: ModuleView) -> str:
    module, document = map(_text, view["entry"][:2])
    return f'<li><a href="#{module}">{module} <small>{document}</small></a></li>'


def _card(view: ModuleView) -> str:
    """A module on the overview."""
    entry = view["entry"]
    last = next((run["last_frame"] for run in view["runs"] if run["last_frame"]), None)
    picture = _image(last, "") if last else "<span class=blank></span>"
    return (
        f'<a class=card href="#{_text(entry.module)}"><span class=thumb>{picture}</span><span>'
        f"<strong>{_text(entry.module)}</strong>"
        f"<small>document {_text(entry.document)} · {_text(entry.dataset)}</small>"
        f"<span>{_text(_capital(entry.summary))}</span>{_badge(view)}</span></a>"
    )


def _badge(view: ModuleView) -> str:
    """The verdict in a few words."""
    verdicts = view["lockstep"]
    if any(v.get("passed") is not True for v in verdicts):
        return "<em class=bad>differs from the original</em>"
    if verdicts:
        digits = [v.get("digits") for v in verdicts if v.get("precision") == "float64"]
        best = digits[0].get("10") if digits and isinstance(digits[0], dict) else None
        if isinstance(best, (int, float)):
            return f"<em class=good>equal to {best:.0f} digits over 10 steps</em>"
        return "<em class=good>equal to the original</em>"
    if view["entry"].module in UNRECORDED:
        return "<em>described without a program</em>"
    return "<em>not verified yet</em>" if view["runs"] else "<em>no run yet</em>"


def _module(view: ModuleView, before: ModuleView | None, after: ModuleView | None) -> str:
    """A module's part of the page."""
    entry, text = view["entry"], view["text"]
    what = text.get("what") or entry.summary
    date = text.get("date") or "no date in the text"
    source = f"<p class=source>{_prose(text['source'])}</p>" if text.get("source") else ""
    title = text.get("title", "")
    around = [(before, "prev", "← "), (after, "next", "")]
    links = "".join(
        f'<a rel={rel} href="#{_text(other["entry"].module)}">{arrow}{_text(other["entry"].module)}'
        f"{' →' if rel == 'next' else ''}</a>"
        for other, rel, arrow in around
        if other
    )
    return "\n".join(
        [
            f"<section class=module id={_text(entry.module)}><header>",
            f"<p class=kicker>Document {_text(text.get('number') or entry.document)} · "
            f"{_text(date)} · {_text(entry.dataset)}</p>",
            f"<h2>{_text(entry.module)}</h2>",
            f"<p class=title{_language(title)}>{_text(title)}</p>" if title else "",
            f"<p class=lead>{_prose(_capital(what))}</p>",
            f"<p>{_prose(text.get('trains', ''))}</p>{source}",
            _command(f"python -m reproductions.{entry.module}"),
            "</header>",
            _curves(view),
            _compared(view),
            *(_run(view, run) for run in view["runs"]),
            _proof(view),
            _points("Kept quirks", text.get("quirks", [])),
            _points("Deviations", text.get("deviations", [])),
            f"<nav class=around aria-label=Neighbours>{links}</nav></section>",
        ]
    )


def _command(command: str) -> str:
    return (
        f"<div class=command><code>{_text(command)}</code>"
        "<button type=button class=copy hidden>Copy</button></div>"
    )


def _curves(view: ModuleView) -> str:
    exhibit, runs = EXHIBITS[view["entry"].module], view["runs"]
    x_name = "step" if exhibit.every > 1 else "epoch"
    drawn = [chart(curves_of(view), x_name, exhibit.unit)]
    if not runs:
        drawn.insert(0, "<p class=none>No run yet: the command above makes one.</p>")
    parts = []
    for column, name in (("reconstruction", "Reconstruction"), ("kl", "KL")):
        curves = [
            Curve(f"{run['name']}{_quick(run)}", _column(run, column), f"line run-{i % 5}")
            for i, run in enumerate(runs)
        ]
        if any(c.points for c in curves):
            small = chart(curves, x_name, f"{name}, nats per image", size=(420, 300))
            parts.append(small)
    sentences = "".join(
        f"<li><b>{_text(run['name'])}{_quick(run)}.</b> {_text(sentence)}</li>"
        for run in runs
        for sentence in comparisons(view, run)
    )
    return (
        f"<h3>Training</h3>{''.join(drawn)}<ul class=plain>{sentences}</ul>"
        f"<div class=two>{''.join(parts)}</div>"
    )


def _compared(view: ModuleView) -> str:
    """The pictures that the original drew, too, beside its own."""
    original = view["original"]
    rows = []
    for name, theirs in (original["pictures"] if original else {}).items():
        caption = f"the original, TensorFlow {original['tensorflow'] if original else ''}"
        figures = [_figure(theirs, caption, f"{name}: {caption}", "grid")]
        for run in view["runs"]:
            caption = f"{run['name']}{_quick(run)}"
            if name in run["pictures"]:
                figures.append(
                    _figure(run["pictures"][name], caption, f"{name}: {caption}", "grid")
                )
            elif run["reference"]:
                figures.append(f"<p class=none>The {_text(caption)} has no such picture.</p>")
        rows.append(f"<h4>{_text(_caption(name))}</h4><div class=two>{''.join(figures)}</div>")
    if not rows:
        return ""
    note = (
        "Another seed turns and mirrors the plane of codes, so the same digits lie elsewhere: what"
        " is to be compared is how they look."
    )
    return f"<h3>Beside the original</h3><p>{note}</p>{''.join(rows)}"


def _run(view: ModuleView, run: RunView) -> str:
    """A run: its film, its other pictures, its settings."""
    shared = view["original"]["pictures"] if view["original"] else {}
    others = [
        _figure(picture, _caption(name), f"{_caption(name)} ({run['name']})")
        for name, picture in run["pictures"].items()
        if name not in shared
    ]
    record = run["record"]
    warnings = list(run["problems"])
    if record.get("quick"):
        warnings.insert(0, "a quick run, not the document's training")
    facts = [("module", view["entry"].module), *_facts(record)]
    table = "".join(f"<tr><th scope=row>{_text(k)}<td>{_text(v)}" for k, v in facts)
    settings = f"Settings and final figures, {run['name']}{_quick(run)}"
    shown = [
        *(f"<p class=warning>{_text(_capital(warning))}.</p>" for warning in warnings),
        _film(run["film"], run["name"]) if run["film"] else "",
        f"<div class=sheet>{''.join(others)}</div>" if others else "",
    ]
    title = f"<h3>{_text(_capital(run['name']))}</h3>" if any(shown) else ""
    return (
        f"{title}{''.join(shown)}"
        f"<details><summary>{_text(settings)}</summary><table>{table}</table></details>"
    )


def _facts(record: Mapping[str, Any], depth: int = 3) -> list[tuple[str, Any]]:
    """The plain entries of run.json, those of `config` and its like without their heading."""
    facts: list[tuple[str, Any]] = []
    for name, value in record.items():
        if isinstance(value, dict):
            more = _facts(value, depth - 1) if depth else []
            facts += [(f"{name} {k}", v) for k, v in more] if name == "seconds" else more
        elif isinstance(value, float):
            facts.append((name, _number(value)))
        elif not isinstance(value, list) and name != "module":
            facts.append((name, "none" if value is None else str(value)))
    return facts


def _film(film: Film, name: str) -> str:
    """A film with its controls; without JavaScript its last frame."""
    last = len(film["labels"]) - 1
    row, column = divmod(last, film["columns"])
    zoom = max(1, FILM_WIDTH // film["width"])
    style = (
        f"--w:{film['width']};--h:{film['height']};--zoom:{zoom};--columns:{film['columns']};"
        f"--row:{row};--column:{column}"
    )
    alt = f"The same codes decoded after every epoch ({name})"
    return (
        f'<figure class=film data-columns={film["columns"]} style="{style}">'
        f"<div class=screen>{_image(film['sheet'], alt)}</div>"
        "<div class=controls hidden><button type=button class=play>Play</button>"
        f'<input type=range min=0 max={last} value={last} aria-label="Frame of the training film">'
        f"<output>{_text(film['labels'][-1])}</output></div>"
        "<figcaption>The same codes, decoded again and again as the training goes on.</figcaption>"
        f'<script type="application/json">{_script_json(film["labels"])}</script></figure>'
    )


def _proof(view: ModuleView) -> str:
    """What `python -m reproductions.verify` found."""
    module, verdicts = view["entry"].module, view["lockstep"]
    if module in UNRECORDED:
        return f"<h3>Proof</h3><p>There is no recording: {_text(UNRECORDED[module])}.</p>"
    if not verdicts:
        command = _command(f"python -m reproductions.verify --json {REFERENCE / 'verify.json'}")
        return f"<h3>Proof</h3><p class=none>No verdict is stored. This one finds it:</p>{command}"
    lines = []
    problems: list[Any] = []
    for v in verdicts:
        digits = v["digits"] if isinstance(v.get("digits"), dict) else {}
        problems += v["problems"] if isinstance(v.get("problems"), list) else []
        verdict = "<td class=good>equal" if v.get("passed") is True else "<td class=bad>different"
        agreed = "".join(f"<td>{_cell(digits.get(n), '.1f')}" for n in ("1", "10", "100"))
        lines.append(
            f"<tr><th scope=row>{_cell(v.get('precision'))}{verdict}"
            f"<td>{_cell(v.get('steps'))}{agreed}"
            f"<td>{_cell(v.get('largest_difference'), '.1e')}"
            f" at step {_cell(v.get('largest_step'))}"
        )
    return (
        "<h3>Proof</h3><p>The port, by the loop that trains, on the weights, batches and noise of a"
        " recording of the original on its own TensorFlow. Compared is the loss of every step, as"
        " long as the original follows itself when its weights are moved by one bit.</p>"
        "<div class=scroll role=region aria-label=Lockstep tabindex=0>"
        "<table class=proof><thead><tr><th scope=col>precision"
        "<th scope=col>verdict<th scope=col>steps<th scope=col>digits at step 1<th scope=col>by 10"
        "<th scope=col>by 100<th scope=col>largest relative difference<tbody>"
        f"{''.join(lines)}</table></div>"
        + "".join(f"<p class=warning>{_text(problem)}</p>" for problem in problems)
        + _whole_runs(view["whole_runs"])
    )


def _whole_runs(entries: Sequence[Mapping[str, Any]]) -> str:
    """Whole runs of both sides as distributions, see `reproductions/wholeruns.py`."""
    lines = []
    for entry in entries:
        sides = [entry[s] if isinstance(entry.get(s), dict) else {} for s in ("ours", "theirs")]
        means = "".join(
            f"<td>{_cell(side.get('mean'), ',.6g')} ({_cell(side.get('seeds'))})" for side in sides
        )
        lines.append(
            f"<tr><th scope=row>{_cell(entry.get('figure'))}<td>{_cell(entry.get('verdict'))}"
            f"{means}<td>{_cell(entry.get('relative_difference'), '+.2%')}"
        )
    if not lines:
        return ""
    return (
        "<p>Beyond that, whole runs with their own chance: the means over the seeds.</p>"
        "<div class=scroll role=region aria-label=Runs tabindex=0>"
        "<table class=proof><thead><tr><th scope=col>figure"
        "<th scope=col>verdict<th scope=col>reference (seeds)<th scope=col>original (seeds)"
        f"<th scope=col>difference<tbody>{''.join(lines)}</table></div>"
    )


def _points(title: str, points: Sequence[str]) -> str:
    """A numbered list; the first sentence of each point stands out."""
    if not points:
        return ""
    items = []
    for point in points:
        first, *rest = re.split(r"(?<=[.:;]) (?=[A-Z`])", point, maxsplit=1)
        more = f" <span class=more>{_prose(rest[0])}</span>" if rest else ""
        items.append(f"<li>{_prose(first)}{more}</li>")
    return f"<h3>{title}</h3><ol class=points>{''.join(items)}</ol>"


def _caption(name: str) -> str:
    if name.startswith("manifold-"):
        return f"The plane of codes, decoded as {name.removeprefix('manifold-')}"
    return CAPTIONS.get(name, name)


def _figure(picture: Picture, caption: str, alt: str, kind: str = "picture") -> str:
    return (
        f"<figure class={kind}>{_image(picture, alt)}"
        f"<figcaption>{_text(caption)}</figcaption></figure>"
    )


def _image(picture: Picture, alt: str) -> str:
    return (
        f'<img src="{picture["src"]}" width={picture["width"]} height={picture["height"]}'
        f' alt="{_text(alt)}" decoding=async>'
    )


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]


def _language(text: str) -> str:
    return " lang=zh" if any("\u4e00" <= c <= "\u9fff" for c in text) else ""


def _prose(text: str) -> str:
    """A docstring's text: escaped, `code` as code."""
    return re.sub(r"`([^`]+)`", r"<code>\1</code>", _text(text))


def _cell(value: Any, form: str = "") -> str:
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return _text(format(value, form)).replace("-", "−")
    return "–" if value is None else _text(value)


def _number(value: float) -> str:
    return f"{value:,.6g}".replace("-", "−")


def _text(value: Any) -> str:
    return html.escape(str(value))


def _script_json(value: Any) -> str:
    """JSON for a script element: nothing in it ends the element."""
    return json.dumps(value).replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


# --- The command ----------------------------------------------------------------------------------


def finished_runs(root: Path) -> list[tuple[Path, bool]]:
    """The finished runs below a folder; pictures are taken from the newest of each module."""
    found = []
    for folder in sorted(root.glob("*")):
        runs = [
            run
            for run in sorted(folder.glob("*"))
            if not run.is_symlink() and _read_json(run / "run.json").get("finished") is True
        ]
        found += [(run, run == runs[-1]) for run in runs]
    return found


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command; returns its exit code."""
    return run_command("gallery", lambda: _make(_parse(sys.argv[1:] if argv is None else argv)))


def _parse(argv: Sequence[str]) -> argparse.Namespace:
    parser = OneLineParser(
        prog="python -m reproductions.gallery",
        description="Makes one HTML page of the reference results and of runs of one's own.",
        allow_abbrev=False,
    )
    parser.add_argument(
        "runs", nargs="*", type=Path, metavar="RUN",
        help=f"folder of a run (default: the finished runs below {RUNS})",
    )  # fmt: skip
    parser.add_argument(
        "--output", type=Path, default=OUTPUT, metavar="FILE", help=f"default: {OUTPUT}"
    )
    return parser.parse_args(argv)


def _make(options: argparse.Namespace) -> None:
    for folder in options.runs:
        if _read_json(folder / "run.json").get("module") not in EXHIBITS:
            raise BadInput(f"{folder} holds no run: name the folder that holds its run.json")
    own = [(folder, True) for folder in options.runs] or finished_runs(RUNS)
    page = collect(REFERENCE, own)
    text = render(page, (PACKAGE / "gallery.html").read_text(encoding="utf-8"))
    options.output.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(options.output, text)
    count = sum(len(view["runs"]) for view in page["modules"])
    print(f"{options.output}: {count} runs, {len(text.encode()) / 2**20:.1f} MiB")


if __name__ == "__main__":
    sys.exit(main())
