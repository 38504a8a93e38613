"""Document 000 §2: a two-dimensional VAE of dense layers, squared error, Adam.

Source: "变分自编码 & 条件变分自编码" (Variational and conditional variational autoencoders), a
notebook for TensorFlow 1 placeholders; author and date are not in the text.
Trains 784-256-2-256-784 on 55,000 grey-scale images of MNIST for 50 epochs.

    python -m reproductions.mlp_vae

Names: theirs -> ours: `z_log_sigma_sq` -> z_log_var; `reconstruction` -> x_decoded; `reconstr_loss`
-> reconstruction; `latent_loss` -> kl.

Kept quirks
  1. The KL weighs 1/128 of what an ELBO gives it; `--objective elbo` minimises the ELBO instead.
  2. The output is linear: pixels are not confined to 0 .. 1.
  3. The text calls 0.001 the variance of the initial weights; it is their standard deviation.
  4. `w3` is a variable made from a variable: the inner one counts as trainable and is never read.
  5. The cost that is printed is that of the last batch of every third epoch.
  6. The final "result" is the cost of all 10,000 test images as one batch.
  7. The reader holds back 5,000 training images, and an epoch is 88 images shorter than a pass.
  8. Pixels are float32(x) * float32(1/255), not x / 255.

Deviations
  1. The noise is an argument, so that a recording's noise can take its place.
  2. The manifold has axes in units of z. A run also draws a latent scatter, reconstructions, curves
     and the GIF.

Printed by the document (epoch: cost): 1: 2961.34, 4: 2265.61, 7: 2255.56, 10: 2235.31, 13: 2167.91,
16: 2352.41, 19: 2194.37, 22: 2146.91, 25: 2127.26, 28: 1911.38, 31: 2092.75, 34: 1870.27, 37:
2143.29, 40: 1938.21, 43: 1950.55 (the rest is cut off).

#### References
D. P. Kingma, M. Welling. Auto-Encoding Variational Bayes. ICLR 2014. arXiv:1312.6114
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
from common.optimizers import TF1Adam
from common.pictures import decoded, grid_codes, normal_quantiles, tile, to_uint8
from common.program import Program
from common.settings import Settings, choice, setting
from common.training import Experiment, Losses, Posterior, Progress

PIXELS = 784
HELD_BACK = 5_000  # training images that the TF1 reader set aside for validation
PIXEL_SCALE = np.float32(1 / 255)
LATENT_DIM = 2  # the document's pictures are of a plane
PRINT_EVERY = 3  # epochs
CMAP = "Greys_r"


@dataclass(frozen=True)
class Config(Settings):
    """The settings of §2 and, below them, variants of ours."""

    epochs: int = setting(50, "epochs of 55,000 // batch_size batches", 1, 5_000)
    batch_size: int = setting(128, "images in a batch", 1, 10_000)
    learning_rate: float = setting(1e-3, "learning rate of Adam", 1e-12, 1)
    hidden: int = setting(256, "units of each hidden layer", 1, 10_000)
    initial_stddev: float = setting(1e-3, "standard deviation of the initial weights", 1e-12, 10)

    objective: str = choice(("document", "elbo"), "minimise the cost as printed, or minus the ELBO")


# --- Data -----------------------------------------------------------------------------------------


def inputs(images: tf.Tensor, dtype: str) -> tf.Tensor:
    """uint8 [batch, 28, 28] -> x [batch, 784] in 0 .. 1, multiplied in float32 as by the reader."""
    x = tf.cast(tf.reshape(images, [-1, PIXELS]), tf.float32) * PIXEL_SCALE
    return tf.cast(x, dtype)


# --- Model ----------------------------------------------------------------------------------------


class Model(NamedTuple):
    """The document's `weights`: eleven variables, in its order."""

    w1: tf.Variable
    b1: tf.Variable
    z_mean_w: tf.Variable
    z_log_var_w: tf.Variable
    z_mean_b: tf.Variable
    z_log_var_b: tf.Variable
    w2: tf.Variable
    b2: tf.Variable
    w3_inner: tf.Variable  # never read
    w3: tf.Variable
    b3: tf.Variable

    @property
    def variables(self) -> list[tf.Variable]:
        """All of them: what is trained and saved."""
        return list(self)

    @property
    def dtype(self) -> str:
        """Their precision."""
        return self.w1.dtype.name


def build(config: Config, initializer: Initializer, dtype: str = "float32") -> Model:
    """Makes the variables and gives them their first values."""

    def matrix(*shape: int) -> tf.Variable:
        return tf.Variable(initializer.truncated_normal(shape, config.initial_stddev), dtype=dtype)

    def bias(size: int) -> tf.Variable:
        return tf.Variable(tf.zeros([size], dtype))

    hidden = config.hidden
    return Model(
        w1=matrix(PIXELS, hidden),
        b1=bias(hidden),
        z_mean_w=matrix(hidden, LATENT_DIM),
        z_log_var_w=matrix(hidden, LATENT_DIM),
        z_mean_b=bias(LATENT_DIM),
        z_log_var_b=bias(LATENT_DIM),
        w2=matrix(LATENT_DIM, hidden),
        b2=bias(hidden),
        w3_inner=(w3_inner := matrix(hidden, PIXELS)),
        w3=tf.Variable(w3_inner),
        b3=bias(PIXELS),
    )


