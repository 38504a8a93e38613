"""The notebooks: generated, in step with the modules, the same code in both languages, alive."""

from __future__ import annotations
import __future__

import ast
import json
import linecache
import re
import sys
import types
from pathlib import Path
from typing import Any

import pytest

from notebooks.__main__ import HERE, LANGUAGES, PART, execute, notebook, prose
from reproductions import MODULES
from tests.conftest import ROOT, SLOW, Load, long_where, small_of, train_on
from tests.test_layout import SECTIONS

STARTS_THE_COMMAND = '\nif __name__ == "__main__":\n    sys.exit(main())\n'
MOST_BYTES = 300_000  # of a notebook: it is read on the web, and kept for ever
LEAST_PROSE = 20  # characters before the code of a section; Chinese says much in twenty


def committed(module: str, language: str) -> dict[str, Any]:
    return json.loads((HERE / f"{module}.{language}.ipynb").read_text())


def code(content: dict[str, Any], kind: str = "") -> list[str]:
    """The code cells' text; of one kind, "module" or "more", if it is named."""
    cells = [cell for cell in content["cells"] if cell["cell_type"] == "code"]
    return ["".join(cell["source"]) for cell in cells if cell["id"].startswith(kind)]


@pytest.mark.parametrize("language", LANGUAGES)
@pytest.mark.parametrize("module", MODULES)
def test_what_is_committed_is_what_is_made(module: str, language: str) -> None:
    ours = committed(module, language)
    for cell in ours["cells"]:
        if cell["cell_type"] == "code":
            cell |= {"outputs": [], "execution_count": None}
    assert ours == notebook(module, language), "run python -m notebooks"


@pytest.mark.parametrize("module", MODULES)
def test_the_code_is_the_modules_byte_for_byte(module: str) -> None:
    """The cells cover the module from its first line to its last, with blank lines between."""
    text = (ROOT / "reproductions" / f"{module}.py").read_text()
    rest = text
    for cell in code(notebook(module, "en"), "module"):
        between, found, rest = rest.partition(cell)
        assert found
        assert between.strip("\n") == ""
    assert rest.lstrip("\n") == STARTS_THE_COMMAND.lstrip("\n")


@pytest.mark.parametrize("module", MODULES)
def test_both_languages_run_the_same_code_with_the_same_outputs(module: str) -> None:
    english, chinese = (committed(module, language) for language in LANGUAGES)
    assert code(english) == code(chinese)
    outputs = [[c.get("outputs") for c in book["cells"]] for book in (english, chinese)]
    assert outputs[0] == outputs[1]


@pytest.mark.parametrize("language", LANGUAGES)
@pytest.mark.parametrize("module", MODULES)
def test_every_section_has_prose_before_its_code(module: str, language: str) -> None:
    text = prose(module, language, {})
    done, explained = 0, {}
    for part in PART.finditer(text):
        explained[part[1]] = re.sub(r"^#.*$", "", text[done : part.start()], flags=re.MULTILINE)
        done = part.end()
    parts = ["top", *SECTIONS]
    assert all(len(explained[part].strip()) >= LEAST_PROSE for part in parts)
    ours, english = (
        len(re.findall(r"^## .+$", t, re.MULTILINE)) for t in (text, prose(module, "en", {}))
    )
    assert ours == english >= len(parts)


@pytest.mark.parametrize("language", LANGUAGES)
@pytest.mark.parametrize("module", MODULES)
def test_links_of_a_notebook_lead_somewhere(module: str, language: str) -> None:
    cells = notebook(module, language)["cells"]
    text = "".join("".join(c["source"]) for c in cells if c["cell_type"] == "markdown")
    targets = {target for target in re.findall(r"\]\(([^)#]+)", text) if "://" not in target}
    assert len(targets) > 5
    assert [target for target in targets if not (HERE / target).exists()] == []


@pytest.mark.parametrize("module", MODULES)
def test_a_committed_notebook_was_run_from_top_to_bottom_and_proved(module: str) -> None:
    cells = [cell for cell in committed(module, "en")["cells"] if cell["cell_type"] == "code"]
    assert [cell["execution_count"] for cell in cells] == list(range(1, len(cells) + 1))
    assert not [o for cell in cells for o in cell["outputs"] if o["output_type"] == "error"]
    assert "equal to the original" in "".join(cells[-1]["outputs"][0]["text"])
    for language in LANGUAGES:
        path = HERE / f"{module}.{language}.ipynb"
        assert path.stat().st_size <= MOST_BYTES
        assert str(Path.home()) not in path.read_text()


