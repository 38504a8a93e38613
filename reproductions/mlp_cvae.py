"""Document 000 §3: the VAE of dense layers, with the label at the encoder's and decoder's input.

Source: "变分自编码 & 条件变分自编码" (Variational and conditional variational autoencoders), a
notebook for TensorFlow 1 placeholders; author and date are not in the text. The section describes
this model and shows no program and no figures.
Trains (784+10)-256-2-(2+10)-256-784 on 55,000 grey-scale images of MNIST for 50 epochs.

    python -m reproductions.mlp_cvae [--digit 8]

Names: as in mlp_vae; `y_w1`, `y_w2` are the rows that a one-hot label adds to w1 and w2.

Kept quirks
  All of §2, whose program this section changes in one place only:
  1. The reconstruction is summed over batch and pixels, the KL averaged: it weighs 1/128 of what an
     ELBO gives it; `--objective elbo` minimises the ELBO instead.
  2. The output is linear, the reconstruction half the squared error.
  3. Weights start from a truncated normal of standard deviation 0.001.
  4. `w3` is a variable made from a variable; the inner one is never read.
  5. It prints the cost of the last batch of every third epoch.
  6. The final "result" is the cost of all 10,000 test images as one batch.
  7. The reader holds back 5,000 training images, and `next_batch` carries the end of a pass over
     into the next.
  8. Pixels are float32(x) * float32(1/255).

Deviations
  1. There is no original program to record. Proved instead: with y_w1 and y_w2 at zero it computes
     exactly what mlp_vae computes, and its gradients with respect to them are right
     (tests/test_mlp_cvae.py).
  2. [x, y] @ [w1; y_w1] is computed as x @ w1 + y @ y_w1, so that this proof can be exact.
  3. The noise is an argument.
  4. Pictures: for each digit a row of samples, and the manifold of a chosen digit, as the text
     promises; latent scatter, reconstructions, curves and the GIF besides.

#### References
K. Sohn, H. Lee, X. Yan. Learning Structured Output Representation using Deep Conditional Generative
Models. NeurIPS 2015.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from common import plotting
from common.animation import tile, to_uint8
from common.chance import Chance, Weights
from common.cli import Program, choice, setting
from common.datasets import Dataset
from common.evaluation import z_means
from common.lazy import tf
from common.optimizers import TF1Adam
from common.training import Experiment, Losses, Posterior, Progress, in_batches

Array = np.ndarray
Model = dict[str, Any]  # the document's `weights`: name -> tf.Variable, in its order

PIXELS = 784
CLASSES = 10
HELD_BACK = 5_000  # training images that the TF1 reader set aside for validation
PIXEL_SCALE = np.float32(1 / 255)
PRINT_EVERY = 3  # epochs
CMAP = "Greys_r"


@dataclass(frozen=True)
class Config:
    """The document's settings."""

    epochs: int = setting(50, "passes over the 55,000 images", 1, 100_000)
    batch_size: int = setting(128, "images in a batch", 1, 10_000)
    learning_rate: float = setting(1e-3, "of Adam", 1e-12, 1)
    hidden: int = setting(256, "units of each hidden layer", 1, 10_000)
    latent_dim: int = setting(2, "dimensions of z", 2, 2)
    initial_stddev: float = setting(1e-3, "of the weights at the start", 1e-12, 10)
    objective: str = choice(("document", "elbo"), "the cost as printed, or the ELBO, negated")
    digit: int = setting(8, "the digit whose manifold is drawn", 0, 9)


# --- Data -----------------------------------------------------------------------------------------


def inputs(images: Any, labels: Any, dtype: str) -> tuple[tf.Tensor, tf.Tensor]:
    """uint8 [batch, 28, 28] and [batch] -> x [batch, 784] in 0 .. 1, y one-hot [batch, 10]."""
    x = tf.cast(tf.reshape(images, [-1, PIXELS]), tf.float32) * PIXEL_SCALE
    return tf.cast(x, dtype), tf.one_hot(labels, CLASSES, dtype=dtype)


# --- Model ----------------------------------------------------------------------------------------


