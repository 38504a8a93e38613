"""`python -m reproductions.evidence.tables`: writes the tables of README and docs.

They are made from the kept results. A table stands between `<!-- table NAME -->` and `<!-- end -->`
and says below it which files its rows come from; a number in a sentence stands between
`<!-- value METRIC RUN [minus RUN] -->` and `<!-- end -->`. The intervals that a run is expected to
end in (`expected.json`) are written, too. A test fails when one of them is stale.
"""

from __future__ import annotations

import json
import math
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from common.cli import OneLineParser, run_command
from common.expected import EXPECTED
from common.files import write_atomically
from reproductions import MODULES, program
from reproductions.evidence import (
    dose_response,
    equivalence,
    false_alarms,
    kept,
    likelihood,
    rules,
    sharpness,
    speed,
)
from reproductions.evidence.controls import CONTROLS
from reproductions.evidence.documents import DOCUMENTS, RECORDED, Document
from reproductions.evidence.equivalence import ceil_percent, signed
from reproductions.evidence.lockstep import floored

FEWEST = 3  # seeds: with fewer the prediction interval says nothing that helps a user
MINUS = "\N{MINUS SIGN}"
# A number in a sentence; an editor may have wrapped the marks.
VALUE = r"<!--\s+value\s+(\w+)\s+(\S+?)(?:\s+minus\s+(\S+))?\s+-->.*?<!--\s+end\s+-->"
Rows = list[list[str]]


