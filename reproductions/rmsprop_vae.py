"""Document 003: a two-dimensional VAE of tanh layers, cross-entropy, RMSProp.

Source: a Chinese annotation of aymericdamien's TensorFlow-Examples `variational_autoencoder` for
TensorFlow 1 placeholders; annotator and date are not in the text.
Trains 784-512-2-512-784 on 55,000 grey-scale images of MNIST for 3,000 steps.

    python -m reproductions.rmsprop_vae

Names: theirs -> ours: `z_std` -> z_log_var (it is the logarithm of the variance); `decoder` ->
x_decoded (after the sigmoid); `encode_decode_loss` -> reconstruction; `kl_div_loss` -> kl.

Kept quirks
  1. TF1's RMSProp starts its mean square at ones; its epsilon of 1e-10 stands under the root.
  2. Every variable, biases too, starts from a normal of variance 2 / shape[0]. The document calls
     it Glorot's rule, which has another variance.
  3. In float32 the guard of 1e-10 guards only one of the two logarithms: 1e-10 + 1 is 1 there.
  4. It trains 3,000 steps where its own comment says 30,000 (`--steps 30000`).
  5. The manifold's rows are drawn bottom up.
  6. The reader holds back 5,000 training images, and a batch may take images of two passes.
  7. Pixels are float32(x) * float32(1/255), not x / 255.
  8. The cross-entropy treats grey levels as probabilities.

Deviations
  1. The noise is an argument, so that a recording's noise can take its place.
  2. The manifold has axes in units of z. A run also draws a latent scatter, reconstructions, curves
     and the GIF.
  3. The program's `print(i)` of every step has become the progress bar.

Printed upstream (step: loss), in notebooks/3_NeuralNetworks/variational_autoencoder.ipynb at commit
1926883: 1: 645.08, 1,000: 173.02, 2,000: 165.30, 3,000: 172.93, 30,000: 151.27.

#### References
D. P. Kingma, M. Welling. Auto-Encoding Variational Bayes. ICLR 2014. arXiv:1312.6114
X. Glorot, Y. Bengio. Understanding the difficulty of training deep feedforward neural networks.
AISTATS 2010.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import numpy as np

from common import kernels, plotting
from common.chance import Chance, Initializer
from common.datasets import Dataset
from common.lazy import tf
from common.optimizers import TF1RMSProp
from common.pictures import decoded, grid_codes, tile, to_uint8
from common.program import Program
from common.settings import Settings, setting
from common.training import Experiment, Losses, Posterior, Progress

PIXELS = 784
HELD_BACK = 5_000  # training images that the TF1 reader set aside for validation
PIXEL_SCALE = np.float32(1 / 255)
LOG_GUARD = 1e-10
LATENT_DIM = 2  # the document's picture is of a plane
PRINT_EVERY = 1_000  # steps
STEPS_PER_ROW = 100  # of the history; the document has no epochs
GRID = np.linspace(-3, 3, 20)
CMAP = "gray"


@dataclass(frozen=True)
class Config(Settings):
    """The document's settings."""

    steps: int = setting(3_000, "batches to train on", 1, 300_000)
    batch_size: int = setting(64, "images in a batch", 1, 10_000)
    learning_rate: float = setting(1e-3, "learning rate of RMSProp", 1e-12, 1)
    hidden: int = setting(512, "units of each hidden layer", 1, 10_000)


# --- Data -----------------------------------------------------------------------------------------


def inputs(images: tf.Tensor, dtype: str) -> tf.Tensor:
    """uint8 [batch, 28, 28] -> x [batch, 784] in 0 .. 1, multiplied in float32 as by the reader."""
    x = tf.cast(tf.reshape(images, [-1, PIXELS]), tf.float32) * PIXEL_SCALE
    return tf.cast(x, dtype)


# --- Model ----------------------------------------------------------------------------------------


class Model(NamedTuple):
    """The document's `weights` and `biases`: ten variables, in its order."""

    encoder_w: tf.Variable
    z_mean_w: tf.Variable
    z_log_var_w: tf.Variable
    decoder_w: tf.Variable
    out_w: tf.Variable
    encoder_b: tf.Variable
    z_mean_b: tf.Variable
    z_log_var_b: tf.Variable
    decoder_b: tf.Variable
    out_b: tf.Variable

    @property
    def variables(self) -> list[tf.Variable]:
        """All of them: what is trained and saved."""
        return list(self)

    @property
    def dtype(self) -> str:
        """Their precision."""
        return self.encoder_w.dtype.name


def build(config: Config, initializer: Initializer, dtype: str = "float32") -> Model:
    """Makes the variables and gives them their first values."""

    def glorot(*shape: int) -> tf.Variable:
        return tf.Variable(initializer.normal(shape, 1 / np.sqrt(shape[0] / 2)), dtype=dtype)

    hidden = config.hidden
    return Model(
        encoder_w=glorot(PIXELS, hidden),
        z_mean_w=glorot(hidden, LATENT_DIM),
        z_log_var_w=glorot(hidden, LATENT_DIM),
        decoder_w=glorot(LATENT_DIM, hidden),
        out_w=glorot(hidden, PIXELS),
        encoder_b=glorot(hidden),
        z_mean_b=glorot(LATENT_DIM),
        z_log_var_b=glorot(LATENT_DIM),
        decoder_b=glorot(hidden),
        out_b=glorot(PIXELS),
    )


