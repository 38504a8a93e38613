"""The original program as a side of the benchmark, on the TensorFlow that it was written for.

    python3.7 original.py DOCUMENT TEXT DATA

Speaks as `worker.py` does. The program runs as for a recording (reproductions/golden/record.py),
which stops it after each turn's last step until the next turn. Stands alone, for Python 3.7.
"""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "reproductions" / "golden"))

import record  # type: ignore[import-not-found]  # of reproductions/golden

MOST_STEPS = 3000  # in a pass over the images that are given to Keras and tf.data
replies = os.fdopen(os.dup(1), "w")  # the program prints too
WARM_UP = 2


class Paced(record.Recorder):
    """Makes as many steps as a line on stdin says, then waits for the next line."""

    def __init__(self, job: Any) -> None:
        super().__init__(job)
        self.left = WARM_UP
        self.clocked = 0
        self.began = 0.0

    def step(self, loss: Any, read: Any) -> None:
        """Counts a step that was done; at the end of a turn it reports and waits."""
        self.loss.append(float(loss))  # the next noise is drawn for another step
        self.left -= 1
        if self.left == self.clocked:
            self.began = time.perf_counter()
        if self.left:
            return
        said = repr(time.perf_counter() - self.began) if self.clocked else "{}"
        print(said, file=replies, flush=True)
        line = sys.stdin.readline()
        if not line:
            os._exit(0)
        self.clocked = int(line)
        self.left = self.clocked + -(-self.clocked // 4)  # the first ones are not clocked


def main() -> None:
    """Runs the program of a document at the pace of stdin."""
    number, text, data = sys.argv[1:]
    os.dup2(2, 1)
    document = record.DOCUMENTS[number]
    program = document.program(Path(text).read_text(encoding="utf-8"))
    # 003 has a number of steps of its own, and must not end before the benchmark does.
    endless = tuple((old, "num_steps = 10**9") for old, _ in document.changes_in_miniature)
    record.Recorder = Paced
    record.run(
        record.Job(
            program=record.with_changes(program, document.changes + endless),
            document=number,
            data=Path(data),
            seed=9102,
            steps=MOST_STEPS if document.latent_dim == 2 else MOST_STEPS // 4,
            precision="float32",
        )
    )


if __name__ == "__main__":
    main()
