"""A run's folder: settings, history, checkpoints, pictures. Numbered, locked, every file whole.

artifacts/runs/<module>/0001/
    run.json        settings, seed, versions, device, final figures; "finished": false until the end
    history.csv     a row for each epoch (or each hundred steps)
    steps.npz       loss, reconstruction and KL of every single step
    weights.npz     the trained variables, in the document's order
    *.png, training.gif
    checkpoints/    the latest two
"""

from __future__ import annotations

import ast
import contextlib
import csv
import hashlib
import io
import json
import os
import zipfile
import zlib
from collections.abc import Callable, Iterable
from dataclasses import asdict
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import numpy as np
from filelock import FileLock, Timeout

from common.errors import BadInput
from common.files import write_atomically
from common.training import Progress, Row

Array = np.ndarray

ROOT = Path("artifacts") / "runs"
KEPT_CHECKPOINTS = 2
# What reading a damaged npz may raise.
DAMAGE = (ValueError, EOFError, NotImplementedError, RuntimeError, zipfile.BadZipFile, zlib.error)
# Files of `common` that no number of a run passes through.
NO_NUMBERS = {
    "cli", "display", "plotting", "expected", "errors", "files", "signals", "fetching",
}  # fmt: skip
ENTRIES = {"module", "config", "seed", "dtype", "quick"}  # in every run.json


class Run:
    """A folder that this process holds for as long as the run lasts."""

    def __init__(self, folder: Path, lock: FileLock, record: dict[str, Any]) -> None:
        self.folder, self.record, self._lock = folder, record, lock
        self.checkpoints = CheckpointFolder(folder / "checkpoints", self.write_history)

    @classmethod
    def create(cls, module: str, record: dict[str, Any], output: Path | None) -> Run:
        """Makes a folder for a new run: `output`, or the next number below
        `artifacts/runs/<module>`.

        Raises:
          BadInput: `output` holds files already, or cannot be written.
        """
        started = datetime.now(timezone.utc).isoformat(timespec="seconds")
        try:
            folder = _new_folder(output) if output else _next_number(ROOT / module)
            run = cls(folder, _lock(folder), {})
            try:
                if output and (folder / "run.json").exists():
                    raise BadInput(f"{output} holds a run already: name another folder")
                run.update(module=module, **record, finished=False, started=started)
            except BaseException:
                run.release()
                raise
        except OSError as error:
            where = output or ROOT / module
            raise BadInput(f"cannot write to {where}: {error.strerror or error}") from error
        if not output:
            _point_latest(folder)
        return run

    @classmethod
    def reopen(cls, module: str, output: Path | None) -> Run:
        """Takes up an unfinished run: the one in `output`, or the latest below `artifacts/runs`.

        Raises:
          BadInput: there is none, it is finished, it is another module's, or somebody is at it.
        """
        if output is None:
            folders = sorted((ROOT / module).glob("[0-9]*"), reverse=True)
            unfinished = (f for f in folders if (r := read_record(f)) and not r.get("finished"))
            output = next(unfinished, None)
            if output is None:
                raise BadInput(
                    f"no unfinished run below {ROOT / module}: start one without --resume"
                )
        record = read_record(output)
        if record is None:
            raise BadInput(f"{output} holds no run: its run.json is missing or damaged")
        if record["module"] != module:
            raise BadInput(f"{output} holds a run of {record['module']}, not of {module}")
        if record.get("finished"):
            raise BadInput(f"the run in {output} is finished: leave out --resume to start another")
        return cls(output, _lock(output), record)

    def update(self, **entries: Any) -> None:
        """Sets entries of run.json."""
        self.record.update(entries)
        self.write("run.json", json.dumps(self.record, indent=1, ensure_ascii=False) + "\n")

    def write(self, name: str, content: bytes | str) -> None:
        """Writes a file of the run, whole or not at all."""
        path = self.folder / name
        path.parent.mkdir(exist_ok=True)
        write_atomically(path, content)

    def write_history(self, rows: list[Row]) -> None:
        """Writes history.csv, one line a row."""
        self.write("history.csv", to_csv(rows))

    def write_arrays(self, name: str, arrays: dict[str, Array]) -> None:
        """Writes a compressed npz file."""
        content = io.BytesIO()
        np.savez_compressed(content, **arrays)  # type: ignore[arg-type]
        self.write(name, content.getvalue())

    def finish(self, **entries: Any) -> None:
        """Marks the run as finished and lets go of the folder."""
        self.update(**entries, finished=True)
        self.release()

    def release(self) -> None:
        self._lock.release()


def read_finished(module: str, folder: Path) -> tuple[dict[str, Any], list[Array]]:
    """The record and the trained variables of a finished run.

    Raises:
      BadInput: there is no finished run of this module in the folder.
    """
    record = read_record(folder)
    if record is None or not record.get("finished") or record.get("module") != module:
        raise BadInput(f"{folder} holds no finished run of {module}")
    path = folder / "weights.npz"
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as archive:
            return record, [archive[name] for name in sorted(archive.files)]
    except (*DAMAGE, OSError) as error:
        raise BadInput(f"{path} cannot be read ({error})") from error


