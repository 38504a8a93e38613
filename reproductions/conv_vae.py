"""Document 001: a convolutional VAE of Fashion-MNIST with a two-dimensional code, Nadam.

Source: "变分自编码器(VAE) 直观推导" (An intuitive derivation of the VAE), a blog post of 2019-07-29
for the Keras of TensorFlow 1.14.
Trains on the 60,000 grey-scale images of Fashion-MNIST for 30 epochs and validates on the 10,000
test images.

    python -m reproductions.conv_vae

Names: theirs -> ours: `μ` -> z_mean; `σ` -> z_log_var (it is the logarithm of the variance);
`x_out` -> logits; `xent_loss` -> reconstruction; `kl_loss` -> kl.

Kept quirks
  1. Nadam is the legacy class of `tensorflow.python.keras`; Keras 3's is another optimiser.
  2. The decoder has 16, then 8 filters, where the encoder has 32 and 64.
  3. `loss_fn` reads the globals `x_in` and `x_out`, not its arguments; the values are the same.
  4. The cross-entropy treats grey levels as probabilities.

Deviations
  1. The noise is an argument, so that a recording's noise can take its place.
  2. The scatter has colours of its own, a number on each class and the prior's circle; the picture
     of the decoded grid has axes in units of z. A run also draws reconstructions, curves and the
     GIF.
  3. The document seeds the graph (9102); the seed here is --seed.

The document prints no numbers. The original, run whole on TF 1.14 (eight seeds), ends at a
training loss between 260 and 265 and a validation loss between 263 and 267 nats per image.

#### References
D. P. Kingma, M. Welling. Auto-Encoding Variational Bayes. ICLR 2014. arXiv:1312.6114
T. Dozat. Incorporating Nesterov Momentum into Adam. ICLR 2016 workshop.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import numpy as np

from common import devices, plotting
from common.chance import Chance, Initializer, assign_glorot
from common.datasets import Dataset
from common.lazy import keras, tf
from common.optimizers import LegacyNadam
from common.pictures import decoded, grid_codes, normal_quantiles, tile, to_uint8
from common.program import Program
from common.settings import Settings, setting
from common.training import Experiment, Losses, Posterior, Progress, Row, Validation

LATENT_DIM = 2  # the document's pictures are of a plane
CMAP = "Greys_r"


@dataclass(frozen=True)
class Config(Settings):
    """The document's settings."""

    epochs: int = setting(30, "passes over the 60,000 images", 1, 10_000)
    batch_size: int = setting(100, "images in a batch", 1, 10_000)
    learning_rate: float = setting(1e-3, "learning rate of Nadam", 1e-12, 1)
    filters: int = setting(16, "half the filters of the first convolution", 2, 512)
    kernel_size: int = setting(3, "pixels along a side of every kernel", 1, 28)


# --- Data -----------------------------------------------------------------------------------------


def inputs(images: tf.Tensor, dtype: str) -> tf.Tensor:
    """uint8 [batch, 28, 28] -> x [batch, 28, 28, 1] in 0 .. 1."""
    x = tf.cast(images, tf.float64)[..., tf.newaxis] / 255.0
    x = tf.cast(x, tf.float32)  # a float32 division would become a product with 1/255 in the graph
    return tf.cast(x, dtype)


# --- Model ----------------------------------------------------------------------------------------


class Model(NamedTuple):
    """The document's two networks."""

    encoder: keras.Model  # x [batch, 28, 28, 1] -> (z_mean, z_log_var), [batch, 2] each
    decoder: keras.Model  # z [batch, 2] -> logits [batch, 28, 28, 1]

    @property
    def variables(self) -> list[tf.Variable]:
        """All 18 variables in the document's order."""
        return [v.value for network in self for v in network.trainable_variables]

    @property
    def dtype(self) -> str:
        """Their precision."""
        return self.decoder.layers[0].dtype


