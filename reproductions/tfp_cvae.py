"""Document 004: a conditional VAE whose prior has one learned mean per class.

Source: "条件VAE" (Conditional VAE), a blog post of 2019-08-18, TensorFlow 1.14 with TensorFlow
Probability 0.7. Trains on the 60,000 images of MNIST, grey-scale. The posterior is a
full-covariance Gaussian in two dimensions, the prior N(mean(label), 1), and the decoder sees z
alone: the label reaches a picture only through the class mean around which z is drawn.

    python -m reproductions.tfp_cvae [--digit 8]

Names: theirs -> ours: `decoder_outputs` -> x_decoded; `cluster_mean` -> class_mean.

Kept quirks
  1. The KL is counted twice.
  2. The KL weighs 2/256 of what an ELBO gives it; `--objective elbo` minimises the ELBO instead.
  3. The KL is estimated from one sample, the z that is decoded.
  4. The cross-entropy treats grey levels as probabilities. Those of the decoder are clipped, and
     the logarithms are guarded as well.
  5. `.shuffle(10000)` shuffles partially.
  6. The last batch of an epoch is smaller. The epoch's training loss weighs each batch by its
     images, its validation loss weighs all batches alike.
  7. Two linear layers make the class means, where one would do.
  8. The digit that is asked for comes out in 44 to 47 % of the pictures (here: 41 to 53 %).

Deviations
  1. As printed it does not train; the one repair leaves out `input_shape` of the first Conv2D.
  2. The regulariser is written out: TFP's can no longer have a prior that depends on the label.
  3. The noise is an argument, for the proof.
  4. The grids have axes in units of z. A run also draws a latent scatter, reconstructions, curves,
     samples and the GIF.

The document prints no numbers. Whole runs of the original end at a training loss near 36,300.

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
from common.chance import Chance, Initializer, assign_glorot
from common.datasets import Dataset
from common.lazy import tf, tf_keras, tfp
from common.optimizers import KerasAdam
from common.pictures import decoded, grid_codes, normal_quantiles, tile, to_uint8
from common.program import Program
from common.settings import Settings, check_whole, choice, setting, variant
from common.training import Experiment, Losses, Posterior, Progress, Row, Validation

CLASSES = 10
LATENT_DIM = 2  # the document's pictures are of a plane
LEAKY_SLOPE = 0.2  # of tf.nn.leaky_relu; Keras's own layer has 0.3
CLIP = 1e-7  # Keras's fuzz factor: x_decoded is kept this far from 0 and 1
KL_COUNT = 2  # Keras adds the regulariser for both outputs: the distribution and its value
CMAP = "Greys_r"


@dataclass(frozen=True)
class Config(Settings):
    """The document's settings and, below them, variants of ours."""

    epochs: int = setting(15, "passes over the 60,000 images", 1, 10_000)
    batch_size: int = setting(256, "images in a batch", 1, 10_000)
    learning_rate: float = setting(1e-3, "learning rate of Adam", 1e-12, 1)
    base_depth: int = setting(16, "filters of the first convolution", 1, 256)
    shuffle_buffer: int = setting(10_000, "images that the shuffle chooses from", 1, 60_000)

    objective: str = choice(("document", "elbo"), "minimise the loss as it is, or minus the ELBO")
    mean_spread: float = variant(1.0, "factor that moves the initial class means apart", 1e-6, 1e6)
    digit: int | None = variant(None, "the digit to draw (default: 8 and 9)", 0, 9, trains=False)


# --- Data -----------------------------------------------------------------------------------------


def inputs(images: tf.Tensor, dtype: str) -> tf.Tensor:
    """uint8 [batch, 28, 28] -> x [batch, 28, 28, 1] in 0 .. 1."""
    x = tf.cast(images, tf.float64)[..., tf.newaxis] / 255.0
    x = tf.cast(x, tf.float32)  # a float32 division would become a product with 1/255 in the graph
    return tf.cast(x, dtype)


# --- Model ----------------------------------------------------------------------------------------


class Model(NamedTuple):
    """The document's three networks."""

    encoder: tf_keras.Model  # x [batch, 28, 28, 1] -> q(z|x), a distribution over [batch, 2]
    decoder: tf_keras.Model  # z [batch, 2] -> x_decoded [batch, 28, 28, 1] in 0 .. 1
    class_mean: tf_keras.Model  # y [batch, 10] -> mean of the prior p(z|y), [batch, 2]

    @property
    def variables(self) -> list[tf.Variable]:
        """All 30 variables, 138,428 numbers, in the document's order."""
        return [v for network in self for v in network.trainable_variables]

    @property
    def dtype(self) -> str:
        """Their precision."""
        return self.decoder.layers[0].dtype


