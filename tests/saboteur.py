"""Changes the code in one small way at a time, and looks whether the tests notice.

    python -m tests.saboteur --each 10

Numbers, signs, comparisons, names and the order of arguments are changed, outside the training
loop, which the lockstep guards. For each file that it knows, the saboteur runs the tests that
should notice, in a copy of the project, and prints what they let pass.
"""

from __future__ import annotations

import argparse
import ast
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from reproductions import MODULES
from tests.conftest import ROOT

PASSED, NO_TESTS = 0, 5  # pytest's exit codes; without a change only the first will do
ARTIFACTS = (
    "artifacts/runs",
    ".git",
    ".venv",
    "build",
    "dist",
    ".mypy_cache",
    ".ruff_cache",
    ".pytest_cache",
)
OF_A_MODULE = (
    "hand_over trained networks closed_forms miniature plotting evaluation read_back mlp_cvae"
)
TESTS = {
    **{f"reproductions/{m}.py": f"{OF_A_MODULE} -k {m}" for m in MODULES},
    "common/evaluation.py": "evaluation trained read_back",
    "common/pictures.py": "pictures plotting",
    "common/plotting.py": "plotting",
    "common/program.py": "read_back cli plotting smoke",
    "common/runs.py": "runs cli",
    "common/training.py": "training read_back",
    "common/chance.py": "chance hand_over",
    "common/settings.py": "cli",
    "common/datasets.py": "datasets",
}  # fmt: skip
OPPOSITE: dict[type, Any] = {
    ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.Div, ast.Div: ast.Mult,
    ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE, ast.GtE: ast.Gt,
    ast.Eq: ast.NotEq, ast.NotEq: ast.Eq, ast.And: ast.Or, ast.Or: ast.And,
    ast.Is: ast.IsNot, ast.IsNot: ast.Is, ast.In: ast.NotIn, ast.NotIn: ast.In,
}  # fmt: skip
NAMES = {
    "train_images": "test_images", "test_images": "train_images", "train_labels": "test_labels",
    "test_labels": "train_labels", "z_mean": "z_log_var", "z0": "z1", "z1": "z0",
    "reconstruction": "kl", "kl": "reconstruction", "rows": "columns", "columns": "rows",
    "width": "height", "height": "width", "mean": "sum", "reduce_mean": "reduce_sum",
    "reduce_sum": "reduce_mean", "min": "max", "max": "min", "labels": "images",
}  # fmt: skip
# The loop and what it runs: the lockstep's.
IN_THE_LOOP = {"Trainer", "loss", "encode", "build", "inputs", "Recorded", "RecordedInitializer"}


class Change(NamedTuple):
    """One change: some characters of a file replaced."""

    line: int
    start: int
    end: int
    new: str

    def made(self, source: str) -> str:
        """The source with the change."""
        lines = source.splitlines(keepends=True)
        line = lines[self.line - 1].encode()  # ast counts bytes
        lines[self.line - 1] = (line[: self.start] + self.new.encode() + line[self.end :]).decode()
        return "".join(lines)


def changes(source: str) -> Iterator[Change]:
    """All changes of a file that lie on one line each."""
    tree = ast.parse(source)
    for node in _code(tree):
        new = _changed(node)
        if new is not None and isinstance(node, ast.expr) and node.lineno == node.end_lineno:
            yield Change(node.lineno, node.col_offset, node.end_col_offset or 0, new)


def _code(node: ast.AST) -> Iterator[ast.AST]:
    """The nodes below one, without docstrings, annotations, messages and the loop."""
    for name, value in ast.iter_fields(node):
        if name in ("annotation", "returns", "exc", "decorator_list"):
            continue
        for child in value if isinstance(value, list) else [value]:
            if not isinstance(child, ast.AST) or getattr(child, "name", "") in IN_THE_LOOP:
                continue
            yield child
            yield from _code(child)


