"""The pictures and films of the page: read, decoded, and encoded again for embedding."""

from __future__ import annotations

import base64
import io
import math
import struct
from collections.abc import Sequence
from pathlib import Path
from typing import TypedDict

import numpy as np
from PIL import Image

from common.pictures import CAPTION_HEIGHT, tile

MAX_FRAMES = 120  # of a film: a longer GIF is thinned out evenly
MAX_WIDTH = 1000  # pixels of a picture: a wider one is scaled down
MAX_PIXELS = 2**28  # of a film's frames together, before they are scaled down
FILM_QUALITY, PICTURE_QUALITY = 80, 90  # of WebP; pictures beside the original's are lossless

# What reading a damaged picture may raise.
UNREADABLE = (
    OSError, ValueError, SyntaxError, EOFError, IndexError, KeyError, TypeError, struct.error,
    MemoryError, Image.DecompressionBombError,
)  # fmt: skip


class Picture(TypedDict):
    """An image, encoded."""

    src: str  # a data URI
    width: int  # pixels
    height: int


class Film(TypedDict):
    """The frames of a GIF on one sheet, row by row."""

    sheet: Picture
    columns: int
    width: int  # of a frame, pixels
    height: int
    labels: list[str]  # one for each frame


def read_sheet(path: Path) -> Picture:
    """Reads a sheet of grey images that an original drew, every pixel as it is."""
    with Image.open(path, formats=["PNG"]) as image:
        return encode(image.convert("L"))


def read_picture(path: Path, counterpart: Picture | None = None) -> Picture:
    """Reads a figure; if the original drew it, too, its grid alone and of the original's size."""
    with Image.open(path, formats=["PNG"]) as file:
        image = file.convert("RGB")
    grid = inside_axes(image.convert("L")) if counterpart else None
    if counterpart and grid:
        size = counterpart["width"], counterpart["height"]
        return encode(grid.resize(size, Image.Resampling.LANCZOS))
    if image.width > MAX_WIDTH:
        image.thumbnail((MAX_WIDTH, 10 * MAX_WIDTH))
    return encode(image, PICTURE_QUALITY)


def inside_axes(figure: Image.Image) -> Image.Image | None:
    """What a figure shows within its axes, which end at the outermost long dark lines.

    None if it has no such lines.
    """
    dark = np.asarray(figure) < 200
    lines = [np.flatnonzero(dark.mean(axis=axis) > 0.8) for axis in (0, 1)]
    if not all(map(len, lines)):
        return None
    (left, right), (top, bottom) = ((int(found[0]), int(found[-1])) for found in lines)
    if min(bottom - top, right - left) < 0.5 * min(figure.size):
        return None
    return figure.crop((left + 1, top + 1, right, bottom))


def read_film(path: Path, labels: Sequence[str]) -> tuple[Film, Picture]:
    """Cuts a GIF into its frames and lays them out on one sheet.

    The captions are cut off, the magnification of the frames is undone: both are the page's.

    Args:
      path: training.gif of a run.
      labels: a name for each frame; not used if there are more or fewer frames.

    Returns:
      The film, and its last frame as a small picture.
    """
    with Image.open(path, formats=["GIF"]) as gif:
        if gif.height <= CAPTION_HEIGHT:
            raise ValueError(f"{path} has no room for a frame")
        count = getattr(gif, "n_frames", 1)
        if len(labels) != count:
            labels = [f"picture {i + 1}" for i in range(count)]
        kept = np.unique(np.linspace(0, count - 1, min(count, MAX_FRAMES)).round().astype(int))
        if len(kept) * gif.width * gif.height > MAX_PIXELS:
            raise ValueError(f"{path} is too large")
        frames = []
        for i in kept:
            gif.seek(int(i))
            frames.append(np.asarray(gif.convert("L"))[:-CAPTION_HEIGHT])
    stack = _without_magnification(np.stack(frames))
    count, height, width = stack.shape
    columns = math.ceil(math.sqrt(count))
    rows = math.ceil(count / columns)
    sheet = np.zeros((rows * columns, height, width), np.uint8)
    sheet[:count] = stack
    picture = Image.fromarray(tile(sheet.reshape(rows, columns, height, width)))
    last = Image.fromarray(stack[-1])
    last.thumbnail((160, 160))
    film: Film = {
        "sheet": encode(picture, FILM_QUALITY),
        "columns": columns,
        "width": width,
        "height": height,
        "labels": [labels[i] for i in kept],
    }
    return film, encode(last, PICTURE_QUALITY)


def _without_magnification(frames: np.ndarray) -> np.ndarray:
    """Undoes the repetition of pixels in frames [n, height, width], as far as nothing is lost."""
    for factor in range(16, 1, -1):
        small = frames[:, ::factor, ::factor]
        again = small.repeat(factor, axis=1).repeat(factor, axis=2)
        if again.shape == frames.shape and np.array_equal(again, frames):
            return small
    return frames


def encode(image: Image.Image, quality: int | None = None) -> Picture:
    """Encodes an image as WebP: lossless if no quality is given."""
    content = io.BytesIO()
    if quality is None:
        image.save(content, "WEBP", lossless=True, method=6)
    else:
        image.save(content, "WEBP", quality=quality, method=6)
    data = base64.b64encode(content.getvalue()).decode()
    return {
        "src": f"data:image/webp;base64,{data}", "width": image.width, "height": image.height
    }  # fmt: skip
