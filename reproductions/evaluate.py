"""`python -m reproductions.evaluate RUN ...`: the metrics of trained models, in nats per image.

    python -m reproductions.evaluate artifacts/runs/tfp_cvae/0001

RUN is the folder of a finished run. For the conditional models a second table says how often the
wanted digit was drawn; with runs of `tfp_cvae` it has a row for the original, from the pictures
that the original drew.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from textwrap import wrap
from typing import Any

import numpy as np
from tqdm import tqdm

from common import datasets, plotting
from common.cli import OneLineParser, bounded, named_folder, output_file, run_command
from common.evaluation import DRAWN, SAMPLES, Draw
from common.files import write_atomically
from common.pictures import grid_codes, normal_quantiles
from common.program import Program
from common.runs import Record, finished_record
from common.training import Experiment
from reproductions import MODULES, program
from reproductions.evidence import kept

SHOWN = ((3, 3), (3, 11), (7, 7), (11, 3), (11, 11))  # of the 15 x 15 pictures of a grid
WIDTH = 56  # of the first column
HEADER = (
    f"{'run':{WIDTH}}    recon-     KL  objective      ELBO  log-likelihood   eff. active  weight\n"
    f"{'':{WIDTH}} struction                                    at least  smpl.  units   of KL"
)


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command; returns its exit code."""
    return run_command("evaluate", lambda: _evaluate(argv))


def _evaluate(argv: Sequence[str] | None) -> None:
    parser = OneLineParser(
        "reproductions.evaluate",
        "Prints metrics of trained models on the test set: the terms of the ELBO, a lower bound"
        " of the log-likelihood by importance sampling (nats per image), and how often a"
        " conditional model draws the digit that it is asked for.",
    )
    parser.add_argument(
        "runs", nargs="+", type=Path, metavar="RUN", help="folder of a finished run"
    )
    parser.add_argument(
        "--images", type=bounded(int, 2, 10_000), default=10_000, metavar="N",
        help="number of test images whose log-likelihood is sampled (default: all 10000; minutes"
        " for the MLPs, half an hour for tfp_cvae)",
    )  # fmt: skip
    parser.add_argument(
        "--samples", type=bounded(int, 2, 10_000), default=SAMPLES, metavar="N",
        help=f"samples of z for each of them (default: {SAMPLES})",
    )  # fmt: skip
    parser.add_argument(
        "--picture", type=output_file, metavar="FILE",
        help="a PNG to draw: five pictures of each digit's grid, by each conditional model",
    )  # fmt: skip
    parser.add_argument(
        "--data-dir", type=named_folder, metavar="DIR", help="a folder that holds the data sets"
    )
    options = parser.parse_args(argv)
    records = [finished_record(folder, MODULES) for folder in options.runs]  # before any work
    sizes = {"images": options.images, "samples": options.samples}
    names = [_name(r) for r in records]
    ports = [program(r.module) for r in records]
    if options.picture and not any(port.draw for port in ports):
        conditional = " or ".join(module for module in MODULES if program(module).draw)
        parser.error(f"--picture needs a run of {conditional}")
    needed = {port.dataset for port in ports}
    data = {dataset: datasets.load(dataset, options.data_dir) for dataset in needed}
    experiments = [
        port.reopen(folder, data[port.dataset])
        for folder, port in zip(options.runs, ports, strict=True)
    ]
    print(HEADER)
    found = []
    for name, experiment, port in zip(names, experiments, ports, strict=True):
        found.append(_metrics(experiment, port, sizes))
        print(as_line(name, found[-1]), flush=True)  # each of them may take half an hour
    print()
    rows = list(zip(names, found, strict=True))
    for likelihood in dict.fromkeys(metrics["likelihood"] for metrics in found):
        alike = dict.fromkeys(n for n, metrics in rows if metrics["likelihood"] == likelihood)
        print(f"{', '.join(alike)}: {likelihood}.")
    wanted = [(n, m["wanted_digits"]) for n, m in rows if "wanted_digits" in m]
    original = any(r.module == "tfp_cvae" for r in records)
    if wanted:
        _print_wanted(wanted, original)
    if options.picture:
        sheets = [
            (name, _grids(experiment.model, port.draw))
            for name, experiment, port in zip(names, experiments, ports, strict=True)
            if port.draw
        ]
        if original:
            sheets.insert(0, ("original (TF 1.14)", kept.original_grids()[0] / 255))
        _draw(sheets, options.picture)


def _name(record: Record) -> str:
    """Module, settings that are not the document's, seed."""
    changed = program(record.module).changed_settings(record.config)
    return ", ".join([" ".join([record.module, *changed]), *record.seed_in_words])


def _metrics(experiment: Experiment, port: Program, sizes: dict[str, Any]) -> dict[str, Any]:
    track = partial(tqdm, desc=port.name, unit="image", leave=False, disable=None)
    return port.evaluate(experiment, track=track, **sizes)


def as_line(name: str, metrics: dict[str, Any]) -> str:
    """A line of the first table."""
    m = metrics
    cells = [
        f"{name:{WIDTH}} {m['reconstruction']:9.2f} {m['kl']:6.2f} {m['objective']:10.2f}",
        f"{m['elbo']:9.2f} {m['log_likelihood']:8.2f} ± {m['log_likelihood_se']:.2f}",
        f"{m['effective_samples']:6.0f} {m['active_units']:6d} {m['kl_weight']:7.2g}",
    ]
    return " ".join(cells)


# --- Wanted digits --------------------------------------------------------------------------------


def interval(right: int, of: int) -> tuple[float, float]:
    """Wilson's 95 % interval of a share."""
    from scipy.stats import binomtest

    found = binomtest(right, of).proportion_ci(method="wilson")
    return float(found.low), float(found.high)


def _print_wanted(wanted: list[tuple[str, dict[str, Any]]], original: bool) -> None:
    print(
        "\nHow often the wanted digit was drawn, in per cent. Below the shares of codes from the"
        "\nprior stand their 95 % intervals; the codes of the grid are always the same."
    )
    print(f"{'':{WIDTH}}" + "".join(f"{digit:>8}" for digit in range(10)) + f"{'all':>8}")
    for name, digits in wanted:
        _print_shares(f"{name}: prior", digits["right"], DRAWN)
        _print_intervals(digits["right"], DRAWN)
        _print_shares(f"{name}: grid", digits["grid_right"], 225)
    if original:
        right = kept.original_right()
        name = f"original (TF 1.14), {len(right)} runs: grid"
        _print_shares(name, right.sum(axis=0), 225 * len(right))
    for name, digits in wanted:
        print(
            f"{name}: {digits['nearest_class_mean']:.1%} of the test images have their z_mean"
            " nearest to the mean of their own class"
        )


def _print_shares(name: str, right: Sequence[int] | np.ndarray, of: int) -> None:
    shares = [*(k / of for k in right), sum(right) / (10 * of)]
    print(f"{name:{WIDTH}}" + "".join(f"{share:8.0%}" for share in shares))


def _print_intervals(right: Sequence[int], of: int) -> None:
    bounds = [*(interval(k, of) for k in right), interval(sum(right), 10 * of)]
    cells = (f"{100 * low:.0f}–{100 * high:.0f}" for low, high in bounds)
    print(" " * WIDTH + "".join(f"{cell:>8}" for cell in cells))


def _grids(model: Any, draw: Draw) -> np.ndarray:
    """What a model draws at the document's quantiles, [10, 15, 15, 28, 28]."""
    quantiles = normal_quantiles(15)
    codes = grid_codes(quantiles, quantiles)
    return np.stack([draw(model, digit, codes) for digit in range(10)])


def _draw(sheets: Sequence[tuple[str, np.ndarray]], path: Path) -> None:
    """The centre of each grid and four codes around it, a column for each digit."""
    rows, labels = [], []
    for name, grids in sheets:
        for k, (i, j) in enumerate(SHOWN):
            rows.append(np.clip(grids[:, i, j], 0, 1))
            labels.append("\n".join(wrap(name, 24)) if k == len(SHOWN) // 2 else "")
    figure = plotting.image_grid(
        np.stack(rows), "What each model drew when asked for the digit above", "Greys_r", labels,
        [str(digit) for digit in range(10)],
    )  # fmt: skip
    for k in range(1, len(sheets)):  # between one model and the next
        figure.axes[0].axhline(k * len(SHOWN) * 30 - 1.5, color="tab:orange")
    write_atomically(path, plotting.to_png(figure, "python -m reproductions.evaluate --picture"))


if __name__ == "__main__":
    sys.exit(main())
