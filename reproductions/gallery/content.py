"""What the page shows, as plain data: `collect` reads it from folders."""

from __future__ import annotations

import importlib
import inspect
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypedDict

import numpy as np

from common.runs import Record, read_csv, read_record
from reproductions import GOLDEN, program
from reproductions.elbo_cvae import document_frames
from reproductions.evidence import equivalence, kept
from reproductions.evidence.documents import DOCUMENTS, Document
from reproductions.gallery.pictures import (
    UNREADABLE,
    Film,
    Picture,
    read_film,
    read_picture,
    read_sheet,
)

Point = tuple[float, float]

NOT_SHOWN = ("curves", "wholeruns", "preview")  # the page draws its own curves
# What models drew when they were asked for each digit; only a checkout has it.
ASKED = {"tfp_cvae": kept.ROOT / "docs" / "class-grids.png"}


# --- The page as data -----------------------------------------------------------------------------


class Text(NamedTuple):
    """What a module's docstring says of it."""

    what: str
    source: str
    trains: str
    quirks: list[str]
    deviations: list[str]


class Band(NamedTuple):
    """The range of a curve over whole runs, each with a seed of its own."""

    seeds: int
    low: list[Point]
    high: list[Point]
    all_until: float  # the last x that all seeds reach


class RunView(TypedDict):
    """A run."""

    name: str
    reference: bool  # the port's run that the project keeps
    record: Record
    changed: list[str]  # settings that are not the document's, in words
    history: dict[str, list[float]]
    pictures: dict[str, Picture]  # by name without suffix
    films: dict[str, Film]  # by name without suffix
    last_frame: Picture | None  # small
    problems: list[str]


class ModuleView(TypedDict):
    """A module and what there is of it."""

    document: Document
    text: Text
    original_bands: dict[str, Band]  # by column of our history
    original_pictures: dict[str, Picture]  # by name without suffix
    asked: Picture | None  # see `ASKED`
    bands: dict[str, Band]  # of the port, by column of the history
    lockstep: list[dict[str, Any]]  # verdicts, see `lockstep.as_entry`
    whole_runs: list[equivalence.Comparison]
    runs: list[RunView]  # the kept one first


# --- Collecting -----------------------------------------------------------------------------------


def collect(reference: Path, own: Sequence[tuple[Path, bool]]) -> list[ModuleView]:
    """Reads everything that the page shows, module by module.

    What is missing is left out. What is broken in a run's folder is left out, too, and said.

    Args:
      reference: the folder with a subfolder for each module.
      own: folders of other runs, each with whether to take its pictures.

    Raises:
      BadInput: one of the folders holds no run.
    """
    records = [read_record(folder, DOCUMENTS) for folder, _ in own]  # before any work
    views = {module: read_module(reference, module) for module in DOCUMENTS}
    for record, (folder, with_pictures) in zip(records, own, strict=True):
        view = views[record.module]
        theirs = view["original_pictures"]
        view["runs"].append(read_run(folder, record, theirs, with_pictures=with_pictures))
    return list(views.values())


def read_module(reference: Path, module: str) -> ModuleView:
    """Reads what there is of a module: the original's results, and those that the project keeps."""
    document, folder = DOCUMENTS[module], reference / module
    recorded, has_seeds = not document.unrecorded, kept.has_seeds(module, reference)
    ours = {
        curve.column: kept.our_curves(module, curve.column, reference)
        for curve in (document.curves if has_seeds else ())
    }
    theirs = {
        curve.column: kept.original_curves(document.number, curve.recorded)
        for curve in (document.curves if recorded else ())
    }
    sheets = {
        name: read_sheet(GOLDEN / document.number / f"picture-{name}.png")
        for name in document.pictures
    }
    compared = equivalence.compare(document, reference) if recorded and has_seeds else []
    asked = ASKED.get(module)
    runs = []
    if (folder / "run.json").exists():
        runs.append(read_run(folder, read_record(folder), sheets, is_reference=True))
    return {
        "document": document,
        "text": read_docstring(module),
        "original_bands": {column: _band(document, curves) for column, curves in theirs.items()},
        "original_pictures": sheets,
        "asked": read_picture(asked) if asked and asked.exists() else None,
        "bands": {column: _band(document, curves) for column, curves in ours.items()},
        "lockstep": kept.load_results(f"{module}/lockstep.json", reference).get("entries", []),
        "whole_runs": compared,
        "runs": runs,
    }


def read_docstring(module: str) -> Text:
    """What a module says of itself."""
    text = inspect.getdoc(importlib.import_module(f"reproductions.{module}")) or ""
    first, _, rest = text.partition("\n")
    about = _joined(rest.strip().partition("\n\n")[0])
    source, trains = re.split(r"(?<=\.) (?=Trains )", about, maxsplit=1)
    return Text(
        what=first.partition(": ")[2],
        source=source,
        trains=trains,
        quirks=_numbered_list(text, "Kept quirks"),
        deviations=_numbered_list(text, "Deviations"),
    )


def _numbered_list(text: str, title: str) -> list[str]:
    """The points of the list below a line of a docstring."""
    found = re.search(rf"^{title}\n((?: +\S.*\n?)+)", text, re.MULTILINE)
    points = re.split(r"^ *\d+\. ", found[1] if found else "", flags=re.MULTILINE)
    return [_joined(point) for point in points[1:]]


def _joined(text: str) -> str:
    return " ".join(text.split())


def _band(document: Document, curves: Sequence[np.ndarray]) -> Band:
    """The lowest and the highest of curves [rounds], of which some may end early."""
    low, _, high = kept.band(curves)
    x = [float(document.steps_per_row * (i + 1)) for i in range(len(low))]
    lower, upper = (list(zip(x, end.tolist(), strict=True)) for end in (low, high))
    return Band(len(curves), lower, upper, x[min(map(len, curves)) - 1])


def read_run(
    folder: Path,
    record: Record,
    theirs: Mapping[str, Picture],
    is_reference: bool = False,
    with_pictures: bool = True,
) -> RunView:
    """Reads a run's folder.

    Args:
      folder: of the run.
      record: its run.json.
      theirs: the pictures that the original drew, too; the run's are brought to their size.
      is_reference: whether the project keeps it.
      with_pictures: whether pictures and films are read.
    """
    changed = program(record.module).changed_settings(record.config)
    name = f"the port, seed {record.seed}" if is_reference else f"your run {folder.resolve().name}"
    problems = [] if record.finished else ["This run is not finished"]
    history: dict[str, list[float]] = {}
    try:
        rows = read_csv((folder / "history.csv").read_text(encoding="utf-8"))
        history = {name: [row[name] for row in rows] for name in (rows[0] if rows else ())}
    except (OSError, ValueError):
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
                kept_labels = [labels[i] for i in document_frames(len(labels))]
                films["document"], _ = read_film(folder / "document.gif", kept_labels)
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


def _round_labels(history: Mapping[str, Sequence[float]]) -> list[str]:
    """Names of the frames: the first is drawn before training, then one for each row."""
    x = x_column(history)
    return ["before training", *(f"{x} {value:,.0f}" for value in history.get(x, ()))]


def x_column(history: Mapping[str, Sequence[float]]) -> str:
    """The column that counts a history's rows: epochs or steps."""
    return "step" if "step" in history else "epoch"