def read_record(folder: Path) -> dict[str, Any] | None:
    """What run.json says; None where it is missing or damaged."""
    with contextlib.suppress(OSError, ValueError):
        record = json.loads((folder / "run.json").read_text())
        if isinstance(record, dict) and isinstance(record.get("config"), dict):
            return record if record.keys() >= ENTRIES else None
    return None


def source_digest(module: Path) -> str:
    """SHA-256 of what can move a number of a reproduction's runs.

    That is the code of the module and of those files of `common` that a number passes through,
    without comments and docstrings, and the classifier's weights.

    Args:
      module: the reproduction's file.
    """
    common = Path(__file__).parent
    digest = hashlib.sha256()
    for path in [module, *sorted(common.rglob("*.py"))]:
        if path == module or path.stem not in NO_NUMBERS:
            digest.update(f"{path.name}\0{_code(path.read_text(encoding='utf-8'))}\0".encode())
    digest.update((common / "classifier.npz").read_bytes())
    return digest.hexdigest()


def _code(source: str) -> str:
    """The syntax tree as text, the same in every version of Python, without docstrings."""

    def text(node: Any) -> str:
        if isinstance(node, list):
            return f"[{','.join(text(item) for item in node if not _is_docstring(item))}]"
        if not isinstance(node, ast.AST):
            return repr(node)
        # Newer versions have more fields; they are empty wherever an older one can read the code.
        fields = [(k, v) for k, v in ast.iter_fields(node) if v is not None and v != []]
        return f"{type(node).__name__}({','.join(f'{k}={text(v)}' for k, v in fields)})"

    return text(ast.parse(source))


def _is_docstring(node: Any) -> bool:
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)


def to_csv(rows: Iterable[Row]) -> str:
    """Rows as CSV text; numbers in full, so that equal runs give equal text."""
    rows = list(rows)
    text = io.StringIO()
    if rows:
        writer = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    return text.getvalue()


def read_csv(text: str) -> list[Row]:
    """The rows that `to_csv` wrote."""
    return [{k: float(v) for k, v in row.items()} for row in csv.DictReader(io.StringIO(text))]


class CheckpointFolder:
    """The latest checkpoints of a run. A file's name carries its SHA-256, so damage is noticed."""

    def __init__(self, folder: Path, write_history: Callable[[list[Row]], None]) -> None:
        self._folder, self._write_history = folder, write_history

    def save(self, progress: Progress, state: dict[str, Array]) -> None:
        """Writes a checkpoint, then removes all but the latest two."""
        self._folder.mkdir(exist_ok=True)
        entries = asdict(progress)
        arrays = {"losses": entries.pop("losses"), "frames": np.array(entries.pop("frames"))}
        content = io.BytesIO()
        arrays["progress"] = np.array(json.dumps(entries))
        np.savez(content, **arrays, **state)  # type: ignore[arg-type]
        data = content.getvalue()
        digest = hashlib.sha256(data).hexdigest()[:16]
        write_atomically(self._folder / f"step-{progress.step:09d}-{digest}.npz", data)
        self._write_history(progress.rows)
        for old in self._files()[KEPT_CHECKPOINTS:]:
            old.unlink(missing_ok=True)

    def latest(self) -> tuple[Progress, dict[str, Array]] | None:
        """The newest checkpoint that is whole, or None."""
        for path in self._files():
            data = path.read_bytes()
            if hashlib.sha256(data).hexdigest()[:16] != path.stem.rpartition("-")[2]:
                continue  # cut short or altered: the one before it
            with contextlib.suppress(zipfile.BadZipFile, KeyError, ValueError):
                with np.load(io.BytesIO(data), allow_pickle=False) as archive:
                    state = {name: archive[name] for name in archive.files}
                entries = json.loads(str(state.pop("progress")))
                frames = list(state.pop("frames"))
                return Progress(**entries, losses=state.pop("losses"), frames=frames), state
        return None

    def _files(self) -> list[Path]:
        return sorted(self._folder.glob("step-*.npz"), reverse=True)


def _new_folder(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    if any(name != ".lock" for name in os.listdir(folder)):
        raise BadInput(
            f"{folder} is not empty: name another folder, or continue a run with --resume"
        )
    return folder


def _next_number(root: Path) -> Path:
    root.mkdir(parents=True, exist_ok=True)
    number = max((int(p.name) for p in root.glob("[0-9]*") if p.name.isdigit()), default=0)
    while True:
        number += 1
        with contextlib.suppress(FileExistsError):  # another run took it: the next one
            folder = root / f"{number:04d}"
            folder.mkdir()
            return folder


def _lock(folder: Path) -> FileLock:
    lock = FileLock(folder / ".lock")
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise BadInput(f"another process is at work in {folder}: wait for it") from None
    return lock


def _point_latest(folder: Path) -> None:
    """Makes the link `latest` beside the numbered folders point to this one."""
    link = folder.parent / "latest"
    temporary = folder.parent / f".latest.{folder.name}"
    with contextlib.suppress(OSError):  # file systems without links do without
        temporary.symlink_to(folder.name)
        os.replace(temporary, link)
