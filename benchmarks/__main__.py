"""`python -m benchmarks [module ...]`: milliseconds per training step, compared with others.

For each module: the real training loop; the same compiled step called from Python ("bare"); the
same model, batch size, loss and optimiser in PyTorch (eager, channels-last, torch.compile; on a GPU
a CUDA graph instead of channels-last) and in JAX (a jitted step, lax.scan), where they are
installed; and the original program on its own TensorFlow, where an environment for it is named. On
a GPU ours is measured with and without XLA. Every side is a process that sleeps between its
turns; the sides take turns in one run, so the machine's noise hits all alike. Medians over rounds.

The rivals start from our weights, and their first losses must agree with ours: they do the same
work. They are given their batches ready-made; our loop gathers its own.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import MATRIX, command, machine, parse
from benchmarks.workload import BATCHES, Workload
from common import datasets, devices
from common.chance import Seeded
from common.cli import bounded, output_file
from common.files import write_atomically
from common.training import Experiment
from reproductions import program
from reproductions.evidence import speed
from reproductions.evidence.documents import DOCUMENTS, Document

PYTORCH = ("eager", "channels-last", "compile")
PYTORCH_ON_GPU = ("eager", "compile", "graph")
# TFP's layer needs a known batch size for XLA; PyTorch's RMSprop has other losses in a CUDA graph.
LEFT_OUT = {("tfp_cvae", "ours with XLA"), ("rmsprop_vae", "pytorch graph")}
SAME = 1e-3  # largest relative difference of a rival's first losses from ours
HERE = Path(__file__).parent


# With these settings glibc's malloc keeps what is freed. Without them PyTorch asks the kernel for
# its large tensors at every step, and its convolutions take up to twice as long. Ours do without.
KEEP_MEMORY = {
    "MALLOC_MMAP_THRESHOLD_": str(2**30),
    "MALLOC_TRIM_THRESHOLD_": str(2**30),
    "MALLOC_TOP_PAD_": str(2**28),
}
# JAX would take three quarters of a GPU's memory for itself.
SHARE_GPU = {"XLA_PYTHON_CLIENT_PREALLOCATE": "false"}


class Side:
    """A process that steps when it is told to."""

    def __init__(self, name: str, command: list[str]) -> None:
        self.name = name
        self.times: list[float] = []  # seconds per step, one for each round
        # A pipe that nobody reads would fill up, and the process would wait for ever.
        self._errors = tempfile.TemporaryFile("w+")  # noqa: SIM115
        self._process = subprocess.Popen(
            command,
            env=os.environ if name.startswith("ours") else os.environ | KEEP_MEMORY | SHARE_GPU,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            text=True,
        )
        self.said: dict[str, Any] = {}
        self.steps = 1

    def wait_until_ready(self) -> None:
        """Reads its first line."""
        self.said = json.loads(self._answer())

    def fill_a_turn(self, length: float) -> None:
        """Finds out how many steps fill a turn of so many seconds."""
        block = self.said.get("block", 1)
        seconds = self._turn(block) / block
        self.steps = max(1, round(length / (seconds * block))) * block

    def take_turn(self) -> None:
        """Makes its steps and keeps the time."""
        self.times.append(self._turn(self.steps) / self.steps)

    def _turn(self, steps: int) -> float:
        print(steps, file=self._process.stdin, flush=True)
        return float(self._answer())

    def _answer(self) -> str:
        """The next line of its output.

        Raises:
          SystemExit: it failed; with the last line of what it said.
        """
        assert self._process.stdout is not None  # it is a pipe
        line = self._process.stdout.readline()
        if not line:
            self._process.wait()
            self._errors.seek(0)
            errors = self._errors.read().strip().splitlines()
            raise SystemExit(f"{self.name} failed: {errors[-1] if errors else 'no message'}")
        return line

    @property
    def milliseconds(self) -> float:
        """Of a step, the median over the rounds."""
        return statistics.median(self.times) * 1e3

    def close(self) -> None:
        """Ends the process."""
        self._process.kill()
        self._process.communicate()
        self._errors.close()


def main() -> None:
    """Prints what runs where, then a table."""
    parser = command("benchmarks", __doc__)
    parser.add_argument(
        "--rounds", type=bounded(int, 1, 1_000), default=7, metavar="N",
        help="turns that each side takes (default: 7)",
    )  # fmt: skip
    parser.add_argument(
        "--turn", type=bounded(float, 0.05, 60), default=1.5, metavar="SECONDS",
        help="about so long each side steps in each round (default: 1.5)",
    )  # fmt: skip
    parser.add_argument(
        "--tf32", dest="precision", action="store_const", const="tf32", default="float32",
        help="on a GPU: all multiply in TF32 instead of float32",
    )  # fmt: skip
    parser.add_argument("--tf114", metavar="PYTHON", help="of an environment with TensorFlow 1.14")
    parser.add_argument("--tf200", metavar="PYTHON", help="of an environment with TensorFlow 2.0")
    parser.add_argument("--output", type=output_file, help="a JSON file to keep the times in")
    parser.add_argument("--documents", type=Path, help="the folder of the documents' texts")
    options = parse(parser)
    for python in filter(None, (options.tf114, options.tf200)):
        if not shutil.which(python):
            parser.error(f"there is no program {python}")
    if (options.tf114 or options.tf200) and not options.documents:
        parser.error("the originals need --documents, too")
    if options.documents:
        for number in {DOCUMENTS[module].number for module in options.modules}:
            if not any(options.documents.glob(f"{number}_*.txt")):
                parser.error(f"--documents: {options.documents} holds no {number}_*.txt")

    content: dict[str, Any] = {
        **machine(), "precision": options.precision, "rounds": options.rounds, "modules": {}
    }  # fmt: skip
    print(json.dumps(content), flush=True)
    for module in options.modules:
        sides, steps = measure(module, options)
        content["modules"][module] = {
            "steps": steps,
            "flops": next((s.said["flops"] for s in sides.values() if "flops" in s.said), None),
            "seconds": {name: side.times for name, side in sides.items()},
        }
        print(detail(module, sides), flush=True)
        if options.output:
            write_atomically(options.output, json.dumps(content, indent=1) + "\n")
    rows = [speed.row(m, entry, MATRIX) for m, entry in content["modules"].items()]
    for cells in (speed.HEADER, ["---"] * len(speed.HEADER), *rows):
        print(f"| {' | '.join(cells)} |")


# --- Measuring ------------------------------------------------------------------------------------


def measure(module: str, options: argparse.Namespace) -> tuple[dict[str, Side], int]:
    """All sides of a module, with their times, and the steps of a whole run."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "workload.npz"
        work, experiment = workload(module)
        work.save(path)
        sides = {s.name: s for s in start(module, experiment, path, options)}
        try:
            for side in sides.values():
                side.wait_until_ready()
            check(module, sides)
            for side in sides.values():  # now that all are quiet
                side.fill_a_turn(options.turn)
            for _ in range(options.rounds):
                for side in sides.values():
                    side.take_turn()
        finally:
            for side in sides.values():
                side.close()
    return sides, experiment.steps


