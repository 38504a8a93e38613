"""What is known of each document besides its program: one record for each module.

A new module needs a record here; `tests/test_layout.py` says so if it is missing.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple


class Curve(NamedTuple):
    """A curve that the original's whole runs and the history of ours both have."""

    recorded: str  # the key in golden/<number>/full-runs.json
    column: str  # of our history.csv
    label: str


class Printed(NamedTuple):
    """Numbers that a document, or its upstream, printed: each of a single batch or epoch."""

    source: str
    at: tuple[int, ...]  # epochs or steps
    values: tuple[float, ...]
    column: str  # of our history.csv
    ends: bool = False  # whether each is the last number of that column in a whole run of its own


class Headline(NamedTuple):
    """The number that a reader looks for first."""

    column: str  # of our history.csv; its last row counts
    label: str
    printed: str  # what the document gives


class Variant(NamedTuple):
    """A whole run with a setting that is not the document's, which docs/quirks.md tells of.

    The run with seed 0 is kept in `artifacts/reference/<module>/<name>/`.
    """

    name: str
    options: tuple[str, ...]


class Short(NamedTuple):
    """Further runs of ours that end early, where runs of the original were stopped.

    They have the seeds that follow those of the whole runs, and are kept apart from them.
    """

    runs: int
    epochs: int


@dataclass(frozen=True)
class Document:
    """What is claimed of a module, and what the claim needs."""

    module: str
    number: str  # "000" to "004"
    section: str  # of the document, or ""
    title: str
    english: str  # the title, translated
    date: str  # as the document gives it, or ""
    tensorflow: str  # that the original ran on
    curves: tuple[Curve, ...]  # the first is the one that a picture shows first
    unit: str  # of the curves
    seeds: int  # whole runs of ours that are kept: seeds 0, 1, ...
    headline: Headline
    steps_per_row: int = 1  # steps between two rows of the history; 1 where it counts epochs
    per_batch: bool = False  # whether the curves grow with the size of a batch
    printed: Printed | None = None
    pictures: tuple[str, ...] = ()  # that the original drew and a run of ours draws, too
    variants: tuple[Variant, ...] = ()
    short: Short | None = None
    unrecorded: str = ""  # why there is no recording; "" if there is one

    @property
    def name(self) -> str:
        """Number and section, as in "000 §2"."""
        return f"{self.number} {self.section}".strip()

    @property
    def kept_variants(self) -> dict[str, str]:
        """Each variant's folder below `artifacts/reference`, with its module and options."""
        return {
            f"{self.module}/{v.name}": " ".join([self.module, *v.options]) for v in self.variants
        }

    @property
    def round_name(self) -> str:
        """What a row of the history counts."""
        return "step" if self.steps_per_row > 1 else "epoch"

    def printed_ends(self, column: str) -> tuple[float, ...]:
        """The last numbers of a column of our history in whole runs that printed no others."""
        printed = self.printed
        return printed.values if printed and printed.ends and printed.column == column else ()


