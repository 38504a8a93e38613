"""Document 002: a convolutional VAE of binarised MNIST on a Monte-Carlo ELBO, by GradientTape.

Source: "TensorFlow从1到2（十一）变分自动编码器和图片自动生成" (TensorFlow from 1 to 2, part 11),
a blog post of 2019-05-05 with the program of the official TF 2.0 alpha tutorial "cvae".
Trains on the 60,000 images of MNIST, binarised, for 100 epochs, with a code of 50 dimensions.

    python -m reproductions.elbo_cvae

Names: theirs -> ours: `mean` -> z_mean; `logvar` -> z_log_var; `x_logit` -> logits; `inference_net`
-> encoder; `generative_net` -> decoder; -`logpx_z` -> reconstruction; `logqz_x - logpz` -> kl.

Kept quirks
  1. The KL is estimated from one sample, the z that is decoded, though it has a closed form.
  2. The encoder's convolutions are "valid", the decoder's "same".
  3. Images are binarised by a threshold, not sampled as in the literature.
  4. The text calls the codes uniformly distributed; they are normal.
  5. The test ELBO of an epoch is the mean over 100 batches, with one fresh sample for each image.
  6. The GIF shows 21 of the 101 pictures. The last was to stay longer by standing there twice, but
     the rule had left it out, so it stands there once.
  7. `imshow` stretches each of the 16 small pictures from its darkest pixel to its brightest. So
     the document sees white noise before training, where all pixels are nearly the same grey.

Deviations
  1. The noise is an argument, so that a recording's noise can take its place.
  2. The GIF's last frame does stay longer.
  3. The steps run inside a graph; the document's run eagerly.
  4. The test set is not shuffled. That changes only which image meets which noise.
  5. A run also draws reconstructions and curves, and writes a second GIF with all frames.

The document prints no numbers. Upstream (tensorflow/docs, r2/tutorials/generative/cvae.ipynb)
printed a test ELBO of -78.338 at commit b3f8730, and of -78.327 at fe3bddd.

#### References
D. P. Kingma, M. Welling. Auto-Encoding Variational Bayes. ICLR 2014. arXiv:1312.6114
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import numpy as np

from common import devices, kernels, plotting
from common.chance import Chance, Initializer, assign_glorot
from common.datasets import Dataset
from common.lazy import keras, tf
from common.optimizers import KerasAdam
from common.pictures import decoded, gif, png, tile, to_uint8
from common.program import Program
from common.settings import Settings, setting
from common.training import Experiment, Losses, Posterior, Progress, Row, Validation

THRESHOLD = 128  # the first grey level of 255 that is >= .5
LOG_2PI = float(np.log(2 * np.pi))
TINY = 1e-12  # between two greys, so that a picture of one grey is black
CMAP = "gray"


@dataclass(frozen=True)
class Config(Settings):
    """The document's settings."""

    epochs: int = setting(100, "passes over the 60,000 images", 1, 10_000)
    batch_size: int = setting(100, "images in a batch", 1, 10_000)
    learning_rate: float = setting(1e-4, "learning rate of Adam", 1e-12, 1)
    latent_dim: int = setting(50, "dimensions of z", 1, 256)


# --- Data -----------------------------------------------------------------------------------------


def inputs(images: tf.Tensor, dtype: str) -> tf.Tensor:
    """uint8 [batch, 28, 28] -> x [batch, 28, 28, 1], 0 or 1."""
    return tf.cast(images >= THRESHOLD, dtype)[..., tf.newaxis]


# --- Model ----------------------------------------------------------------------------------------


class Model(NamedTuple):
    """The document's two networks."""

    encoder: keras.Model  # x [batch, 28, 28, 1] -> z_mean and z_log_var in one, [batch, 100]
    decoder: keras.Model  # z [batch, 50] -> logits [batch, 28, 28, 1]

    @property
    def variables(self) -> list[tf.Variable]:
        """All 14 variables in the document's order."""
        return [v.value for network in self for v in network.trainable_variables]

    @property
    def dtype(self) -> str:
        """Their precision."""
        return self.decoder.layers[0].dtype


