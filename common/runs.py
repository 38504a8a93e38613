"""A run's folder: settings, history, checkpoints, pictures. Numbered, locked, every file whole.

artifacts/runs/<module>/0001/
    run.json        settings, seed, versions, device, final metrics; "finished": false until the end
    history.csv     a row for each epoch (or each hundred steps)
    steps.npz       loss, reconstruction and KL of every single step
    weights.npz     the trained variables, in the document's order
    *.png, training.gif; until the end preview.png
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
import sys
import typing
import zipfile
from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, fields
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import numpy as np
from filelock import FileLock, Timeout

from common.errors import BadInput
from common.files import write_atomically
from common.settings import MAX_SEED
from common.training import Progress, Row

RUNS = Path("artifacts") / "runs"
KEPT_CHECKPOINTS = 2
# Files of `common` that no number of a run passes through.
NO_NUMBERS = {
    "cli", "display", "plotting", "expected", "errors", "files", "signals", "fetching",
}  # fmt: skip


def _now() -> str:
    return datetime.now(timezone.utc).isoformat(timespec="seconds")


@dataclass
class Record:
    """What run.json says of a run."""

    module: str
    config: dict[str, Any]
    seed: int
    dtype: str
    quick: bool
    document: str = ""
    dataset: str = ""
    started: str = field(default_factory=_now)
    source_sha256: str = ""  # see `source_digest`
    environment: dict[str, Any] = field(default_factory=dict)  # see `devices.describe`
    # The sessions before this one whose code or environment was different.
    earlier_sessions: list[dict[str, Any]] = field(default_factory=list)
    finished: bool = False
    # What the document computes last, and the last row of the history as final_*.
    results: dict[str, Any] = field(default_factory=dict)
    evaluation: dict[str, Any] = field(default_factory=dict)  # see `evaluation.evaluate`
    seconds: dict[str, float] = field(default_factory=dict)

    @property
    def seed_in_words(self) -> list[str]:
        """Seed and precision, in words; float32 goes without saying."""
        return [*([] if self.dtype == "float32" else [self.dtype]), f"seed {self.seed}"]

    @classmethod
    def from_json(cls, text: str) -> Record:
        """Reads a record; entries that it does not know are left out.

        Raises:
          ValueError: the text is not a record.
        """
        content = json.loads(text)
        if not isinstance(content, dict):
            raise ValueError("not an object")
        known = {f.name: content[f.name] for f in fields(cls) if f.name in content}
        try:
            record = cls(**known)
        except TypeError as error:
            raise ValueError(str(error)) from error
        for name, hint in typing.get_type_hints(cls).items():
            kind = typing.get_origin(hint) or hint
            if not isinstance(getattr(record, name), kind):
                raise ValueError(f"{name} is not of type {kind.__name__}")
        if not 0 <= record.seed <= MAX_SEED or record.dtype not in ("float32", "float64"):
            raise ValueError("seed or dtype is impossible")
        for session in record.earlier_sessions:
            if not isinstance(session, dict) or "source_sha256" not in session:
                raise ValueError("an earlier session has no source_sha256")
        return record

    def to_json(self) -> str:
        """The text of run.json."""
        return json.dumps(asdict(self), indent=1, ensure_ascii=False) + "\n"


def read_record(folder: Path, modules: Collection[str] = ()) -> Record:
    """What run.json says of a run.

    Args:
      folder: of the run.
      modules: of which it may be; empty: of any.

    Raises:
      BadInput: run.json is missing or damaged, or the run is another module's.
    """
    path = folder / "run.json"
    if not path.exists():
        raise BadInput(f"{folder} holds no run: name the folder that holds its run.json")
    try:
        record = Record.from_json(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise BadInput(f"{path} is damaged: its run cannot be used ({error})") from error
    if modules and record.module not in modules:
        raise BadInput(f"{folder} holds a run of {record.module}, not of {', '.join(modules)}")
    return record


def find_record(folder: Path) -> Record | None:
    """What run.json says of a run; None where it is missing or damaged."""
    with contextlib.suppress(BadInput):
        return read_record(folder)
    return None


def finished_record(folder: Path, modules: Collection[str]) -> Record:
    """What run.json says of a finished run, see `read_record`.

    Raises:
      BadInput: there is none.
    """
    record = read_record(folder, modules)
    if not record.finished:
        raise BadInput(f"the run in {folder} is not finished: --resume it first")
    return record


class Run:
    """A run's folder and record, while this process holds it."""

    def __init__(self, folder: Path, record: Record) -> None:
        self.folder, self.record = folder, record
        self.checkpoints = CheckpointFolder(folder / "checkpoints", self.write_history)

    def begin_session(self, source_sha256: str, environment: dict[str, Any]) -> list[str]:
        """Records the code and the environment that the run goes on with.

        Returns:
          The names of the entries that were different in the session before.
        """
        record = self.record
        now = {"source_sha256": source_sha256, **environment}
        before = {"source_sha256": record.source_sha256, **record.environment}
        changed = [k for k in now if now[k] != before.get(k, now[k])] if record.environment else []
        if changed:
            record.earlier_sessions.append(before)
        record.source_sha256, record.environment = source_sha256, environment
        self.save()
        return changed

    def save(self) -> None:
        """Writes run.json."""
        self.write("run.json", self.record.to_json())

    def write(self, name: str, content: bytes | str) -> None:
        """Writes a file of the run, whole or not at all."""
        path = self.folder / name
        path.parent.mkdir(exist_ok=True)
        write_atomically(path, content)

    def write_history(self, rows: list[Row]) -> None:
        """Writes history.csv, one line a row."""
        self.write("history.csv", to_csv(rows))

    def write_arrays(self, name: str, arrays: dict[str, np.ndarray]) -> None:
        """Writes a compressed npz file."""
        content = io.BytesIO()
        np.savez_compressed(content, **arrays)  # type: ignore[arg-type]
        self.write(name, content.getvalue())