@pytest.mark.parametrize("module", long_where(lambda module: module in SLOW, MODULES))
def test_every_cell_runs_on_a_sample(module: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """All cells but the set-up and the proof, which needs the whole data set."""
    train_on(monkeypatch, lambda name: small_of(module))
    shown: list[Any] = []
    book = types.ModuleType(f"notebook_{module}")
    monkeypatch.setitem(sys.modules, book.__name__, book)
    vars(book)["show"] = lambda *pictures: shown.extend(pictures)
    cells = code(notebook(module, "en"))[1:-1]
    for number, cell in enumerate(cells):
        name = f"<{module}, cell {number}>"
        lines = cell.splitlines(keepends=True)
        linecache.cache[name] = (len(cell), None, lines, name)  # for AutoGraph, as IPython does
        flags = __future__.annotations.compiler_flag  # of the first cell, for all
        exec(compile(cell, name, "exec", flags), vars(book))
    assert len(shown) >= 2


def test_a_changed_loss_is_noticed_by_the_last_cell(whole: Load) -> None:
    """The control: what the last cell proves are the functions of this notebook's own cells."""
    whole("mnist")  # or skip
    wrong = notebook("mlp_vae", "en")
    ours = [cell for cell in wrong["cells"] if "    kl = -0.5 * tf.reduce_sum(" in str(cell)]
    (cell,) = (cell for cell in ours if cell["cell_type"] == "code")
    cell["source"] = [line.replace("kl = -0.5", "kl = -0.49") for line in cell["source"]]
    training = next(c for c in wrong["cells"] if "class Bar(tqdm" in "".join(c["source"]))
    pictures = [c for c in wrong["cells"] if re.search(r"drawn( =|\[)", "".join(c["source"]))]
    wrong["cells"] = [c for c in wrong["cells"] if c not in (training, *pictures)]
    ran = execute(wrong)
    said = "".join(ran["cells"][-2]["outputs"][0]["text"])
    assert "equal to the original" not in said
    assert "step 2: loss" in said  # at step 1 the KL is next to nothing


@pytest.mark.long
def test_a_notebook_runs_as_in_jupyter(whole: Load) -> None:
    whole("mnist")  # or skip
    ran = execute(notebook("mlp_vae", "en"))
    cells = [cell for cell in ran["cells"] if cell["cell_type"] == "code"]
    assert "equal to the original" in "".join(cells[-1]["outputs"][0]["text"])


# --- Docs in two languages ------------------------------------------------------------------------

TRANSLATED = sorted(
    path for path in ROOT.rglob("*.zh-CN.md") if ".venv" not in path.parts and path.parent != ROOT
)


def shape(text: str) -> list[str]:
    """What a translation shares with its source: levels of headings, rows of tables, formulas."""
    marks = []
    for line in text.splitlines():
        if line.startswith("#"):
            marks.append(line.split()[0])
        elif line.startswith("|"):
            marks.append(f"row of {line.count('|')}")
        elif line.startswith("$$"):
            marks.append("formula")
    return marks


@pytest.mark.parametrize("path", TRANSLATED, ids=lambda p: p.name)
def test_a_translation_has_the_shape_of_its_source(path: Path) -> None:
    source = path.with_name(path.name.replace(".zh-CN", ""))
    assert shape(path.read_text()) == shape(source.read_text())


@pytest.mark.parametrize(
    "path", [*sorted(HERE.glob("prose/*.zh.md")), *TRANSLATED], ids=lambda p: p.name
)
def test_a_chinese_paragraph_is_one_line(path: Path) -> None:
    """Markdown makes a gap of a line break, which Chinese does not have inside a sentence."""
    assert not re.search(r"[\u4e00-\u9fff，。；：、]\n[\u4e00-\u9fff]", path.read_text())


@pytest.mark.parametrize("name", ["vae.md", "vae.zh-CN.md", "exercises.md", "exercises.zh-CN.md"])
def test_every_function_that_the_theory_links_exists(name: str) -> None:
    """Links go by name, so that they outlive a shift of lines."""
    links = re.findall(
        r"\[`(\w+)\.(\w+)`\]\(\.\./(\w+)/(\w+)\.py\)", (ROOT / "docs" / name).read_text()
    )
    assert links
    for module, function, package, file in links:
        assert module == file
        tree = ast.parse((ROOT / package / f"{file}.py").read_text())
        names = {n.name for n in tree.body if isinstance(n, ast.FunctionDef | ast.ClassDef)}
        assert function in names, f"{name}: {file}.{function}"
