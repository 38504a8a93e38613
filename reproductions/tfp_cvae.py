"""Document 004: a conditional VAE whose prior has one learned mean per class.

Source: "条件VAE" (Conditional VAE), a blog post of 2019-08-18, TensorFlow 1.14 with TensorFlow
Probability 0.7. Trains on the 60,000 images of MNIST, grey-scale. The posterior is a
full-covariance Gaussian in two dimensions, the prior N(mean(label), 1), and the decoder sees z
alone: the label reaches a picture only through the class mean around which z is drawn.

    python -m reproductions.tfp_cvae [--digit 8]

Names: theirs -> ours: `decoder_outputs` -> x_decoded; `cluster_mean` -> class_mean.

Kept quirks
  1. The KL is counted twice. The posterior layer returns the distribution and its value, and Keras
     applies the activity regulariser to both (TFP 0.25 still does).
  2. Reconstruction is summed over the batch while Keras divides the regulariser by the batch size,
     so the KL weighs 2/256 of what an ELBO gives it. `--objective elbo` minimises the ELBO.
  3. The KL is a one-sample Monte-Carlo estimate, with the z that is decoded.
  4. The cross-entropy clips x_decoded to [1e-7, 1 - 1e-7] and adds 1e-7 inside the logarithm again.
  5. `.shuffle(10000)` shuffles 60,000 images partially; the last batch of an epoch has 96 images,
     and the epoch's loss is the mean over batches all the same.
  6. Two linear layers in a row (10 -> 4 -> 2) make the class means.
  7. Asked for a digit the trained model often draws another one: the original drew the wanted digit
     in 45 % of its grid pictures. `--mean-spread` helps: docs/quirks.md.

Deviations
  1. As printed the program does not train (`fit` wants a placeholder fed). The one repair, here and
     in the recordings: the first Conv2D is not given `input_shape`.
  2. The regulariser is written out: TFP's can no longer have a prior that depends on the label.
  3. The noise is an argument, for the proof.

The document prints no figures. The original, run whole on TF 1.14 (one seed), ends at a training
loss of 36,263 and a validation loss of 36,159 per batch.

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

from common import plotting
from common.animation import tile, to_uint8
from common.chance import Chance, Weights, assign_glorot
from common.cli import Program, choice, setting
from common.convolutions import to_one_channel
from common.datasets import Dataset
from common.evaluation import z_means
from common.lazy import tf, tf_keras, tfp
from common.optimizers import KerasAdam
from common.training import Evaluator, Experiment, Losses, Posterior, Progress, Row, in_batches

Array = np.ndarray

CLASSES = 10
LEAKY_SLOPE = 0.2  # of tf.nn.leaky_relu; Keras's own layer has 0.3
CLIP = 1e-7  # Keras's fuzz factor: x_decoded is kept this far from 0 and 1
KL_COUNT = 2  # the regulariser meets the posterior twice: as a distribution, and as its value
CMAP = "Greys_r"


@dataclass(frozen=True)
class Config:
    """The document's settings."""

    epochs: int = setting(15, "passes over the 60,000 images", 1, 10_000)
    batch_size: int = setting(256, "images in a batch", 1, 10_000)
    learning_rate: float = setting(1e-3, "of Adam", 1e-12, 1)
    latent_dim: int = setting(2, "dimensions of z", 2, 2)
    base_depth: int = setting(16, "filters of the first convolution", 1, 256)
    shuffle_buffer: int = setting(10_000, "images that the shuffle chooses from", 1, 60_000)
    objective: str = choice(("document", "elbo"), "the cost as printed, or the ELBO, negated")
    mean_spread: float = setting(1.0, "times as far apart the class means start", 1e-6, 1e6)
    digit: int | None = setting(None, "the digit to draw (default: 8 and 9)", 0, 9)


# --- Data -----------------------------------------------------------------------------------------


def inputs(images: Any, dtype: str) -> tf.Tensor:
    """uint8 [batch, 28, 28] -> x [batch, 28, 28, 1] in 0 .. 1."""
    x = tf.cast(images, tf.float64)[..., tf.newaxis] / 255.0
    x = tf.cast(x, tf.float32)  # a float32 division would become a product with 1/255 in the graph
    return tf.cast(x, dtype)


# --- Model ----------------------------------------------------------------------------------------


class Model(NamedTuple):
    """The document's three networks."""

    encoder: Any  # x [batch, 28, 28, 1] -> posterior q(z|x), a distribution over [batch, 2]
    decoder: Any  # z [batch, 2] -> x_decoded [batch, 28, 28, 1] in 0 .. 1
    class_mean: Any  # y [batch, 10] -> mean of the prior p(z|y), [batch, 2]

    @property
    def variables(self) -> list[tf.Variable]:
        """All 30 variables, 138,428 numbers, in the document's order."""
        return [v for network in self for v in network.trainable_variables]


