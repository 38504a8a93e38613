"""Six variational autoencoders from five tutorials of 2018-2019, on today's TensorFlow."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from common.program import Program


class Entry(NamedTuple):
    """One reproduction."""

    module: str
    document: str
    dataset: str
    summary: str


CATALOGUE = (
    Entry("mlp_vae", "000 §2", "MNIST", "MLP VAE, squared error, Adam (TF1 placeholders)"),
    Entry("mlp_cvae", "000 §3", "MNIST", "the same with the label at encoder and decoder"),
    Entry("conv_vae", "001", "Fashion-MNIST", "convolutional VAE, cross-entropy, Nadam (Keras)"),
    Entry(
        "elbo_cvae", "002", "binarised MNIST", "convolutional VAE, Monte-Carlo ELBO (GradientTape)"
    ),
    Entry("rmsprop_vae", "003", "MNIST", "tanh MLP VAE, cross-entropy, RMSProp (TF1 placeholders)"),
    Entry("tfp_cvae", "004", "MNIST", "conditional VAE with a learned prior mean per class (TFP)"),
)

MODULES = tuple(e.module for e in CATALOGUE)
GOLDEN = Path(__file__).parent / "golden"  # the recordings of the originals
UNRECORDED = {
    "mlp_cvae": "described without a program; proved against mlp_vae by tests/test_mlp_cvae.py"
}
RECORDED = {e.document.split()[0]: e.module for e in CATALOGUE if e.module not in UNRECORDED}


def program(module: str) -> Program:
    """The program of a module of the catalogue, which is imported here and not before."""
    return importlib.import_module(f"reproductions.{module}").PROGRAM
