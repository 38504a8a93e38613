"""Frames, tiles and the GIF's timing, read back with Pillow."""

from __future__ import annotations

import io
import math

import numpy as np
import pytest
from PIL import Image, ImageSequence

from common import pictures
from common.pictures import (
    CAPTION_HEIGHT,
    FRAME_MS,
    GREYS,
    HOLD_MS,
    WIDTH,
    gif,
    png,
    tile,
    to_uint8,
)
from reproductions import elbo_cvae

Array = np.ndarray


def numbered(rows: int, columns: int, height: int = 3, width: int = 4) -> Array:
    """Images whose pixels tell row, column and place: 1000 row + 100 column + 10 y + x, plus 1."""
    r, c, y, x = np.ogrid[:rows, :columns, :height, :width]
    return 1000 * r + 100 * c + 10 * y + x + 1


@pytest.mark.parametrize("gap", [0, 1, 2])
def test_tile_puts_each_image_in_its_place(gap: int) -> None:
    images = numbered(2, 3)
    canvas = tile(images, gap)
    assert canvas.shape == (2 * 3 + gap, 3 * 4 + 2 * gap)  # gaps between images, none around them
    seen = np.zeros(canvas.shape, bool)
    for r in range(2):
        for c in range(3):
            place = np.s_[r * (3 + gap) :, c * (4 + gap) :]
            np.testing.assert_array_equal(canvas[place][:3, :4], images[r, c])
            seen[place][:3, :4] = True
    assert (canvas[~seen] == 0).all()


def test_grey_levels_are_rounded_and_clipped() -> None:
    """The linear output of mlp_vae leaves 0 .. 1."""
    values = np.array([-3.0, 0.0, 0.49 / 255, 0.51 / 255, 0.5, 1.0, 1.7])
    grey = to_uint8(values)
    assert grey.dtype == np.uint8
    assert grey.tolist() == [0, 0, 0, 1, 128, 255, 255]


def test_png_holds_the_image() -> None:
    image = np.random.RandomState(0).randint(0, 256, (5, 7)).astype(np.uint8)
    with Image.open(io.BytesIO(png(image))) as picture:
        assert picture.format == "PNG"
        np.testing.assert_array_equal(np.asarray(picture), image)


# --- The GIF --------------------------------------------------------------------------------------


def frame(seed: int, size: int = 28) -> Array:
    return np.random.RandomState(seed).randint(0, 256, (size, size)).astype(np.uint8)


def decode(content: bytes) -> tuple[list[Array], list[int], int | None]:
    """A GIF's pictures, how long each is shown in ms, and its loop count (0: endless)."""
    with Image.open(io.BytesIO(content)) as picture:
        assert picture.format == "GIF"
        frames = [
            (np.asarray(f.convert("L")), int(f.info["duration"]))
            for f in ImageSequence.Iterator(picture)
        ]
        loop = picture.info.get("loop")
    return [f for f, _ in frames], [d for _, d in frames], loop


def assert_shows(shown: Array, image: Array) -> None:
    """The picture is the image, magnified, to the nearest of the GIF's levels of grey."""
    half_a_step = 255 / (GREYS - 1) / 2
    expected = magnified(image).astype(float)
    np.testing.assert_allclose(shown[:-CAPTION_HEIGHT], expected, rtol=0, atol=half_a_step + 0.5)
    assert len(np.unique(shown)) <= GREYS


def magnified(image: Array) -> Array:
    scale = max(1, WIDTH // image.shape[1])
    return image.repeat(scale, axis=0).repeat(scale, axis=1)


@pytest.mark.parametrize("size", [28, 118, 280, 500])
def test_gif_shows_every_frame_magnified_by_a_whole_number(size: int) -> None:
    frames = [frame(i, size) for i in range(3)]
    pictures, _, _ = decode(gif(frames, ["a", "b", "c"]))
    assert len(pictures) == 3
    for shown, original in zip(pictures, frames, strict=True):
        expected = magnified(original)
        assert shown.shape == (expected.shape[0] + CAPTION_HEIGHT, expected.shape[1])
        assert_shows(shown, original)


def test_gif_has_the_caption_below_each_frame() -> None:
    same = frame(0)
    (one, other, last), _, _ = decode(gif([same] * 3, ["epoch 1", "epoch 2", ""]))
    below = np.s_[-CAPTION_HEIGHT:]
    assert not np.array_equal(one[below], other[below])
    assert (one[below] < 128).any()  # black on white
    assert (last[below] == 255).all()


def test_gif_loops_for_ever() -> None:
    assert decode(gif([frame(0), frame(1)], ["a", "b"]))[2] == 0


# Frames by seed: all different; neighbours that are the same; the last ones the same; all the same
@pytest.mark.parametrize("seeds", [[0, 1, 2, 3], [0, 1, 1, 2], [0, 1, 2, 2], [0, 0, 0], [0]])
def test_gif_lasts_as_long_as_its_frames_even_where_writers_merge_them(seeds: list[int]) -> None:
    pictures, durations, _ = decode(gif([frame(s) for s in seeds], ["same"] * len(seeds)))
    assert len(pictures) <= len(seeds)
    assert sum(durations) == FRAME_MS * (len(seeds) - 1) + HOLD_MS
    assert durations[-1] >= HOLD_MS
    assert HOLD_MS >= 5 * FRAME_MS
    assert all(d % FRAME_MS == 0 for d in durations[:-1])
    assert_shows(pictures[-1], frame(seeds[-1]))


def test_gif_wants_a_caption_for_each_frame() -> None:
    with pytest.raises(ValueError):
        gif([frame(0), frame(1)], ["a"])


# --- The document's choice of frames --------------------------------------------------------------


@pytest.mark.parametrize("pictures", [1, 2, 3, 4, 11, 97, 98, 101, 500])
def test_the_documents_gif_keeps_first_last_and_every_new_level(pictures: int) -> None:
    kept = elbo_cvae.document_frames(pictures)
    assert kept[0] == 0
    assert kept[-1] == pictures - 1
    assert sorted(set(kept)) == kept  # the final one once: it is held by its duration
    levels = [round(2 * math.sqrt(i)) for i in range(pictures)]
    for i in range(1, pictures - 1):
        new = levels[i] > max(levels[:i])
        assert (i in kept) == new, f"picture {i}"


def test_the_documents_gif_lasts_20_frames_and_the_hold() -> None:
    kept = elbo_cvae.document_frames(101)
    frames = [frame(i % 3) for i in kept]
    _, durations, _ = decode(pictures.gif(frames, [f"epoch {i}" for i in kept]))
    assert durations == [FRAME_MS] * 20 + [HOLD_MS]