@contextmanager
def new_run(record: Record, output: Path | None) -> Iterator[Run]:
    """Makes and holds a folder for a new run: `output`, or the next number below artifacts/runs.

    Raises:
      BadInput: `output` holds files already, or cannot be written.
    """
    where = output or RUNS / record.module
    with _written_to(where):
        folder = _new_folder(output) if output else _next_number(where)
    with _held(folder):
        if (folder / "run.json").exists():
            raise BadInput(f"{folder} holds a run already: name another folder")
        run = Run(folder, record)
        with _written_to(where):
            run.save()
        if not output:
            _point_latest(folder)
        yield run


@contextmanager
def unfinished_run(module: str, output: Path | None) -> Iterator[Run]:
    """Takes up and holds an unfinished run: the one in `output`, or the latest of the module.

    Raises:
      BadInput: there is none, it is finished or another module's, or a process is at work in it.
    """
    if output is None:
        folders = sorted((RUNS / module).glob("[0-9]*"), reverse=True)
        unfinished = (f for f in folders if (r := find_record(f)) and not r.finished)
        output = next(unfinished, None)
        if output is None:
            raise BadInput(f"no unfinished run below {RUNS / module}: start one without --resume")
    read_record(output)  # a folder without a run is no place for a lock
    with _held(output):
        record = read_record(output, [module])
        if record.finished:
            raise BadInput(f"the run in {output} is finished: leave out --resume to start another")
        yield Run(output, record)


def read_finished(folder: Path, modules: Collection[str]) -> tuple[Record, list[np.ndarray]]:
    """The record and the trained variables of a finished run.

    Raises:
      BadInput: there is no finished run of these modules in the folder.
    """
    record = finished_record(folder, modules)
    path = folder / "weights.npz"
    if not path.exists():
        raise BadInput(
            f"{folder} was kept without its weights: train the module again to have them"
        )
    try:
        weights = read_npz(path.read_bytes())
    except (OSError, ValueError) as error:
        raise BadInput(f"{path} cannot be read ({error})") from error
    return record, [weights[name] for name in sorted(weights)]


