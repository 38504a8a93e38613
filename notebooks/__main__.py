"""`python -m notebooks`: makes notebooks/<module>.<language>.ipynb.

The code is the module's text, without the lines that start it as a command; the words are those of
`prose/<module>.<language>.md`. There `<!-- code NAME -->` stands for the module from NAME (`top`, a
section, a function, a class) up to the next such mark; `<!-- include NAME KEY="value" -->` for
another file of prose with KEY replaced; a block of Python is a cell that the module does not have.

The outputs, in both languages, are those of one execution (`--execute`), until the code changes.
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

from common.cli import one_of
from common.files import write_atomically
from reproductions import MODULES

HERE = Path(__file__).parent
LANGUAGES = ("en", "zh")
PART = re.compile(r"^<!-- code ([^\n]+) -->\n|^```python\n(.*?)^```\n", re.MULTILINE | re.DOTALL)
INCLUDE = re.compile(r"^<!-- include (\w+)(.*) -->\n", re.MULTILINE)


def source_of(module: str) -> str:
    """The module's text, up to the lines that start it as a command."""
    text = (HERE.parent / "reproductions" / f"{module}.py").read_text(encoding="utf-8")
    return text.partition('if __name__ == "__main__":')[0]


def starts(source: str) -> dict[str, int]:
    """Where the parts of a module begin in its text: its sections, functions and classes."""
    found = {m[1]: m.start() for m in re.finditer(r"^# --- (.+?) -+$", source, re.MULTILINE)}
    lines = [0, *(m.end() for m in re.finditer("\n", source))]
    for node in ast.parse(source).body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            found[node.name] = lines[min(n.lineno for n in (node, *node.decorator_list)) - 1]
    return {"top": 0, **found}


def prose(name: str, language: str, values: dict[str, str]) -> str:
    """A file of prose, with what it includes."""
    text = (HERE / "prose" / f"{name}.{language}.md").read_text(encoding="utf-8")
    for key, value in values.items():
        text = text.replace(key, value)

    def included(match: re.Match[str]) -> str:
        return prose(match[1], language, values | dict(re.findall(r'(\w+)="(.*?)"', match[2])))

    return INCLUDE.sub(included, text)


def parts(module: str, language: str) -> Iterator[tuple[str, str]]:
    """The cells: a kind ("text", the "module"'s code, or "more" code) and its content."""
    text, source = prose(module, language, {"MODULE": module}), source_of(module)
    begins = starts(source)
    names = [name for name, _ in PART.findall(text) if name]
    ends = dict(zip(names, [*(begins[name] for name in names[1:]), len(source)], strict=True))
    done = 0
    for part in PART.finditer(text):
        yield "text", text[done : part.start()].strip()
        done, name, block = part.end(), part[1], part[2]
        yield ("module", source[begins[name] : ends[name]]) if name else ("more", block)
    yield "text", text[done:].strip()


def notebook(module: str, language: str) -> dict[str, Any]:
    """The notebook, as JSON has it, without outputs."""
    cells = []
    code = {"cell_type": "code", "execution_count": None, "outputs": list[Any]()}
    for number, (kind, text) in enumerate(part for part in parts(module, language) if part[1]):
        lines = text.strip("\n").splitlines(keepends=True)
        cell = {"id": f"{kind}-{number}", "metadata": {}, "source": lines}
        cells.append(cell | ({"cell_type": "markdown"} if kind == "text" else code))
    metadata = {"kernelspec": {"display_name": "Python 3", "name": "python3"}}
    metadata["language_info"] = {"name": "python"}
    return {"cells": cells, "metadata": metadata, "nbformat": 4, "nbformat_minor": 5}


def execute(content: dict[str, Any]) -> dict[str, Any]:
    """The notebook with the outputs of a run in a kernel, which a failing cell ends."""
    import nbformat
    from nbclient import NotebookClient

    node = nbformat.reads(json.dumps(content), as_version=4)
    client = NotebookClient(node, coalesce_streams=True, record_timing=False)
    # Where there are no widgets, tqdm falls back to text, and warns with this machine's paths.
    client.execute(cwd=HERE, env={**os.environ, "PYTHONWARNINGS": "ignore:IProgress"})
    return json.loads(nbformat.writes(node))


def main() -> None:
    """Makes the notebooks of the modules that are named, or of all."""
    parser = argparse.ArgumentParser(prog="python -m notebooks", description=main.__doc__)
    parser.add_argument(
        "modules", nargs="*", type=one_of(MODULES), metavar="module", help="default: all six"
    )
    parser.add_argument("--execute", action="store_true", help="run the code, keep its outputs")
    options = parser.parse_args()
    for module in options.modules or MODULES:
        kept = HERE / f"{module}.{LANGUAGES[0]}.ipynb"
        if options.execute:
            ran = execute(notebook(module, LANGUAGES[0]))
        elif kept.exists():
            ran = json.loads(kept.read_text(encoding="utf-8"))
        else:
            ran = {"cells": []}
        for language in LANGUAGES:
            content = notebook(module, language)
            new, old = ([c for c in b["cells"] if "outputs" in c] for b in (content, ran))
            if [cell["source"] for cell in new] == [cell["source"] for cell in old]:
                for cell, executed in zip(new, old, strict=True):
                    cell |= {key: executed[key] for key in ("execution_count", "outputs")}
            text = json.dumps(content, indent=1, ensure_ascii=False) + "\n"
            write_atomically(HERE / f"{module}.{language}.ipynb", text)


if __name__ == "__main__":
    main()