def build(config: Config, initializer: Initializer, dtype: str = "float32") -> Model:
    """Builds the networks with Keras's default initial weights."""
    layers, depth = tf_keras.layers, config.base_depth
    leaky_relu = partial(tf.nn.leaky_relu, alpha=LEAKY_SLOPE)
    conv = partial(layers.Conv2D, padding="same", activation=leaky_relu, dtype=dtype)
    conv_transpose = partial(
        layers.Conv2DTranspose, padding="same", activation=leaky_relu, dtype=dtype
    )
    last = kernels.one_channel(layers.Conv2D)  # the same sums, in a third of the time
    # Takes z_mean and scale_tril, whose diagonal it puts through softplus and raises by 1e-5.
    gaussian = tfp.layers.MultivariateNormalTriL

    encoder = tf_keras.Sequential(
        [
            layers.InputLayer([28, 28, 1], dtype=dtype),
            conv(depth, 5, strides=1),  # [batch, 28, 28, 16]
            conv(depth, 5, strides=2),  # [batch, 14, 14, 16]
            conv(2 * depth, 5, strides=1),  # [batch, 14, 14, 32]
            conv(2 * depth, 5, strides=2),  # [batch, 7, 7, 32]
            conv(4 * LATENT_DIM, 7, strides=1, padding="valid"),  # [batch, 1, 1, 8]
            layers.Flatten(dtype=dtype),
            layers.Dense(gaussian.params_size(LATENT_DIM), dtype=dtype),  # [batch, 5]: 2 + 3
            # Its value as a tensor is its mean; by default it would be a sample.
            gaussian(LATENT_DIM, tfp.distributions.Distribution.mean, dtype=dtype),
        ]
    )
    decoder = tf_keras.Sequential(
        [
            layers.InputLayer([LATENT_DIM], dtype=dtype),
            layers.Reshape([1, 1, LATENT_DIM], dtype=dtype),
            conv_transpose(2 * depth, 7, strides=1, padding="valid"),  # [batch, 7, 7, 32]
            conv_transpose(2 * depth, 5, strides=1),
            conv_transpose(2 * depth, 5, strides=2),  # [batch, 14, 14, 32]
            conv_transpose(depth, 5, strides=1),  # [batch, 14, 14, 16]
            conv_transpose(depth, 5, strides=2),  # [batch, 28, 28, 16]
            conv_transpose(depth, 5, strides=1),
            last(1, 5, padding="same", activation=tf.sigmoid, dtype=dtype),  # [batch, 28, 28, 1]
        ]
    )
    class_mean = tf_keras.Sequential(
        [
            layers.InputLayer([CLASSES], dtype=dtype),
            layers.Dense(2 * LATENT_DIM, dtype=dtype),  # linear, and so is the next
            layers.Dense(LATENT_DIM, dtype=dtype),
        ]
    )
    model = Model(encoder, decoder, class_mean)
    assign_glorot(model.variables, initializer)
    return model


def decode(model: Model, z: tf.Tensor) -> tf.Tensor:
    """z [batch, 2] -> x_decoded [batch, 28, 28, 1] in 0 .. 1."""
    return model.decoder(z)


def posterior(model: Model, images: tf.Tensor, labels: tf.Tensor) -> Posterior:
    """q(z|x) of images, and the prior of their labels, for the scatter and the metrics."""
    q = model.encoder(inputs(images, model.dtype))
    y = tf.one_hot(labels, CLASSES, dtype=model.dtype)
    return Posterior(q.mean(), q.scale.to_dense(), model.class_mean(y))


def class_means(model: Model) -> np.ndarray:
    """The learned prior mean of every class, [10, 2]."""
    return model.class_mean(tf.eye(CLASSES, dtype=model.dtype)).numpy()


def pictures_of(model: Model, z: np.ndarray) -> np.ndarray:
    """Decodes z [..., 2] into pictures [..., 28, 28], values 0 .. 1."""
    return decoded(partial(decode, model), z, model.dtype)


def sample(model: Model, digit: int, eps: np.ndarray) -> np.ndarray:
    """Pictures [..., 28, 28] of a digit: its class mean + eps [..., 2], decoded.

    The eps are standard normal where the pictures shall be drawn from the prior.

    Raises:
      BadInput: the digit is none of 0 .. 9.
    """
    check_whole("digit", digit, 9)
    return pictures_of(model, class_means(model)[digit] + eps)


# --- Loss -----------------------------------------------------------------------------------------


