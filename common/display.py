"""How a run tells of itself: a bar, or lines in a log; a picture in its folder; TensorBoard."""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import numpy as np
from tqdm import tqdm

from common.errors import BadInput
from common.files import write_atomically
from common.lazy import tf
from common.training import Experiment, Listener, Progress, Row

PREVIEW_SECONDS = 20.0  # between two previews: a fifth of a second of drawing is 1 % of that


class Display(Listener):
    """Tells the user how a training goes."""

    def __init__(self, experiment: Experiment, quiet: bool) -> None:
        self._experiment, self._quiet = experiment, quiet
        self.bar: tqdm | None = None

    def on_start(self, progress: Progress) -> None:
        if self._quiet:
            return
        if progress.step:
            print(f"goes on after step {progress.step:,}", flush=True)
        if sys.stderr.isatty():
            self.bar = tqdm(
                total=self._experiment.steps,
                initial=progress.step,
                unit="step",
                dynamic_ncols=True,
            )

    def on_steps(self, progress: Progress) -> None:
        if self.bar is None:
            return
        loss, reconstruction, kl = progress.losses[-1]
        if self._experiment.round_name == "epoch":
            last = self._experiment.last_round
            current = min(len(progress.rows) + 1, last)
            self.bar.set_description(f"epoch {current}/{last}", refresh=False)
        self.bar.set_postfix_str(
            f"loss {loss:.6g}, reconstruction {reconstruction:.4g}, KL {kl:.3g}", refresh=False
        )
        self.bar.update(progress.step - self.bar.n)

    def on_round(self, progress: Progress, report: str | None) -> None:
        if self._quiet:
            return
        if report is not None:
            tqdm.write(report)
            sys.stdout.flush()  # a pipe would keep it back
        if self.bar is None:
            print(self._line(progress.rows[-1]), flush=True)

    def close(self) -> None:
        if self.bar is not None:
            self.bar.close()

    def _line(self, row: Row) -> str:
        name = self._experiment.round_name
        values = (f"{k} {v:.6g}" for k, v in row.items() if k not in (name, "last_loss", "seconds"))
        where = f"{name} {row[name]:.0f}/{self._experiment.last_round}"
        return f"{where}  {'  '.join(values)}  {row['seconds']:.1f} s"


class Preview(Listener):
    """Keeps a picture of the training as it stands, until its end."""

    def __init__(
        self, experiment: Experiment, path: Path, draw: Callable[[Progress], bytes], quiet: bool
    ) -> None:
        self._steps, self._path, self._draw, self._quiet = experiment.steps, path, draw, quiet
        self._drawn_at = -math.inf

    def on_round(self, progress: Progress, report: str | None) -> None:
        now = time.monotonic()
        if progress.step == self._steps or now - self._drawn_at < PREVIEW_SECONDS:
            return
        with suppress(PermissionError):  # on Windows: a viewer has it open
            write_atomically(self._path, self._draw(progress))
        if self._drawn_at < 0 and not self._quiet:
            tqdm.write(f"{self._path} shows the training so far, and is drawn again as it goes on")
            sys.stdout.flush()
        self._drawn_at = now


class TensorBoard(Listener):
    """Writes the history and the GIF's frames for TensorBoard."""

    @staticmethod
    def check() -> None:
        """Raises BadInput where TensorBoard is not installed."""
        from importlib.util import find_spec

        if find_spec("tensorboard") is None:
            raise BadInput("--tensorboard needs TensorBoard: pip install tensorboard")

    def __init__(self, folder: Path, round_name: str) -> None:
        self._round_name = round_name
        try:
            self._writer = tf.summary.create_file_writer(str(folder))
        except tf.errors.OpError as error:
            raise OSError("the files for TensorBoard cannot be written") from error

    def on_round(self, progress: Progress, report: str | None) -> None:
        row = progress.rows[-1]
        with self._writer.as_default(step=int(row[self._round_name])):
            for name, value in row.items():
                if name != self._round_name:
                    tf.summary.scalar(name, value)
            tf.summary.image("samples", progress.frames[-1][np.newaxis, ..., np.newaxis])
        self._writer.flush()

    def close(self) -> None:
        self._writer.close()
