"""Document 001: a convolutional VAE of Fashion-MNIST with a two-dimensional code, Nadam.

Source: "变分自编码器(VAE) 直观推导" (An intuitive derivation of the VAE), a blog post of 2019-07-29
for the Keras of TensorFlow 1.14.
Trains on the 60,000 grey-scale images of Fashion-MNIST for 30 epochs and validates on the 10,000
test images.

    python -m reproductions.conv_vae

Names: theirs -> ours: `μ` -> z_mean; `σ` -> z_log_var (it is the logarithm of the variance);
`x_out` -> logits; `xent_loss` -> reconstruction; `kl_loss` -> kl.

Kept quirks
  1. `tensorflow.python.keras.optimizers.Nadam` is the legacy class: its momentum warms up over
     thousands of steps (0.96^(0.004 t)). Keras 3's Nadam (0.96^t) is another optimiser.
  2. The transposed convolutions have 16, then 8 filters: the encoder's doubling leaves `filters` at
     16, and the decoder halves it after use.
  3. `loss_fn` ignores its first two arguments and reads the globals `x_in` and `x_out`; the values
     are the same.
  4. Cross-entropy treats grey levels as probabilities: not a likelihood of the pixels, but an ELBO
     in form, averaged over images.

Deviations
  1. The noise is an argument, so that a recording's noise can take its place.
  2. The picture of the decoded grid comes with axes in units of z; reconstructions, curves and the
     GIF are added.
  3. The document seeds the graph (9102); the seed here is --seed.

Figures: the document prints none. The original, run whole on TF 1.14 (three seeds), ends at a
training loss between 261 and 265 and a validation loss between 263 and 267 nats per image.

#### References
D. P. Kingma, M. Welling. Auto-Encoding Variational Bayes. ICLR 2014. arXiv:1312.6114
T. Dozat. Incorporating Nesterov Momentum into Adam. ICLR 2016 workshop.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import numpy as np

from common import plotting
from common.animation import tile, to_uint8
from common.chance import Chance, Weights, assign_glorot
from common.cli import Program, setting
from common.datasets import Dataset
from common.evaluation import z_means
from common.lazy import keras, tf
from common.optimizers import LegacyNadam
from common.training import Evaluator, Experiment, Losses, Posterior, Progress, Row, in_batches

Array = np.ndarray

CMAP = "Greys_r"


@dataclass(frozen=True)
class Config:
    """The document's settings."""

    epochs: int = setting(30, "passes over the 60,000 images", 1, 10_000)
    batch_size: int = setting(100, "images in a batch", 1, 10_000)
    learning_rate: float = setting(1e-3, "of Nadam", 1e-12, 1)
    filters: int = setting(16, "half the filters of the first convolution", 2, 512)
    kernel_size: int = setting(3, "pixels along a side of every kernel", 1, 28)
    latent_dim: int = setting(2, "dimensions of z", 2, 2)


# --- Data -----------------------------------------------------------------------------------------


def inputs(images: Any, dtype: str) -> tf.Tensor:
    """uint8 [batch, 28, 28] -> x [batch, 28, 28, 1] in 0 .. 1."""
    x = tf.cast(images, tf.float64)[..., tf.newaxis] / 255.0
    x = tf.cast(x, tf.float32)  # a float32 division would become a product with 1/255 in the graph
    return tf.cast(x, dtype)


# --- Model ----------------------------------------------------------------------------------------


class Model(NamedTuple):
    """The document's two networks."""

    encoder: Any  # x [batch, 28, 28, 1] -> (z_mean, z_log_var), [batch, 2] each
    decoder: Any  # z [batch, 2] -> logits [batch, 28, 28, 1]

    @property
    def variables(self) -> list[tf.Variable]:
        """All 18 variables in the document's order."""
        return [v.value for network in self for v in network.trainable_variables]


