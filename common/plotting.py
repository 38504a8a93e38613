"""Arrays in, figures out. Nothing here shows, saves or keeps a figure; Jupyter shows them.

Matplotlib is imported where it is used, so that `--help` need not wait for it.
"""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from functools import cache
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from common.pictures import tile

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from common.training import Row

    Picture: TypeAlias = Figure | bytes  # bytes: of a file

DPI = 110
# Of the ten classes, here as in the explorer: colour-blind readers, too, tell them apart.
CLASSES = (
    "#332288", "#3c9fd0", "#2f9c8c", "#117733", "#85851f",
    "#c8931b", "#cc5f73", "#882255", "#aa4499", "#383838",
)  # fmt: skip


def to_png(figure: Figure, note: str) -> bytes:
    """Renders a figure as PNG.

    Args:
      figure: what to render.
      note: one line of provenance below the figure; "" for none.
    """
    if note:
        figure.supxlabel(note, x=0.99, ha="right", fontsize=7, color="0.45")
    content = io.BytesIO()
    figure.savefig(content, format="png", dpi=DPI)
    return content.getvalue()


def manifold(
    images: np.ndarray,
    z0: np.ndarray,
    z1: np.ndarray,
    title: str,
    cmap: str,
) -> Figure:
    """A grid of decoded codes: the image at (row i, column j) decodes z = [z0[j], z1[i]].

    Args:
      images: [len(z1), len(z0), height, width], values 0 .. 1 or beyond.
      z0: latent values along the columns.
      z1: latent values along the rows.
      title: of the figure.
      cmap: the document's colour map.
    """
    figure, axes = _figure(8.2, 8.6)
    height, width = images.shape[2:]
    axes.imshow(tile(images), cmap=cmap)
    every = slice(None, None, 2)
    axes.set_xticks((np.arange(len(z0)) * width + width / 2)[every], _numbers(z0[every]))
    axes.set_yticks((np.arange(len(z1)) * height + height / 2)[every], _numbers(z1[every]))
    direction = "downwards" if z1[0] < z1[-1] else "upwards"
    axes.set(xlabel="z[0]", ylabel=f"z[1], {direction}", title=title)
    axes.tick_params(labelsize=8)
    return figure


def image_grid(
    images: np.ndarray,
    title: str,
    cmap: str,
    row_labels: Sequence[str] = (),
    column_labels: Sequence[str] = (),
) -> Figure:
    """A sheet of images [rows, columns, height, width] with labels for its rows and columns.

    Values from 0 to 1 take the whole colour map, so that sheets can be compared.
    """
    rows, columns, height, width = images.shape
    lines = [line for label in row_labels for line in label.split("\n")]
    margin = 0.095 * max(map(len, lines), default=0)
    figure, axes = _figure(max(0.62 * columns + margin + 0.5, 3.6), 0.62 * rows + 1.0)
    axes.imshow(tile(images, gap=2), cmap=cmap, vmin=0, vmax=1)
    axes.set(title=title)
    axes.set_xticks(np.arange(len(column_labels)) * (width + 2) + width / 2, column_labels)
    axes.set_yticks(np.arange(len(row_labels)) * (height + 2) + height / 2, row_labels)
    axes.tick_params(length=0, labelsize=9, labeltop=True, labelbottom=False)
    _frameless(axes)
    return figure


def side_by_side(left: np.ndarray, right: np.ndarray, titles: tuple[str, str], cmap: str) -> Figure:
    """Two sheets of images [rows, columns, height, width] beside each other."""
    figure = _blank(9, 5)
    for axes, images, title in zip(figure.subplots(1, 2), (left, right), titles, strict=True):
        axes.imshow(tile(images, gap=2), cmap=cmap, vmin=0, vmax=1)
        axes.set(title=title, xticks=[], yticks=[])
        _frameless(axes)
    return figure