def encode(model: Model, x: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """x [batch, 784] -> z_mean, z_log_var, [batch, 2] each."""
    h1 = tf.nn.relu(x @ model.w1 + model.b1)
    z_mean, z_log_var = kernels.two_heads(h1, model.z_mean_w, model.z_log_var_w)
    return z_mean + model.z_mean_b, z_log_var + model.z_log_var_b


def decode(model: Model, z: tf.Tensor) -> tf.Tensor:
    """z [batch, 2] -> x_decoded [batch, 784]: linear, not confined to 0 .. 1."""
    h2 = tf.nn.relu(z @ model.w2 + model.b2)
    return h2 @ model.w3 + model.b3


def posterior(model: Model, images: tf.Tensor, labels: tf.Tensor) -> Posterior:
    """q(z|x) of images, for the scatter and the metrics."""
    return Posterior.diagonal(*encode(model, inputs(images, model.dtype)))


def pictures_of(model: Model, z: np.ndarray) -> np.ndarray:
    """Decodes z [..., 2] into pictures [..., 28, 28]."""
    return decoded(partial(decode, model), z, model.dtype)


# --- Loss -----------------------------------------------------------------------------------------


def loss(
    model: Model,
    images: tf.Tensor,
    labels: tf.Tensor,
    eps: tf.Tensor,
    objective: str = "document",
) -> Losses:
    """The cost of a batch in §2.

    Args:
      model: the variables.
      images: uint8 [batch, 28, 28].
      labels: not used.
      eps: standard normal noise [batch, 2].
      objective: "document", or "elbo" for the mean of reconstruction + kl.
    """
    x = inputs(images, model.dtype)
    z_mean, z_log_var = encode(model, x)
    z = z_mean + tf.sqrt(tf.exp(z_log_var)) * eps
    x_decoded = decode(model, z)
    reconstruction = 0.5 * tf.reduce_sum(tf.square(x_decoded - x), axis=1)
    kl = -0.5 * tf.reduce_sum(1 + z_log_var - tf.square(z_mean) - tf.exp(z_log_var), axis=1)
    if objective == "elbo":
        cost = tf.reduce_mean(reconstruction + kl)
    else:
        cost = tf.reduce_mean(tf.reduce_sum(reconstruction) + kl)  # a sum and a mean: quirk 1
    return Losses(cost, reconstruction, kl)


# --- Training -------------------------------------------------------------------------------------


def experiment(config: Config, data: Dataset, chance: Chance, dtype: str = "float32") -> Experiment:
    """Puts data, model, loss and optimiser together for the loop."""
    model = build(config, chance.initializer(), dtype)
    images, labels = data.train_images[HELD_BACK:], data.train_labels[HELD_BACK:]
    batches = chance.batches(len(images), config.batch_size, tail="carry")
    return Experiment(
        config=config,
        data=data,
        chance=chance,
        model=model,
        optimizer=TF1Adam(model.variables, config.learning_rate),
        loss=partial(loss, model, objective=config.objective),
        posterior=partial(posterior, model),
        batches=batches,
        images=images,
        labels=labels,
        latent_dim=LATENT_DIM,
        steps=config.epochs * batches.steps_per_epoch,
        frame=partial(frame, model),
        pictures_of=lambda z, labels: pictures_of(model, z),
        report=report,
        compile_with_xla=True,
    )


def report(progress: Progress) -> str | None:
    """What §2 prints after an epoch: the last batch's cost, every third time."""
    row = progress.rows[-1]
    if (row["epoch"] - 1) % PRINT_EVERY != 0:
        return None
    return f"epoch: {row['epoch']:04d} cost= {row['last_loss']:.9f}"


def results(experiment: Experiment) -> dict[str, float]:
    """The "result" of §2: the cost of all test images as one batch."""
    model, data = experiment.model, experiment.data
    eps = experiment.chance.codes("result", (len(data.test_images), LATENT_DIM))
    test = loss(model, data.test_images, data.test_labels, tf.constant(eps, model.dtype))
    return {"result": float(test.loss)}


# --- Pictures -------------------------------------------------------------------------------------


def frame(model: Model) -> np.ndarray:
    """For the GIF: the manifold of the moment, 10 x 10."""
    quantiles = normal_quantiles(10)
    return tile(to_uint8(pictures_of(model, grid_codes(quantiles, quantiles))))


def pictures(experiment: Experiment, progress: Progress) -> dict[str, plotting.Picture]:
    """The document's manifold."""
    quantiles = normal_quantiles(15)
    manifold = pictures_of(experiment.model, grid_codes(quantiles, quantiles))
    title = "Manifold: decoded quantiles of the prior"
    return {"manifold.png": plotting.manifold(manifold, quantiles, quantiles, title, CMAP)}


# --- The command ----------------------------------------------------------------------------------

PROGRAM = Program(
    name="mlp_vae",
    document="000 §2",
    dataset="mnist",
    likelihood="gaussian",
    summary="VAE of dense layers, squared error, Adam",
    cmap=CMAP,
    config=Config,
    build=build,
    experiment=experiment,
    pictures=pictures,
    results=results,
    quick={"epochs": 10},
    total=("Cost, as in the document", "cost per batch"),
    columns={"loss": "mean of the epoch", "last_loss": "last batch, as printed"},
    reconstruction_unit="½ squared error per image",
)
main = PROGRAM.main

if __name__ == "__main__":
    sys.exit(main())
