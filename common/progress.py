"""What a run shows while it goes on: a bar on a terminal, a line an epoch in a log, or nothing."""

from __future__ import annotations

import sys

from tqdm import tqdm

from common.training import Experiment, Progress, Row


class Display:
    """Tells the user how a training goes; a `training.Listener`."""

    def __init__(self, experiment: Experiment, quiet: bool) -> None:
        self._experiment, self._quiet = experiment, quiet
        self._rounds = -(-experiment.steps // experiment.steps_per_round)
        self._bar = (
            tqdm(total=experiment.steps, unit="step", dynamic_ncols=True)
            if not quiet and sys.stderr.isatty()
            else None
        )

    def on_steps(self, progress: Progress) -> None:
        if self._bar is None:
            return
        if self._bar.n == 0:  # a resumed run starts in the middle
            self._bar.initial = progress.step
        loss, reconstruction, kl = progress.losses[-1]
        current = min(len(progress.rows) + 1, self._rounds)
        if self._experiment.round_name == "epoch":
            self._bar.set_description(f"epoch {current}/{self._rounds}", refresh=False)
        self._bar.set_postfix_str(
            f"loss {loss:.6g}, reconstruction {reconstruction:.4g}, KL {kl:.3g}", refresh=False
        )
        self._bar.update(progress.step - self._bar.n)

    def on_round(self, progress: Progress, report: str | None) -> None:
        if self._quiet:
            return
        if report is not None:
            tqdm.write(report)
        if self._bar is None:
            print(self._line(progress.rows[-1]), flush=True)

    def close(self) -> None:
        if self._bar is not None:
            self._bar.close()

    def _line(self, row: Row) -> str:
        name = self._experiment.round_name
        total = self._rounds if name == "epoch" else self._experiment.steps
        values = (f"{k} {v:.6g}" for k, v in row.items() if k not in (name, "last_loss", "seconds"))
        return f"{name} {row[name]:.0f}/{total}  {'  '.join(values)}  {row['seconds']:.1f} s"
