"""The house keeps its rules: what each module has, who imports whom, how the code is written."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

from reproductions import CATALOGUE, GOLDEN, RECORDED, UNRECORDED, Entry, program
from tests.conftest import ROOT
from tests.test_smoke import RUNS

MODULES = [entry.module for entry in CATALOGUE]
COMMANDS = {
    "verify",
    "reference",
    "wholeruns",
    "tables",
    "evaluate",
    "classifier",
}  # of the package; no reproductions
SECTIONS = [
    "# --- Data ",
    "# --- Model ",
    "# --- Loss ",
    "# --- Training ",
    "# --- Pictures ",
    "# --- The command ",
]
LENGTH = range(150, 321)  # lines of a module; three networks and a twin need the most
DOCSTRING_LENGTH = range(25, 66)


def source(module: str) -> str:
    return (ROOT / "reproductions" / f"{module}.py").read_text()


def imports(path: Path) -> set[str]:
    """The modules that a file imports, anywhere in it."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def test_the_catalogue_is_complete() -> None:
    files = {path.stem for path in (ROOT / "reproductions").glob("*.py")}
    assert files - {"__init__", "__main__"} - COMMANDS == set(MODULES)


@pytest.mark.parametrize("entry", CATALOGUE, ids=lambda e: e.module)
def test_the_catalogue_agrees_with_the_module(entry: Entry) -> None:
    port = program(entry.module)
    assert (port.name, port.document) == (entry.module, entry.document)


@pytest.mark.parametrize("module", MODULES)
def test_a_module_has_a_recording_or_a_reason(module: str) -> None:
    recorded = module in RECORDED.values()
    assert recorded != (module in UNRECORDED)
    if recorded:
        document = next(d for d, m in RECORDED.items() if m == module)
        assert list((GOLDEN / document).glob("lockstep-*.json"))


@pytest.mark.parametrize("module", MODULES)
def test_a_module_has_a_smoke_run_and_a_row_in_the_readme(module: str) -> None:
    assert module in RUNS
    rows = [line for line in (ROOT / "README.md").read_text().splitlines() if line.startswith("|")]
    assert any(f"`{module}`" in row for row in rows)


@pytest.mark.parametrize("module", MODULES)
def test_a_module_says_what_it_keeps_and_where_it_departs(module: str) -> None:
    docstring = ast.get_docstring(ast.parse(source(module))) or ""
    assert docstring.startswith("Document 00")
    for part in ("\nSource: ", "Names: ", "\nKept quirks\n", "\nDeviations\n", "#### References"):
        assert part in docstring
    assert f"python -m reproductions.{module}" in docstring
    assert len(docstring.splitlines()) in DOCSTRING_LENGTH


@pytest.mark.parametrize("module", MODULES)
def test_modules_read_alike(module: str) -> None:
    lines = source(module).splitlines()
    assert len(lines) in LENGTH
    sections = [s for line in lines for s in SECTIONS if line.startswith(s)]
    assert sections == SECTIONS
    names = [n.name for n in ast.parse(source(module)).body if isinstance(n, ast.FunctionDef)]
    order = ["inputs", "build", "loss", "experiment", "frame_maker", "figures"]
    assert [name for name in names if name in order] == order


@pytest.mark.parametrize("module", MODULES)
def test_modules_import_common_and_never_each_other(module: str) -> None:
    others = {f"reproductions.{other}" for other in MODULES}
    assert not imports(ROOT / "reproductions" / f"{module}.py") & others


def test_common_never_imports_the_reproductions() -> None:
    for path in (ROOT / "common").glob("*.py"):
        assert not any(name.split(".")[0] == "reproductions" for name in imports(path)), path


def test_only_document_004_uses_keras_2() -> None:
    users = {
        path.stem
        for path in (ROOT / "reproductions").glob("*.py")
        if "tf_keras" in path.read_text()
    }
    assert users == {"tfp_cvae"}


@pytest.mark.parametrize(
    "command", [["ruff", "check", "."], ["ruff", "format", "--check", "."], ["mypy"]]
)
def test_lint_and_types(command: list[str]) -> None:
    done = subprocess.run(
        [sys.executable, "-m", *command], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr
