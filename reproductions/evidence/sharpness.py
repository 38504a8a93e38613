"""How small a mistake the lockstep finds, and which harmless changes it lets through.

    python -m reproductions.evidence.sharpness

A learning rate, a weight of the KL and an epsilon of the optimiser that are wrong by one part in
10^k: for each module and precision the largest k that the rule still rejects, and the step at which
it does so. Then changes that leave the mathematics alone, which the rule must accept. The results
go to `artifacts/reference/sharpness.json`, one at a time, so a command that was stopped goes on
where it was.
"""

from __future__ import annotations

import dataclasses
import importlib
import multiprocessing
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import AbstractContextManager, contextmanager
from typing import Any
from unittest import mock

from common.cli import OneLineParser, one_of, run_command
from common.lazy import tf
from common.training import Losses
from reproductions import program
from reproductions.evidence import kept, lockstep
from reproductions.evidence.documents import RECORDED_MODULES
from reproductions.evidence.many_seeds import ONE_THREAD
from reproductions.evidence.mistakes import (
    Mistake,
    epsilon,
    kl_weight,
    learning_rate,
    planted,
    reduced,
)

RESULTS = "sharpness.json"  # part -> module -> precision -> kind -> what was found
SMALLEST_FOUND, HARMLESS_CHANGES = "smallest mistake found", "harmless changes"  # the parts
STEPS = {  # that are compared, fewer where they cost more
    "mlp_vae": 100,
    "rmsprop_vae": 100,
    "conv_vae": 40,
    "elbo_cvae": 40,
    "tfp_cvae": 20,
}
FINEST = 15  # the largest k that is tried: in double precision 1 + 1e-16 is 1
GRADED: dict[str, Callable[[str, float], Mistake]] = {
    "learning rate": learning_rate,
    "weight of the KL": kl_weight,
    "epsilon": epsilon,
}


def first_rejected(module: str, precision: str) -> int | None:
    """The step, of STEPS at most, at which lockstep rejects the module's loss as it now is."""
    return lockstep.follow(module, precision, STEPS[module]).first_bad_step


# --- Mistakes of every size -----------------------------------------------------------------------


def smallest_found(module: str, precision: str, kind: str) -> dict[str, int | None]:
    """The largest k, 0 for none, for which one part in 10^k is found, and the step.

    Twice the size is never harder to find, so the k is searched by halving.
    """
    found = {"k": 0, "step": None}
    low, high = 0, FINEST + 1
    while high - low > 1:
        k = (low + high) // 2
        with planted(GRADED[kind](module, 1 + 10.0**-k)), eager():
            step = first_rejected(module, precision)
        if step is None:
            high = k
        else:
            low, found = k, {"k": k, "step": step}
    return found


@contextmanager
def eager() -> Iterator[None]:
    """Runs what is compiled otherwise step by step, which is faster for a few steps."""
    tf.config.run_functions_eagerly(True)
    try:
        yield
    finally:
        tf.config.run_functions_eagerly(False)


# --- Changes that must pass -----------------------------------------------------------------------


@contextmanager
def other_compiler(module: str) -> Iterator[None]:
    """XLA where the module does without, and no XLA where it has it."""
    port = program(module)

    def experiment(*args: Any) -> Any:
        good = port.experiment(*args)
        return dataclasses.replace(good, compile_with_xla=not good.compile_with_xla)

    other = dataclasses.replace(port, experiment=experiment)
    with mock.patch.object(importlib.import_module(f"reproductions.{module}"), "PROGRAM", other):
        yield


@contextmanager
def other_exponential(module: str) -> Iterator[None]:
    """exp(v) as sqrt(exp(2 v)), wherever the module computes one."""

    class Tensorflow:
        exp = staticmethod(lambda v: real.sqrt(real.exp(2 * v)))

        def __getattr__(self, name: str) -> Any:
            return getattr(real, name)

    python_module = importlib.import_module(f"reproductions.{module}")
    real = python_module.tf
    with mock.patch.object(python_module, "tf", Tensorflow()):
        yield


def other_order(module: str) -> AbstractContextManager[None]:
    """The mean of each term added up, for the mean of their sum."""

    def total(losses: Losses) -> tf.Tensor:
        kl = tf.reduce_mean(losses.kl)
        if module in ("mlp_vae", "tfp_cvae"):  # which add a sum and a mean
            return tf.reduce_sum(losses.reconstruction) + (kl if module == "mlp_vae" else kl + kl)
        return tf.reduce_mean(losses.reconstruction) + kl

    return planted(reduced(module, "the terms' means, added", total))