class Table(NamedTuple):
    """A table: how its rows are made, its header and the source of its rows in two languages."""

    rows: Callable[[], Rows]
    header: Mapping[str, str]
    source: Mapping[str, str]


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command; returns its exit code."""
    return run_command("tables", lambda: _write(argv))


def _write(argv: Sequence[str] | None) -> None:
    OneLineParser(
        "reproductions.evidence.tables",
        "Writes the tables of README and docs from the kept results.",
    ).parse_args(argv)
    for path in pages():
        write_atomically(path, fill(path.read_text(encoding="utf-8"), language_of(path)))
        print(f"{path.name}: tables written")
    write_atomically(EXPECTED, expected_text())
    print(f"{EXPECTED.name}: written")


def pages() -> list[Path]:
    """Those of README and docs that have tables or numbers, in both languages."""
    found = sorted([*kept.ROOT.glob("README*.md"), *kept.ROOT.glob("docs/*.md")])
    return [page for page in found if "<!-- end -->" in page.read_text(encoding="utf-8")]


def language_of(page: Path) -> str:
    """The language of a page: "en" or "zh"."""
    return "zh" if page.name.endswith(".zh-CN.md") else "en"


def fill(text: str, language: str) -> str:
    """A page with its tables brought up to date.

    Args:
      text: Markdown.
      language: "en" or "zh".
    """

    def table(match: re.Match[str]) -> str:
        name = match[1]
        rows = TABLES[name].rows()
        if language == "zh":
            rows = [[chinese(cell) for cell in row] for row in rows]
        body = as_markdown(TABLES[name].header[language], rows)
        source = TABLES[name].source[language]
        return f"<!-- table {name} -->\n{body}\n\n<sub>{source}</sub>\n<!-- end -->"

    def value(match: re.Match[str]) -> str:
        metric, run, other = match.group(1, 2, 3)
        number = metric_of(metric, run) - (metric_of(metric, other) if other else 0)
        shown = f"{number:,.0f}" if abs(number) >= 1000 else f"{number:.1f}"
        mark = f"{metric} {run}" + (f" minus {other}" if other else "")
        return f"<!-- value {mark} -->{shown.replace('-', MINUS)}<!-- end -->"

    text = re.sub(r"<!-- table (\w+) -->\n.*?<!-- end -->", table, text, flags=re.DOTALL)
    return re.sub(VALUE, value, text, flags=re.DOTALL)


def metric_of(metric: str, run: str) -> float:
    """A number of a module's kept runs, the mean over its seeds, or of a variant's run.

    Args:
      metric: a key of their `evaluation` or `results`; or "integrated", the log-likelihood of the
        run with seed 0.
      run: "mlp_vae", or "mlp_vae/elbo" for a variant.
    """
    if metric == "integrated":
        results = kept.load_results(likelihood.RESULTS)[run.partition("/")[0]]
        return float(results[likelihood.name_of(run)])
    runs = [kept.load_record(run)] if "/" in run else kept.load_seeds(run)["runs"]
    return float(np.mean([(record["evaluation"] | record["results"])[metric] for record in runs]))


def as_markdown(header: str, rows: Rows) -> str:
    """A Markdown table."""
    columns = header.count("|") + 1
    lines = [f"| {header} |", "|" + "---|" * columns]
    return "\n".join(lines + [f"| {' | '.join(row)} |" for row in rows])


# --- The tables -----------------------------------------------------------------------------------


def tutorials() -> Rows:
    """A row for each module: its tutorial, where to read it, and how long the kept run took."""
    return [
        [d.name, f"{d.title}<br>*{d.english}*", d.date or "–",
         f"[`{d.module}`](reproductions/{d.module}.py)",
         f"[English](notebooks/{d.module}.en.ipynb), [中文](notebooks/{d.module}.zh.ipynb)",
         kept.duration(d.module)]
        for d in DOCUMENTS.values()
    ]  # fmt: skip


def results() -> Rows:
    """A row for each module: what its document printed, what the original gave, what ours gives."""
    rows = []
    for document in DOCUMENTS.values():
        headline = document.headline
        ours = kept.our_curves(document.module, headline.column)
        rows.append(
            [f"`{document.module}`", document.name, headline.label, headline.printed,
             _original_finals(document, len(ours[0])), _spread([curve[-1] for curve in ours]),
             _digits(document)]
        )  # fmt: skip
    return rows


def _original_finals(document: Document, rounds: int) -> str:
    if document.unrecorded:
        return "–"
    recorded = next(c.recorded for c in document.curves if c.column == document.headline.column)
    curves = kept.original_curves(document.number, recorded)
    whole = [curve[-1] for curve in curves if len(curve) >= rounds]
    return _spread(whole) if whole else f"stopped after {max(map(len, curves))} of {rounds}"


def _digits(document: Document) -> str:
    """On how many digits a port agrees with its recording over 100 steps in double precision."""
    if document.unrecorded:
        return "–"
    return floored(_in_float64(document, "lockstep")["digits"]["100"])


def _in_float64(document: Document, proof: str) -> dict[str, Any]:
    """The verdict in double precision of "lockstep" or "miniature"."""
    entries = kept.load_results(f"{document.module}/{proof}.json")["entries"]
    return next(entry for entry in entries if entry["precision"] == "float64")


def verdicts() -> Rows:
    """A row for each recorded module: what each of the three comparisons with its original says."""
    rows = []
    for document in RECORDED:
        entry = _in_float64(document, "miniature")
        compared = equivalence.compare(document)
        shown = sum(c.equivalent is True for c in compared)
        rows.append(
            [f"`{document.module}`", _digits(document),
             ("equal" if entry["passed"] else "DIFFERENT")
             + f" (numbers: {entry['numbers']:,}, images: {entry['images']:,})",
             f"{shown} of {len(compared)}"]
        )  # fmt: skip
    return rows


def lockstep() -> Rows:
    """A row for each module and precision: how far the port follows the recording."""
    return [
        [f"`{document.module}`", entry["precision"], f"{entry['steps']:,}",
         f"{entry['largest_difference']:.1e}", f"{entry['largest_step']:,}",
         *map(floored, entry["digits"].values())]
        for document in RECORDED
        for entry in kept.load_results(f"{document.module}/lockstep.json")["entries"]
    ]  # fmt: skip


def miniature() -> Rows:
    """A row for each module and precision: what the port prints and draws in miniature."""
    return [
        [f"`{document.module}`", entry["precision"], f"{entry['numbers']:,}",
         _largest(entry["largest_difference"], entry["numbers"]), f"{entry['images']:,}",
         _largest(entry["largest_rms_of_an_image"], entry["images"])]
        for document in RECORDED
        for entry in kept.load_results(f"{document.module}/miniature.json")["entries"]
    ]  # fmt: skip


def _largest(difference: float, compared: int) -> str:
    """The largest of so many differences."""
    return "–" if not compared else f"{difference:.0e}" if difference else "0"


def wholeruns() -> Rows:
    """A row for each compared quantity of whole runs: the means."""
    rows = []
    for c in equivalence.available():
        interval = margin = power = in_spreads = "–"
        if c.interval is not None and c.margin_shown is not None:
            interval = " … ".join(signed(100 * end, 2) for end in c.interval)
            margin = ceil_percent(c.margin_shown)
            power = f"{math.floor(100 * (c.power or 0))} %"
        if c.in_spreads is not None:
            in_spreads = signed(c.in_spreads, 1)
        rows.append(
            [f"`{c.module}`", c.quantity,
             f"{c.ours.mean():.6g} ({len(c.ours)})".replace("-", MINUS),
             f"{c.theirs.mean():.6g} ({len(c.theirs)})".replace("-", MINUS),
             signed(100 * c.difference, 2), in_spreads, interval, margin, power, c.verdict]
        )  # fmt: skip
    return rows


def spreads() -> Rows:
    """A row for each quantity with several runs on both sides: the spread between seeds."""
    rows = []
    for c in equivalence.available():
        if c.spread is not None and c.shape is not None:
            ratio, low, high, p = c.spread
            rows.append(
                [f"`{c.module}`", c.quantity, f"{c.ours.std(ddof=1):.3g} ({len(c.ours)})",
                 f"{c.theirs.std(ddof=1):.3g} ({len(c.theirs)})", f"{ratio:.2f}",
                 f"{low:.2f} … {high:.2f}", f"{p:.2f}", f"{c.shape:.2f}"]
            )  # fmt: skip
    return rows


def quirks() -> Rows:
    """A row for each module's seeds, and for each kept variant: what the trained model is worth."""
    rows = []
    for document in DOCUMENTS.values():
        runs = [run["evaluation"] for run in kept.load_seeds(document.module)["runs"]]
        rows.append([f"`{document.module}`", str(len(runs)), *_metrics(runs)])
        for run, name in document.kept_variants.items():
            rows.append([f"`{name}`", "1", *_metrics([kept.load_record(run)["evaluation"]])])
    return rows


