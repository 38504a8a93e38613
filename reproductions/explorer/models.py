"""The six encoders and decoders in NumPy alone, with the trained weights of a finished run.

    from reproductions.explorer.models import load
    model = load("artifacts/reference/mlp_vae")
    picture = model.decode(np.array([[0.5, -1.0]], np.float32))[0]

The explorer's page computes the same in JavaScript. Where a document has two heads, or a label
beside its input, there is one matrix here: the two side by side, or one on top of the other.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np

from common.runs import read_finished
from reproductions.elbo_cvae import THRESHOLD
from reproductions.explorer.networks import Layer, Network, apply, sigmoid

TRIL_SHIFT = 1e-5  # what TFP adds to the diagonal of a triangular scale
SMALL = 4_096  # a tensor with fewer numbers is rounded less, see `step_of`


@dataclass(frozen=True)
class Model:
    """One trained model."""

    encoder: Network  # x, and y where it is told the label -> parameters of q(z|x)
    decoder: Network  # z, and y -> pictures, or their logits
    latent: int  # dimensions of z
    output: str = "sigmoid"  # what makes pixels of the decoder's result; or "linear"
    posterior: str = "diagonal"  # mean and log-variance; or "triangular": mean and scale
    binarised: bool = False  # pixels are 0 or 1
    labelled: bool = False  # encoder and decoder are told the label
    class_mean: np.ndarray | None = None  # the prior's mean for each digit, [10, latent]

    def encode(self, images: np.ndarray, digits: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Mean [n, latent] and lower triangular scale [n, latent, latent] of q(z|x).

        Args:
          images: uint8 [n, 28, 28].
          digits: their labels, int [n]; read where the encoder is told the label.
        """
        x = (images >= THRESHOLD) if self.binarised else images / 255
        flat = x.reshape(len(x), -1).astype(np.float32)
        parameters = apply(self.encoder, self._with_label(flat, digits))
        mean, rest = parameters[:, : self.latent], parameters[:, self.latent :]
        if self.posterior == "diagonal":
            return mean, np.exp(rest / 2)[:, :, np.newaxis] * np.eye(self.latent, dtype=rest.dtype)
        scale = np.zeros((len(x), 2, 2), np.float32)
        scale[:, 0, 0] = np.logaddexp(0, rest[:, 2]) + TRIL_SHIFT
        scale[:, 1, 0] = rest[:, 1]
        scale[:, 1, 1] = np.logaddexp(0, rest[:, 0]) + TRIL_SHIFT
        return mean, scale

    def decode(self, z: np.ndarray, digits: np.ndarray | None = None) -> np.ndarray:
        """Pictures [n, 28, 28] of codes z [n, latent] and, where they are told, digits [n]."""
        pixels = apply(self.decoder, self._with_label(z.astype(np.float32), digits))
        if self.output == "sigmoid":
            pixels = sigmoid(pixels)
        return pixels.reshape(-1, 28, 28)

    def _with_label(self, x: np.ndarray, digits: np.ndarray | None) -> np.ndarray:
        if not self.labelled:
            return x
        return np.concatenate([x, np.eye(10, dtype=x.dtype)[digits]], axis=1)


def load(folder: str | Path) -> Model:
    """The trained model of a finished run.

    Raises:
      BadInput: there is no finished run of a module here in the folder.
    """
    record, weights = read_finished(Path(folder), MAKERS)
    return MAKERS[record.module](weights)


def tensors(model: Model) -> list[np.ndarray]:
    """All weights: those of the encoder, those of the decoder, the class means."""
    layers = [*model.encoder, *model.decoder]
    found = [array for layer in layers for array in (layer.kernel, layer.bias)]
    return found if model.class_mean is None else [*found, model.class_mean]


def rounded(model: Model) -> Model:
    """The model with its weights as the page has them: sixteen-bit steps of each tensor.

    Such steps compress better than float16 numbers, which would not all fit on the page. What the
    rounding costs in pixels is measured.
    """

    def layers(network: Network) -> Network:
        return [
            layer._replace(kernel=as_rounded(layer.kernel), bias=as_rounded(layer.bias))
            for layer in network
        ]

    means = model.class_mean
    return replace(
        model,
        encoder=layers(model.encoder),
        decoder=layers(model.decoder),
        class_mean=None if means is None else as_rounded(means),
    )


def as_rounded(array: np.ndarray) -> np.ndarray:
    """A tensor rounded to its steps."""
    step = step_of(array)
    return (np.rint(array / step) * step).astype(np.float32)


def step_of(array: np.ndarray) -> float:
    """What a tensor is rounded to multiples of, a power of two; they fit into sixteen bits.

    A large tensor's step is about a thousandth of its standard deviation. A small tensor's step is
    the finest that sixteen bits allow, because its bytes hardly count.
    """
    finest = 2.0 ** np.ceil(np.log2(np.abs(array).max())) / 2**14
    if array.size < SMALL:
        return float(finest)
    return float(max(2.0 ** np.rint(np.log2(array.std())) / 2**10, finest))


# --- The six, by their variables in the documents' order ------------------------------------------