def encode(model: Model, x: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """x [batch, 784] -> z_mean, z_log_var, [batch, 2] each."""
    h = tf.tanh(x @ model.encoder_w + model.encoder_b)
    z_mean, z_log_var = kernels.two_heads(h, model.z_mean_w, model.z_log_var_w)
    return z_mean + model.z_mean_b, z_log_var + model.z_log_var_b


def decode(model: Model, z: tf.Tensor) -> tf.Tensor:
    """z [batch, 2] -> x_decoded [batch, 784] in 0 .. 1."""
    h = tf.tanh(z @ model.decoder_w + model.decoder_b)
    return tf.sigmoid(h @ model.out_w + model.out_b)


def posterior(model: Model, images: tf.Tensor, labels: tf.Tensor) -> Posterior:
    """q(z|x) of images, for the scatter and the metrics."""
    return Posterior.diagonal(*encode(model, inputs(images, model.dtype)))


def pictures_of(model: Model, z: np.ndarray) -> np.ndarray:
    """Decodes z [..., 2] into pictures [..., 28, 28]."""
    return decoded(partial(decode, model), z, model.dtype)


# --- Loss -----------------------------------------------------------------------------------------


def loss(model: Model, images: tf.Tensor, labels: tf.Tensor, eps: tf.Tensor) -> Losses:
    """The document's loss of a batch: an ELBO, negated, in nats per image.

    Args:
      model: the variables.
      images: uint8 [batch, 28, 28].
      labels: not used.
      eps: standard normal noise [batch, 2].
    """
    x = inputs(images, model.dtype)
    z_mean, z_log_var = encode(model, x)
    z = z_mean + tf.exp(z_log_var / 2) * eps
    x_decoded = decode(model, z)
    log_likelihood = x * tf.math.log(LOG_GUARD + x_decoded)
    log_likelihood += (1 - x) * tf.math.log(LOG_GUARD + 1 - x_decoded)
    reconstruction = -tf.reduce_sum(log_likelihood, axis=1)
    kl = -0.5 * tf.reduce_sum(1 + z_log_var - tf.square(z_mean) - tf.exp(z_log_var), axis=1)
    return Losses(tf.reduce_mean(reconstruction + kl), reconstruction, kl)


# --- Training -------------------------------------------------------------------------------------


def experiment(config: Config, data: Dataset, chance: Chance, dtype: str = "float32") -> Experiment:
    """Puts data, model, loss and optimiser together for the loop."""
    model = build(config, chance.initializer(), dtype)
    images, labels = data.train_images[HELD_BACK:], data.train_labels[HELD_BACK:]
    return Experiment(
        config=config,
        data=data,
        chance=chance,
        model=model,
        optimizer=TF1RMSProp(model.variables, config.learning_rate),
        loss=partial(loss, model),
        posterior=partial(posterior, model),
        batches=chance.batches(len(images), config.batch_size, tail="carry"),
        images=images,
        labels=labels,
        latent_dim=LATENT_DIM,
        steps=config.steps,
        steps_per_row=STEPS_PER_ROW,
        frame=partial(frame, model),
        pictures_of=lambda z, labels: pictures_of(model, z),
        report=report,
        compile_with_xla=True,
    )


def report(progress: Progress) -> str | None:
    """What the document prints: the loss of step 1 and of every thousandth."""
    steps = [1] if len(progress.rows) == 1 else []
    if progress.step % PRINT_EVERY == 0:
        steps.append(progress.step)
    return "\n".join(f"Step {n}, Loss: {progress.losses[n - 1, 0]:f}" for n in steps) or None


# --- Pictures -------------------------------------------------------------------------------------


def frame(model: Model) -> np.ndarray:
    """For the GIF: the manifold of the moment, 10 x 10, bottom up."""
    axis = np.linspace(-3, 3, 10)
    return tile(to_uint8(pictures_of(model, grid_codes(axis, axis))[::-1]))


def pictures(experiment: Experiment, progress: Progress) -> dict[str, plotting.Picture]:
    """The document's manifold, with its first row at the bottom."""
    manifold = pictures_of(experiment.model, grid_codes(GRID, GRID[::-1]))
    title = "Manifold: z from −3 to 3"
    return {"manifold.png": plotting.manifold(manifold, GRID, GRID[::-1], title, CMAP)}


# --- The command ----------------------------------------------------------------------------------

PROGRAM = Program(
    name="rmsprop_vae",
    document="003",
    dataset="mnist",
    likelihood="grey",
    summary="VAE of tanh layers, cross-entropy, RMSProp",
    cmap=CMAP,
    config=Config,
    build=build,
    experiment=experiment,
    pictures=pictures,
    quick={"steps": 1_000},
    columns={"loss": "mean of 100 steps", "last_loss": "last of them"},
)
main = PROGRAM.main

if __name__ == "__main__":
    sys.exit(main())