def _metrics(runs: Sequence[Mapping[str, Any]]) -> list[str]:
    """The metrics of a model: means over seeds and, from two seeds on, standard deviations."""

    def cell(name: str, decimals: int = 2) -> str:
        values = [run[name] for run in runs]
        spread = f" ± {np.std(values, ddof=1):,.{decimals}f}" if len(values) > 1 else ""
        return f"{np.mean(values):,.{decimals}f}".replace("-", MINUS) + spread

    weights = {f"{run['kl_weight']:g}" for run in runs}
    return [
        *map(cell, ("reconstruction", "kl")), cell("objective", 1),
        *map(cell, ("elbo", "log_likelihood")),
        f"{np.mean([run['effective_samples'] for run in runs]):.0f}",
        f"{np.mean([run['active_units'] for run in runs]):.0f}", ", ".join(sorted(weights)),
    ]  # fmt: skip


def wanted() -> Rows:
    """In how many of the pictures of a grid the wanted digit is drawn, in per cent, for 0 to 9."""
    rows = [
        [f"the original, seed {seed}", *_shares(right, 225)]
        for seed, right in enumerate(kept.original_right(), start=1)
    ]
    for module in MODULES:
        if program(module).draw is None:
            continue
        for run in kept.load_seeds(module)["runs"]:
            right = run["evaluation"]["wanted_digits"]["grid_right"]
            rows.append([f"`{module}`, seed {run['seed']}", *_shares(right, 225)])
        for run, name in DOCUMENTS[module].kept_variants.items():
            right = kept.load_record(run)["evaluation"]["wanted_digits"]["grid_right"]
            rows.append([f"`{name}`, seed 0", *_shares(right, 225)])
    return rows


def _shares(right: Any, of: int) -> list[str]:
    """Per cent of each digit and of all."""
    return [*(f"{100 * n / of:.0f}" for n in right), f"{100 * sum(right) / of / len(right):.1f}"]


def controls() -> Rows:
    """A row for each mistake made on purpose: the step at which lockstep rejects it."""
    return [
        [f"`{mistake.module}`", mistake.what, *("–" if n is None else str(n) for n in steps)]
        for mistake, *steps in CONTROLS
    ]


def followed_on_gpu() -> Rows:
    """A row for each module: how far it follows its recordings on a GPU, in each way to compute."""
    comparisons = kept.load_results("verify-gpu.json")["comparisons"]
    ways = [("float64", False, False), ("float64", False, True),
            ("float32", False, False), ("float32", False, True),
            ("float32", True, False), ("float32", True, True)]  # fmt: skip

    def cell(module: str, precision: str, tf32: bool, xla: bool) -> str:
        way = {"module": module, "precision": precision, "tf32": tf32, "xla": xla}
        found = {c["what"]: c for c in comparisons if way.items() <= c.items()}
        if not found:
            return "–"
        lockstep, miniature = found["lockstep"], found["miniature"]
        bad = lockstep["first_step_over_the_limit"]
        followed = lockstep["steps"] if bad is None else bad - 1
        verdict = "equal" if miniature["passed"] else "DIFFERENT"
        return f"{followed:,} of {lockstep['horizon']:,}; {verdict}"

    return [[f"`{d.module}`", *(cell(d.module, *way) for way in ways)] for d in RECORDED]


def performance() -> Rows:
    """A row for each module: how long the parts of the kept run with seed 0 took."""
    rows = []
    for module in MODULES:
        record = kept.load_record(module)
        parts = [record["seconds"].get(p, 0.0) for p in ("training", "pictures", "evaluation")]
        made_with = f"TensorFlow {record['environment']['versions']['tensorflow']}"
        rows.append(
            [f"`{module}`", *(f"{s:,.0f}" for s in parts), kept.duration(module), made_with]
        )
    return rows


