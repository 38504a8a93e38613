"""The house keeps its rules: what each module has, who imports whom, how the code is written."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

from reproductions import GOLDEN, MODULES, __main__, program
from reproductions.evidence.documents import DOCUMENTS
from tests.conftest import ROOT, python
from tests.test_smoke import RUNS

COMMANDS = {"verify", "evaluate"}
SECTIONS = [
    "# --- Data ",
    "# --- Model ",
    "# --- Loss ",
    "# --- Training ",
    "# --- Pictures ",
    "# --- The command ",
]


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


def test_the_six_modules_and_two_commands_are_all_that_lies_in_the_package() -> None:
    files = {path.stem for path in (ROOT / "reproductions").glob("*.py")}
    assert files - {"__init__", "__main__"} == set(MODULES) | COMMANDS


@pytest.mark.parametrize("module", MODULES)
def test_what_a_module_needs_is_there(module: str) -> None:
    """Says everything that is missing at once."""
    document = DOCUMENTS.get(module)
    missing = []
    if document is None:
        missing.append("a Document in reproductions/evidence/documents.py")
    elif document.name != program(module).document:
        missing.append(f"the same document in both: {document.name}, {program(module).document}")
    elif not document.unrecorded:
        if not list((GOLDEN / document.number).glob("lockstep-*.json")):
            missing.append(f"a recording in reproductions/golden/{document.number}, or a reason")
        if not (GOLDEN / document.number / "full-runs.json").exists():
            missing.append(f"whole runs in reproductions/golden/{document.number}")
    if module not in RUNS:
        missing.append("a smoke run in tests/test_smoke.py")
    rows = [line for line in (ROOT / "README.md").read_text().splitlines() if line.startswith("|")]
    if not any(f"`{module}`" in row for row in rows):
        missing.append("a row in the README")
    assert missing == []


def test_documents_are_in_the_order_of_the_modules() -> None:
    assert tuple(DOCUMENTS) == MODULES


@pytest.mark.parametrize("module", MODULES)
def test_a_module_says_what_it_keeps_and_where_it_departs(module: str) -> None:
    docstring = ast.get_docstring(ast.parse(source(module))) or ""
    assert docstring.startswith(f"Document {DOCUMENTS[module].name}:")
    for part in ("\nSource: ", "Names: ", "\nKept quirks\n", "\nDeviations\n", "#### References"):
        assert part in docstring
    assert f"python -m reproductions.{module}" in docstring


@pytest.mark.parametrize("module", MODULES)
def test_modules_read_alike(module: str) -> None:
    lines = source(module).splitlines()
    sections = [s for line in lines for s in SECTIONS if line.startswith(s)]
    assert sections == SECTIONS
    names = [n.name for n in ast.parse(source(module)).body if isinstance(n, ast.FunctionDef)]
    order = [
        "inputs",
        "build",
        "decode",
        "posterior",
        "pictures_of",
        "loss",
        "experiment",
        "frame",
        "pictures",
    ]
    assert [name for name in names if name in order] == order


@pytest.mark.parametrize("module", MODULES)
def test_modules_import_common_and_never_each_other(module: str) -> None:
    names = imports(ROOT / "reproductions" / f"{module}.py")
    assert not any(name.split(".")[0] == "reproductions" for name in names)


def test_common_never_imports_the_reproductions() -> None:
    for path in (ROOT / "common").rglob("*.py"):
        assert not any(name.split(".")[0] == "reproductions" for name in imports(path)), path


def test_what_is_installed_imports_neither_tests_nor_benchmarks() -> None:
    for path in (ROOT / "reproductions").rglob("*.py"):
        assert not {name.split(".")[0] for name in imports(path)} & {"tests", "benchmarks"}, path


def test_the_evidence_is_imported_in_no_circle() -> None:
    """Files of the evidence import each other in one direction, wherever in a file it is."""
    folder = ROOT / "reproductions" / "evidence"
    arrows = {
        path.stem: {n.rpartition(".")[2] for n in imports(path) if ".evidence." in n}
        for path in folder.glob("*.py")
    }
    left = dict(arrows)
    while left:
        floor = [name for name, below in left.items() if not below & left.keys()]
        assert floor, f"a circle among {sorted(left)}"
        for name in floor:
            del left[name]


def test_the_list_of_modules_is_printed_without_tensorflow() -> None:
    code = "import sys; from reproductions.__main__ import main; main([]); print(*sys.modules)"
    lines = python(code).stdout.splitlines()
    assert not {"tensorflow", "keras", "tf_keras"} & set(lines[-1].split())
    for name in (*MODULES, *COMMANDS, "gallery"):
        assert any(f"python -m reproductions.{name}" in line for line in lines)


@pytest.mark.parametrize(
    ("arguments", "hint"),
    [
        (["mlp_vae", "--quick"], "python -m reproductions.mlp_vae --quick"),
        (["mlp-vae"], "python -m reproductions.mlp_vae"),
        (["verfy"], "python -m reproductions.verify"),
        (["--quick"], "python -m reproductions.<module> --quick"),
        (["nonsense"], "lists them"),
    ],
)
def test_a_module_behind_a_space_is_hinted_at(
    arguments: list[str], hint: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert __main__.main(arguments) == 2
    assert hint in capsys.readouterr().err


def test_only_document_004_uses_keras_2() -> None:
    users = {
        path.stem
        for path in (ROOT / "reproductions").glob("*.py")
        if "tf_keras" in path.read_text()
    }
    assert users == {"tfp_cvae"}


@pytest.mark.parametrize(
    "command",
    [
        ["ruff", "check", "."],
        ["ruff", "format", "--check", "."],
        pytest.param(["mypy"], marks=pytest.mark.long),
    ],
)
def test_lint_and_types(command: list[str]) -> None:
    done = subprocess.run(
        [sys.executable, "-m", *command], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr
