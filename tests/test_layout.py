"""The house keeps its rules: what each module has, who imports whom, how the code is written."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

from reproductions import MODULES, __main__, program
from reproductions.evidence.documents import DOCUMENTS
from tests.conftest import ROOT, complaint

SECTIONS = ["Data", "Model", "Loss", "Training", "Pictures", "The command"]


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


def test_modules_and_commands_are_all_that_lies_in_the_package() -> None:
    folder = ROOT / "reproductions"
    files = {path.stem for path in folder.glob("*.py")} - {"__init__", "__main__"}
    packages = {path.parent.name for path in folder.glob("*/__main__.py")}
    assert files | packages == {*MODULES, *__main__.COMMANDS}


def test_modules_and_commands_are_listed(capsys: pytest.CaptureFixture[str]) -> None:
    assert __main__.main([]) == 0
    listed = re.findall(r"^  python -m reproductions\.(\w+) ", capsys.readouterr().out, re.M)
    assert listed == [*MODULES, *__main__.COMMANDS]


def test_documents_are_in_the_order_of_the_modules() -> None:
    assert tuple(DOCUMENTS) == MODULES


@pytest.mark.parametrize("module", MODULES)
def test_a_module_says_what_it_keeps_and_where_it_departs(module: str) -> None:
    docstring = ast.get_docstring(ast.parse(source(module))) or ""
    assert docstring.startswith(f"Document {DOCUMENTS[module].name}:")
    for part in ("\nSource: ", "Names: ", "\nKept quirks\n", "\nDeviations\n", "#### References"):
        assert part in docstring
    assert f"python -m reproductions.{module}" in docstring
    assert program(module).document == DOCUMENTS[module].name


@pytest.mark.parametrize("module", MODULES)
def test_modules_read_alike(module: str) -> None:
    assert re.findall(r"^# --- (.+?) -+$", source(module), re.MULTILINE) == SECTIONS
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


@pytest.mark.parametrize(
    ("files", "others"),
    [
        *((f"reproductions/{module}.py", {"reproductions"}) for module in MODULES),
        ("common/**/*.py", {"reproductions", "tests", "benchmarks", "notebooks"}),
        ("reproductions/**/*.py", {"tests", "benchmarks"}),
    ],
)
def test_imports_go_one_way(files: str, others: set[str]) -> None:
    """Modules do not import each other, and what is installed imports nothing that is not."""
    paths = list(ROOT.glob(files))
    assert paths
    for path in paths:
        assert not {name.split(".")[0] for name in imports(path)} & others, path


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
def test_a_wrong_word_is_answered_with_the_command_that_was_meant(
    arguments: list[str], hint: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert __main__.main(arguments) == 2
    assert hint in complaint(capsys, "reproductions")


@pytest.mark.parametrize("library", ["pytorch", "jax"])
def test_every_module_has_a_twin_beside_which_its_speed_is_measured(library: str) -> None:
    tree = ast.parse((ROOT / "benchmarks" / f"in_{library}.py").read_text())
    assert set(MODULES) <= {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}


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