def build(config: Config, weights: Weights, dtype: str = "float32") -> Model:
    """Makes the thirteen variables and gives them their start."""

    def matrix(*shape: int) -> tf.Variable:
        return tf.Variable(weights.truncated_normal(shape, config.initial_stddev), dtype=dtype)

    def bias(size: int) -> tf.Variable:
        return tf.Variable(tf.zeros([size], dtype))

    hidden, latent = config.hidden, config.latent_dim
    model = {
        "w1": matrix(PIXELS, hidden),
        "b1": bias(hidden),
        "z_mean_w": matrix(hidden, latent),
        "z_log_var_w": matrix(hidden, latent),
        "z_mean_b": bias(latent),
        "z_log_var_b": bias(latent),
        "w2": matrix(latent, hidden),
        "b2": bias(hidden),
        "w3_inner": matrix(hidden, PIXELS),  # never read
    }
    model["w3"] = tf.Variable(model["w3_inner"])
    model["b3"] = bias(PIXELS)
    model["y_w1"] = matrix(CLASSES, hidden)
    model["y_w2"] = matrix(CLASSES, hidden)
    return model


def encode(model: Model, x: Any, y: Any) -> tuple[tf.Tensor, tf.Tensor]:
    """x [batch, 784], y [batch, 10] -> z_mean, z_log_var, [batch, 2] each."""
    h1 = tf.nn.relu(x @ model["w1"] + y @ model["y_w1"] + model["b1"])
    # Both in one product: as two that narrow they cost a tenth of the whole step.
    both = h1 @ tf.concat([model["z_mean_w"], model["z_log_var_w"]], axis=1)
    z_mean, z_log_var = tf.split(both, num_or_size_splits=2, axis=1)
    return z_mean + model["z_mean_b"], z_log_var + model["z_log_var_b"]


def decode(model: Model, z: Any, y: Any) -> tf.Tensor:
    """z [batch, 2], y [batch, 10] -> x_decoded [batch, 784]: linear, not confined to 0 .. 1."""
    h2 = tf.nn.relu(z @ model["w2"] + y @ model["y_w2"] + model["b2"])
    return h2 @ model["w3"] + model["b3"]


# --- Loss -----------------------------------------------------------------------------------------


def loss(model: Model, images: Any, labels: Any, eps: Any, objective: str = "document") -> Losses:
    """The cost of a batch, as in §2.

    Args:
      model: the variables.
      images: uint8 [batch, 28, 28].
      labels: uint8 [batch].
      eps: standard normal noise [batch, 2].
      objective: "document", or "elbo" for the mean of reconstruction + kl.
    """
    x, y = inputs(images, labels, eps.dtype)
    z_mean, z_log_var = encode(model, x, y)
    z = z_mean + tf.sqrt(tf.exp(z_log_var)) * eps
    x_decoded = decode(model, z, y)
    reconstruction = 0.5 * tf.reduce_sum(tf.square(x_decoded - x), axis=1)
    kl = -0.5 * tf.reduce_sum(1 + z_log_var - tf.square(z_mean) - tf.exp(z_log_var), axis=1)
    cost = tf.reduce_mean(tf.reduce_sum(reconstruction) + kl)  # a sum and a mean: quirk 1
    if objective == "elbo":
        cost = tf.reduce_mean(reconstruction + kl)
    return Losses(cost, reconstruction, kl)


# --- Training -------------------------------------------------------------------------------------


def experiment(config: Config, data: Dataset, chance: Chance, dtype: str = "float32") -> Experiment:
    """Puts data, model, loss and optimiser together for the loop."""
    model = build(config, chance.weights(), dtype)
    variables = list(model.values())
    images, labels = data.train_images[HELD_BACK:], data.train_labels[HELD_BACK:]
    batches = chance.batches(len(images), config.batch_size, tail="carry")
    return Experiment(
        model=model,
        variables=variables,
        optimizer=TF1Adam(variables, config.learning_rate),
        loss=partial(loss, model, objective=config.objective),
        posterior=lambda x, y: Posterior.diagonal(*encode(model, *inputs(x, y, dtype))),
        chance=chance,
        batches=batches,
        images=images,
        labels=labels,
        latent_dim=config.latent_dim,
        dtype=dtype,
        steps=config.epochs * batches.steps_per_pass,
        steps_per_round=batches.steps_per_pass,
        round_name="epoch",
        steps_per_call=batches.steps_per_pass,
        report=report,
        frame=frame_maker(model, chance.codes("frame", (6, 1, config.latent_dim)), dtype),
        compile_with_xla=True,
    )