def reconstructions(images: np.ndarray, decoded: np.ndarray, title: str, cmap: str) -> Figure:
    """Test images with their reconstructions below them, ten to a row.

    Args:
      images: [n, height, width], n a multiple of ten.
      decoded: their reconstructions, the same shape.
      title: of the picture.
      cmap: Matplotlib's colour map.
    """
    columns = 10
    pairs = []
    for start in range(0, len(images), columns):
        pairs += [images[start : start + columns], decoded[start : start + columns]]
    labels = ["test image", "reconstruction"] * (len(pairs) // 2)
    return image_grid(np.stack(pairs), title, cmap, labels)


def latent_scatter(
    z: np.ndarray, labels: np.ndarray, class_names: Sequence[str], prior_means: np.ndarray
) -> Figure:
    """Latent means coloured by class, with a colour bar that names the classes, and the priors.

    Args:
      z: [n, 2].
      labels: [n], 0 .. 9.
      class_names: a name for each label.
      prior_means: [n, 2], the mean of the prior for each image. One prior for all is drawn as a
        circle of one standard deviation, and each class has its number at the median of its codes;
        a prior for each class is drawn as a numbered disc with its circle.
    """
    from matplotlib.colors import ListedColormap

    figure, axes = _figure(8.4, 7.2)
    classes = len(class_names)
    points = axes.scatter(
        z[:, 0], z[:, 1], c=labels, s=3, alpha=0.6, linewidths=0, rasterized=True,
        cmap=ListedColormap(CLASSES[:classes]), vmin=-0.5, vmax=classes - 0.5,
    )  # fmt: skip
    bar = figure.colorbar(points, ax=axes, ticks=range(classes), label="class")
    named = [f"{k} {name}".removesuffix(f" {k}") for k, name in enumerate(class_names)]
    bar.ax.set_yticklabels(named)
    bar.ax.invert_yaxis()  # the first class on top, as one reads
    if bar.solids is not None:
        bar.solids.set_alpha(1)
    title = f"Posterior means of the {len(z):,} test images"
    if np.ptp(prior_means, axis=0).any():
        _draw_class_priors(axes, labels, prior_means)
        title += ",\nand the learned priors N(mean, 1) at 1 σ"
    else:
        _number_classes(axes, z, labels)
        _circle(axes, prior_means[0], "black")
        title += ",\nand the prior N(0, 1) at 1 σ"
    axes.set(xlabel="z_mean[0]", ylabel="z_mean[1]", title=title)
    axes.set_aspect("equal", adjustable="datalim")
    return figure


def curves(
    rows: Sequence[Row],
    x: str,
    total: tuple[str, str],
    columns: Mapping[str, str],
    title: str,
    reconstruction_unit: str = "nats per image",
) -> Figure:
    """Curves of the history in three panels: the document's total, reconstruction, KL.

    Args:
      rows: the history.
      x: the column along the horizontal axis: "epoch" or "step".
      total: title and unit of the first panel.
      columns: what the first panel shows: columns of the history with their legends.
      title: of the figure.
      reconstruction_unit: of the second panel.
    """
    panels = [
        (*total, columns),
        ("Reconstruction", reconstruction_unit, {"reconstruction": "training"}),
        ("KL", "nats per image", {"kl": "training"}),
    ]
    figure = _blank(12.6, 4)
    figure.suptitle(title)
    for axes, (name, label, shown) in zip(figure.subplots(1, 3), panels, strict=True):
        _curve(axes, rows, x, (name, label), shown)
    kl = [row["kl"] for row in rows]  # from 0, so that a KL that hardly moves looks so
    figure.axes[2].set_ylim(min(0, 1.08 * min(kl)), max(0, 1.08 * max(kl)) or 1)
    return figure


def preview(
    frame: np.ndarray,
    rows: Sequence[Row],
    x: str,
    end: int,
    total: tuple[str, str],
    columns: Mapping[str, str],
    title: str,
) -> Figure:
    """How far a training is: the latest picture for the GIF, and the curve of the total so far.

    Args:
      frame: uint8 [height, width].
      rows: the history so far.
      x: the column along the horizontal axis: "epoch" or "step".
      end: the last epoch or step.
      total: title and unit of the curve.
      columns: what the curve shows: columns of the history with their legends.
      title: of the figure.
    """
    figure = _blank(9.6, 4.6)
    figure.suptitle(title)
    samples, curve = figure.subplots(1, 2)
    samples.imshow(frame, cmap="gray", vmin=0, vmax=255)
    samples.set(title="Samples", xticks=[], yticks=[])
    _curve(curve, rows, x, total, columns)
    curve.set_xlim(0, end)
    return figure


def _curve(
    axes: Axes, rows: Sequence[Row], x: str, total: tuple[str, str], columns: Mapping[str, str]
) -> None:
    for column, legend in columns.items():
        marker = "o" if len(rows) < 40 else None
        values = [row[column] for row in rows]
        axes.plot([row[x] for row in rows], values, marker=marker, ms=3, label=legend)
    axes.set(title=total[0], xlabel=x, ylabel=total[1])
    axes.grid(alpha=0.3)
    if len(columns) > 1:
        axes.legend()


def _draw_class_priors(axes: Axes, labels: np.ndarray, prior_means: np.ndarray) -> None:
    for digit in np.unique(labels):
        mean = prior_means[np.argmax(labels == digit)]
        _circle(axes, mean, CLASSES[digit])
        axes.plot(*mean, "o", ms=13, mfc=CLASSES[digit], mec="black", mew=0.8)
        axes.annotate(str(digit), mean, ha="center", va="center", color="white", weight="bold")


def _number_classes(axes: Axes, z: np.ndarray, labels: np.ndarray) -> None:
    from matplotlib.patheffects import withStroke

    for k in np.unique(labels):
        axes.annotate(
            str(k), np.median(z[labels == k], axis=0), ha="center", va="center", weight="bold",
            color=CLASSES[k], size=13, path_effects=[withStroke(linewidth=3, foreground="white")],
        )  # fmt: skip


def _circle(axes: Axes, centre: np.ndarray, colour: Any) -> None:
    from matplotlib.patches import Circle

    axes.add_patch(Circle(tuple(centre), 1.0, fill=False, ec=colour, lw=1.6))


def _figure(width: float, height: float) -> tuple[Figure, Axes]:
    figure = _blank(width, height)
    return figure, figure.subplots()


def _blank(width: float, height: float) -> Figure:
    return _shown_by_jupyter()(figsize=(width, height), layout="constrained")


@cache
def _shown_by_jupyter() -> type[Figure]:
    """The class of figures here: without pyplot nothing is global, and nothing has to be closed."""
    from matplotlib.figure import Figure

    class ShownByJupyter(Figure):
        def _repr_png_(self) -> bytes:
            return to_png(self, "")

    return ShownByJupyter


def _frameless(axes: Axes) -> None:
    for spine in axes.spines.values():
        spine.set_visible(False)


def _numbers(values: np.ndarray) -> list[str]:
    return [f"{v:.2f}".replace("-", "\N{MINUS SIGN}") for v in values]
