"""What every side of the benchmark is given: a module's first batches, noise and weights."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

Array = np.ndarray
BATCHES = 8


@dataclass(frozen=True)
class Workload:
    """Batches of a module's run with seed 0, and the weights that it starts from."""

    module: str
    images: list[Array]  # uint8 [batch, 28, 28] each
    labels: list[Array]  # uint8 [batch] each
    eps: list[Array]  # float32 [batch, latent] each
    values: list[Array]  # of the variables before the first step, in the document's order

    def pixels(self, images: Array) -> Array:
        """uint8 -> what the module's network is given, float32."""
        if self.module == "elbo_cvae":
            return (images >= 128).astype(np.float32)
        return (images / 255).astype(np.float32)

    def save(self, path: Path) -> None:
        """Writes it for the other processes."""
        values: dict[str, Any] = {f"value_{i:02d}": value for i, value in enumerate(self.values)}
        np.savez(
            path,
            module=self.module,
            images=np.stack(self.images),
            labels=np.stack(self.labels),
            eps=np.stack(self.eps),
            **values,
        )

    @staticmethod
    def load(path: Path) -> Workload:
        """Reads what `save` wrote."""
        with np.load(path, allow_pickle=False) as a:
            values = [a[name] for name in sorted(a.files) if name.startswith("value_")]
            return Workload(
                str(a["module"]), list(a["images"]), list(a["labels"]), list(a["eps"]), values
            )