def read_npz(content: bytes) -> dict[str, np.ndarray]:
    """The arrays of an npz file.

    Raises:
      ValueError: it is damaged.
    """
    if not zipfile.is_zipfile(io.BytesIO(content)):
        raise ValueError("it is no npz file")
    try:
        with np.load(io.BytesIO(content), allow_pickle=False) as archive:
            return {name: archive[name] for name in archive.files}
    except Exception as error:  # a dozen kinds: of the zip, of an array's header, of its size
        raise ValueError(str(error) or type(error).__name__) from error


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
    """The rows that `to_csv` wrote.

    Raises:
      ValueError: the text is damaged.
    """
    try:
        return [{k: float(v) for k, v in row.items()} for row in csv.DictReader(io.StringIO(text))]
    except (csv.Error, TypeError) as error:  # the latter: a row is too long or too short
        raise ValueError(str(error)) from error


class CheckpointFolder:
    """The latest checkpoints of a run. A file's name carries its SHA-256, so damage is noticed."""

    def __init__(
        self, folder: Path, write_history: Callable[[list[Row]], None] = lambda rows: None
    ) -> None:
        """Uses a folder, which need not be there yet.

        Args:
          folder: of the checkpoints.
          write_history: is called with the history after each checkpoint.
        """
        self._folder, self._write_history = folder, write_history

    def save(self, progress: Progress, state: dict[str, np.ndarray]) -> None:
        """Writes a checkpoint, then removes all but this and the one before."""
        self._folder.mkdir(parents=True, exist_ok=True)
        entries = dict(vars(progress))
        arrays = {"losses": entries.pop("losses"), "frames": np.array(entries.pop("frames"))}
        content = io.BytesIO()
        arrays["progress"] = np.array(json.dumps(entries))
        np.savez(content, **arrays, **state)  # type: ignore[arg-type]
        data = content.getvalue()
        digest = hashlib.sha256(data).hexdigest()[:16]
        path = self._folder / f"step-{progress.step:09d}-{digest}.npz"
        write_atomically(path, data)
        self._write_history(progress.rows)
        files = self._files()
        # A file of a later step is a damaged one: the run did not go on from it.
        kept = [file for file in files if file.name <= path.name][:KEPT_CHECKPOINTS]
        for old in set(files).difference(kept):
            with contextlib.suppress(PermissionError):  # on Windows: a virus scanner has it open
                old.unlink(missing_ok=True)

    def latest(self) -> tuple[Progress, dict[str, np.ndarray]] | None:
        """The newest checkpoint that is whole, or None."""
        for path in self._files():
            data = path.read_bytes()
            if hashlib.sha256(data).hexdigest()[:16] == path.stem.rpartition("-")[2]:
                with contextlib.suppress(KeyError, TypeError, ValueError):
                    state = read_npz(data)
                    entries = json.loads(str(state.pop("progress")))
                    frames = list(state.pop("frames"))
                    return Progress(**entries, losses=state.pop("losses"), frames=frames), state
            print(f"{path} is damaged: it is left out", file=sys.stderr)
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
    number = max((int(p.name) for p in root.glob("[0-9]*") if p.name.isdecimal()), default=0)
    while True:
        number += 1
        with contextlib.suppress(FileExistsError):  # another run took it: the next one
            folder = root / f"{number:04d}"
            folder.mkdir()
            return folder


@contextmanager
def _held(folder: Path) -> Iterator[None]:
    """Keeps other processes out of a run's folder."""
    lock = FileLock(folder / ".lock")
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise BadInput(f"another process is at work in {folder}: wait for it") from None
    except (OSError, NotImplementedError) as error:  # the latter: a file system without locks
        raise BadInput(f"cannot write to {folder} ({error}): name another folder") from error
    try:
        yield
    finally:
        lock.release()


@contextmanager
def _written_to(where: Path) -> Iterator[None]:
    try:
        yield
    except FileExistsError as error:
        raise BadInput(f"{where} is a file, not a folder: name another") from error
    except OSError as error:
        raise BadInput(f"cannot write to {where}: {error.strerror or error}") from error


def _point_latest(folder: Path) -> None:
    """Makes the link `latest` beside the numbered folders point to this one."""
    link = folder.parent / "latest"
    temporary = folder.parent / f".latest.{folder.name}"
    with contextlib.suppress(OSError):  # file systems without links do without
        temporary.symlink_to(folder.name)
        if os.name == "nt":  # which does not replace a link to a folder
            link.unlink(missing_ok=True)
        os.replace(temporary, link)