def build(config: Config, initializer: Initializer, dtype: str = "float32") -> Model:
    """Builds the networks with Keras's default initial weights."""
    layers = keras.layers
    conv = partial(layers.Conv2D, kernel_size=3, strides=2, activation="relu", dtype=dtype)
    conv_transpose = partial(layers.Conv2DTranspose, kernel_size=3, padding="same", dtype=dtype)
    last = kernels.one_channel_transposed(layers.Conv2DTranspose)  # the same sums, in less time

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
            last(1, 3, padding="same", dtype=dtype),  # [batch, 28, 28, 1]
        ]
    )
    model = Model(encoder, decoder)
    assign_glorot(model.variables, initializer)
    return model


def encode(model: Model, x: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """x [batch, 28, 28, 1] -> z_mean, z_log_var, [batch, 50] each."""
    z_mean, z_log_var = tf.split(model.encoder(x), num_or_size_splits=2, axis=1)
    return z_mean, z_log_var


def reparameterize(z_mean: tf.Tensor, z_log_var: tf.Tensor, eps: tf.Tensor) -> tf.Tensor:
    """A sample of N(z_mean, exp(z_log_var)), given standard normal noise."""
    return eps * tf.exp(z_log_var * 0.5) + z_mean


def decode(model: Model, z: tf.Tensor) -> tf.Tensor:
    """z [batch, 50] -> logits [batch, 28, 28, 1]."""
    return model.decoder(z)


def posterior(model: Model, images: tf.Tensor, labels: tf.Tensor) -> Posterior:
    """q(z|x) of images, for the metrics."""
    return Posterior.diagonal(*encode(model, inputs(images, model.dtype)))


def pictures_of(model: Model, z: np.ndarray) -> np.ndarray:
    """Decodes z [..., 50] into pictures [..., 28, 28], values 0 .. 1."""
    return decoded(lambda part: tf.sigmoid(decode(model, part)), z, model.dtype)


# --- Loss -----------------------------------------------------------------------------------------


def loss(model: Model, images: tf.Tensor, labels: tf.Tensor, eps: tf.Tensor) -> Losses:
    """The document's loss of a batch: minus the Monte-Carlo ELBO, in nats per image.

    Args:
      model: the networks.
      images: uint8 [batch, 28, 28].
      labels: not used.
      eps: standard normal noise [batch, 50].
    """
    x = inputs(images, model.dtype)
    z_mean, z_log_var = encode(model, x)
    z = reparameterize(z_mean, z_log_var, eps)
    logits = decode(model, z)
    cross_entropy = tf.nn.sigmoid_cross_entropy_with_logits(labels=x, logits=logits)
    reconstruction = tf.reduce_sum(cross_entropy, axis=[1, 2, 3])
    kl = log_normal_pdf(z, z_mean, z_log_var) - log_normal_pdf(
        z, tf.zeros_like(z), tf.zeros_like(z)
    )
    return Losses(tf.reduce_mean(reconstruction + kl), reconstruction, kl)


def log_normal_pdf(z: tf.Tensor, mean: tf.Tensor, log_var: tf.Tensor) -> tf.Tensor:
    """Log-density of a diagonal Gaussian at z [batch, 50], in nats, [batch]."""
    squares = (z - mean) ** 2.0 * tf.exp(-log_var)
    return tf.reduce_sum(-0.5 * (squares + log_var + LOG_2PI), axis=1)


# --- Training -------------------------------------------------------------------------------------


def experiment(config: Config, data: Dataset, chance: Chance, dtype: str = "float32") -> Experiment:
    """Puts data, model, loss and optimiser together for the loop."""
    model = build(config, chance.initializer(), dtype)
    batches = chance.batches(len(data.train_images), config.batch_size, tail="keep")
    validation = Validation(partial(loss, model), data, config.batch_size, dtype)

    def validate(epoch: int) -> Row:
        noise = chance.validation_noise(epoch, (len(data.test_images), config.latent_dim))
        return {"test_elbo": -float(validation(noise).loss.mean())}

    return Experiment(
        config=config,
        data=data,
        chance=chance,
        model=model,
        optimizer=KerasAdam(model.variables, config.learning_rate),
        loss=partial(loss, model),
        posterior=partial(posterior, model),
        batches=batches,
        images=data.train_images,
        labels=data.train_labels,
        latent_dim=config.latent_dim,
        steps=config.epochs * batches.steps_per_epoch,
        frame=partial(frame, model, chance.codes("frame", (4, 4, config.latent_dim))),
        pictures_of=lambda z, labels: pictures_of(model, z),
        validate=validate,
        report=report,
        block=50,
        compile_with_xla=devices.xla_for_convolutions(dtype),
    )


def report(progress: Progress) -> str:
    """What the document prints after an epoch."""
    row = progress.rows[-1]
    return (
        f"Epoch: {row['epoch']}, Test set ELBO: {row['test_elbo']:.4f}, "
        f"time elapse for current epoch {row['seconds']:.2f}"
    )


# --- Pictures -------------------------------------------------------------------------------------


def frame(model: Model, codes: np.ndarray) -> np.ndarray:
    """For the GIF: the document's 4 x 4 picture of the same 16 codes, each stretched (quirk 7)."""
    x = pictures_of(model, codes)
    darkest, brightest = x.min(axis=(-2, -1), keepdims=True), x.max(axis=(-2, -1), keepdims=True)
    return tile(to_uint8((x - darkest) / np.maximum(brightest - darkest, TINY)), gap=2)


def document_frames(pictures: int) -> list[int]:
    """Which of the pictures (before training, after epoch 1, 2, ...) the document's GIF keeps."""
    kept, last = [], -1.0
    for i in range(pictures):
        position = 2 * i**0.5
        if round(position) > round(last):
            kept.append(i)
            last = position
    return kept if kept[-1] == pictures - 1 else [*kept, pictures - 1]


def pictures(experiment: Experiment, progress: Progress) -> dict[str, plotting.Picture]:
    """The document's picture after each epoch, its GIF, and its two sheets of 16 digits.

    Reconstructions and curves are those of every run, with binarised images and the ELBO's sign.
    """
    model, chance = experiment.model, experiment.chance
    frames = progress.frames
    kept = document_frames(len(frames))
    shown = inputs(experiment.data.test_images[:30], model.dtype)
    z_mean, z_log_var = encode(model, shown)
    noise = chance.codes("reparameterize", (16, experiment.latent_dim))
    z = reparameterize(z_mean[:16], z_log_var[:16], noise.astype(model.dtype)).numpy()
    sheets: dict[str, plotting.Picture] = {
        f"epochs/image_at_epoch_{i:04d}.png": png(frame) for i, frame in enumerate(frames)
    }
    return sheets | {
        "document.gif": gif([frames[i] for i in kept], [f"epoch {i}" for i in kept]),
        "samples.png": plotting.side_by_side(
            pictures_of(model, chance.codes("fresh", (4, 4, experiment.latent_dim))),
            pictures_of(model, z.reshape(4, 4, -1)),
            ("16 codes from the prior", "16 codes from the posteriors of test images"),
            CMAP,
        ),
        "reconstructions.png": plotting.reconstructions(
            shown.numpy()[..., 0],
            pictures_of(model, z_mean.numpy()),
            "Binarised test images, and their reconstructions from z_mean",
            CMAP,
        ),
        "curves.png": plotting.curves(
            [row | {"elbo": -row["loss"]} for row in progress.rows],
            "epoch",
            ("ELBO", "nats per image"),
            {"elbo": "training", "test_elbo": "test"},
            "elbo_cvae: training on binarised MNIST",
        ),
    }


# --- The command ----------------------------------------------------------------------------------

PROGRAM = Program(
    name="elbo_cvae",
    document="002",
    dataset="mnist",
    likelihood="binarised",
    summary="convolutional VAE, Monte-Carlo ELBO, Adam",
    cmap=CMAP,
    config=Config,
    build=build,
    experiment=experiment,
    pictures=pictures,
    quick={"epochs": 3},
)
main = PROGRAM.main

if __name__ == "__main__":
    sys.exit(main())