def build(config: Config, weights: Weights, dtype: str = "float32") -> Model:
    """Builds the networks with Keras's default start; `mean_spread` scales the class means."""
    layers, depth = tf_keras.layers, config.base_depth
    leaky_relu = partial(tf.nn.leaky_relu, alpha=LEAKY_SLOPE)
    options = {"padding": "same", "activation": leaky_relu, "dtype": dtype}
    conv = partial(layers.Conv2D, **options)
    conv_transpose = partial(layers.Conv2DTranspose, **options)
    to_posterior = tfp.layers.MultivariateNormalTriL(
        config.latent_dim, convert_to_tensor_fn=tfp.distributions.Distribution.mean, dtype=dtype
    )

    class ConvToOneChannel(tf_keras.layers.Conv2D):
        def convolution_op(self, inputs: Any, kernel: Any) -> Any:
            return to_one_channel(inputs, kernel)  # the same sums, in a third of the time

    inputs_of = partial(layers.InputLayer, dtype=dtype)
    dense = partial(layers.Dense, dtype=dtype)
    encoder = [
        inputs_of([28, 28, 1]),
        conv(depth, 5, strides=1),  # [batch, 28, 28, 16]
        conv(depth, 5, strides=2),  # [batch, 14, 14, 16]
        conv(2 * depth, 5, strides=1),  # [batch, 14, 14, 32]
        conv(2 * depth, 5, strides=2),  # [batch, 7, 7, 32]
        conv(4 * config.latent_dim, 7, strides=1, padding="valid"),  # [batch, 1, 1, 8]
        layers.Flatten(dtype=dtype),
        dense(to_posterior.params_size(config.latent_dim)),  # [batch, 5]
        to_posterior,
    ]
    decoder = [
        inputs_of([config.latent_dim]),
        layers.Reshape([1, 1, config.latent_dim], dtype=dtype),
        conv_transpose(2 * depth, 7, strides=1, padding="valid"),  # [batch, 7, 7, 32]
        conv_transpose(2 * depth, 5, strides=1),
        conv_transpose(2 * depth, 5, strides=2),  # [batch, 14, 14, 32]
        conv_transpose(depth, 5, strides=1),  # [batch, 14, 14, 16]
        conv_transpose(depth, 5, strides=2),  # [batch, 28, 28, 16]
        conv_transpose(depth, 5, strides=1),
        ConvToOneChannel(1, 5, **options | {"activation": tf.sigmoid}),  # [batch, 28, 28, 1]
    ]
    class_mean = [inputs_of([CLASSES]), dense(2 * config.latent_dim), dense(config.latent_dim)]
    model = Model(*(tf_keras.Sequential(part) for part in (encoder, decoder, class_mean)))
    assign_glorot(model.variables, weights)
    for layer in model.class_mean.layers:  # two linear ones: half of the factor each
        layer.kernel.assign(config.mean_spread**0.5 * layer.kernel)
    return model


def posterior(model: Model, dtype: str, images: Any, labels: Any) -> Posterior:
    """What the encoder makes of images, and the prior that their labels choose."""
    q = model.encoder(inputs(images, dtype))
    y = tf.one_hot(labels, CLASSES, dtype=dtype)
    return Posterior(q.mean(), q.scale.to_dense(), model.class_mean(y))


def class_means(model: Model) -> Array:
    """The learned prior mean of every class, [10, 2]."""
    return model.class_mean(tf.eye(CLASSES, dtype=model.class_mean.dtype)).numpy()


def decode(model: Model, z: Array) -> Array:
    """Decodes z [..., 2] into pictures [..., 28, 28], values 0 .. 1."""
    flat = in_batches(model.decoder, z.reshape(-1, z.shape[-1]).astype(model.decoder.dtype))
    return flat.reshape(*z.shape[:-1], 28, 28)


def sample(model: Model, digit: int, eps: Array) -> Array:
    """Pictures [..., 28, 28] of a digit: its class mean + standard normal eps [..., 2], decoded."""
    return decode(model, class_means(model)[digit] + eps)


# --- Loss -----------------------------------------------------------------------------------------


def loss(model: Model, images: Any, labels: Any, eps: Any, objective: str = "document") -> Losses:
    """The document's objective for a batch.

    Args:
      model: the networks.
      images: uint8 [batch, 28, 28].
      labels: uint8 [batch].
      eps: standard normal noise [batch, 2].
      objective: "document", or "elbo" for the mean of reconstruction + kl.
    """
    x, y = inputs(images, eps.dtype), tf.one_hot(labels, CLASSES, dtype=eps.dtype)
    q = model.encoder(x)
    prior = tfp.distributions.Independent(
        tfp.distributions.Normal(loc=model.class_mean(y), scale=tf.ones([], eps.dtype)),
        reinterpreted_batch_ndims=1,
    )
    z = q.bijector.forward(eps)  # the bijector remembers eps, so log_prob needs no solve
    x_decoded = model.decoder(z)
    reconstruction = tf.reduce_sum(cross_entropy(x, x_decoded), axis=[1, 2, 3])
    kl = q.log_prob(z) - prior.log_prob(z)
    total = tf.reduce_sum(reconstruction) + KL_COUNT * tf.reduce_mean(kl)
    if objective == "elbo":
        total = tf.reduce_mean(reconstruction + kl)
    return Losses(total, reconstruction, kl)