def workload(module: str) -> tuple[Workload, Experiment]:
    """The module's first batches, and the experiment that they are of."""
    port = program(module)
    data = datasets.load(port.dataset)
    experiment = port.experiment(port.config(), data, Seeded(0), "float32")
    batches = [experiment.batches(i) for i in range(BATCHES)]
    shapes = [(len(batch), experiment.latent_dim) for batch in batches]
    work = Workload(
        module,
        [experiment.images[batch] for batch in batches],
        [experiment.labels[batch] for batch in batches],
        [experiment.chance.noise(i, shape) for i, shape in enumerate(shapes)],
        [variable.numpy() for variable in experiment.variables],
    )
    return work, experiment


def start(
    module: str, experiment: Experiment, path: Path, options: argparse.Namespace
) -> list[Side]:
    """Starts the processes."""
    wanted = [("ours", "loop"), ("ours", "bare"), ("peak", "numpy"), ("peak", "tensorflow")]
    if devices.on_gpu():
        wanted.append(("ours", "without XLA" if experiment.compile_with_xla else "with XLA"))
    if importlib.util.find_spec("torch"):
        variants = PYTORCH_ON_GPU if devices.on_gpu() else PYTORCH
        wanted += [("pytorch", variant) for variant in variants]
    if importlib.util.find_spec("jax"):
        # In a scan XLA's convolutions are several times slower still.
        convolutional = any(len(v.shape) == 4 for v in experiment.variables)
        wanted += [("jax", v) for v in (("step",) if convolutional else ("step", "scan"))]
    worker = [sys.executable, "-m", "benchmarks.worker"]
    sides = [
        Side(f"{side} {variant}", [*worker, side, variant, str(path), options.precision])
        for side, variant in wanted
        if (module, f"{side} {variant}") not in LEFT_OUT
    ]
    document = DOCUMENTS[module]
    python = options.tf200 if document.tensorflow.startswith("2") else options.tf114
    if python and not document.unrecorded:
        sides.append(Side("original", original(python, document, path.parent, options.documents)))
    return sides


def original(python: str, document: Document, folder: Path, documents: Path) -> list[str]:
    """The command that runs an original program at our pace."""
    data = datasets.load(program(document.module).dataset)
    np.savez(
        folder / f"{data.name}.npz",
        x_train=data.train_images, y_train=data.train_labels,
        x_test=data.test_images, y_test=data.test_labels,
    )  # fmt: skip
    text = next(documents.glob(f"{document.number}_*.txt"))
    return [python, str(HERE / "original.py"), document.number, str(text), str(folder)]


def check(module: str, sides: dict[str, Side]) -> None:
    """Every rival must compute what we compute."""
    ours = sides["ours loop"].said["losses"]
    for side in sides.values():
        for mine, theirs in zip(ours, side.said.get("losses", ours), strict=True):
            if not abs(theirs / mine - 1) <= SAME:
                raise SystemExit(f"{module}: {side.name} has a loss of {theirs}, not {mine}")


# --- Showing --------------------------------------------------------------------------------------


def detail(module: str, sides: dict[str, Side]) -> str:
    """Every side's median and range, and the peak."""
    parts = [
        f"{s.name} {s.milliseconds:.2f} ({min(s.times) * 1e3:.2f} to {max(s.times) * 1e3:.2f})"
        for s in sides.values()
        if not s.name.startswith("peak")
    ]
    gflops = [
        f"{s.name} {2 * MATRIX**3 / s.milliseconds / 1e6:.0f} GFLOP/s"
        for s in sides.values()
        if s.name.startswith("peak")
    ]
    return f"{module}, ms per step: {'; '.join(parts)}; {', '.join(gflops)}"


if __name__ == "__main__":
    main()