HARMLESS: dict[str, Callable[[str], AbstractContextManager[None]]] = {
    "without a graph (eager)": lambda module: eager(),
    "XLA on where it is off, and off where it is on": other_compiler,
    "exp(v) as sqrt(exp(2v))": other_exponential,
    "another order of the sums": other_order,
}
# XLA cannot compile TFP's fill-triangular: "Reading input as constant from a dynamic tensor".
IMPOSSIBLE = {("tfp_cvae", "XLA on where it is off, and off where it is on")}
ENVIRONMENTS = {
    "one thread": ONE_THREAD,
    "without oneDNN": {"TF_ENABLE_ONEDNN_OPTS": "0"},
}


def harmless(module: str, precision: str, change: str) -> int | None:
    """The step at which a harmless change is rejected: None, or the rule is too strict."""
    if change in ENVIRONMENTS:
        spawn = multiprocessing.get_context("spawn")
        with (
            mock.patch.dict(os.environ, ENVIRONMENTS[change]),
            ProcessPoolExecutor(1, mp_context=spawn) as process,
        ):
            return process.submit(first_rejected, module, precision).result()
    with HARMLESS[change](module):
        return first_rejected(module, precision)


# --- The results ----------------------------------------------------------------------------------


def make(modules: Sequence[str]) -> None:
    """Makes what the file does not have yet."""
    content = kept.load_results(RESULTS)
    for module in modules:
        kept.stamp(RESULTS, module, program(module).source_digest)
        for precision in lockstep.FLOOR:
            for part, kinds, measure in (
                (SMALLEST_FOUND, GRADED, smallest_found),
                (HARMLESS_CHANGES, [*HARMLESS, *ENVIRONMENTS], harmless),
            ):
                entries = content.setdefault(part, {}).setdefault(module, {})
                entries = entries.setdefault(precision, {})
                for kind in kinds:
                    if kind in entries or (module, kind) in IMPOSSIBLE:
                        continue
                    entries[kind] = measure(module, precision, kind)
                    kept.write(RESULTS, content)
                    print(module, precision, kind, entries[kind], flush=True)


# --- What they say --------------------------------------------------------------------------------


def mistakes_table(results: dict[str, Any]) -> list[list[str]]:
    """A row for each module and kind of mistake: the smallest that is found, and at which step."""
    found = results[SMALLEST_FOUND]
    return [
        [f"`{module}`", kind, *(_smallest(found[module][p][kind]) for p in lockstep.FLOOR)]
        for module in found
        for kind in GRADED
    ]


def _smallest(entry: dict[str, int | None]) -> str:
    """The cell of a smallest mistake: "1e-07 at step 3"."""
    if entry["step"] is None:
        return "none up to 0.1"
    return f"1e-{entry['k']:02d} at step {entry['step']}"


def harmless_table(results: dict[str, Any]) -> list[list[str]]:
    """A row for each harmless change: the modules that it passes in, for each precision."""
    found = results[HARMLESS_CHANGES]
    rows = []
    for change in [*HARMLESS, *ENVIRONMENTS]:
        cells = []
        for precision in lockstep.FLOOR:
            steps = {m: found[m][precision][change] for m in found if (m, change) not in IMPOSSIBLE}
            refused = [f"`{m}` at step {n}" for m, n in steps.items() if n is not None]
            passed = f"accepted, {len(steps) - len(refused)} of {len(steps)}"
            cells.append("; ".join([passed, *refused]))
        rows.append([change, *cells])
    return rows


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command; returns its exit code."""
    return run_command("sharpness", lambda: _sharpness(argv))


def _sharpness(argv: Sequence[str] | None) -> None:
    parser = OneLineParser(
        "reproductions.evidence.sharpness",
        "Finds the smallest mistakes that the lockstep sees, and what it lets through.",
    )
    parser.add_argument(
        "modules", nargs="*", type=one_of(RECORDED_MODULES), metavar="module",
        help="which modules (default: all that have a recording)",
    )  # fmt: skip
    options = parser.parse_args(argv)
    make(options.modules or RECORDED_MODULES)
    results = kept.load_results(RESULTS)
    for line in mistakes_table(results) + harmless_table(results):
        print(" | ".join(line))


if __name__ == "__main__":
    sys.exit(main())
