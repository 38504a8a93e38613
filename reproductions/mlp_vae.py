"""Document 000 §2: a two-dimensional VAE of dense layers, squared error, Adam.

Source: "变分自编码 & 条件变分自编码" (Variational and conditional variational autoencoders), a
notebook for TensorFlow 1 placeholders; author and date are not in the text.
Trains 784-256-2-256-784 on 55,000 grey-scale images of MNIST for 50 epochs.

    python -m reproductions.mlp_vae

Names: theirs -> ours: `z_log_sigma_sq` -> z_log_var; `reconstruction` -> x_decoded; `reconstr_loss`
-> reconstruction; `latent_loss` -> kl.

Kept quirks
  1. The reconstruction is summed over batch and pixels, then added to every image's KL before the
     mean is taken: cost = batch-summed reconstruction + mean KL. The KL weighs 1/128 of what an
     ELBO gives it; `--objective elbo` minimises the ELBO instead.
  2. The output is linear: pixels are not confined to 0 .. 1. Half the squared error is, up to a
     constant, the negative log-likelihood of a Gaussian with variance 1, so "nats" is meant in that
     sense.
  3. Weights start from a truncated normal of standard deviation 0.001 (the text calls it a
     variance).
  4. `w3` is a variable made from a variable; the inner one is never read, yet counts as trainable.
  5. It prints the cost of the last batch of every third epoch. `avg_cost` is declared and never
     used.
  6. The final "result" is the cost of all 10,000 test images as one batch, about 78 times a
     batch's.
  7. The reader holds back the first 5,000 training images, and `next_batch` fills a batch that a
     pass leaves incomplete from the next pass: an epoch of 429 batches drifts by 88 images.
  8. Pixels are float32(x) * float32(1/255), which differs from x / 255 in the last bit.

Deviations
  1. The noise is an argument, so that a recording's noise can take its place.
  2. Besides the manifold: latent scatter, reconstructions, curves and the GIF, which the document
     lacks.

Printed by the document (epoch: cost): 1: 2961.34, 4: 2265.61, 7: 2255.56, 10: 2235.31, 13: 2167.91,
16: 2352.41, 19: 2194.37, 22: 2146.91, 25: 2127.26, 28: 1911.38, 31: 2092.75, 34: 1870.27, 37:
2143.29, 40: 1938.21, 43: 1950.55 (the rest is cut off).

#### References
D. P. Kingma, M. Welling. Auto-Encoding Variational Bayes. ICLR 2014. arXiv:1312.6114
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


# --- Data -----------------------------------------------------------------------------------------


def inputs(images: Any, dtype: str) -> tf.Tensor:
    """uint8 [batch, 28, 28] -> x [batch, 784] in 0 .. 1, multiplied in float32 as the reader
    did."""
    x = tf.cast(tf.reshape(images, [-1, PIXELS]), tf.float32) * PIXEL_SCALE
    return tf.cast(x, dtype)


# --- Model ----------------------------------------------------------------------------------------


def build(config: Config, weights: Weights, dtype: str = "float32") -> Model:
    """Makes the eleven variables and gives them their start."""

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
    return model


def encode(model: Model, x: Any) -> tuple[tf.Tensor, tf.Tensor]:
    """x [batch, 784] -> z_mean, z_log_var, [batch, 2] each."""
    h1 = tf.nn.relu(x @ model["w1"] + model["b1"])
    # Both in one product: as two that narrow they cost a tenth of the whole step.
    both = h1 @ tf.concat([model["z_mean_w"], model["z_log_var_w"]], axis=1)
    z_mean, z_log_var = tf.split(both, num_or_size_splits=2, axis=1)
    return z_mean + model["z_mean_b"], z_log_var + model["z_log_var_b"]


def decode(model: Model, z: Any) -> tf.Tensor:
    """z [batch, 2] -> x_decoded [batch, 784]: linear, not confined to 0 .. 1."""
    h2 = tf.nn.relu(z @ model["w2"] + model["b2"])
    return h2 @ model["w3"] + model["b3"]


# --- Loss -----------------------------------------------------------------------------------------


def loss(model: Model, images: Any, labels: Any, eps: Any, objective: str = "document") -> Losses:
    """The document's cost of a batch.

    Args:
      model: the variables.
      images: uint8 [batch, 28, 28].
      labels: not used.
      eps: standard normal noise [batch, 2].
      objective: "document", or "elbo" for the mean of reconstruction + kl.
    """
    x = inputs(images, eps.dtype)
    z_mean, z_log_var = encode(model, x)
    z = z_mean + tf.sqrt(tf.exp(z_log_var)) * eps
    x_decoded = decode(model, z)
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
        posterior=lambda images, _: Posterior.diagonal(*encode(model, inputs(images, dtype))),
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
        frame=frame_maker(model, dtype),
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


def pictures_of(model: Model, z: Array, dtype: str) -> Array:
    """Decodes z [..., 2] into pictures [..., 28, 28]."""
    flat = in_batches(partial(decode, model), z.reshape(-1, z.shape[-1]).astype(dtype))
    return flat.reshape(*z.shape[:-1], 28, 28)


def frame_maker(model: Model, dtype: str) -> Callable[[], Array]:
    """For the GIF: the manifold of the moment, 10 x 10."""
    quantiles = plotting.normal_quantiles(10)
    z = plotting.grid_codes(quantiles, quantiles)
    return lambda: tile(to_uint8(pictures_of(model, z, dtype)))


def figures(config: Config, run: Experiment, data: Dataset, progress: Progress) -> dict[str, Any]:
    """The document's manifold, and what else its reader wants to see."""
    model = run.model
    quantiles = plotting.normal_quantiles(15)
    manifold = pictures_of(model, plotting.grid_codes(quantiles, quantiles), run.dtype)
    z_mean = z_means(run, data.test_images, data.test_labels)
    shown = data.test_images[:30]
    return {
        "manifold.png": plotting.manifold(
            manifold, quantiles, quantiles, "Manifold: decoded quantiles of the prior", CMAP
        ),
        "latent.png": plotting.latent_scatter(
            z_mean, data.test_labels, data.class_names, "Posterior means of the 10,000 test images"
        ),
        "reconstructions.png": plotting.reconstructions(
            shown / 255, pictures_of(model, z_mean[:30], run.dtype),
            "Test images and their reconstructions from z_mean", CMAP,
        ),
        "curves.png": plotting.curves(
            progress.rows, "epoch",
            *plotting.total_axis(config.objective, "Cost, as in the document", "cost per batch"),
            {"loss": "mean of the epoch", "last_loss": "last batch, as printed"},
            "mlp_vae: training on MNIST", reconstruction_unit="½ squared error per image",
        ),
    }  # fmt: skip


# --- The command ----------------------------------------------------------------------------------

PROGRAM = Program(
    name="mlp_vae",
    document="000 §2",
    dataset="mnist",
    likelihood="gaussian",
    summary="VAE of dense layers with squared error, by TF1 placeholders",
    config=Config,
    build=build,
    quick={"epochs": 10},
    experiment=experiment,
    figures=figures,
    results=results,
)
main = PROGRAM.main

if __name__ == "__main__":
    sys.exit(main())
