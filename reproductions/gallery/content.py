"""What the page shows, as plain data: `collect` reads it from folders."""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypedDict

import numpy as np
from PIL import Image

from common.runs import read_csv
from reproductions import GOLDEN, program
from reproductions.elbo_cvae import document_frames
from reproductions.evidence.documents import DOCUMENTS, Document
from reproductions.evidence.kept import ROOT
from reproductions.evidence.whole_runs import Comparison, of_curves
from reproductions.gallery.pictures import (
    UNREADABLE,
    Film,
    Picture,
    encode,
    read_film,
    read_picture,
)

Array = np.ndarray
Point = tuple[float, float]

PACKAGE = Path(__file__).parents[1]


# --- What belongs to which document ---------------------------------------------------------------


def printed_points(document: Document) -> tuple[str, tuple[Point, ...]]:
    """What the document, or its upstream, printed: what that is, and the points."""
    printed = document.printed
    if printed is None:
        return "", ()
    return printed.source, tuple(zip(printed.at, printed.values, strict=True))


NOT_SHOWN = ("curves", "wholeruns", "preview")  # the page draws its own curves
ASKED = {"tfp_cvae": "class-grids.png"}  # of docs/: what models drew when asked for each digit


# --- The page as data -----------------------------------------------------------------------------


class RunView(TypedDict):
    """A run."""

    name: str
    reference: bool  # the port's run that the project keeps
    record: dict[str, Any]  # run.json
    changed: list[str]  # settings that are not the document's, in words
    history: dict[str, list[float]]
    pictures: dict[str, Picture]  # by name without suffix
    films: dict[str, Film]  # by name without suffix
    last_frame: Picture | None  # small
    problems: list[str]


class Seeds(TypedDict):
    """Whole runs, each with its seed."""

    count: int
    curves: dict[str, list[Array]]  # column of the history -> for each seed [rounds]
    bands: dict[str, tuple[list[Point], list[Point]]]  # the same: lowest, highest


class OriginalView(TypedDict):
    """What the original program left."""

    tensorflow: str
    seeds: Seeds
    pictures: dict[str, Picture]


class ModuleView(TypedDict):
    """A module and what there is of it."""

    document: Document
    text: dict[str, Any]  # see `read_docstring`
    original: OriginalView | None
    asked: Picture | None  # see `ASKED`
    seeds: Seeds  # of the port
    lockstep: list[dict[str, Any]]  # verdicts, see `verify.as_entry`
    whole_runs: list[Comparison]
    runs: list[RunView]  # the kept one first


class Page(TypedDict):
    """All there is to show."""

    modules: list[ModuleView]


# --- Collecting -----------------------------------------------------------------------------------


def collect(
    reference: Path,
    own: Iterable[tuple[Path, bool]],
    package: Path = PACKAGE,
    golden: Path = GOLDEN,
    docs: Path = ROOT / "docs",
) -> Page:
    """Reads everything that the page shows. What is missing or broken is left out, and said.

    Args:
      reference: the folder with a subfolder for each module.
      own: folders of other runs, each with whether to take its pictures.
      package: where the modules lie.
      golden: where the recordings lie.
      docs: where the documentation's pictures lie.
    """
    modules: dict[str, ModuleView] = {}
    for document in DOCUMENTS.values():
        module, folder = document.module, reference / document.module
        original = read_original(golden, document)
        own_columns = {curve.column: curve.column for curve in document.curves}
        kept = read_json(folder / "seeds.json").get("runs")
        seeds = read_seeds(kept, own_columns, document.steps_per_row)
        modules[module] = {
            "document": document,
            "text": read_docstring(package / f"{module}.py"),
            "original": original,
            "asked": read_asked(docs, module),
            "seeds": seeds,
            "lockstep": read_lockstep(folder),
            "whole_runs": compare(document, seeds, original["seeds"]) if original else [],
            "runs": [],
        }
        if (folder / "run.json").exists():
            modules[module]["runs"].append(read_run(folder, original, is_reference=True))
    for folder, with_pictures in own:
        view = modules.get(str(read_json(folder / "run.json").get("module")))
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
    record = read_json(folder / "run.json")
    changed = changed_settings(record)
    seed = record.get("seed")
    name = "the port" if is_reference else f"your run {folder.resolve().name}"
    if is_reference and isinstance(seed, int):
        name += f", seed {seed}"
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
    films: dict[str, Film] = {}
    last_frame = None
    if with_pictures:
        for path in sorted(folder.glob("*.png")):
            if path.stem not in NOT_SHOWN:
                try:
                    pictures[path.stem] = read_picture(path, theirs.get(path.stem))
                except UNREADABLE:
                    problems.append(f"{path.name} cannot be read")
        labels = _round_labels(history)
        try:
            films["training"], last_frame = read_film(folder / "training.gif", labels)
        except UNREADABLE:
            problems.append("training.gif is missing or cannot be read")
        try:
            if (folder / "document.gif").exists():
                kept = [labels[i] for i in document_frames(len(labels))]
                films["document"], _ = read_film(folder / "document.gif", kept)
        except UNREADABLE:
            problems.append("document.gif cannot be read")
    return {
        "name": ", ".join([name, *changed]),
        "reference": is_reference,
        "record": record,
        "changed": changed,
        "history": history,
        "pictures": pictures,
        "films": films,
        "last_frame": last_frame,
        "problems": problems,
    }