def _changed(node: ast.AST) -> str | None:
    """What stands in a node's place after the change."""
    if isinstance(node, ast.Constant):
        if isinstance(node.value, bool):
            return str(not node.value)
        if isinstance(node.value, (int, float)):
            return repr(node.value + 1 if isinstance(node.value, int) else node.value * 1.1 or 0.1)
    elif isinstance(node, ast.BinOp) and type(node.op) in OPPOSITE:
        return f"({ast.unparse(ast.BinOp(node.left, OPPOSITE[type(node.op)](), node.right))})"
    elif isinstance(node, ast.BoolOp):
        return f"({ast.unparse(ast.BoolOp(OPPOSITE[type(node.op)](), node.values))})"
    elif isinstance(node, ast.Compare) and type(node.ops[0]) in OPPOSITE:
        operators = [OPPOSITE[type(node.ops[0])](), *node.ops[1:]]
        return f"({ast.unparse(ast.Compare(node.left, operators, node.comparators))})"
    elif isinstance(node, ast.UnaryOp):
        return f"({ast.unparse(node.operand)})"
    elif isinstance(node, ast.Attribute) and node.attr in NAMES:
        return f"{ast.unparse(node.value)}.{NAMES[node.attr]}"
    elif isinstance(node, ast.Call) and len(node.args) > 1:
        first, second, *rest = node.args
        if ast.unparse(first) == ast.unparse(second):
            return None
        return ast.unparse(ast.Call(node.func, [second, first, *rest], node.keywords))
    return None


def noticed(
    copy: Path, file: str, change: Change, tests: list[str], only: str, seconds: float
) -> bool:
    """Whether tests notice a change of a file.

    Args:
      copy: the project, which the change is made in and taken back.
      file: that is changed.
      change: of it.
      tests: the files of tests that run.
      only: an expression for pytest's -k, or "".
      seconds: after so many, tests that hang have noticed it.
    """
    path = copy / file
    source = path.read_text(encoding="utf-8")
    path.write_text(change.made(source), encoding="utf-8")
    try:
        return exit_code(copy, tests, only, seconds) not in (PASSED, NO_TESTS)
    except subprocess.TimeoutExpired:
        return True
    finally:
        path.write_text(source, encoding="utf-8")


def exit_code(copy: Path, tests: list[str], only: str, seconds: float | None = None) -> int:
    """Of pytest, which runs tests in the copy as it is, those marked `long`, too."""
    command = [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", "-n", "0"]
    command += ["-m", "", *tests, *(["-k", only] if only else [])]
    environment = os.environ | {"PYTHONPATH": str(copy), "PYTHONDONTWRITEBYTECODE": "1"}
    done = subprocess.run(command, cwd=copy, env=environment, capture_output=True, timeout=seconds)
    return done.returncode


def main() -> None:
    """Runs the command."""
    parser = argparse.ArgumentParser(prog="python -m tests.saboteur", description=__doc__)
    parser.add_argument("files", nargs="*", default=list(TESTS), help="default: all that it knows")
    parser.add_argument("--each", type=int, default=10, help="changes of each file, drawn by lot")
    options = parser.parse_args()
    for file in options.files:
        if file not in TESTS:
            parser.error(f"no tests are known for {file}: choose from {', '.join(TESTS)}")
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / "project"
        shutil.copytree(ROOT, copy, ignore=lambda d, names: [
            n for n in names if str((Path(d) / n).relative_to(ROOT)) in ARTIFACTS])  # fmt: skip
        counts = {"noticed": 0, "PASSED": 0}
        for file in options.files:
            source = (copy / file).read_text(encoding="utf-8")
            possible = [c for c in dict.fromkeys(changes(source)) if c.made(source) != source]
            names, _, only = TESTS[file].partition(" -k ")
            files = [f"tests/test_{name}.py" for name in names.split()]
            began = time.monotonic()
            if exit_code(copy, files, only) != PASSED:
                raise SystemExit(f"the tests of {file} do not pass without any change")
            seconds = 3 * (time.monotonic() - began)
            for change in sorted(
                random.Random(file).sample(possible, min(options.each, len(possible)))
            ):
                how = "noticed" if noticed(copy, file, change, files, only, seconds) else "PASSED"
                counts[how] += 1
                good = source.splitlines()[change.line - 1].strip()
                bad = change.made(source).splitlines()[change.line - 1].strip()
                print(f"{how}: {file}:{change.line}: {good}  ->  {bad}", flush=True)
        print(counts)


if __name__ == "__main__":
    main()