DOCUMENTS = {
    document.module: document
    for document in (
        Document(
            module="mlp_vae",
            number="000",
            section="§2",
            title="变分自编码 & 条件变分自编码",
            english="Variational and conditional variational autoencoders",
            date="",
            tensorflow="1.14.0",
            curves=(Curve("epoch_mean_cost", "loss", "mean cost of an epoch"),),
            unit="cost of a batch of 128 images",
            seeds=20,
            headline=Headline(
                "loss", "cost of a batch, mean of epoch 50", "1950.55 (last batch, epoch 43)"
            ),
            per_batch=True,
            printed=Printed(
                "printed by the document (last batch)",
                tuple(range(1, 44, 3)),
                (2961.34, 2265.61, 2255.56, 2235.31, 2167.91, 2352.41, 2194.37, 2146.91, 2127.26,
                 1911.38, 2092.75, 1870.27, 2143.29, 1938.21, 1950.55),
                "last_loss",
            ),
            pictures=("manifold",),
            variants=(Variant("elbo", ("--objective", "elbo")),),
        ),
        Document(
            module="mlp_cvae",
            number="000",
            section="§3",
            title="变分自编码 & 条件变分自编码",
            english="Variational and conditional variational autoencoders",
            date="",
            tensorflow="1.14.0",
            curves=(Curve("", "loss", "mean cost of an epoch"),),
            unit="cost of a batch of 128 images",
            seeds=3,
            headline=Headline("loss", "cost of a batch, mean of epoch 50", "no program"),
            per_batch=True,
            variants=(Variant("elbo", ("--objective", "elbo")),),
            unrecorded="described without a program; proved against mlp_vae by"
            " tests/test_mlp_cvae.py",
        ),
        Document(
            module="conv_vae",
            number="001",
            section="",
            title="变分自编码器(VAE) 直观推导",
            english="An intuitive derivation of the VAE",
            date="2019-07-29",
            tensorflow="1.14.0",
            curves=(
                Curve("epoch_loss", "loss", "training loss"),
                Curve("epoch_val_loss", "val_loss", "validation loss"),
            ),
            unit="nats per image",
            seeds=8,
            headline=Headline("val_loss", "validation loss after 30 epochs, nats", "none"),
            pictures=("manifold",),
        ),
        Document(
            module="elbo_cvae",
            number="002",
            section="",
            title="TensorFlow从1到2（十一）变分自动编码器和图片自动生成",
            english="TensorFlow from 1 to 2, part 11: VAE, and pictures made by it",
            date="2019-05-05",
            tensorflow="2.0.0",
            curves=(Curve("test_elbo", "test_elbo", "test ELBO"),),
            unit="nats per image",
            seeds=1,
            headline=Headline(
                "test_elbo", "test ELBO after 100 epochs, nats", "−78.338, −78.327 (upstream)"
            ),
            printed=Printed(
                "printed upstream", (100, 100), (-78.338, -78.327), "test_elbo", ends=True
            ),
            short=Short(runs=4, epochs=25),
        ),
        Document(
            module="rmsprop_vae",
            number="003",
            section="",
            title="（无标题）aymericdamien 的 variational_autoencoder 中文注释版",
            english="no title: aymericdamien's variational_autoencoder, annotated in Chinese",
            date="",
            tensorflow="1.14.0",
            curves=(Curve("mean_loss_per_100_steps", "loss", "mean loss of 100 steps"),),
            unit="nats per image",
            seeds=32,
            headline=Headline(
                "loss", "loss of steps 2,901 to 3,000, nats", "172.93 (upstream, step 3,000)"
            ),
            steps_per_row=100,
            printed=Printed(
                "printed upstream (single batch)",
                (1, 1000, 2000, 3000),
                (645.08, 173.02, 165.30, 172.93),
                "last_loss",
            ),
            pictures=("manifold",),
            variants=(Variant("30000", ("--steps", "30000")),),
        ),
        Document(
            module="tfp_cvae",
            number="004",
            section="",
            title="条件VAE",
            english="Conditional VAE",
            date="2019-08-18",
            tensorflow="1.14.0",
            curves=(
                Curve("epoch_loss", "loss", "training loss"),
                Curve("epoch_val_loss", "val_loss", "validation loss"),
            ),
            unit="nats per batch of 256",
            seeds=5,
            headline=Headline("val_loss", "validation loss per batch after 15 epochs", "none"),
            per_batch=True,
            pictures=("class-8", "class-9"),
            variants=(Variant("elbo", ("--objective", "elbo", "--mean-spread", "64")),),
        ),
    )
}  # fmt: skip
RECORDED = tuple(d for d in DOCUMENTS.values() if not d.unrecorded)
RECORDED_MODULES = tuple(d.module for d in RECORDED)


def of_number(number: str) -> Document | None:
    """The recorded document with a number; None if there is none."""
    return next((d for d in RECORDED if d.number == number), None)
