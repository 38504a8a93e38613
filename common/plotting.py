"""Arrays in, figures out. Nothing here shows, saves or keeps a figure.

Matplotlib and SciPy are imported where they are used, so that `--help` need not wait for them.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from common.animation import tile
from common.training import Row

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.colors import Colormap
    from matplotlib.figure import Figure

Array = np.ndarray

DPI = 110


def normal_quantiles(n: int) -> Array:
    """The axis of the documents' manifolds: standard normal quantiles from 5 % to 95 %, [n]."""
    from scipy.stats import norm

    return norm.ppf(np.linspace(0.05, 0.95, n))


def grid_codes(z0: Array, z1: Array) -> Array:
    """Codes [len(z1), len(z0), 2] for `manifold`: z = [z0[j], z1[i]] at row i, column j."""
    return np.stack(np.meshgrid(z0, z1), axis=-1)


def to_png(figure: Figure, note: str) -> bytes:
    """Renders a figure as PNG.

    Args:
      figure: what to render.
      note: one line of provenance below the figure.
    """
    figure.supxlabel(note, x=0.99, ha="right", fontsize=7, color="0.45")
    content = io.BytesIO()
    figure.savefig(content, format="png", dpi=DPI)
    return content.getvalue()


def manifold(
    images: Array,
    z0: Array,
    z1: Array,
    title: str,
    cmap: str,
    z1_upwards: bool = False,
) -> Figure:
    """A grid of decoded codes: the image at (row i, column j) decodes z = [z0[j], z1[i]].

    Args:
      images: [len(z1), len(z0), height, width], values 0 .. 1 or beyond.
      z0: latent values along the columns.
      z1: latent values along the rows.
      title: of the figure.
      cmap: the document's colour map.
      z1_upwards: draw row 0 at the bottom.
    """
    figure, axes = _figure(8.2, 8.6)
    height, width = images.shape[2:]
    rows = images[::-1] if z1_upwards else images
    axes.imshow(tile(rows), cmap=cmap)
    labels = z1[::-1] if z1_upwards else z1
    every = slice(None, None, 2)
    axes.set_xticks((np.arange(len(z0)) * width + width / 2)[every], _numbers(z0[every]))
    axes.set_yticks((np.arange(len(z1)) * height + height / 2)[every], _numbers(labels[every]))
    axes.set(xlabel="z[0]", ylabel="z[1]", title=title)
    axes.tick_params(labelsize=8)
    return figure


def image_grid(
    images: Array,
    title: str,
    cmap: str,
    row_labels: Sequence[str] = (),
    column_labels: Sequence[str] = (),
    cell: float = 0.62,
) -> Figure:
    """A sheet of images [rows, columns, height, width] with labels for its rows and columns."""
    rows, columns, height, width = images.shape
    lines = [line for label in row_labels for line in label.split("\n")]
    margin = 0.075 * max(map(len, lines), default=0)
    figure, axes = _figure(max(columns * cell + margin + 0.5, 3.6), rows * cell + 1.0)
    axes.imshow(tile(images, gap=2), cmap=cmap)
    axes.set(title=title)
    axes.set_xticks(np.arange(len(column_labels)) * (width + 2) + width / 2, column_labels)
    axes.set_yticks(np.arange(len(row_labels)) * (height + 2) + height / 2, row_labels)
    axes.tick_params(length=0, labelsize=9, labeltop=True, labelbottom=False)
    _frameless(axes)
    return figure


def side_by_side(left: Array, right: Array, titles: tuple[str, str], cmap: str) -> Figure:
    """Two sheets of images [rows, columns, height, width] beside each other."""
    figure = _blank(9, 5)
    for axes, images, title in zip(figure.subplots(1, 2), (left, right), titles, strict=True):
        axes.imshow(tile(images, gap=2), cmap=cmap)
        axes.set(title=title, xticks=[], yticks=[])
        _frameless(axes)
    return figure


