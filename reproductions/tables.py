"""`python -m reproductions.tables`: writes the tables of the READMEs from the reference results.

A table stands between `<!-- table NAME -->` and `<!-- end -->`. A test fails when one is stale.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from common.cli import OneLineParser, run_command
from common.files import write_atomically
from reproductions import CATALOGUE, RECORDED, wholeruns
from reproductions.reference import REFERENCE, load_seeds

READMES = {"README.md": "en", "README.zh-CN.md": "zh"}
HEADERS = {
    "results": {
        "en": "module | document | figure | printed there | TF 1.14 / 2.0 | ours |"
        " digits agreed (float64, 100 steps)",
        "zh": "模块 | 文档 | 指标 | 文档所印 | TF 1.14 / 2.0 | 本项目 |"
        " 一致位数（float64，100 步）",
    },
    "lockstep": {
        "en": "module | precision | steps compared | horizon | largest difference | at step |"
        " digits agreed up to step 1 | 10 | 100",
        "zh": "模块 | 精度 | 比较步数 | 可比步数 | 最大相对差 | 所在步 |"
        " 至第 1 步一致位数 | 10 | 100",
    },
    "wholeruns": {
        "en": "module | figure | ours (seeds) | original (seeds) | difference | verdict",
        "zh": "模块 | 指标 | 本项目（种子数） | 原程序（种子数） | 差 | 结论",
    },
}
# What a reader looks for first: (column of the history, what it is, what was printed)
HEADLINES = {
    "mlp_vae": ("loss", "cost of a batch, mean of epoch 50", "1950.55 (last batch, epoch 43)"),
    "mlp_cvae": ("loss", "cost of a batch, mean of epoch 50", "no program"),
    "conv_vae": ("val_loss", "validation loss after 30 epochs, nats", "none"),
    "elbo_cvae": ("test_elbo", "test ELBO after 100 epochs, nats", "−78.338, −78.327 (upstream)"),
    "rmsprop_vae": ("loss", "loss of steps 2,901 to 3,000, nats", "172.93 (upstream, step 3,000)"),
    "tfp_cvae": ("val_loss", "validation loss per batch after 15 epochs", "none"),
}


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command; returns its exit code."""
    return run_command("tables", lambda: _write(sys.argv[1:] if argv is None else argv))


def _write(argv: Sequence[str]) -> None:
    OneLineParser(
        prog="python -m reproductions.tables",
        description="Writes the tables of the READMEs from the reference results.",
    ).parse_args(argv)
    for name, language in READMES.items():
        path = Path(name)
        write_atomically(path, fill(path.read_text(), language))
        print(f"{name}: tables written")


def fill(text: str, language: str) -> str:
    """A README with its tables brought up to date."""
    tables = {"results": results, "lockstep": lockstep, "wholeruns": whole_runs}

    def table(match: re.Match[str]) -> str:
        name = match[1]
        body = as_markdown(HEADERS[name][language], tables[name]())
        return f"<!-- table {name} -->\n{body}\n<!-- end -->"

    return re.sub(r"<!-- table (\w+) -->\n.*?<!-- end -->", table, text, flags=re.DOTALL)


def as_markdown(header: str, rows: list[list[str]]) -> str:
    """A Markdown table."""
    columns = header.count("|") + 1
    lines = [f"| {header} |", "|" + "---|" * columns]
    return "\n".join(lines + [f"| {' | '.join(row)} |" for row in rows])


def results() -> list[list[str]]:
    """A row a module: what its document printed, what the original gave, what ours gives."""
    rows = []
    for entry in CATALOGUE:
        column, figure, printed = HEADLINES[entry.module]
        runs = load_seeds(entry.module)["runs"]
        ours = [run[column][-1] for run in runs]
        theirs = _original_finals(entry.module, column)
        rows.append(
            [f"`{entry.module}`", entry.document, figure, printed, theirs, _spread(ours),
             _digits(entry.module)]
        )  # fmt: skip
    return rows


def _digits(module: str) -> str:
    """On how many digits a port agrees with its recording over 100 steps in double precision."""
    if module not in RECORDED.values():
        return "–"
    double = next(e for e in _verdicts(module) if e["precision"] == "float64")
    return f"{double['digits']['100']:.1f}"


def _verdicts(module: str) -> list[dict[str, Any]]:
    return json.loads((REFERENCE / module / "lockstep.json").read_text())["entries"]


def lockstep() -> list[list[str]]:
    """A row for each module and precision: how far the port follows the recording."""
    rows = []
    for module in sorted(RECORDED.values(), key=[e.module for e in CATALOGUE].index):
        for entry in _verdicts(module):
            digits = ["–" if d is None else f"{d:.1f}" for d in entry["digits"].values()]
            rows.append(
                [f"`{module}`", entry["precision"], str(entry["steps"]), str(entry["horizon"]),
                 f"{entry['largest_difference']:.1e}", str(entry["largest_step"]), *digits]
            )  # fmt: skip
    return rows


def whole_runs() -> list[list[str]]:
    """A row for each compared figure of whole runs."""
    return [
        [f"`{c.module}`", c.figure, f"{c.ours.mean():.6g} ({len(c.ours)})",
         f"{c.theirs.mean():.6g} ({len(c.theirs)})", f"{c.difference:+.2%}",
         c.verdict + (f", p = {c.p:.2g}" if c.p is not None else "")]
        for c in wholeruns.available()
    ]  # fmt: skip


def _original_finals(module: str, column: str) -> str:
    document = next((d for d, m in RECORDED.items() if m == module), None)
    if document is None:
        return "–"
    name = next(name for name, ours, _ in wholeruns.CURVES[document] if ours == column)
    curves = wholeruns.original(document, name)
    rounds = len(load_seeds(module)["runs"][0][column])
    if curves.shape[1] < rounds:
        return f"stopped after {curves.shape[1]} of {rounds}"
    return _spread(curves[:, -1])


def _spread(values: Any) -> str:
    """Mean, standard deviation and number of seeds."""
    mean = f"{np.mean(values):,.2f}".replace("-", "\N{MINUS SIGN}")
    if len(values) == 1:
        return f"{mean} (1 seed)"
    return f"{mean} ± {np.std(values, ddof=1):,.2f} ({len(values)} seeds)"


if __name__ == "__main__":
    sys.exit(main())
