"""Document 002: a convolutional VAE of binarised MNIST on a Monte-Carlo ELBO, by GradientTape.

Source: "TensorFlow从1到2（十一）变分自动编码器和图片自动生成" (TensorFlow from 1 to 2, part 11:
variational autoencoders and generating pictures), a blog post of 2019-05-05 for TensorFlow 2.0; its
program is that of the official TF 2.0 alpha tutorial "cvae", where the C stands for convolutional.
Trains on the 60,000 images of MNIST, binarised, for 100 epochs, with a code of 50 dimensions.

    python -m reproductions.elbo_cvae

Names: theirs -> ours: `mean` -> z_mean; `logvar` -> z_log_var; `x_logit` -> logits; `inference_net`
-> encoder; `generative_net` -> decoder; -`logpx_z` -> reconstruction; `logqz_x - logpz` -> kl.

Kept quirks
  1. The KL is a one-sample Monte-Carlo estimate with the z that is decoded, not the closed form
     that this posterior allows. It can be negative for an image.
  2. The encoder's convolutions are "valid", the decoder's "same".
  3. Images are binarised by threshold (>= .5), not sampled, so figures do not compare with the
     literature's.
  4. The text calls the latent codes uniformly distributed; they are normal.
  5. The test ELBO of an epoch takes one fresh sample an image, and is the mean over 100 batches.
  6. The GIF keeps the i-th of 101 pictures when round(2 sqrt(i)) exceeds that of the last one kept,
     and adds the final picture: 21 frames.

Deviations
  1. The noise is an argument, so that a recording's noise can take its place.
  2. The final picture of the GIF is held by its duration; the document repeats it, which GIF
     writers merge.
  3. The steps run inside a graph; the document's run eagerly.

Printed by the official tutorial (same model and settings): test ELBO -78.338 and -78.327 at epoch
100. The document shows pictures only.

#### References
D. P. Kingma, M. Welling. Auto-Encoding Variational Bayes. ICLR 2014. arXiv:1312.6114
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import numpy as np

from common import animation, plotting
from common.animation import tile, to_uint8
from common.chance import Chance, Weights, assign_glorot
from common.cli import Program, setting
from common.convolutions import to_one_channel
from common.datasets import Dataset
from common.lazy import keras, tf
from common.optimizers import KerasAdam
from common.training import Evaluator, Experiment, Losses, Posterior, Progress, Row, in_batches

Array = np.ndarray

THRESHOLD = 128  # the first grey level of 255 that is >= .5
LOG_2PI = float(np.log(2 * np.pi))
CMAP = "gray"


@dataclass(frozen=True)
class Config:
    """The document's settings."""

    epochs: int = setting(100, "passes over the 60,000 images", 1, 10_000)
    batch_size: int = setting(100, "images in a batch", 1, 10_000)
    learning_rate: float = setting(1e-4, "of Adam", 1e-12, 1)
    latent_dim: int = setting(50, "dimensions of z", 1, 10_000)


# --- Data -----------------------------------------------------------------------------------------


def inputs(images: Any, dtype: str) -> tf.Tensor:
    """uint8 [batch, 28, 28] -> x [batch, 28, 28, 1], 0 or 1."""
    return tf.cast(images >= THRESHOLD, dtype)[..., tf.newaxis]


# --- Model ----------------------------------------------------------------------------------------


class Model(NamedTuple):
    """The document's two networks."""

    encoder: Any  # x [batch, 28, 28, 1] -> z_mean and z_log_var in one, [batch, 100]
    decoder: Any  # z [batch, 50] -> logits [batch, 28, 28, 1]

    @property
    def variables(self) -> list[tf.Variable]:
        """All 14 variables in the document's order."""
        return [v.value for network in self for v in network.trainable_variables]


def build(config: Config, weights: Weights, dtype: str = "float32") -> Model:
    """Builds the networks and gives them Keras's default start."""
    layers = keras.layers
    conv = partial(layers.Conv2D, kernel_size=3, strides=2, activation="relu", dtype=dtype)
    conv_transpose = partial(layers.Conv2DTranspose, kernel_size=3, padding="same", dtype=dtype)

    class ConvTransposeToOneChannel(keras.layers.Conv2DTranspose):
        def call(self, inputs: Any) -> Any:
            kernel = tf.transpose(tf.reverse(self.kernel, axis=[0, 1]), [0, 1, 3, 2])
            return to_one_channel(inputs, kernel) + self.bias  # the same sums, in less time

    encoder = keras.Sequential(
        [
            keras.Input([28, 28, 1], dtype=dtype),
            conv(32),  # [batch, 13, 13, 32]
            conv(64),  # [batch, 6, 6, 64]
            layers.Flatten(dtype=dtype),
            layers.Dense(2 * config.latent_dim, dtype=dtype),
        ]
    )
    decoder = keras.Sequential(
        [
            keras.Input([config.latent_dim], dtype=dtype),
            layers.Dense(7 * 7 * 32, activation="relu", dtype=dtype),
            layers.Reshape([7, 7, 32], dtype=dtype),
            conv_transpose(64, strides=2, activation="relu"),  # [batch, 14, 14, 64]
            conv_transpose(32, strides=2, activation="relu"),  # [batch, 28, 28, 32]
            ConvTransposeToOneChannel(1, 3, padding="same", dtype=dtype),  # [batch, 28, 28, 1]
        ]
    )
    model = Model(encoder, decoder)
    assign_glorot(model.variables, weights)
    return model


def encode(model: Model, x: Any) -> tuple[tf.Tensor, tf.Tensor]:
    """x [batch, 28, 28, 1] -> z_mean, z_log_var, [batch, 50] each."""
    z_mean, z_log_var = tf.split(model.encoder(x), num_or_size_splits=2, axis=1)
    return z_mean, z_log_var


def reparameterize(z_mean: Any, z_log_var: Any, eps: Any) -> Any:
    """A sample of N(z_mean, exp(z_log_var)), given standard normal noise."""
    return eps * tf.exp(z_log_var * 0.5) + z_mean


def decode(model: Model, z: Array) -> Array:
    """Decodes z [..., 50] into pictures [..., 28, 28], values 0 .. 1."""
    flat = z.reshape(-1, z.shape[-1]).astype(model.decoder.dtype)
    images = in_batches(lambda part: tf.sigmoid(model.decoder(part)), flat)
    return images.reshape(*z.shape[:-1], 28, 28)


# --- Loss -----------------------------------------------------------------------------------------


def loss(model: Model, images: Any, labels: Any, eps: Any) -> Losses:
    """The document's loss of a batch: minus the Monte-Carlo ELBO, in nats per image.

    Args:
      model: the networks.
      images: uint8 [batch, 28, 28].
      labels: not used.
      eps: standard normal noise [batch, 50].
    """
    x = inputs(images, eps.dtype)
    z_mean, z_log_var = encode(model, x)
    z = reparameterize(z_mean, z_log_var, eps)
    logits = model.decoder(z)
    cross_entropy = tf.nn.sigmoid_cross_entropy_with_logits(labels=x, logits=logits)
    reconstruction = tf.reduce_sum(cross_entropy, axis=[1, 2, 3])
    kl = log_normal_pdf(z, z_mean, z_log_var) - log_normal_pdf(
        z, tf.zeros_like(z), tf.zeros_like(z)
    )
    return Losses(tf.reduce_mean(reconstruction + kl), reconstruction, kl)


def log_normal_pdf(z: Any, mean: Any, log_var: Any) -> tf.Tensor:
    """Log-density of a diagonal Gaussian at z [batch, 50], in nats, [batch]."""
    squares = (z - mean) ** 2.0 * tf.exp(-log_var)
    return tf.reduce_sum(-0.5 * (squares + log_var + LOG_2PI), axis=1)


# --- Training -------------------------------------------------------------------------------------


def experiment(config: Config, data: Dataset, chance: Chance, dtype: str = "float32") -> Experiment:
    """Puts data, model, loss and optimiser together for the loop."""
    model = build(config, chance.weights(), dtype)
    batch_loss = partial(loss, model)
    batches = chance.batches(len(data.train_images), config.batch_size, tail="keep")
    test_set = Evaluator(batch_loss, data.test_images, data.test_labels, config.batch_size, dtype)

    def evaluate(epoch: int) -> Row:
        shape = (len(data.test_images), config.latent_dim)
        return {"test_elbo": -float(test_set(chance.evaluation_noise(epoch, shape)).loss.mean())}

    return Experiment(
        model=model,
        variables=model.variables,
        optimizer=KerasAdam(model.variables, config.learning_rate),
        loss=batch_loss,
        posterior=lambda images, _: Posterior.diagonal(*encode(model, inputs(images, dtype))),
        chance=chance,
        batches=batches,
        images=data.train_images,
        labels=data.train_labels,
        latent_dim=config.latent_dim,
        dtype=dtype,
        steps=config.epochs * batches.steps_per_pass,
        steps_per_round=batches.steps_per_pass,
        round_name="epoch",
        steps_per_call=50,
        evaluate=evaluate,
        report=report,
        frame=frame_maker(model, chance.codes("frame", (4, 4, config.latent_dim))),
    )


def report(progress: Progress) -> str:
    """What the document prints after an epoch."""
    row = progress.rows[-1]
    return (
        f"Epoch: {row['epoch']}, Test set ELBO: {row['test_elbo']:.4f}, "
        f"time elapse for current epoch {row['seconds']:.2f}"
    )


# --- Pictures -------------------------------------------------------------------------------------


def frame_maker(model: Model, codes: Array) -> Callable[[], Array]:
    """For the GIF: the document's 4 x 4 picture of the same 16 codes."""
    return lambda: tile(to_uint8(decode(model, codes)), gap=2)


def document_frames(pictures: int) -> list[int]:
    """Which of the pictures (before training, after epoch 1, 2, ...) the document's GIF keeps."""
    kept, last = [], -1.0
    for i in range(pictures):
        position = 2 * i**0.5
        if round(position) > round(last):
            kept.append(i)
            last = position
    return kept if kept[-1] == pictures - 1 else [*kept, pictures - 1]


def figures(config: Config, run: Experiment, data: Dataset, progress: Progress) -> dict[str, Any]:
    """The document's pictures and GIF, and what else its reader wants to see."""
    model, chance = run.model, run.chance
    shown = data.test_images[:30]
    z_mean, z_log_var = (part.numpy() for part in encode(model, inputs(shown, run.dtype)))
    noise = chance.codes("reparameterize", (16, config.latent_dim))
    reparameterized = np.asarray(reparameterize(z_mean[:16], z_log_var[:16], noise))
    kept = document_frames(len(progress.frames))
    pictures: dict[str, Any] = {
        f"epochs/image_at_epoch_{epoch:04d}.png": animation.png(frame)
        for epoch, frame in enumerate(progress.frames)
    }
    return pictures | {
        "document.gif": animation.gif(
            [progress.frames[i] for i in kept], [f"epoch {i}" for i in kept]
        ),
        "samples.png": plotting.side_by_side(
            decode(model, chance.codes("fresh", (4, 4, config.latent_dim))),
            decode(model, reparameterized.reshape(4, 4, -1)),
            ("16 codes from the prior", "16 codes from posteriors of test images"),
            CMAP,
        ),
        "reconstructions.png": plotting.reconstructions(
            inputs(shown, "float32")[..., 0].numpy(), decode(model, z_mean),
            "Binarised test images and their reconstructions from z_mean", CMAP,
        ),
        "curves.png": plotting.curves(
            [row | {"elbo": -row["loss"]} for row in progress.rows], "epoch", "ELBO",
            "nats per image", {"elbo": "training", "test_elbo": "test"},
            "elbo_cvae: training on binarised MNIST",
        ),
    }  # fmt: skip


# --- The command ----------------------------------------------------------------------------------

PROGRAM = Program(
    name="elbo_cvae",
    document="002",
    dataset="mnist",
    likelihood="binarised",
    summary="Convolutional VAE of binarised MNIST on a Monte-Carlo ELBO, by GradientTape",
    config=Config,
    build=build,
    quick={"epochs": 3},
    experiment=experiment,
    figures=figures,
)
main = PROGRAM.main

if __name__ == "__main__":
    sys.exit(main())