def report(progress: Progress) -> str | None:
    """What the document prints after an epoch: the last batch's cost, every third time."""
    row = progress.rows[-1]
    if (row["epoch"] - 1) % PRINT_EVERY != 0:
        return None
    return f"epoch: {row['epoch']:04d} cost= {row['last_loss']:.9f}"


def results(config: Config, run: Experiment, data: Dataset) -> dict[str, Any]:
    """The document's "result": the cost of all test images as one batch."""
    eps = run.chance.codes("result", (len(data.test_images), config.latent_dim))
    test = loss(run.model, data.test_images, data.test_labels, tf.constant(eps, run.dtype))
    return {"result": float(test.loss)}


# --- Pictures -------------------------------------------------------------------------------------


def pictures_of(model: Model, z: Array, digits: Array, dtype: str) -> Array:
    """Decodes z [..., 2] as pictures [..., 28, 28] of `digits`, an array of the shape [...]."""
    digits = np.broadcast_to(digits, z.shape[:-1])
    y = np.eye(CLASSES, dtype=dtype)[digits.ravel()]
    zy = np.concatenate([z.reshape(-1, z.shape[-1]).astype(dtype), y], axis=1)
    latent = z.shape[-1]
    flat = in_batches(lambda part: decode(model, part[:, :latent], part[:, latent:]), zy)
    return flat.reshape(*z.shape[:-1], 28, 28)


def sample(model: Model, digit: int, z: Array) -> Array:
    """Pictures [..., 28, 28] of a digit from codes z [..., 2]."""
    return pictures_of(model, z, np.array(digit), model["w1"].dtype.name)


def frame_maker(model: Model, codes: Array, dtype: str) -> Callable[[], Array]:
    """For the GIF: the codes [rows, 1, 2] as each of the ten digits, a column for each."""
    z = np.broadcast_to(codes, (len(codes), CLASSES, codes.shape[-1]))
    return lambda: tile(to_uint8(pictures_of(model, z, np.arange(CLASSES), dtype)))


def figures(config: Config, run: Experiment, data: Dataset, progress: Progress) -> dict[str, Any]:
    """Samples of every digit, the manifold of one, and what else the reader wants to see."""
    model, dtype = run.model, run.dtype
    quantiles = plotting.normal_quantiles(15)
    grid = plotting.grid_codes(quantiles, quantiles)
    eps = run.chance.codes("sheet", (1, 12, config.latent_dim))
    z = np.broadcast_to(eps, (CLASSES, *eps.shape[1:]))
    labels = data.test_labels
    z_mean = z_means(run, data.test_images, labels)
    shown = data.test_images[:30]
    return {
        f"manifold-{config.digit}.png": plotting.manifold(
            pictures_of(model, grid, np.array(config.digit), dtype), quantiles, quantiles,
            f"Manifold of the digit {config.digit}: decoded quantiles of the prior", CMAP,
        ),
        "samples.png": plotting.image_grid(
            pictures_of(model, z, np.arange(CLASSES)[:, np.newaxis], dtype),
            "The same 12 codes from the prior, decoded as every digit", CMAP,
            row_labels=[f"asked for {digit}" for digit in range(CLASSES)],
        ),
        "latent.png": plotting.latent_scatter(
            z_mean, labels, data.class_names, "Posterior means of the 10,000 test images"
        ),
        "reconstructions.png": plotting.reconstructions(
            shown / 255, pictures_of(model, z_mean[:30], labels[:30], dtype),
            "Test images and their reconstructions from z_mean and label", CMAP,
        ),
        "curves.png": plotting.curves(
            progress.rows, "epoch",
            *plotting.total_axis(config.objective, "Cost, as in the document", "cost per batch"),
            {"loss": "mean of the epoch", "last_loss": "last batch, as printed"},
            "mlp_cvae: training on MNIST", reconstruction_unit="½ squared error per image",
        ),
    }  # fmt: skip


# --- The command ----------------------------------------------------------------------------------

PROGRAM = Program(
    name="mlp_cvae",
    document="000 §3",
    dataset="mnist",
    likelihood="gaussian",
    summary="VAE of dense layers that is told the label, by TF1 placeholders",
    config=Config,
    build=build,
    quick={"epochs": 10},
    experiment=experiment,
    figures=figures,
    results=results,
    draw=sample,
)
main = PROGRAM.main

if __name__ == "__main__":
    sys.exit(main())