def build(config: Config, initializer: Initializer, dtype: str = "float32") -> Model:
    """Builds the networks with Keras's default initial weights."""
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
    encoder = keras.Model(x, [dense(LATENT_DIM)(h), dense(LATENT_DIM)(h)])

    z = keras.Input([LATENT_DIM], dtype=dtype)
    h = dense(7 * 7 * 32, activation="relu")(z)
    h = layers.Reshape([7, 7, 32], dtype=dtype)(h)
    h = conv_transpose(filters, kernel, strides=2, activation="relu")(h)  # [batch, 14, 14, 16]
    h = conv_transpose(filters // 2, kernel, strides=2, activation="relu")(h)  # [batch, 28, 28, 8]
    decoder = keras.Model(z, conv_transpose(1, kernel)(h))
    model = Model(encoder, decoder)
    assign_glorot(model.variables, initializer)
    return model


def decode(model: Model, z: tf.Tensor) -> tf.Tensor:
    """z [batch, 2] -> logits [batch, 28, 28, 1]."""
    return model.decoder(z)


def posterior(model: Model, images: tf.Tensor, labels: tf.Tensor) -> Posterior:
    """q(z|x) of images, for the scatter and the metrics."""
    return Posterior.diagonal(*model.encoder(inputs(images, model.dtype)))


def pictures_of(model: Model, z: np.ndarray) -> np.ndarray:
    """Decodes z [..., 2] into pictures [..., 28, 28], values 0 .. 1."""
    return decoded(lambda part: tf.sigmoid(decode(model, part)), z, model.dtype)


# --- Loss -----------------------------------------------------------------------------------------


def loss(model: Model, images: tf.Tensor, labels: tf.Tensor, eps: tf.Tensor) -> Losses:
    """The document's loss of a batch, in nats per image.

    Args:
      model: the networks.
      images: uint8 [batch, 28, 28].
      labels: not used.
      eps: standard normal noise [batch, 2].
    """
    x = inputs(images, model.dtype)
    z_mean, z_log_var = model.encoder(x)
    z = z_mean + tf.exp(z_log_var / 2) * eps
    logits = decode(model, z)
    cross_entropy = tf.nn.sigmoid_cross_entropy_with_logits(labels=x, logits=logits)
    reconstruction = tf.reduce_sum(cross_entropy, axis=[1, 2, 3])
    kl = -0.5 * tf.reduce_sum(1 + z_log_var - tf.square(z_mean) - tf.exp(z_log_var), axis=-1)
    return Losses(tf.reduce_mean(reconstruction + kl), reconstruction, kl)


# --- Training -------------------------------------------------------------------------------------


def experiment(config: Config, data: Dataset, chance: Chance, dtype: str = "float32") -> Experiment:
    """Puts data, model, loss and optimiser together for the loop."""
    model = build(config, chance.initializer(), dtype)
    batches = chance.batches(len(data.train_images), config.batch_size, tail="keep")
    validation = Validation(partial(loss, model), data, config.batch_size, dtype)

    def validate(epoch: int) -> Row:
        noise = chance.validation_noise(epoch, (len(data.test_images), LATENT_DIM))
        test = validation(noise)
        return {"val_loss": float((test.reconstruction + test.kl).mean())}

    return Experiment(
        config=config,
        data=data,
        chance=chance,
        model=model,
        optimizer=LegacyNadam(model.variables, config.learning_rate),
        loss=partial(loss, model),
        posterior=partial(posterior, model),
        batches=batches,
        images=data.train_images,
        labels=data.train_labels,
        latent_dim=LATENT_DIM,
        steps=config.epochs * batches.steps_per_epoch,
        frame=partial(frame, model),
        pictures_of=lambda z, labels: pictures_of(model, z),
        validate=validate,
        block=100,
        compile_with_xla=devices.xla_for_convolutions(dtype),
    )


# --- Pictures -------------------------------------------------------------------------------------


def frame(model: Model) -> np.ndarray:
    """For the GIF: the manifold of the moment, 10 x 10."""
    quantiles = normal_quantiles(10)
    return tile(to_uint8(pictures_of(model, grid_codes(quantiles, quantiles))))


def pictures(experiment: Experiment, progress: Progress) -> dict[str, plotting.Picture]:
    """The document's manifold; its scatter of the test set is drawn by every run."""
    quantiles = normal_quantiles(15)
    manifold = pictures_of(experiment.model, grid_codes(quantiles, quantiles))
    title = "Manifold: decoded quantiles of the prior"
    return {"manifold.png": plotting.manifold(manifold, quantiles, quantiles, title, CMAP)}


# --- The command ----------------------------------------------------------------------------------

PROGRAM = Program(
    name="conv_vae",
    document="001",
    dataset="fashion_mnist",
    likelihood="grey",
    summary="convolutional VAE, cross-entropy, Nadam",
    cmap=CMAP,
    config=Config,
    build=build,
    experiment=experiment,
    pictures=pictures,
    quick={"epochs": 5},
    columns={"loss": "training", "val_loss": "validation"},
)
main = PROGRAM.main

if __name__ == "__main__":
    sys.exit(main())
