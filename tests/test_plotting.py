"""Figures: what lands where, what is written beside it, and that nothing global is left behind."""

from __future__ import annotations

import dataclasses
import functools
import importlib
import io
from collections.abc import Callable
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from matplotlib.colors import Normalize, to_rgba
from matplotlib.patches import Circle
from PIL import Image
from scipy import special, stats

from common import plotting
from common.chance import Seeded
from common.datasets import Dataset
from common.evaluation import encode_test_set
from common.program import usual_pictures
from common.training import Progress, Row
from reproductions import MODULES, conv_vae, elbo_cvae, mlp_cvae, mlp_vae, rmsprop_vae, tfp_cvae
from tests.conftest import python

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Array = np.ndarray

SIDE = 28  # pixels along a side of an image
FLOAT32 = 1e-6  # codes and pixels pass through float32; 1.2e-7 measured
QUANTILES = stats.norm.ppf(np.linspace(0.05, 0.95, 15))
MINUS = "\N{MINUS SIGN}"


# --- Reading pictures -----------------------------------------------------------------------------


def array_of(axes: Axes) -> Array:
    """The array of the one image that the axes show, which must be drawn row 0 on top."""
    [image] = axes.get_images()
    assert image.origin == "upper"
    assert axes.yaxis_inverted()
    assert not axes.xaxis_inverted()
    return np.asarray(image.get_array())