def read_asked(docs: Path, module: str) -> Picture | None:
    """Reads the picture that `ASKED` names for a module; only a checkout has it."""
    try:
        return read_picture(docs / ASKED[module]) if module in ASKED else None
    except UNREADABLE:
        return None


def changed_settings(record: Mapping[str, Any]) -> list[str]:
    """The settings in a run's record that are not the document's, in words."""
    module, config = str(record.get("module")), record.get("config")
    if module not in DOCUMENTS or not isinstance(config, dict):
        return []
    return program(module).changed_settings(config)


def read_original(golden: Path, document: Document) -> OriginalView | None:
    """Reads what the original left: the range of its curves over the seeds, and its pictures."""
    if document.unrecorded:
        return None
    folder = golden / document.number
    content = read_json(folder / "full-runs.json")
    columns = {curve.column: curve.recorded for curve in document.curves}
    pictures: dict[str, Picture] = {}
    for name in document.pictures:
        path = folder / f"picture-{name}.png"
        if path.exists():
            with Image.open(path) as image:
                pictures[name] = encode(image.convert("L"))
    return {
        "tensorflow": str(content.get("tensorflow", "")),
        "seeds": read_seeds(content.get("runs"), columns, document.steps_per_row),
        "pictures": pictures,
    }


def read_seeds(runs: Any, columns: Mapping[str, str], every: int) -> Seeds:
    """The curves of the runs of a list, and their range.

    Args:
      runs: for each seed a dictionary of curves; what is something else counts as nothing.
      columns: column of the history -> key in those dictionaries.
      every: epochs or steps between two numbers of a curve.
    """
    try:
        curves = {c: [np.array(run[key], float) for run in runs] for c, key in columns.items()}
        bands = {column: _band(values, every) for column, values in curves.items()}
        return {"count": len(runs), "curves": curves, "bands": bands}
    except (TypeError, ValueError, KeyError):
        return {"count": 0, "curves": {}, "bands": {}}


def _band(curves: Sequence[Array], every: int) -> tuple[list[Point], list[Point]]:
    """The lowest and the highest of curves [rounds], of which some may end early."""
    rounds = max(len(curve) for curve in curves)
    found = [[float(curve[i]) for curve in curves if len(curve) > i] for i in range(rounds)]
    x = [float(every * (i + 1)) for i in range(rounds)]
    low, high = map(min, found), map(max, found)
    return list(zip(x, low, strict=True)), list(zip(x, high, strict=True))


def compare(document: Document, ours: Seeds, theirs: Seeds) -> list[Comparison]:
    """Whole runs of the port and of the original, as `whole_runs.compare` compares them."""
    found = []
    for _, column, label in document.curves if ours["count"] and theirs["count"] else ():
        our, their = ours["curves"][column], theirs["curves"][column]
        if min(len(curve) for curve in our) >= max(len(curve) for curve in their) > 0:
            found += of_curves(document.module, label, our, their)
    return found


def read_lockstep(folder: Path) -> list[dict[str, Any]]:
    """The lockstep's verdicts that are kept in a module's folder."""
    entries = read_json(folder / "lockstep.json").get("entries")
    return [e for e in entries if isinstance(e, dict)] if isinstance(entries, list) else []


def read_json(path: Path) -> dict[str, Any]:
    """The dictionary that a JSON file holds; an empty one if it holds none."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return content if isinstance(content, dict) else {}


def _round_labels(history: Mapping[str, Sequence[float]]) -> list[str]:
    """Names of the frames: the first is drawn before training, then one for each row."""
    x = x_column(history)
    return ["before training", *(f"{x} {value:,.0f}" for value in history.get(x, ()))]


def x_column(history: Mapping[str, Sequence[float]]) -> str:
    """The column that counts a history's rows: epochs or steps."""
    return "step" if "epoch" not in history and "step" in history else "epoch"