def build(config: Config, weights: Weights, dtype: str = "float32") -> Model:
    """Builds the networks and gives them Keras's default start."""
    layers = keras.layers
    dense = partial(layers.Dense, dtype=dtype)
    conv = partial(layers.Conv2D, strides=2, padding="same", activation="relu", dtype=dtype)
    conv_transpose = partial(layers.Conv2DTranspose, padding="same", dtype=dtype)
    filters, kernel = config.filters, config.kernel_size

    x = keras.Input([28, 28, 1], dtype=dtype)
    h = conv(2 * filters, kernel)(x)  # [batch, 14, 14, 32]
    h = conv(4 * filters, kernel)(h)  # [batch, 7, 7, 64]
    h = layers.Flatten(dtype=dtype)(h)
    h = dense(32, activation="relu")(h)
    encoder = keras.Model(x, [dense(config.latent_dim)(h), dense(config.latent_dim)(h)])

    z = keras.Input([config.latent_dim], dtype=dtype)
    h = dense(7 * 7 * 32, activation="relu")(z)
    h = layers.Reshape([7, 7, 32], dtype=dtype)(h)
    h = conv_transpose(filters, kernel, strides=2, activation="relu")(h)  # [batch, 14, 14, 16]
    h = conv_transpose(filters // 2, kernel, strides=2, activation="relu")(h)  # [batch, 28, 28, 8]
    decoder = keras.Model(z, conv_transpose(1, kernel)(h))
    model = Model(encoder, decoder)
    assign_glorot(model.variables, weights)
    return model


def decode(model: Model, z: Array) -> Array:
    """Decodes z [..., 2] into pictures [..., 28, 28], values 0 .. 1."""
    flat = z.reshape(-1, z.shape[-1]).astype(model.decoder.dtype)
    images = in_batches(lambda part: tf.sigmoid(model.decoder(part)), flat)
    return images.reshape(*z.shape[:-1], 28, 28)


# --- Loss -----------------------------------------------------------------------------------------


def loss(model: Model, images: Any, labels: Any, eps: Any) -> Losses:
    """The document's loss of a batch, in nats per image.

    Args:
      model: the networks.
      images: uint8 [batch, 28, 28].
      labels: not used.
      eps: standard normal noise [batch, 2].
    """
    x = inputs(images, eps.dtype)
    z_mean, z_log_var = model.encoder(x)
    z = z_mean + tf.exp(z_log_var / 2) * eps
    logits = model.decoder(z)
    cross_entropy = tf.nn.sigmoid_cross_entropy_with_logits(labels=x, logits=logits)
    reconstruction = tf.reduce_sum(cross_entropy, axis=[1, 2, 3])
    kl = -0.5 * tf.reduce_sum(1 + z_log_var - tf.square(z_mean) - tf.exp(z_log_var), axis=-1)
    return Losses(tf.reduce_mean(reconstruction + kl), reconstruction, kl)


# --- Training -------------------------------------------------------------------------------------


def experiment(config: Config, data: Dataset, chance: Chance, dtype: str = "float32") -> Experiment:
    """Puts data, model, loss and optimiser together for the loop."""
    model = build(config, chance.weights(), dtype)
    batch_loss = partial(loss, model)
    batches = chance.batches(len(data.train_images), config.batch_size, tail="keep")
    validation = Evaluator(batch_loss, data.test_images, data.test_labels, config.batch_size, dtype)

    def evaluate(epoch: int) -> Row:
        test = validation(
            chance.evaluation_noise(epoch, (len(data.test_images), config.latent_dim))
        )
        return {"val_loss": float((test.reconstruction + test.kl).mean())}

    return Experiment(
        model=model,
        variables=model.variables,
        optimizer=LegacyNadam(model.variables, config.learning_rate),
        loss=batch_loss,
        posterior=lambda images, _: Posterior.diagonal(*model.encoder(inputs(images, dtype))),
        chance=chance,
        batches=batches,
        images=data.train_images,
        labels=data.train_labels,
        latent_dim=config.latent_dim,
        dtype=dtype,
        steps=config.epochs * batches.steps_per_pass,
        steps_per_round=batches.steps_per_pass,
        round_name="epoch",
        steps_per_call=100,
        evaluate=evaluate,
        frame=frame_maker(model),
    )


# --- Pictures -------------------------------------------------------------------------------------


def frame_maker(model: Model) -> Callable[[], Array]:
    """For the GIF: the manifold of the moment, 10 x 10."""
    quantiles = plotting.normal_quantiles(10)
    z = plotting.grid_codes(quantiles, quantiles)
    return lambda: tile(to_uint8(decode(model, z)))


def figures(config: Config, run: Experiment, data: Dataset, progress: Progress) -> dict[str, Any]:
    """The document's scatter and manifold, and what else its reader wants to see."""
    model = run.model
    quantiles = plotting.normal_quantiles(15)
    manifold = decode(model, plotting.grid_codes(quantiles, quantiles))
    z_mean = z_means(run, data.test_images, data.test_labels)
    shown = data.test_images[:30]
    return {
        "latent.png": plotting.latent_scatter(
            z_mean, data.test_labels, data.class_names, "Posterior means of the 10,000 test images"
        ),
        "manifold.png": plotting.manifold(
            manifold, quantiles, quantiles, "Manifold: decoded quantiles of the prior", CMAP
        ),
        "reconstructions.png": plotting.reconstructions(
            shown / 255, decode(model, z_mean[:30]),
            "Test images and their reconstructions from z_mean", CMAP,
        ),
        "curves.png": plotting.curves(
            progress.rows, "epoch", "Loss", "nats per image",
            {"loss": "training", "val_loss": "validation"}, "conv_vae: training on Fashion-MNIST",
        ),
    }  # fmt: skip


# --- The command ----------------------------------------------------------------------------------

PROGRAM = Program(
    name="conv_vae",
    document="001",
    dataset="fashion_mnist",
    likelihood="grey",
    summary="Convolutional VAE of Fashion-MNIST with the legacy Nadam, by Keras",
    config=Config,
    build=build,
    quick={"epochs": 5},
    experiment=experiment,
    figures=figures,
)
main = PROGRAM.main

if __name__ == "__main__":
    sys.exit(main())