def tiles(canvas: Array, gap: int = 0) -> Array:
    """Cuts a canvas of 28 x 28 images apart: [rows, columns, 28, 28]."""
    step = SIDE + gap
    rows, columns = ((length + gap) // step for length in canvas.shape)
    assert canvas.shape == (rows * step - gap, columns * step - gap)
    return np.array(
        [
            [canvas[r * step :, c * step :][:SIDE, :SIDE] for c in range(columns)]
            for r in range(rows)
        ]
    )


def ticks(axes: Axes, axis: str) -> list[tuple[float, str]]:
    """Place and text of the ticks along "x" or "y"."""
    labels = getattr(axes, f"get_{axis}ticklabels")()
    places = getattr(axes, f"get_{axis}ticks")()
    return [(float(p), t.get_text()) for p, t in zip(places, labels, strict=True)]


def titles(figure: Figure) -> list[str]:
    """All titles of a figure."""
    texts = [figure.get_suptitle(), *(axes.get_title() for axes in figure.axes)]
    return [text for text in texts if text]


# --- The functions --------------------------------------------------------------------------------


def codes_as_images(z0: Array, z1: Array) -> Array:
    """Images of which pixel (0, 0) is z[0] and pixel (0, 1) is z[1]."""
    images = np.zeros([len(z1), len(z0), SIDE, SIDE])
    images[..., 0, 0], images[..., 0, 1] = z0, z1[:, np.newaxis]
    return images


@pytest.mark.parametrize("upwards", [False, True])
def test_manifold_draws_row_i_column_j_at_its_code_and_names_it(upwards: bool) -> None:
    z0, z1 = np.array([-2.0, 0.5, 3.0]), np.array([-1.0, 0.0, 1.0, 2.0, 7.0])
    z1 = z1[::-1] if upwards else z1
    figure = plotting.manifold(codes_as_images(z0, z1), z0, z1, "A title", "gray")
    [axes] = figure.axes
    drawn = tiles(array_of(axes))
    assert drawn.shape[:2] == (5, 3)
    for i in range(5):
        for j in range(3):
            assert drawn[i, j, 0, :2].tolist() == [z0[j], z1[i]]
    assert axes.get_title() == "A title"
    direction = "upwards" if upwards else "downwards"
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("z[0]", f"z[1], {direction}")
    assert [i.get_cmap().name for i in axes.get_images()] == ["gray"]
    # A tick stands at the middle of every second tile and says that tile's z.
    assert ticks(axes, "x") == [(14.0, f"{MINUS}2.00"), (70.0, "3.00")]
    rows = [f"{MINUS}1.00", "1.00", "7.00"]
    expected = list(zip([14.0, 70.0, 126.0], reversed(rows) if upwards else rows, strict=True))
    assert ticks(axes, "y") == expected


def test_the_axis_of_the_total_is_that_of_the_objective() -> None:
    for module in (mlp_vae, conv_vae):
        assert module.PROGRAM.total_axis(module.Config()) == module.PROGRAM.total
    elbo = mlp_vae.Config(objective="elbo")
    assert mlp_vae.PROGRAM.total_axis(elbo) == ("ELBO, negated", "nats per image")


def test_image_grid_keeps_rows_columns_and_labels() -> None:
    images = np.random.RandomState(0).rand(3, 4, SIDE, SIDE)
    rows, columns = ["first", "second", "third\nof three"], ["0", "1", "2", "3"]
    figure = plotting.image_grid(images, "A title", "gray", rows, columns)
    [axes] = figure.axes
    np.testing.assert_array_equal(tiles(array_of(axes), gap=2), images)
    assert axes.get_title() == "A title"
    cell = SIDE + 2
    for axis, labels in (("y", rows), ("x", columns)):
        assert [text for _, text in ticks(axes, axis)] == labels
        for i, (place, _) in enumerate(ticks(axes, axis)):
            assert i * cell < place < (i + 1) * cell


def test_an_image_grid_without_labels_has_none() -> None:
    figure = plotting.image_grid(np.zeros([3, 4, SIDE, SIDE]), "A title", "gray")
    [axes] = figure.axes
    assert ticks(axes, "x") == ticks(axes, "y") == []


def test_side_by_side_has_left_on_the_left() -> None:
    left, right = np.random.RandomState(0).rand(2, 4, 4, SIDE, SIDE)
    figure = plotting.side_by_side(left, right, ("prior", "posterior"), "gray")
    assert titles(figure) == ["prior", "posterior"]
    first, second = figure.axes
    assert first.get_position().x1 <= second.get_position().x0
    np.testing.assert_array_equal(tiles(array_of(first), gap=2), left)
    np.testing.assert_array_equal(tiles(array_of(second), gap=2), right)


def test_reconstructions_stand_below_their_originals() -> None:
    originals, decoded = np.random.RandomState(0).rand(2, 30, SIDE, SIDE)
    figure = plotting.reconstructions(originals, decoded, "A title", "gray")
    [axes] = figure.axes
    drawn = tiles(array_of(axes), gap=2)
    assert drawn.shape[:2] == (6, 10)
    for n in range(30):
        row, column = divmod(n, 10)
        np.testing.assert_array_equal(drawn[2 * row, column], originals[n])
        np.testing.assert_array_equal(drawn[2 * row + 1, column], decoded[n])
    assert [text for _, text in ticks(axes, "y")] == ["test image", "reconstruction"] * 3
    assert titles(figure) == ["A title"]


def test_latent_scatter_puts_points_colours_and_names_where_they_belong() -> None:
    random = np.random.RandomState(0)
    z, labels = random.normal(size=(50, 2)), np.arange(50) % 10
    names = [f"class {chr(97 + i)}" for i in range(10)]
    figure = plotting.latent_scatter(z, labels, names, np.zeros([50, 2]))
    axes, bar = figure.axes
    [points] = axes.collections
    np.testing.assert_array_equal(points.get_offsets(), z)
    np.testing.assert_array_equal(points.get_array(), labels)
    # Ten classes, ten colours: neighbouring labels never share one.
    assert points.get_cmap().N == 10
    assert len(np.unique(points.to_rgba(np.arange(10)), axis=0)) == 10
    assert points.get_clim() == (-0.5, 9.5)  # a class's tick stands in the middle of its colour
    assert titles(figure) == [
        "Posterior means of the 50 test images,\nand the prior N(0, 1) at 1 σ"
    ]
    [circle] = axes.patches
    assert isinstance(circle, Circle)
    assert (circle.get_radius(), circle.get_center()) == (1.0, (0.0, 0.0))
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("z_mean[0]", "z_mean[1]")
    assert bar.get_ylabel() == "class"
    assert ticks(bar, "y") == [(float(i), f"{i} {name}") for i, name in enumerate(names)]
    assert [text.get_text() for text in axes.texts] == list("0123456789")
    for digit, text in enumerate(axes.texts):
        median = np.median(z[labels == digit], axis=0)
        np.testing.assert_array_equal(text.xy, median)  # type: ignore[attr-defined]
        np.testing.assert_array_equal(to_rgba(text.get_color()), points.to_rgba(np.array(digit)))
    assert axes.get_aspect() == 1.0  # a circle of one sigma is a circle


def test_latent_scatter_draws_the_priors_at_their_means_with_radius_one() -> None:

    means = np.random.RandomState(1).normal(0, 3, (10, 2))
    figure = plotting.latent_scatter(
        np.zeros([20, 2]), np.arange(20) % 10, "0123456789", np.tile(means, (2, 1))
    )
    axes = figure.axes[0]
    [points] = axes.collections
    circles = [p for p in axes.patches if isinstance(p, Circle)]
    assert len(circles) == len(axes.texts) == 10
    for digit, (circle, text) in enumerate(zip(circles, axes.texts, strict=True)):
        assert circle.get_radius() == 1.0
        np.testing.assert_array_equal(circle.get_center(), means[digit])
        assert text.get_text() == str(digit)
        np.testing.assert_array_equal(text.xy, means[digit])  # type: ignore[attr-defined]
        np.testing.assert_array_equal(circle.get_edgecolor(), points.to_rgba(np.array(digit)))


@pytest.mark.parametrize("rows", [1, 3, 60])
def test_curves_draw_the_columns_of_the_history_with_their_units(rows: int) -> None:
    history: list[Row] = [
        {"epoch": i + 1, "loss": 9.0 - i, "test": 9.5 - i, "reconstruction": 3.0 * i, "kl": i**2}
        for i in range(rows)
    ]
    total = {"loss": "training", "test": "the test set"}
    figure = plotting.curves(history, "epoch", ("ELBO", "nats"), total, "A title", "squares")
    assert figure.get_suptitle() == "A title"
    panels = [
        ("ELBO", "nats", total),
        ("Reconstruction", "squares", {"reconstruction": "training"}),
        ("KL", "nats per image", {"kl": "training"}),
    ]
    for axes, (name, unit, columns) in zip(figure.axes, panels, strict=True):
        assert (axes.get_title(), axes.get_ylabel()) == (name, unit)
        assert axes.get_xlabel() == "epoch"
        for line, column in zip(axes.lines, columns, strict=True):
            np.testing.assert_array_equal(line.get_xdata(), np.arange(rows) + 1)
            np.testing.assert_array_equal(line.get_ydata(), [r[column] for r in history])
            assert line.get_label() == columns[column]
        legend = axes.get_legend()
        shown = [t.get_text() for t in legend.get_texts()] if legend else []
        assert shown == (list(columns.values()) if len(columns) > 1 else [])
    if rows == 1:  # a single epoch must still be seen
        assert {line.get_marker() for axes in figure.axes for line in axes.lines} == {"o"}


def test_a_preview_shows_the_latest_frame_and_how_far_the_training_is() -> None:
    frame = np.arange(12, dtype=np.uint8).reshape(3, 4)
    history: list[Row] = [{"epoch": i, "loss": 9.0 - i} for i in (1, 2)]
    figure = plotting.preview(frame, history, "epoch", 50, ("Cost", "nats"), {"loss": "it"}, "Two")
    assert figure.get_suptitle() == "Two"
    samples, curve = figure.axes
    np.testing.assert_array_equal(samples.images[0].get_array(), frame)
    [line] = curve.lines
    np.testing.assert_array_equal(line.get_xydata(), [[1, 8], [2, 7]])
    assert (curve.get_title(), curve.get_ylabel()) == ("Cost", "nats")
    assert curve.get_xlim() == (0, 50)


# --- PNG ------------------------------------------------------------------------------------------


def one_of_each() -> dict[str, Figure]:
    """A figure from every function."""
    images = np.random.RandomState(0).rand(2, 3, SIDE, SIDE)
    z0, z1 = np.arange(3.0), np.arange(2.0)
    history: list[Row] = [
        {"step": i, "loss": 3.0 - i, "reconstruction": 2.0 - i, "kl": 1.0} for i in (1, 2)
    ]
    return {
        "manifold": plotting.manifold(images, z0, z1, "Title", "gray"),
        "image_grid": plotting.image_grid(images, "Title", "gray", ["a", "b"]),
        "side_by_side": plotting.side_by_side(images, images, ("Left", "Right"), "gray"),
        "reconstructions": plotting.reconstructions(images[0], images[0], "Title", "gray"),
        "latent_scatter": plotting.latent_scatter(
            np.zeros([10, 2]), np.arange(10), "0123456789", np.eye(10, 2)
        ),
        "curves": plotting.curves(history, "step", ("Loss", "nats"), {"loss": "it"}, "Title"),
        "preview": plotting.preview(
            np.eye(SIDE, dtype=np.uint8), history, "step", 9, ("Loss", "nats"), {"loss": "it"}, "A"
        ),
    }


FIGURES = sorted(
    name
    for name, function in vars(plotting).items()
    if not name.startswith("_")
    and getattr(function, "__annotations__", {}).get("return") == "Figure"
)


def test_one_of_each_is_one_of_each() -> None:
    """A new function that makes a figure is to be tested here as the others are."""
    assert sorted(one_of_each()) == FIGURES


@pytest.mark.parametrize("name", FIGURES)
def test_png_is_valid_and_the_same_bytes_twice(name: str) -> None:
    figure = one_of_each()[name]
    content = plotting.to_png(figure, "note")
    with Image.open(io.BytesIO(content)) as picture:
        picture.load()
        assert picture.format == "PNG"
        width, height = figure.get_size_inches() * plotting.DPI
        assert np.abs(np.array(picture.size) - [width, height]).max() <= 1
        assert len(np.unique(np.asarray(picture.convert("L")))) > 2  # something is drawn
    assert plotting.to_png(one_of_each()[name], "note") == content


def test_png_has_its_note() -> None:
    figure = one_of_each()["curves"]
    content = plotting.to_png(figure, "mlp_vae, seed 3")
    assert figure.get_supxlabel() == "mlp_vae, seed 3"
    assert content != plotting.to_png(one_of_each()["curves"], "mlp_vae, seed 4")


NO_PYPLOT = """
import sys
from tests.test_plotting import one_of_each
from common import plotting
for figure in one_of_each().values():
    plotting.to_png(figure, "note")
assert "matplotlib.pyplot" not in sys.modules, "pyplot was imported"
from matplotlib import pyplot
assert pyplot.get_fignums() == [], "pictures are registered"
"""


def test_nothing_is_registered_in_pyplot() -> None:
    python(NO_PYPLOT)


# --- The modules' pictures ------------------------------------------------------------------------
#
# Every decoder here shows its code: pixel (0, 0) is a function of z[0], pixel (0, 1) the same of
# z[1], pixel (0, 2) the label where the decoder sees it.


class ShowsCode:
    """A decoder of the convolutional modules: images [batch, 28, 28, 1] that show z."""

    layers = (SimpleNamespace(dtype="float32"),)

    def __call__(self, z: Any) -> Array:
        images = np.zeros([len(z), SIDE, SIDE, 1], np.float32)
        images[:, 0, :2, 0] = np.asarray(z)[:, :2]
        return images


@functools.cache
def data() -> Dataset:
    """A small data set of noise; MLPs hold the first 5,000 training images back."""
    random = np.random.RandomState(0)
    images = random.randint(0, 256, (5_240, SIDE, SIDE)).astype(np.uint8)
    labels = (np.arange(5_240) // 3 % 10).astype(np.uint8)
    train, test = slice(0, 5_200), slice(5_200, None)
    names = tuple("0123456789")
    return Dataset("mnist", names, images[train], labels[train], images[test], labels[test])


def made(module: Any, **settings: Any) -> Any:
    """The experiment of a module with seed 0."""
    return module.experiment(module.Config(**settings), data(), Seeded(0))


def assign(variable: Any, entries: dict[tuple[int, int], float]) -> None:
    value = np.zeros(variable.shape, np.float32)
    for place, number in entries.items():
        value[place] = number
    variable.assign(value)


def show_code_mlp(model: Any) -> None:
    """relu(z) - relu(-z) is z; a fifth unit carries the label where there is one."""
    assign(model.w2, {(0, 0): 1, (0, 1): -1, (1, 2): 1, (1, 3): -1})
    assign(model.w3, {(0, 0): 1, (1, 0): -1, (2, 1): 1, (3, 1): -1, (4, 2): 1})
    if hasattr(model, "y_w2"):
        assign(model.y_w2, {(digit, 4): digit for digit in range(10)})


def show_code_rmsprop(model: Any) -> None:
    """sigmoid(tanh(z)): rising in z."""
    assign(model.decoder_w, {(0, 0): 1, (1, 1): 1})
    assign(model.out_w, {(0, 0): 1, (1, 1): 1})
    for bias in ("decoder_b", "out_b"):
        getattr(model, bias).assign(np.zeros(getattr(model, bias).shape))


def progress() -> Progress:
    """A history of two rounds, with every column that any module draws."""
    columns = ("kl", "loss", "reconstruction", "last_loss", "val_loss", "test_elbo", "seconds")
    rows: list[Row] = [
        {"epoch": i, "step": 100 * i, **{c: 10.0 * k + i for k, c in enumerate(columns)}}
        for i in (1, 2)
    ]
    frames = [np.full([SIDE, SIDE], i, np.uint8) for i in range(3)]
    return Progress(step=2, losses=np.ones([2, 3]), rows=rows, frames=frames)


@functools.cache
def pictures_of(module: Any) -> tuple[Any, dict[str, Any]]:
    """(experiment, pictures) of a module whose decoder shows its code."""
    settings: dict[Any, dict[str, Any]] = {
        mlp_vae: {"hidden": 5},
        mlp_cvae: {"hidden": 5, "digit": 3},
        rmsprop_vae: {"hidden": 5},
        conv_vae: {"filters": 2},
        elbo_cvae: {"latent_dim": 4},
        tfp_cvae: {"base_depth": 2},
    }
    experiment = made(module, **settings[module])
    if module in (mlp_vae, mlp_cvae):
        show_code_mlp(experiment.model)
    elif module is rmsprop_vae:
        show_code_rmsprop(experiment.model)
    else:
        experiment = shows_code(experiment)
    return experiment, drawn_by(module, experiment)


def shows_code(experiment: Any) -> Any:
    """The experiment of a convolutional module with another decoder."""
    model = experiment.model._replace(decoder=ShowsCode())

    def pictures_of(z: Array, labels: Array) -> Array:
        images = np.zeros([len(z), SIDE, SIDE])
        images[:, 0, :2], images[:, 0, 2] = z[:, :2], labels
        return images

    return dataclasses.replace(experiment, model=model, pictures_of=pictures_of)


def drawn_by(module: Any, experiment: Any) -> dict[str, Any]:
    """The pictures of a run: those that every run draws, and the document's."""
    posterior = encode_test_set(experiment)
    usual = usual_pictures(module.PROGRAM, experiment, progress(), posterior)
    return usual | module.pictures(experiment, progress())


def identity(z: Array) -> Array:
    return z


def sigmoid_of_tanh(z: Array) -> Array:
    return np.asarray(special.expit(np.tanh(z)))


# For each module with a manifold: its picture, the axis of the document, whether rows are flipped,
# and what its decoder makes of a code.
MANIFOLDS: list[tuple[Any, str, Array, bool, Callable[[Array], Array]]] = [
    (mlp_vae, "manifold.png", QUANTILES, False, identity),
    (mlp_cvae, "manifold-3.png", QUANTILES, False, identity),
    (conv_vae, "manifold.png", QUANTILES, False, special.expit),
    (rmsprop_vae, "manifold.png", np.linspace(-3, 3, 20), True, sigmoid_of_tanh),
]


@pytest.mark.parametrize(
    ("module", "name", "axis", "flipped", "shown"),
    MANIFOLDS,
    ids=[m.__name__.split(".")[1] for m, *_ in MANIFOLDS],
)
def test_a_known_code_lands_where_the_document_puts_it(
    module: Any, name: str, axis: Array, flipped: bool, shown: Callable[[Array], Array]
) -> None:
    """Row i, column j decodes z = [axis[j], axis[i]]; 003 draws row i at n - i - 1."""
    _, pictures = pictures_of(module)
    [axes] = pictures[name].axes
    drawn = tiles(array_of(axes))
    n = len(axis)
    assert drawn.shape[:2] == (n, n)
    for i in range(n):
        for j in range(n):
            code = drawn[n - i - 1 if flipped else i, j, 0, :2]
            np.testing.assert_allclose(code, shown(axis[[j, i]]), atol=FLOAT32)
    assert axes.get_images()[0].get_cmap().name == ("gray" if flipped else "Greys_r")


@pytest.mark.parametrize("digit", [None, 5])
def test_tfp_cvae_draws_the_grid_around_the_class_mean(digit: int | None) -> None:
    """The document shows 8 and 9; z = class mean + [q[j], q[i]]."""
    experiment = made(tfp_cvae, base_depth=2, digit=digit)
    means = tfp_cvae.class_means(experiment.model)
    assert np.ptp(means, axis=0).min() > 0.1  # the classes differ
    pictures: dict[str, Any] = tfp_cvae.pictures(shows_code(experiment), progress())
    expected = {8, 9} if digit is None else {digit}
    assert {k for k in pictures if k.startswith("class-")} == {f"class-{d}.png" for d in expected}
    for d in expected:
        figure = pictures[f"class-{d}.png"]
        assert not isinstance(figure, bytes)
        [axes] = figure.axes
        drawn = tiles(array_of(axes))
        z = np.stack(np.meshgrid(means[d, 0] + QUANTILES, means[d, 1] + QUANTILES), axis=-1)
        np.testing.assert_allclose(drawn[:, :, 0, :2], z, atol=FLOAT32)
        assert str(d) in axes.get_title()
        for axis, first in zip("xy", z[0, 0], strict=True):
            assert ticks(axes, axis)[0] == (14.0, f"{first:.2f}".replace("-", MINUS))


@pytest.mark.parametrize("module", [mlp_cvae, tfp_cvae], ids=["mlp_cvae", "tfp_cvae"])
def test_samples_are_the_same_codes_around_the_prior_mean_of_every_digit(module: Any) -> None:
    experiment, pictures = pictures_of(module)
    [axes] = pictures["samples.png"].axes
    drawn = tiles(array_of(axes), gap=2)
    means = tfp_cvae.class_means(experiment.model) if module is tfp_cvae else np.zeros([10, 2])
    z = means[:, np.newaxis] + experiment.chance.codes("sheet", (12, 2))
    np.testing.assert_allclose(drawn[:, :, 0, :2], z, atol=FLOAT32)
    assert [text for _, text in ticks(axes, "y")] == [f"asked for {digit}" for digit in range(10)]
    if module is mlp_cvae:  # whose decoder sees the label
        assert (drawn[:, :, 0, 2] == np.arange(10)[:, np.newaxis]).all()
        manifold = tiles(array_of(pictures["manifold-3.png"].axes[0]))
        assert (manifold[:, :, 0, 2] == 3).all()


def test_samples_of_elbo_cvae_show_the_prior_and_the_posterior() -> None:
    experiment, pictures = pictures_of(elbo_cvae)
    left, right = (tiles(array_of(axes), gap=2) for axes in pictures["samples.png"].axes)
    prior = experiment.chance.codes("fresh", (4, 4, 4))
    x = elbo_cvae.inputs(data().test_images[:16], "float32")
    mean, log_var = (part.numpy() for part in elbo_cvae.encode(experiment.model, x))
    noise = experiment.chance.codes("reparameterize", (16, 4))
    posterior = (mean + np.exp(log_var / 2) * noise).reshape(4, 4, 4)
    np.testing.assert_allclose(left[..., 0, :2], special.expit(prior[..., :2]), atol=FLOAT32)
    np.testing.assert_allclose(right[..., 0, :2], special.expit(posterior[..., :2]), atol=FLOAT32)
    assert [("prior" in t, "posterior" in t) for t in titles(pictures["samples.png"])] == [
        (True, False),
        (False, True),
    ]


def grey(values: Array) -> Array:
    return np.rint(np.clip(values, 0, 1) * 255)


@pytest.mark.parametrize(
    ("module", "axis", "flipped", "shown"),
    [
        (mlp_vae, stats.norm.ppf(np.linspace(0.05, 0.95, 10)), False, identity),
        (rmsprop_vae, np.linspace(-3, 3, 10), True, sigmoid_of_tanh),
        (conv_vae, stats.norm.ppf(np.linspace(0.05, 0.95, 10)), False, special.expit),
    ],
    ids=["mlp_vae", "rmsprop_vae", "conv_vae"],
)
def test_the_gifs_manifold_lies_as_the_picture_does(
    module: Any, axis: Array, flipped: bool, shown: Callable[[Array], Array]
) -> None:
    experiment, _ = pictures_of(module)
    z = np.stack(np.meshgrid(axis, axis), axis=-1)
    frame = conv_vae.frame(experiment.model) if module is conv_vae else experiment.frame()
    drawn = tiles(frame)[:, :, 0, :2]
    np.testing.assert_array_equal(drawn, grey(shown(z[::-1] if flipped else z)))


def test_the_frames_of_mlp_cvae_have_a_column_for_each_digit() -> None:
    experiment, _ = pictures_of(mlp_cvae)
    drawn = tiles(experiment.frame())
    assert drawn.shape[:2] == (6, 10)
    codes = experiment.chance.codes("frame", (6, 1, 2))
    np.testing.assert_array_equal(drawn[:, :, 0, :2], np.repeat(grey(codes), 10, axis=1))
    np.testing.assert_array_equal(drawn[:, :, 0, 2], np.tile(grey(np.arange(10)), (6, 1)))


def test_the_frames_of_tfp_cvae_have_a_column_for_each_digit() -> None:
    experiment, _ = pictures_of(tfp_cvae)
    means = tfp_cvae.class_means(experiment.model)
    eps = np.random.RandomState(0).rand(6, 10, 2) * 0.1 - means.min()
    drawn = tiles(tfp_cvae.frame(experiment.model, eps))
    assert drawn.shape[:2] == (6, 10)
    np.testing.assert_allclose(drawn[:, :, 0, :2], grey(means + eps), atol=1)


def test_the_frames_of_elbo_cvae_are_stretched_as_imshow_does() -> None:
    experiment, _ = pictures_of(elbo_cvae)
    codes = np.random.RandomState(0).standard_normal((4, 4, experiment.latent_dim))
    codes[0, 0] = 0  # decoded into a picture of one grey
    drawn = tiles(elbo_cvae.frame(experiment.model, codes), gap=2)
    for picture, shown in zip(
        elbo_cvae.pictures_of(experiment.model, codes).reshape(16, SIDE, SIDE),
        drawn.reshape(16, SIDE, SIDE),
        strict=True,
    ):
        np.testing.assert_allclose(shown, 255 * Normalize()(picture), atol=0.501)


def test_the_pictures_of_each_epoch_are_its_frames() -> None:
    _, pictures = pictures_of(elbo_cvae)
    epochs = {name: png for name, png in pictures.items() if name.startswith("epochs/")}
    assert list(epochs) == [f"epochs/image_at_epoch_{i:04d}.png" for i in range(3)]
    for png, frame in zip(epochs.values(), progress().frames, strict=True):
        np.testing.assert_array_equal(np.asarray(Image.open(io.BytesIO(png))), frame)


ALL = [importlib.import_module(f"reproductions.{name}") for name in MODULES]


@pytest.mark.parametrize("module", ALL, ids=MODULES)
def test_reconstructions_stand_below_their_test_images(module: Any) -> None:
    experiment, pictures = pictures_of(module)
    [axes] = pictures["reconstructions.png"].axes
    drawn = tiles(array_of(axes), gap=2)
    assert drawn.shape[:2] == (6, 10)
    assert axes.get_images()[0].get_clim() == (0, 1)
    images, labels = data().test_images[:30], data().test_labels[:30]
    z_mean = encode_test_set(experiment).z_mean[:30]
    if module is elbo_cvae:  # which shows what it trains on, by its own decoder
        images = 255 * (images >= 127.5)
        np.testing.assert_allclose(
            drawn[1::2].reshape(30, SIDE, SIDE)[:, 0, :2],
            special.expit(z_mean[:, :2]), atol=FLOAT32,
        )  # fmt: skip
    else:
        decoded = experiment.pictures_of(z_mean, labels)
        np.testing.assert_allclose(drawn[1::2].reshape(decoded.shape), decoded, atol=FLOAT32)
    np.testing.assert_allclose(drawn[::2].reshape(images.shape), images / 255, atol=FLOAT32)


LINES = {  # of the first panel of curves: the legend, and the column of the history
    mlp_vae: {"mean of the epoch": "loss", "last batch, as printed": "last_loss"},
    mlp_cvae: {"mean of the epoch": "loss", "last batch, as printed": "last_loss"},
    conv_vae: {"training": "loss", "validation": "val_loss"},
    elbo_cvae: {"training": "loss", "test": "test_elbo"},  # the first with the other sign
    rmsprop_vae: {"mean of 100 steps": "loss", "last of them": "last_loss"},
    tfp_cvae: {"training": "loss", "validation": "val_loss"},
}


@pytest.mark.parametrize("module", ALL, ids=MODULES)
def test_curves_are_what_their_legends_say_and_lie_inside_their_panels(module: Any) -> None:
    _, pictures = pictures_of(module)
    rows = progress().rows
    panels = pictures["curves.png"].axes
    columns = [LINES[module], {"training": "reconstruction"}, {"training": "kl"}]
    for axes, expected in zip(panels, columns, strict=True):
        low, high = axes.get_ylim()
        for line, (legend, column) in zip(axes.lines, expected.items(), strict=True):
            sign = -1 if (module, column) == (elbo_cvae, "loss") else 1
            values = [sign * row[column] for row in rows]
            assert line.get_label() == legend
            assert list(line.get_xdata()) == [row[axes.get_xlabel()] for row in rows]
            assert list(line.get_ydata()) == values
            assert low <= min(values) < max(values) <= high


@pytest.mark.parametrize("module", [m for m in ALL if m is not elbo_cvae])
def test_the_scatters_circles_are_the_priors(module: Any) -> None:
    experiment, pictures = pictures_of(module)
    circles = [p for p in pictures["latent.png"].axes[0].patches if isinstance(p, Circle)]
    expected = tfp_cvae.class_means(experiment.model) if module is tfp_cvae else [[0, 0]]
    np.testing.assert_allclose([c.center for c in circles], expected, atol=FLOAT32)
    assert {c.radius for c in circles} == {1.0}


@pytest.mark.parametrize("module", ALL, ids=MODULES)
def test_every_figure_has_titles_labels_and_units(module: Any) -> None:
    """A picture may do without axis labels, a plot may not; reconstructions name their rows."""
    _, pictures = pictures_of(module)
    drawn = {name: f for name, f in pictures.items() if not isinstance(f, bytes)}
    assert {"curves.png", "reconstructions.png"} <= drawn.keys()
    for name, figure in drawn.items():
        assert titles(figure), f"{name} has no title"
        for axes in figure.axes:
            if axes.lines or axes.collections:
                is_bar = axes.get_label() == "<colorbar>"
                assert axes.get_ylabel(), f"{name}: no label along y"
                assert is_bar or axes.get_xlabel(), f"{name}: no label along x"
    for axes in drawn["curves.png"].axes:
        assert "per image" in axes.get_ylabel() or "per batch" in axes.get_ylabel()
        assert axes.get_xlabel() == ("step" if module is rmsprop_vae else "epoch")
