"""The results that full runs left in `artifacts/reference/`: where they lie, how they are read.

They belong to the checkout that this package lies in, whatever the working folder is. An installed
package has no results of its own: it reads those of the working folder, which is then a checkout.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from common.errors import Failure
from common.evaluation import count_right
from common.files import write_atomically
from reproductions import GOLDEN

_CHECKOUT = Path(__file__).parents[2]
ROOT = _CHECKOUT if (_CHECKOUT / "artifacts").is_dir() else Path()
REFERENCE = ROOT / "artifacts" / "reference"
DIGESTS = "digests.json"  # file of an experiment -> module -> digest of the code that was used


def load_seeds(module: str, folder: Path = REFERENCE) -> dict[str, Any]:
    """The kept curves of a module's whole runs.

    Raises:
      Failure: there are none.
    """
    path = folder / module / "seeds.json"
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise Failure(
            f"{path} cannot be read: run this in a checkout, or make the file with"
            f" python -m reproductions.evidence.full_runs {module}"
        ) from error


def has_seeds(module: str, folder: Path = REFERENCE) -> bool:
    """Whether whole runs of a module are kept."""
    return (folder / module / "seeds.json").exists()


def load_record(module: str) -> dict[str, Any]:
    """The run.json of the kept run with seed 0; an empty dictionary if there is none.

    Args:
      module: whose; or "mlp_vae/elbo", for a variant of it.
    """
    return load_results(f"{module}/run.json")


def load_results(name: str, folder: Path = REFERENCE) -> dict[str, Any]:
    """A JSON file of the kept results; an empty dictionary if there is none.

    Args:
      name: of the file, such as "rules.json" or "mlp_vae/lockstep.json".
      folder: where the results lie.
    """
    path = folder / name
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}


def stamp(name: str, module: str, digest: str) -> None:
    """Notes by which code an experiment's results of a module are made.

    Raises:
      Failure: there are results of other code.
    """
    stamps = load_results(DIGESTS)
    if stamps.setdefault(name, {}).setdefault(module, digest) != digest:
        raise Failure(
            f"{REFERENCE / name} has results of {module} by other code: remove them there, and"
            f" their digest in {DIGESTS}"
        )
    write(DIGESTS, stamps)


def renew_stamps(module: str, old: str, new: str) -> None:
    """Notes that other code computes what an experiment's results of a module were made by."""
    stamps = load_results(DIGESTS)
    for made_by in stamps.values():
        if made_by.get(module) == old:
            made_by[module] = new
    write(DIGESTS, stamps)


def write(name: str, content: dict[str, Any]) -> None:
    """Writes a JSON file of the kept results; a list of numbers takes one line.

    Args:
      name: of the file, such as "mlp_vae/seeds.json".
      content: of the file.
    """
    text = json.dumps(content, indent=1, ensure_ascii=False) + "\n"
    one_line = re.sub(r"\[[-+.\deE,\s]+\]", lambda numbers: " ".join(numbers[0].split()), text)
    path = REFERENCE / name
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, one_line)


def duration(module: str) -> str:
    """How long the kept run with seed 0 took, in words; "" where there is none."""
    seconds = sum(load_record(module).get("seconds", {}).values())
    if not seconds:
        return ""
    return f"{math.ceil(seconds / 60)} min" if seconds >= 60 else f"{math.ceil(seconds)} s"


def our_curves(
    module: str, column: str, folder: Path = REFERENCE, short: bool = False
) -> list[np.ndarray]:
    """A column of the history of each kept run that has it, one array [rounds] for each seed.

    Args:
      module: whose runs.
      column: of the history.
      folder: where the results lie.
      short: whether the runs that end early are given, too.
    """
    content = load_seeds(module, folder)
    runs = content["runs"] + (content.get("short_runs", []) if short else [])
    return [np.array(run[column]) for run in runs if column in run]


def original_curves(number: str, recorded: str) -> list[np.ndarray]:
    """A curve of each of the original's whole runs that has it, one array [rounds] for each."""
    content = json.loads((GOLDEN / number / "full-runs.json").read_text(encoding="utf-8"))
    return [np.array(run[recorded]) for run in content["runs"] if recorded in run]


def band(curves: Sequence[np.ndarray]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The lowest, the mean and the highest of curves [rounds], of which some may end early."""
    padded = np.full([len(curves), max(map(len, curves))], np.nan)
    for row, curve in zip(padded, curves, strict=True):
        row[: len(curve)] = curve
    return np.nanmin(padded, 0), np.nanmean(padded, 0), np.nanmax(padded, 0)


def original_grids() -> list[np.ndarray]:
    """For each run of 004's original its pictures around the class means.

    They are uint8 [10, 15, 15, 28, 28].
    """
    found = []
    for path in sorted((GOLDEN / "004").glob("class-grids-*.npz"), key=lambda p: (len(p.name), p)):
        with np.load(path, allow_pickle=False) as arrays:
            found.append(arrays["grids"])
    return found


def original_right() -> np.ndarray:
    """How many of the original's 225 pictures of each digit show that digit, int [runs, 10]."""
    return np.stack([count_right(g.reshape(10, -1, 28, 28) / 255) for g in original_grids()])
