"""`python -m notebooks`: makes notebooks/<module>.<language>.ipynb.

The code comes from the module, byte for byte but for the two lines that start it as a command; the
words come from `prose/<module>.<language>.md`. In the prose

    <!-- code NAME -->        stands for the module's text from NAME (`top`, a section, a function
                              or a class) up to the next such mark;
    <!-- include NAME -->     stands for `prose/NAME.<language>.md`, with KEY=value replaced;
    a block of Python         becomes a cell that the module does not have.

With `--execute` the code is run, once for both languages, and its outputs are kept in both. Without
it the outputs stay as long as no line of code has changed.
"""

from __future__ import annotations

import argparse
import ast
import json
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from common.files import write_atomically
from reproductions import CATALOGUE

HERE = Path(__file__).parent
LANGUAGES = ("en", "zh")
MODULES = [entry.module for entry in CATALOGUE]
PARTS = re.compile(r"^<!-- code ([^\n]+) -->\n|^```python\n(.*?)^```\n", re.MULTILINE | re.DOTALL)
INCLUDE = re.compile(r"^<!-- include (\w+)(.*) -->\n", re.MULTILINE)
TIMEOUT = 3_600  # seconds for a cell

Cell = dict[str, Any]


def source_of(module: str) -> str:
    """The module's text, up to the lines that start it as a command."""
    text = (HERE.parent / "reproductions" / f"{module}.py").read_text()
    return text[: text.index('if __name__ == "__main__":')]


def starts(source: str) -> dict[str, int]:
    """Where the parts of a module begin in its text: its sections, functions and classes."""
    found = {"top": 0}
    found |= {m[1]: m.start() for m in re.finditer(r"^# --- (.+?) -+$", source, re.MULTILINE)}
    offsets = [0, *(m.end() for m in re.finditer("\n", source))]
    for node in ast.parse(source).body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            first = min([node.lineno, *(decorator.lineno for decorator in node.decorator_list)])
            found[node.name] = offsets[first - 1]
    return found


def prose(name: str, language: str, values: dict[str, str]) -> str:
    """A file of prose with what it includes."""
    text = (HERE / "prose" / f"{name}.{language}.md").read_text()
    for key, value in values.items():
        text = text.replace(key, value)

    def included(match: re.Match[str]) -> str:
        more = dict(re.findall(r'(\w+)="(.*?)"', match[2]))
        return prose(match[1], language, values | more)

    return INCLUDE.sub(included, text)


def cells(module: str, language: str) -> Iterator[tuple[str, str]]:
    """The notebook's cells: ("text", "module" or "more", its content)."""
    text, source = prose(module, language, {"MODULE": module}), source_of(module)
    begins = starts(source)
    names = [name for name, _ in PARTS.findall(text) if name]
    ends = dict(zip(names, [begins[name] for name in names[1:]] + [len(source)], strict=True))
    done = 0
    for part in PARTS.finditer(text):
        yield "text", text[done : part.start()].strip()
        if part[1]:
            yield "module", source[begins[part[1]] : ends[part[1]]].strip("\n")
        else:
            yield "more", part[2].strip("\n")
        done = part.end()
    yield "text", text[done:].strip()


def notebook(module: str, language: str) -> dict[str, Any]:
    """The notebook as JSON has it, without outputs."""
    made: list[Cell] = []
    for number, (kind, text) in enumerate(cell for cell in cells(module, language) if cell[1]):
        cell: Cell = {"cell_type": "markdown" if kind == "text" else "code"}
        cell |= {"id": f"{kind}-{number}", "metadata": {}, "source": text.splitlines(keepends=True)}
        if kind != "text":
            cell |= {"execution_count": None, "outputs": []}
        made.append(cell)
    kernel = {"display_name": "Python 3", "language": "python", "name": "python3"}
    metadata = {"kernelspec": kernel, "language_info": {"name": "python"}}
    return {"cells": made, "metadata": metadata, "nbformat": 4, "nbformat_minor": 5}


def code(content: dict[str, Any]) -> list[Cell]:
    """The code cells of a notebook."""
    return [cell for cell in content["cells"] if cell["cell_type"] == "code"]


def execute(content: dict[str, Any]) -> dict[str, Any]:
    """The notebook with the outputs of one run, in a kernel of its own as Jupyter would start it.

    Raises:
      nbclient.exceptions.CellExecutionError: a cell failed.
    """
    import nbformat
    from nbclient import NotebookClient

    node = nbformat.reads(json.dumps(content), as_version=4)
    resources = {"metadata": {"path": str(HERE)}}
    options = {"record_timing": False, "coalesce_streams": True, "timeout": TIMEOUT}
    # Where there are no widgets, tqdm falls back to text and says so with this machine's paths.
    quiet = {**os.environ, "PYTHONWARNINGS": "ignore:IProgress"}
    NotebookClient(node, resources=resources, **options).execute(env=quiet)
    return json.loads(nbformat.writes(node))


def main() -> None:
    """Makes the notebooks that are named, or all."""
    parser = argparse.ArgumentParser(prog="python -m notebooks", description=__doc__.split("\n")[0])
    parser.add_argument("modules", nargs="*", metavar="module", help="default: all six")
    parser.add_argument("--execute", action="store_true", help="run the code, keep its outputs")
    options = parser.parse_args()
    for module in options.modules or MODULES:
        made = {language: notebook(module, language) for language in LANGUAGES}
        path = HERE / f"{module}.en.ipynb"
        executed = made["en"]
        if options.execute:
            executed = execute(made["en"])
        elif path.exists():
            executed = json.loads(path.read_text())
        for language, content in made.items():
            pairs = list(zip(code(content), code(executed), strict=False))
            if [a["source"] for a in code(content)] == [b["source"] for b in code(executed)]:
                for cell, ran in pairs:
                    cell |= {key: ran[key] for key in ("execution_count", "outputs")}
            text = json.dumps(content, indent=1, ensure_ascii=False) + "\n"
            write_atomically(HERE / f"{module}.{language}.ipynb", text)


if __name__ == "__main__":
    main()
