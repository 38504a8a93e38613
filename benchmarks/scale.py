"""`python -m benchmarks.scale [module ...]`: how a step grows with batch, data and width.

One setting at a time is a quarter to sixteen times the document's: the images of a batch, the
images of the data set (repeated), the width of the layers. Each point has a process of its own. It
times a step in the real loop, the same compiled step on one fixed batch ("bare") and, apart from
them, what NumPy draws for a step: the noise, and its share of the order of a pass. Its peak memory
is that of the loop.
"""

from __future__ import annotations

import dataclasses
import json
import multiprocessing
import resource
import statistics
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from functools import cache
from typing import Any

import numpy as np

from benchmarks import command, machine, parse, seconds_of
from common import datasets
from common.chance import Seeded
from common.cli import output_file
from common.files import write_atomically
from common.lazy import tf
from common.training import Trainer
from reproductions import program
from reproductions.evidence import speed

FACTORS = (0.25, 1.0, 4.0, 16.0)  # times the document's setting
WIDTH = {
    "mlp_vae": "hidden", "mlp_cvae": "hidden", "conv_vae": "filters", "rmsprop_vae": "hidden",
    "tfp_cvae": "base_depth",
}  # fmt: skip
LONGEST = 2.0  # seconds; an axis ends with a longer step: four times the width take up to sixteen
ROUNDS, ROUND = 3, 0.5  # of each measurement: how many, and about how many seconds each takes
PASSES = 10  # orders of the images that are drawn
BLOCK = 0.5  # seconds that a call of the loop takes at most, where a step does not take longer


def main() -> None:
    """Prints a line for each point."""
    parser = command("benchmarks.scale", __doc__)
    parser.add_argument(
        "--output", type=output_file,
        help="a JSON file to keep the numbers in; what it has of other modules stays there",
    )  # fmt: skip
    options = parse(parser)
    here = machine()
    content: dict[str, Any] = {**here, "points": []}
    if options.output and options.output.exists():
        before = json.loads(options.output.read_text(encoding="utf-8"))
        if any(before.get(name) != here[name] for name in here if name != "date"):
            parser.error(f"{options.output} is of another machine or of other versions")
        content["points"] = [p for p in before["points"] if p["module"] not in options.modules]
    for module in options.modules:
        for axis in speed.AXES:
            seconds = 0.0
            for factor in FACTORS:
                if seconds > LONGEST or (axis == "width" and module not in WIDTH):
                    break
                measured = in_its_own_process(module, axis if factor != 1 else None, factor)
                seconds = measured["seconds"]
                point = {"module": module, "axis": axis, "factor": factor, **measured}
                content["points"].append(point)
                print(json.dumps(point), flush=True)
                if options.output:
                    write_atomically(options.output, json.dumps(content, indent=1) + "\n")


@cache
def in_its_own_process(module: str, axis: str | None, factor: float) -> dict[str, Any]:
    """`measure`, in memory that nothing else has used. The document's own point is made once."""
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as process:
        return process.submit(measure, module, axis, factor).result()


def measure(module: str, axis: str | None, factor: float) -> dict[str, Any]:
    """Times one point, of an axis or (None) of the document's settings; seconds are of a step."""
    port = program(module)
    data = datasets.load(port.dataset, quiet=True)
    settings: dict[str, Any] = {}
    if axis == "images":
        n = round(factor * len(data.train_images))
        data = dataclasses.replace(
            data,
            train_images=np.resize(data.train_images, [n, 28, 28]),
            train_labels=np.resize(data.train_labels, n),
        )
    elif axis is not None:
        name = "batch_size" if axis == "batch size" else WIDTH[module]
        settings[name] = round(factor * getattr(port.config(), name))
    experiment = port.experiment(port.config(**settings), data, Seeded(0), "float32")
    trainer = Trainer(experiment)
    size = experiment.batches.batch_size
    whole = min(experiment.steps_per_call, len(experiment.images) // size)  # no short last batch
    steps = min(whole, max(1, round(BLOCK / step_seconds(lambda: trainer.run(0, 1), rounds=1))))
    loop = step_seconds(lambda: trainer.run(0, steps)) / steps
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024

    batch = experiment.batches(0)
    noise = experiment.chance.noise(0, (size, experiment.latent_dim))
    arguments = [
        tf.constant(a) for a in (experiment.images[batch], experiment.labels[batch], noise)
    ]
    step = tf.function(trainer.step, jit_compile=experiment.compile_with_xla)
    return {
        "batch_size": size,
        "seconds": loop,
        "bare_seconds": step_seconds(lambda: step(*arguments).numpy()),
        "numpy_seconds": numpy_seconds(experiment, size),
        "peak_mib": round(peak),
    }


def numpy_seconds(experiment: Any, size: int) -> float:
    """What the noise and the order of the images cost a step."""
    noise = step_seconds(lambda: experiment.chance.noise(0, (size, experiment.latent_dim)))
    per_epoch = experiment.batches.steps_per_epoch
    began = time.perf_counter()
    for k in range(1, PASSES + 1):
        experiment.batches(2 * k * per_epoch)  # draws an order, and perhaps the next one
    return noise + (time.perf_counter() - began) / PASSES / per_epoch


def step_seconds(call: Callable[[], Any], rounds: int = ROUNDS) -> float:
    """How long a call takes, the median over rounds."""
    return statistics.median(seconds_of(call, rounds, ROUND))


if __name__ == "__main__":
    main()