def loss(
    model: Model,
    images: tf.Tensor,
    labels: tf.Tensor,
    eps: tf.Tensor,
    objective: str = "document",
) -> Losses:
    """The document's objective for a batch.

    Args:
      model: the networks.
      images: uint8 [batch, 28, 28].
      labels: uint8 [batch].
      eps: standard normal noise [batch, 2].
      objective: "document", or "elbo" for the mean of reconstruction + kl.
    """
    x, y = inputs(images, model.dtype), tf.one_hot(labels, CLASSES, dtype=model.dtype)
    q = model.encoder(x)
    prior = tfp.distributions.Independent(
        tfp.distributions.Normal(loc=model.class_mean(y), scale=tf.ones([], model.dtype)),
        reinterpreted_batch_ndims=1,
    )
    z = q.bijector.forward(eps)  # the bijector remembers eps, so log_prob needs no solve
    x_decoded = decode(model, z)
    reconstruction = tf.reduce_sum(cross_entropy(x, x_decoded), axis=[1, 2, 3])
    kl = q.log_prob(z) - prior.log_prob(z)
    if objective == "elbo":
        total = tf.reduce_mean(reconstruction + kl)
    else:
        total = tf.reduce_sum(reconstruction) + KL_COUNT * tf.reduce_mean(kl)  # quirks 1 and 2
    return Losses(total, reconstruction, kl)


def cross_entropy(x: tf.Tensor, x_decoded: tf.Tensor) -> tf.Tensor:
    """Keras's binary cross-entropy of probabilities, pixel by pixel, in nats."""
    p = tf.clip_by_value(x_decoded, CLIP, 1.0 - CLIP)
    return -(x * tf.math.log(p + CLIP) + (1.0 - x) * tf.math.log(1.0 - p + CLIP))


# --- Training -------------------------------------------------------------------------------------


def experiment(config: Config, data: Dataset, chance: Chance, dtype: str = "float32") -> Experiment:
    """Puts data, model, loss and optimiser together for the loop."""
    model = build(config, chance.initializer(), dtype)
    if config.mean_spread != 1:
        for layer in model.class_mean.layers:  # two linear ones: each takes the root of the factor
            layer.kernel.assign(config.mean_spread**0.5 * layer.kernel)
    batches = chance.batches(
        len(data.train_images), config.batch_size, tail="keep", buffer=config.shuffle_buffer
    )
    batch_loss = partial(loss, model, objective=config.objective)
    validation = Validation(batch_loss, data, config.batch_size, dtype)

    def validate(epoch: int) -> Row:
        noise = chance.validation_noise(epoch, (len(data.test_images), LATENT_DIM))
        return {"val_loss": float(validation(noise).loss.mean())}  # batches alike: quirk 6

    return Experiment(
        config=config,
        data=data,
        chance=chance,
        model=model,
        optimizer=KerasAdam(model.variables, config.learning_rate),
        loss=batch_loss,
        posterior=partial(posterior, model),
        batches=batches,
        images=data.train_images,
        labels=data.train_labels,
        latent_dim=LATENT_DIM,
        steps=config.epochs * batches.steps_per_epoch,
        frame=partial(frame, model, chance.codes("frame", (6, CLASSES, LATENT_DIM))),
        pictures_of=lambda z, labels: pictures_of(model, z),
        validate=validate,
        block=10,  # no XLA: it cannot compile TFP's layer while the size of a batch is left open
    )


def results(experiment: Experiment) -> dict[str, list[list[float]]]:
    """The learned class means."""
    return {"class_mean": class_means(experiment.model).tolist()}


# --- Pictures -------------------------------------------------------------------------------------


def frame(model: Model, eps: np.ndarray) -> np.ndarray:
    """For the GIF: eps [rows, 10, 2] around the class means of the moment, a column a digit."""
    return tile(to_uint8(pictures_of(model, class_means(model) + eps)))


def pictures(experiment: Experiment, progress: Progress) -> dict[str, plotting.Picture]:
    """The document's grids, of 8 and 9, or that of the digit that was asked for."""
    digit = experiment.config.digit
    digits = (8, 9) if digit is None else (digit,)
    return {f"class-{digit}.png": class_grid(experiment.model, digit) for digit in digits}


def class_grid(model: Model, digit: int) -> plotting.Picture:
    """The document's picture: 15 x 15 normal quantiles around the class mean of a digit."""
    z0, z1 = class_means(model)[digit][:, np.newaxis] + normal_quantiles(15)
    images = pictures_of(model, grid_codes(z0, z1))
    return plotting.manifold(images, z0, z1, f"Around the prior mean of class {digit}", CMAP)


# --- The command ----------------------------------------------------------------------------------

PROGRAM = Program(
    name="tfp_cvae",
    document="004",
    dataset="mnist",
    likelihood="grey",
    summary="conditional VAE with a learned prior mean per class",
    cmap=CMAP,
    config=Config,
    build=build,
    experiment=experiment,
    pictures=pictures,
    results=results,
    draw=sample,
    quick={"epochs": 1},
    total=("Total, as in the document", "nats per batch"),
    columns={"loss": "training", "val_loss": "validation"},
)
main = PROGRAM.main

if __name__ == "__main__":
    sys.exit(main())