def cross_entropy(x: tf.Tensor, x_decoded: tf.Tensor) -> tf.Tensor:
    """Keras's binary cross-entropy of probabilities, pixel by pixel, in nats."""
    p = tf.clip_by_value(x_decoded, CLIP, 1.0 - CLIP)
    return -(x * tf.math.log(p + CLIP) + (1.0 - x) * tf.math.log(1.0 - p + CLIP))


# --- Training -------------------------------------------------------------------------------------


def experiment(config: Config, data: Dataset, chance: Chance, dtype: str = "float32") -> Experiment:
    """Puts data, model, loss and optimiser together for the loop."""
    model = build(config, chance.weights(), dtype)
    batch_loss = partial(loss, model, objective=config.objective)
    batches = chance.batches(
        len(data.train_images), config.batch_size, tail="keep", buffer=config.shuffle_buffer
    )
    validation = Evaluator(batch_loss, data.test_images, data.test_labels, config.batch_size, dtype)

    def evaluate(epoch: int) -> Row:
        shape = (len(data.test_images), config.latent_dim)
        return {"val_loss": float(validation(chance.evaluation_noise(epoch, shape)).loss.mean())}

    return Experiment(
        model=model,
        variables=model.variables,
        optimizer=KerasAdam(model.variables, config.learning_rate),
        loss=batch_loss,
        posterior=partial(posterior, model, dtype),
        chance=chance,
        batches=batches,
        images=data.train_images,
        labels=data.train_labels,
        latent_dim=config.latent_dim,
        dtype=dtype,
        steps=config.epochs * batches.steps_per_pass,
        steps_per_round=batches.steps_per_pass,
        round_name="epoch",
        steps_per_call=10,  # about a second
        evaluate=evaluate,
        frame=frame_maker(model, chance.codes("frame", (6, CLASSES, config.latent_dim))),
    )


def results(config: Config, run: Experiment, data: Dataset) -> dict[str, Any]:
    """Figures of the finished run: the learned class means."""
    return {"class_mean": class_means(run.model).round(6).tolist()}


# --- Pictures -------------------------------------------------------------------------------------


def frame_maker(model: Model, eps: Array) -> Callable[[], Array]:
    """For the GIF: eps [rows, 10, 2] around the class means of the moment, a column a digit."""
    return lambda: tile(to_uint8(decode(model, class_means(model) + eps)))


def figures(config: Config, run: Experiment, data: Dataset, progress: Progress) -> dict[str, Any]:
    """The document's grids, and what else its reader wants to see."""
    model = run.model
    means = class_means(model)
    z_mean = z_means(run, data.test_images, data.test_labels)
    eps = run.chance.codes("sheet", (CLASSES, 12, config.latent_dim))
    digits = (8, 9) if config.digit is None else (config.digit,)
    return {f"class-{digit}.png": class_grid(model, digit) for digit in digits} | {
        "samples.png": plotting.image_grid(
            decode(model, means[:, np.newaxis] + eps),
            "Samples of every class: z from N(class mean, 1)", CMAP,
            row_labels=[f"asked for {digit}" for digit in range(CLASSES)],
        ),
        "latent.png": plotting.latent_scatter(
            z_mean, data.test_labels, data.class_names,
            "Posterior means of the 10,000 test images,\nand the learned priors N(mean, 1) at 1 σ",
            prior_means=means,
        ),
        "reconstructions.png": plotting.reconstructions(
            data.test_images[:30] / 255, decode(model, z_mean[:30]),
            "Test images and their reconstructions from z_mean", CMAP,
        ),
        "curves.png": plotting.curves(
            progress.rows, "epoch",
            *plotting.total_axis(config.objective, "Total, as in the document", "nats per batch"),
            {"loss": "training", "val_loss": "validation"}, "tfp_cvae: training on MNIST",
        ),
    }  # fmt: skip


def class_grid(model: Model, digit: int) -> Any:
    """The document's picture: 15 x 15 normal quantiles around the class mean of a digit."""
    z0, z1 = class_means(model)[digit][:, np.newaxis] + plotting.normal_quantiles(15)
    images = decode(model, plotting.grid_codes(z0, z1))
    return plotting.manifold(images, z0, z1, f"Around the prior mean of class {digit}", CMAP)


# --- The command ----------------------------------------------------------------------------------

PROGRAM = Program(
    name="tfp_cvae",
    document="004",
    dataset="mnist",
    likelihood="grey",
    summary="Conditional VAE with a learned prior mean per class, by TensorFlow Probability",
    config=Config,
    build=build,
    quick={"epochs": 1},
    experiment=experiment,
    figures=figures,
    results=results,
    draw=sample,
)
main = PROGRAM.main

if __name__ == "__main__":
    sys.exit(main())