def steps(name: str) -> Table:
    """The table of what a training step costs, from one of the kept measurements."""
    return Table(
        lambda: speed.rows(name),
        {"en": " | ".join(speed.HEADER),
         "zh": "模块 | 每步毫秒 | 相对固定批次的一步 | GFLOP | 占峰值 | × PyTorch 最好的 |"
         " × JAX 最好的 | × 原程序 | 一次运行的步数 | 分钟"},
        {"en": f"From `artifacts/reference/speed-{name}.json`.",
         "zh": f"取自 `artifacts/reference/speed-{name}.json`。"},
    )  # fmt: skip


def layers() -> Rows:
    """A row for each computation of the convolutions: what it takes and what bounds it."""
    rows = []
    for e in speed.load("layers")["layers"]:
        others = [e[form] for form in ("xla_ms", "patches_ms", "by_channel_ms")]
        rows.append(
            [f"`{e['module']}`", e["layer"], e["computation"], f"{e['mflop']:.0f}",
             f"{e['ms']:.2f}", f"{e['mflop'] / e['ms']:.0f}", f"{e['least_ms'] / e['ms']:.0%}",
             e["bound_by"], *("–" if ms is None else f"{ms:.2f}" for ms in others)]
        )  # fmt: skip
    return rows


def _spread(values: Sequence[float]) -> str:
    """Mean, standard deviation and number of seeds."""
    mean = f"{np.mean(values):,.2f}".replace("-", MINUS)
    if len(values) == 1:
        return f"{mean} (1 seed)"
    return f"{mean} ± {np.std(values, ddof=1):,.2f} ({len(values)} seeds)"