def _mlp(weights: Sequence[np.ndarray], activation: str, output: str, labelled: bool) -> Model:
    """w1, b1, w of z_mean and z_log_var, b of both, w2, b2, w3, b3, and two for the label."""
    w1, b1, mean_w, var_w, mean_b, var_b, w2, b2, w3, b3, *of_label = weights
    if labelled:
        w1, w2 = (np.concatenate(pair) for pair in zip((w1, w2), of_label, strict=True))
    heads = Layer("dense", np.hstack([mean_w, var_w]), np.concatenate([mean_b, var_b]), "linear")
    return Model(
        encoder=[Layer("dense", w1, b1, activation), heads],
        decoder=[Layer("dense", w2, b2, activation), Layer("dense", w3, b3, "linear")],
        latent=len(mean_b),
        output=output,
        labelled=labelled,
    )


def _mlp_of_000(weights: Sequence[np.ndarray], labelled: bool) -> Model:
    """Its inner w3, the ninth variable, is never read."""
    return _mlp([*weights[:8], *weights[9:]], "relu", "linear", labelled)


def _rmsprop_vae(weights: Sequence[np.ndarray]) -> Model:
    """The document keeps weights and biases apart."""
    return _mlp([weights[i] for i in (0, 5, 1, 2, 6, 7, 3, 8, 4, 9)], "tanh", "sigmoid", False)


def _dense(weights: Sequence[np.ndarray], i: int, activation: str = "linear") -> Layer:
    return Layer("dense", weights[i], weights[i + 1], activation)


def _conv(
    weights: Sequence[np.ndarray], i: int, shape: tuple[int, ...], activation: str, stride: int,
    padding: str = "same",
) -> Layer:  # fmt: skip
    return Layer("conv", weights[i], weights[i + 1], activation, shape, stride, padding)


def _conv_transpose(
    weights: Sequence[np.ndarray], i: int, shape: tuple[int, ...], activation: str, stride: int,
    padding: str = "same",
) -> Layer:  # fmt: skip
    kernel = weights[i].transpose(0, 1, 3, 2)  # Keras has [size, size, out, in]
    return Layer("conv_transpose", kernel, weights[i + 1], activation, shape, stride, padding)


def _conv_vae(w: Sequence[np.ndarray]) -> Model:
    filters = len(w[13])
    heads = Layer("dense", np.hstack([w[6], w[8]]), np.concatenate([w[7], w[9]]), "linear")
    return Model(
        encoder=[
            _conv(w, 0, (28, 28, 1), "relu", 2),
            _conv(w, 2, (14, 14, len(w[1])), "relu", 2),
            _dense(w, 4, "relu"),
            heads,
        ],
        decoder=[
            _dense(w, 10, "relu"),
            _conv_transpose(w, 12, (7, 7, 32), "relu", 2),
            _conv_transpose(w, 14, (14, 14, filters), "relu", 2),
            _conv_transpose(w, 16, (28, 28, filters // 2), "linear", 1),
        ],
        latent=len(w[7]),
    )


def _elbo_cvae(w: Sequence[np.ndarray]) -> Model:
    return Model(
        encoder=[
            _conv(w, 0, (28, 28, 1), "relu", 2, "valid"),
            _conv(w, 2, (13, 13, 32), "relu", 2, "valid"),
            _dense(w, 4),
        ],
        decoder=[
            _dense(w, 6, "relu"),
            _conv_transpose(w, 8, (7, 7, 32), "relu", 2),
            _conv_transpose(w, 10, (14, 14, 64), "relu", 2),
            _conv_transpose(w, 12, (28, 28, 32), "linear", 1),
        ],
        latent=len(w[5]) // 2,
        binarised=True,
    )


def _tfp_cvae(w: Sequence[np.ndarray]) -> Model:
    depth = len(w[1])
    leaky = partial(_conv, w, activation="leaky_relu")
    leaky_transpose = partial(_conv_transpose, w, activation="leaky_relu")
    return Model(
        encoder=[
            leaky(0, (28, 28, 1), stride=1),
            leaky(2, (28, 28, depth), stride=2),
            leaky(4, (14, 14, depth), stride=1),
            leaky(6, (14, 14, 2 * depth), stride=2),
            leaky(8, (7, 7, 2 * depth), stride=1, padding="valid"),
            _dense(w, 10),
        ],
        decoder=[
            leaky_transpose(12, (1, 1, 2), stride=1, padding="valid"),
            leaky_transpose(14, (7, 7, 2 * depth), stride=1),
            leaky_transpose(16, (7, 7, 2 * depth), stride=2),
            leaky_transpose(18, (14, 14, 2 * depth), stride=1),
            leaky_transpose(20, (14, 14, depth), stride=2),
            leaky_transpose(22, (28, 28, depth), stride=1),
            _conv(w, 24, (28, 28, depth), "linear", 1),
        ],
        latent=2,
        posterior="triangular",
        class_mean=(w[26] + w[27]) @ w[28] + w[29],  # two linear layers of a one-hot label
    )


MAKERS: dict[str, Callable[[Sequence[np.ndarray]], Model]] = {
    "mlp_vae": partial(_mlp_of_000, labelled=False),
    "mlp_cvae": partial(_mlp_of_000, labelled=True),
    "conv_vae": _conv_vae,
    "elbo_cvae": _elbo_cvae,
    "rmsprop_vae": _rmsprop_vae,
    "tfp_cvae": _tfp_cvae,
}
