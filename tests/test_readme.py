"""The READMEs: the Python example runs, both languages say the same, links lead somewhere."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

from tests.conftest import ROOT, train_on

READMES = ("README.md", "README.zh-CN.md")
DOCS = [f"docs/{path.name}" for path in (ROOT / "docs").glob("*.md")]
LINKED = ("*.md", "docs/*.md", "notebooks/README.md", "reproductions/golden/*.md")


def blocks(text: str, language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", text, flags=re.DOTALL)


def test_the_python_example_runs(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    train_on(monkeypatch)
    (here / "artifacts").symlink_to(ROOT / "artifacts")
    names: dict[str, object] = {}
    for block in blocks((ROOT / READMES[0]).read_text(), "python"):
        exec(compile(block, READMES[0], "exec"), names)
    assert names["losses"].shape == (20, 3)  # type: ignore[attr-defined]
    assert names["restored"].shape == (10, 28, 28)  # type: ignore[attr-defined]
    assert names["experiment"].steps > 0  # type: ignore[attr-defined]
    assert names["eights"].shape == (2, 5, 28, 28)  # type: ignore[attr-defined]


def test_the_python_example_is_the_same_in_both_languages_but_for_its_comments() -> None:
    english, chinese = (
        [ast.dump(ast.parse(block)) for block in blocks((ROOT / name).read_text(), "python")]
        for name in READMES
    )
    assert english == chinese


def test_both_languages_show_the_same_commands() -> None:
    def commands(name: str) -> list[str]:
        lines = (ROOT / name).read_text().splitlines()
        return [
            line.split("#")[0].strip() for line in lines if re.match(r" {4}(python|pip) ", line)
        ]

    english, chinese = (commands(name) for name in READMES)
    assert english == chinese
    assert len(english) >= 10


@pytest.mark.parametrize(
    "path",
    [path for pattern in LINKED for path in sorted(ROOT.glob(pattern))],
    ids=lambda path: str(path.relative_to(ROOT)),
)
def test_links_lead_somewhere(path: Path) -> None:
    targets = re.findall(r"\]\(([^)#]+)\)", path.read_text())
    local = [target for target in targets if "://" not in target]
    missing = [target for target in local if not (path.parent / target).exists()]
    assert missing == []


@pytest.mark.parametrize("path", [*READMES, *DOCS])
def test_formulas_are_formulas_for_a_hosting_site(path: str) -> None:
    """It takes a backslash before punctuation for Markdown's; none opens after a Chinese sign."""
    text = re.sub(r"```.*?```|`[^`\n]+`", "", (ROOT / path).read_text(), flags=re.DOTALL)
    formulas = list(re.finditer(r"\$\$.*?\$\$|\$[^$\n]+\$", text, flags=re.DOTALL))
    assert [f[0] for f in formulas if re.search(r"\\[^a-zA-Z]", f[0])] == []
    assert [f[0] for f in formulas if not text[f.start() - 1].isascii()] == []


def test_ci_runs_the_readmes_test_command() -> None:
    command = "pip install -c constraints.txt -e '.[test]' && python -m pytest"
    assert f"    {command}" in (ROOT / "README.md").read_text()
    assert command in (ROOT / ".ci" / "run").read_text()
