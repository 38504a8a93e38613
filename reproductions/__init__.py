"""Six variational autoencoders from five tutorials from around 2019, on today's TensorFlow."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from common.program import Program

MODULES = ("mlp_vae", "mlp_cvae", "conv_vae", "elbo_cvae", "rmsprop_vae", "tfp_cvae")
GOLDEN = Path(__file__).parent / "golden"  # the recordings of the originals


def program(module: str) -> Program:
    """The program of one of the six modules, which is imported here and not before."""
    return importlib.import_module(f"reproductions.{module}").PROGRAM