TABLES = {
    "tutorials": Table(
        tutorials,
        {"en": "document | title | date | module | notebook | a whole run takes",
         "zh": "文档 | 标题 | 日期 | 模块 | 笔记本 | 完整训练用时"},
        {"en": "Times from `artifacts/reference/<module>/run.json`: two cores, no GPU.",
         "zh": "用时取自 `artifacts/reference/<module>/run.json`：双核，无 GPU。"},
    ),
    "results": Table(
        results,
        {"en": "module | document | quantity | printed there | original on TF 1.14 / 2.0 | ours |"
         " digits agreed (float64, 100 steps)",
         "zh": "模块 | 文档 | 指标 | 文档打印的值 | 原程序（TF 1.14 / 2.0） | 本项目 |"
         " 相同的有效位数（float64，100 步）"},
        {"en": "From `golden/*/full-runs.json` and `artifacts/reference/<module>/seeds.json` and"
         " `lockstep.json`.",
         "zh": "取自 `golden/*/full-runs.json`，以及 `artifacts/reference/<module>/` 中的"
         " `seeds.json` 与 `lockstep.json`。"},
    ),
    "verdicts": Table(
        verdicts,
        {"en": "module | lockstep: digits agreed (float64, 100 steps) | whole program in miniature"
         " | whole runs: comparisons shown equivalent within 2 %",
         "zh": "模块 | 逐步核对：相同的有效位数（float64，100 步） | 缩微运行"
         " | 完整训练：证明在 2% 以内等价的比较"},
        {"en": "From the tables below. A side with a single run cannot show equivalence.",
         "zh": "取自下面各表。一方只有一次运行时，无从证明等价。"},
    ),
    "lockstep": Table(
        lockstep,
        {"en": "module | precision | steps compared | largest difference of the loss | at step |"
         " digits agreed up to step 1 | up to 10 | up to 100",
         "zh": "模块 | 精度 | 比较步数 | 损失的最大相对差 | 所在步 |"
         " 至第 1 步相同的有效位数 | 至第 10 步 | 至第 100 步"},
        {"en": "From `artifacts/reference/<module>/lockstep.json`. Differences are relative; digits"
         " are rounded down, and 16 is no difference at all. Steps are compared up to the horizon"
         " (see below) or to the end of the recording.",
         "zh": "取自 `artifacts/reference/<module>/lockstep.json`。差是相对差；有效位数向下取整，16"
         " 表示毫无差别。比较到可比步数（见下文）或录制结束为止。"},
    ),
    "miniature": Table(
        miniature,
        {"en": "module | precision | numbers compared | largest relative difference |"
         " images compared | largest difference of an image, rms over its pixels",
         "zh": "模块 | 精度 | 比较的数 | 最大相对差 | 比较的图像 |"
         " 单幅图像的最大差（各像素的均方根）"},
        {"en": "From `artifacts/reference/<module>/miniature.json`: the numbers are those that the"
         " original prints and those of its `History`. Nothing beyond the horizon is counted.",
         "zh": "取自 `artifacts/reference/<module>/miniature.json`：比的数是原程序打印的和它的"
         " `History` 里的。可比步数之外的不计。"},
    ),
    "wholeruns": Table(
        wholeruns,
        {"en": "module | quantity | ours (seeds) | original (seeds) | difference, % | in sd |"
         " 90 % interval, % | smallest margin shown | power at 2 % | verdict",
         "zh": "模块 | 指标 | 本项目（种子数） | 原程序（种子数） | 差，% | 差，以标准差计 |"
         " 90% 区间，% | 所能证明的最小界值 | 2% 时的检验功效 | 结论"},
        {"en": "From `golden/*/full-runs.json` and `artifacts/reference/<module>/seeds.json`; sd:"
         " standard deviation between seeds, of both sides together. Margins are rounded up.",
         "zh": "取自 `golden/*/full-runs.json` 与 `artifacts/reference/<module>/seeds.json`；标准差"
         "为两边合并的种子间标准差。界值向上舍入到两位小数。"},
    ),
    "spreads": Table(
        spreads,
        {"en": "module | quantity | sd of ours (seeds) | sd of the original's (seeds) | ratio |"
         " 90 % interval | F-test, p | Kolmogorov-Smirnov, p",
         "zh": "模块 | 指标 | 本项目标准差（种子数） | 原程序标准差（种子数） | 比 | 90% 区间 |"
         " F 检验 p | Kolmogorov-Smirnov 检验 p"},
        {"en": "From `golden/*/full-runs.json` and `artifacts/reference/<module>/seeds.json`; sd:"
         " standard deviation between seeds.",
         "zh": "取自 `golden/*/full-runs.json` 与 `artifacts/reference/<module>/seeds.json`。"},
    ),
    "quirks": Table(
        quirks,
        {"en": "run | seeds | reconstruction | KL | objective | ELBO | log-likelihood, at least |"
         " effective samples | active units | weight of KL",
         "zh": "运行 | 种子数 | 重构 | KL | 目标函数 | ELBO | 对数似然，下界 | 有效样本数 |"
         " 活跃单元 | KL 的权重"},
        {"en": "From the `evaluation` in `artifacts/reference/<module>/seeds.json` and, for the"
         " other settings, `artifacts/reference/<module>/*/run.json`: nats per image of the 10,000"
         " test images, mean ± standard deviation between seeds. The bound of the log-likelihood is"
         " sampled on the first 100 images.",
         "zh": "取自 `artifacts/reference/<module>/seeds.json` 中的 `evaluation`；其他设置取自"
         " `artifacts/reference/<module>/*/run.json`。单位为每张图像多少 nat，"
         "对 10,000 张测试图像取平均；± 为种子间标准差。对数似然的下界在前 100 张图像上采样求得。"},
    ),
    "likelihood": Table(
        lambda: likelihood.rows(kept.load_results(likelihood.RESULTS)),
        {"en": "model, seed 0 | ELBO | log-likelihood, sampled | log-likelihood, integrated",
         "zh": "模型，种子 0 | ELBO | 对数似然，采样 | 对数似然，积分"},
        {"en": "From `artifacts/reference/likelihood.json` (10,000 test images) and `run.json` (the"
         " gap to the ELBO sampled on 100), nats per image.",
         "zh": "取自 `artifacts/reference/likelihood.json`（10,000 张测试图像）与 `run.json`"
         "（与 ELBO 的差额在 100 张图像上采样），单位为每张图像多少 nat。"},
    ),
    "wanted": Table(
        wanted,
        {"en": "wanted digit, % | 0 | 1 | 2 | 3 | 4 | 5 | 6 | 7 | 8 | 9 | all",
         "zh": "指定的数字，% | 0 | 1 | 2 | 3 | 4 | 5 | 6 | 7 | 8 | 9 | 全部"},
        {"en": "From `golden/004/class-grids-*.npz`, `artifacts/reference/<module>/seeds.json` and"
         " `artifacts/reference/<module>/*/run.json`.",
         "zh": "取自 `golden/004/class-grids-*.npz`、`artifacts/reference/<module>/seeds.json` 与"
         " `artifacts/reference/<module>/*/run.json`。"},
    ),
    "controls": Table(
        controls,
        {"en": "module | trap | float32 | float64", "zh": "模块 | 陷阱 | float32 | float64"},
        {"en": "From the list in `reproductions/evidence/controls.py`;"
         " `tests/test_negative_controls.py` asserts each of them.",
         "zh": "取自 `reproductions/evidence/controls.py` 中的列表，"
         "`tests/test_negative_controls.py` 对此逐一断言。"},
    ),
    "rules": Table(
        lambda: rules.table(kept.load_results(rules.RESULTS)),
        {"en": "rule | right modules accepted | right modules refused |"
         " mistakes found in the modules that it accepts | in all",
         "zh": "规则 | 接受的正确模块 | 误拒的正确模块 |"
         " 在它接受的模块中发现的错误 | 在全部模块中"},
        {"en": "From `artifacts/reference/rules.json`; twenty steps.",
         "zh": "取自 `artifacts/reference/rules.json`；各二十步。"},
    ),
    "dose": Table(
        lambda: dose_response.table(kept.load_results(dose_response.RESULTS)),
        {"en": "module | mistake | seeds | final loss, difference in % (90 % interval) | whole"
         " curve, difference in % (90 % interval) | final loss, in sd | final loss, p of no"
         " difference | whole runs, margin 2 % | lockstep float32: step | float64: step",
         "zh": "模块 | 错误 | 种子数 | 最终损失之差，%（90% 区间） |"
         " 整条曲线之差，%（90% 区间） | 最终损失之差，以标准差计 | 无差异检验的 p 值 |"
         " 完整训练，界值 2% | 逐步核对，float32：步 | float64：步"},
        {"en": "From `artifacts/reference/dose-response.json` and `golden/*/full-runs.json`; seeds:"
         " of the wrong variant and of the original.",
         "zh": "取自 `artifacts/reference/dose-response.json` 与 `golden/*/full-runs.json`；"
         "种子数：错误的变体与原程序。"},
    ),
    "sharpness": Table(
        lambda: sharpness.mistakes_table(kept.load_results(sharpness.RESULTS)),
        {"en": "module | what is wrong | float32: smallest found | float64: smallest found",
         "zh": "模块 | 错在何处 | float32：能发现的最小误差 | float64：能发现的最小误差"},
        {"en": "From `artifacts/reference/sharpness.json`; sizes are relative.",
         "zh": "取自 `artifacts/reference/sharpness.json`；误差为相对误差。"},
    ),
    "harmless": Table(
        lambda: sharpness.harmless_table(kept.load_results(sharpness.RESULTS)),
        {"en": "harmless change | float32 | float64", "zh": "无害的改动 | float32 | float64"},
        {"en": "From `artifacts/reference/sharpness.json`: modules in which the rule lets the"
         " change through.",
         "zh": "取自 `artifacts/reference/sharpness.json`：规则予以通过的模块数。"},
    ),
    "gpu": Table(
        followed_on_gpu,
        {"en": "module | float64 | float64, XLA | float32 | float32, XLA | float32, TF32 |"
         " float32, TF32, XLA",
         "zh": "模块 | float64 | float64，XLA | float32 | float32，XLA | float32，TF32 |"
         " float32，TF32，XLA"},
        {"en": "From `artifacts/reference/verify-gpu.json`: the steps of the lockstep before the"
         " first that is refused, of those compared; then the verdict on the miniature.",
         "zh": "取自 `artifacts/reference/verify-gpu.json`：逐步核对中首次被拒绝之前的步数/比较的"
         "步数；其后是对缩微运行的结论。"},
    ),
    "steps": steps("avx512"),
    "steps_avx2": steps("avx2"),
    "steps_gpu": Table(
        speed.gpu_rows,
        {"en": "module | with XLA | without XLA | PyTorch eager | `torch.compile` | CUDA graph |"
         " JAX step | `lax.scan` | × PyTorch's best | × JAX's best",
         "zh": "模块 | 用 XLA | 不用 XLA | PyTorch 即时执行 | `torch.compile` | CUDA 图 |"
         " JAX 单步 | `lax.scan` | × PyTorch 最好的 | × JAX 最好的"},
        {"en": "From `artifacts/reference/speed-gpu.json`: milliseconds per step.",
         "zh": "取自 `artifacts/reference/speed-gpu.json`：每步毫秒。"},
    ),
    "layers": Table(
        layers,
        {"en": "module | layer | computation | MFLOP | ms | GFLOP/s | of what is possible |"
         " bound by | ms by XLA | ms by patches | ms by channel",
         "zh": "模块 | 层 | 计算 | MFLOP | 毫秒 | GFLOP/s | 占可能的最快速度 |"
         " 受限于 | 用 XLA，毫秒 | 用图像块，毫秒 | 按通道，毫秒"},
        {"en": "From `artifacts/reference/speed-layers.json`: batches of 100, each computation"
         " alone. *Possible*: the machine's fastest product or fastest copy, whichever takes"
         " longer.",
         "zh": "取自 `artifacts/reference/speed-layers.json`：批次为 100，每项计算单独测量。"
         "“可能的最快速度”：该机器最快的矩阵乘法与最快的复制中较慢的一个。"},
    ),
    "scale": Table(
        speed.scale_rows,
        {"en": "module | images in a batch | ms per step | images per second |"
         " over the bare step | NumPy's part | peak memory, MiB",
         "zh": "模块 | 批次中的图像 | 每步毫秒 | 每秒图像 | 相对固定批次的一步 | NumPy 所占 |"
         " 内存峰值，MiB"},
        {"en": "From `artifacts/reference/speed-scale.json`.",
         "zh": "取自 `artifacts/reference/speed-scale.json`。"},
    ),
    "alarms": Table(
        false_alarms.table,
        {"en": "document | further runs of the original | refused |"
         " largest share of what is allowed",
         "zh": "文档 | 原程序的其他运行 | 被拒绝的 | 最接近界限的一次，占允许值之比"},
        {"en": "From `golden/*/lockstep-float32.npz`.",
         "zh": "取自 `golden/*/lockstep-float32.npz`。"},
    ),
    "performance": Table(
        performance,
        {"en": "module | training, s | pictures, s | evaluation, s | together | made with",
         "zh": "模块 | 训练，秒 | 图片，秒 | 评估，秒 | 合计 | 所用版本"},
        {"en": "From `artifacts/reference/<module>/run.json`: whole runs with seed 0 on virtual"
         " machines with two cores, no GPU.",
         "zh": "取自 `artifacts/reference/<module>/run.json`：双核虚拟机，无 GPU，种子 0。"},
    ),
}  # fmt: skip