def reconstructions(originals: Array, decoded: Array, title: str, cmap: str) -> Figure:
    """Originals [n, height, width] with their reconstructions below them, ten to a row."""
    columns = 10
    pairs = []
    for start in range(0, len(originals), columns):
        pairs += [originals[start : start + columns], decoded[start : start + columns]]
    labels = ["original", "reconstruction"] * (len(pairs) // 2)
    return image_grid(np.stack(pairs), title, cmap, labels)


def latent_scatter(
    z: Array,
    labels: Array,
    class_names: Sequence[str],
    title: str,
    prior_means: Array | None = None,
    cmap: str = "tab10",
) -> Figure:
    """Latent means [n, 2] coloured by class, with a colour bar that names the classes.

    Args:
      z: [n, 2].
      labels: [n], 0 .. 9.
      class_names: a name for each label.
      title: of the figure.
      prior_means: [classes, 2]: drawn as numbered discs with the circle of one standard deviation.
      cmap: a colour map; cut into as many colours as there are classes.
    """
    figure, axes = _figure(8.4, 7.2)
    classes = len(class_names)
    points = axes.scatter(
        z[:, 0], z[:, 1], c=labels, s=3, alpha=0.6, linewidths=0, rasterized=True,
        cmap=_discrete(cmap, classes), vmin=-0.5, vmax=classes - 0.5,
    )  # fmt: skip
    bar = figure.colorbar(points, ax=axes, ticks=range(classes), label="class")
    bar.ax.set_yticklabels(class_names)
    if bar.solids is not None:
        bar.solids.set_alpha(1)
    if prior_means is not None:
        _draw_priors(axes, prior_means, cmap)
    axes.set(xlabel="z_mean[0]", ylabel="z_mean[1]", title=title)
    axes.set_aspect("equal", adjustable="datalim")
    return figure


def curves(
    rows: Sequence[Row],
    x: str,
    total: str,
    unit: str,
    columns: dict[str, str],
    title: str,
    reconstruction_unit: str = "nats per image",
) -> Figure:
    """Curves of the history in three panels: the document's total, reconstruction, KL.

    Args:
      rows: the history.
      x: the column along the horizontal axis: "epoch" or "step".
      total: title of the first panel.
      unit: of the first panel.
      columns: what the first panel shows: columns of the history with their legends.
      title: of the figure.
      reconstruction_unit: of the second panel.
    """
    panels = [
        (total, unit, columns),
        ("Reconstruction", reconstruction_unit, {"reconstruction": "training"}),
        ("KL", "nats per image", {"kl": "training"}),
    ]
    figure = _blank(12.6, 4)
    figure.suptitle(title)
    for axes, (name, label, shown) in zip(figure.subplots(1, 3), panels, strict=True):
        for column, legend in shown.items():
            marker = "o" if len(rows) < 40 else None
            values = [row[column] for row in rows]
            axes.plot([row[x] for row in rows], values, marker=marker, ms=3, label=legend)
        axes.set(title=name, xlabel=x, ylabel=label)
        axes.grid(alpha=0.3)
        if len(shown) > 1:
            axes.legend()
    return figure


def total_axis(objective: str, total: str, unit: str) -> tuple[str, str]:
    """`total` and `unit` of `curves`: the document's, or those of the ELBO in its place."""
    return ("ELBO, negated", "nats per image") if objective == "elbo" else (total, unit)


def _draw_priors(axes: Axes, means: Array, cmap: str) -> None:
    from matplotlib.patches import Circle

    colours = _discrete(cmap, len(means))
    for digit, mean in enumerate(means):
        axes.add_patch(Circle(tuple(mean), 1.0, fill=False, ec=colours(digit), lw=1.6))
        axes.plot(*mean, "o", ms=13, mfc=colours(digit), mec="black", mew=0.8)
        axes.annotate(str(digit), mean, ha="center", va="center", color="white", weight="bold")


def _discrete(cmap: str, classes: int) -> Colormap:
    from matplotlib import colormaps

    return colormaps[cmap].resampled(classes)


def _figure(width: float, height: float) -> tuple[Figure, Axes]:
    figure = _blank(width, height)
    return figure, figure.subplots()


def _blank(width: float, height: float) -> Figure:
    from matplotlib.figure import Figure  # without pyplot: nothing global, nothing to close

    return Figure(figsize=(width, height), layout="constrained")


def _frameless(axes: Axes) -> None:
    for spine in axes.spines.values():
        spine.set_visible(False)


def _numbers(values: Array) -> list[str]:
    return [f"{v:.2f}".replace("-", "\N{MINUS SIGN}") for v in values]