# --- Chinese --------------------------------------------------------------------------------------

# English cells in Chinese, in the order in which they are replaced.
CHINESE = (
    (r"<br>\*.*\*$", ""),  # a title in English
    (r"cost of a batch, mean of epoch 50", "一个批次的 `cost`，第 50 轮的均值"),
    (r"validation loss after 30 epochs, nats", "30 轮后的验证损失，nat"),
    (r"test ELBO after 100 epochs, nats", "100 轮后的测试 ELBO，nat"),
    (r"loss of steps 2,901 to 3,000, nats", "第 2,901 至 3,000 步的损失，nat"),
    (r"validation loss per batch after 15 epochs", "15 轮后每批次的验证损失"),
    (r" \(last batch, epoch 43\)", "（第 43 轮，最后一个批次）"),
    (r" \(upstream, step 3,000\)", "（上游，第 3,000 步）"),
    (r" \(upstream\)", "（上游）"),
    (r"^no program$", "无程序"),
    (r"^none$", "无"),
    (r"^equal \(numbers: ([\d,]+), images: ([\d,]+)\)$", r"相同（\1 个数，\2 幅图像）"),
    (r"^DIFFERENT \(numbers: ([\d,]+), images: ([\d,]+)\)$", r"不同（\1 个数，\2 幅图像）"),
    (r"^(\d+) of (\d+)$", r"\1/\2"),
    (r"^([\d,]+) of ([\d,]+); equal$", r"\1/\2；相同"),
    (r"^([\d,]+) of ([\d,]+); DIFFERENT$", r"\1/\2；不同"),
    (r"stopped after (\d+) of (\d+)", r"在第 \1 轮停止（共 \2 轮）"),
    (r" \((\d+) seeds?\)", r"（\1 个种子）"),
    (r"mean cost of an epoch", "每轮的平均 `cost`"),
    (r"mean loss of 100 steps", "每 100 步的平均损失"),
    (r"training loss", "训练损失"),
    (r"validation loss", "验证损失"),
    (r"test ELBO", "测试 ELBO"),
    (r", final$", "，最终值"),
    (r", whole curve$", "，整条曲线"),
    (r", epoch (\d+)$", r"，第 \1 轮"),
    (r", first (\d+) epochs$", r"，前 \1 轮"),
    (r"equivalent within (\d) %", r"在 \1% 以内等价"),
    (r"not shown within 2 %", "未能证明在 2% 以内等价"),
    (r"DIFFERENT", "不同"),
    (r"single run inside the 95 % interval of (\d+) runs \((.*)\)",
     r"单次运行在另一方 \1 次运行的 95% 预测区间之内（\2）"),
    (r"single run OUTSIDE the 95 % interval of (\d+) runs \((.*)\)",
     r"单次运行在另一方 \1 次运行的 95% 预测区间之外（\2）"),
    (r"one run each: a difference, no test", "各有一次运行：只有差，无法检验"),
    (r"^none: the right module$", "无：正确的模块"),
    (r"^learning rate", "学习率"),
    (r"^epsilon (\S+) instead of (\S+)$", r"epsilon 用 \1 代替 \2"),
    (r"^(\w+)'s epsilon (\S+) instead of (\S+)$", r"\1 的 epsilon 用 \2 代替 \3"),
    (r"^Adam's beta powers in double precision$", "Adam 的 beta 的幂用双精度计算"),
    (r"^mean square from zeros$", "均方从 0 开始"),
    (r"^pixels (x [/·] \S+) instead of (x [/·] \S+)$", r"像素用 \1 代替 \2"),
    (r"^60,000 images instead of 55,000$", "用 60,000 张图像代替 55,000 张"),
    (r"^binarised at (\d+)$", r"以 \1 为阈值二值化"),
    (r"^noise one step late$", "噪声晚一步"),
    (r"^batches one step late$", "批次晚一步"),
    (r"^sum instead of mean over the batch$", "对批次求和，而不是取平均"),
    (r"^mean instead of sum over the batch$", "对批次取平均，而不是求和"),
    (r"^KL not divided by the batch$", "KL 没有除以批次大小"),
    (r"^one KL instead of two$", "KL 只加一次，而不是两次"),
    (r"^closed-form KL instead of one sample$", "KL 用闭式，而不用单样本估计"),
    (r"^no guard in the logarithms$", "对数里没有护栏"),
    (r"^cross-entropy from logits$", "从 logit 计算交叉熵"),
    (r"^Keras 3's cross-entropy$", "Keras 3 的交叉熵"),
    (r"^Keras 3's Nadam: (\S+)$", r"Keras 3 的 Nadam：\1"),
    (r"^Keras 3's Nadam$", "Keras 3 的 Nadam"),
    (r"^leaky slope (\S+) instead of (\S+)$", r"leaky ReLU 的斜率用 \1 代替 \2"),
    (r"^TensorFlow's guide (“.*”): forward pass, 1e-7$", r"TensorFlow 指南\1：只看前向，1e-7"),
    (r"^TensorFlow's guide (“.*”): 1e-5 \+ 1e-7 for ten steps, then 5 %$",
     r"TensorFlow 指南\1：前十步 1e-5 + 1e-7，其后 5%"),
    (r"^Paddle's guide: two rounds of the loss, 1e-6 \(its tool's default\)$",
     "Paddle 指南：两次的损失，1e-6（其工具的默认值）"),
    (r"^the lockstep in (float\d\d)$", r"逐步核对，\1"),
    (r"^the original, seed", "原程序，种子"),
    (r", seed (\d+)$", r"，种子 \1"),
    (r"^encoder (\d)$", r"编码器 \1"),
    (r"^decoder (\d)$", r"解码器 \1"),
    (r"^forward$", "前向"),
    (r"^input gradient$", "对输入的梯度"),
    (r"^kernel gradient$", "对卷积核的梯度"),
    (r"^arithmetic$", "运算"),
    (r"^memory$", "内存"),
    (r"^none up to 0.1$", "0.1 以内都没有"),
    (r"^weight of the KL$", "KL 的权重"),
    (r"^accepted$", "接受"),
    (r"^rejected$", "拒绝"),
    (r"^not rejected$", "未拒绝"),
    (r"^not found$", "未发现"),
    (r"^(1e-\d+) at step (\d+)$", r"\1（第 \2 步）"),
    (r"^accepted, (\d+) of (\d+)", r"接受 \1/\2"),
    (r"^without a graph \(eager\)$", "不用计算图（即时执行）"),
    (r"^XLA on where it is off, and off where it is on$", "XLA 开关互换"),
    (r"^exp\(v\) as sqrt\(exp\(2v\)\)$", "exp(v) 写作 sqrt(exp(2v))"),
    (r"^another order of the sums$", "换一种求和次序"),
    (r"^one thread$", "单线程"),
    (r"^without oneDNN$", "不用 oneDNN"),
    (r"(\d) min$", r"\1 分钟"),
    (r"(\d) s$", r"\1 秒"),
    (r"(?<=\d) %", "%"),
)  # fmt: skip


def chinese(cell: str) -> str:
    """A cell of a table in Chinese."""
    for pattern, replacement in CHINESE:
        cell = re.sub(pattern, replacement, cell)
    return cell


# --- What a run is expected to end with -----------------------------------------------------------


def expected_text() -> str:
    """The interval in which a further run of each module ends, for `common/expected.py`."""
    content = {}
    for document in DOCUMENTS.values():
        column = document.headline.column
        seeds = kept.load_seeds(document.module)
        values = {
            "whole": [run[column][-1] for run in seeds["runs"]],
            "quick": [run[column] for run in seeds.get("quick_runs", [])],
        }
        intervals = {
            kind: {"seeds": len(v), "interval": equivalence.prediction_interval(np.array(v))}
            for kind, v in values.items()
            if len(v) >= FEWEST
        }
        content[document.module] = {"column": column, **intervals}
    return json.dumps(content, indent=1) + "\n"


if __name__ == "__main__":
    sys.exit(main())
