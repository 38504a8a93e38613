"""Arrays in, images and GIFs out: codes, tiles, frames, captions, and no figure.

A frame costs milliseconds: NumPy puts tiles together, and Pillow writes a caption.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from common.training import in_batches

FRAME_MS = 200  # how long a frame is shown
HOLD_MS = 3000  # how long the last one is
CAPTION_HEIGHT = 22  # pixels
GREYS = 32  # levels of grey: as good to the eye in a moving picture, and a third of the bytes
WIDTH = 560  # pixels; smaller frames are magnified by whole numbers up to this


def normal_quantiles(n: int) -> np.ndarray:
    """The axis of the documents' manifolds: standard normal quantiles from 5 % to 95 %, [n]."""
    from scipy.stats import norm

    return norm.ppf(np.linspace(0.05, 0.95, n))


def grid_codes(z0: np.ndarray, z1: np.ndarray) -> np.ndarray:
    """Codes [len(z1), len(z0), 2] of a grid: z = [z0[j], z1[i]] at row i, column j."""
    return np.stack(np.meshgrid(z0, z1), axis=-1)


def decoded(decode: Callable[[Any], Any], z: np.ndarray, dtype: str) -> np.ndarray:
    """Pictures [..., 28, 28] of codes z [..., latent], by a decoder of [batch, latent]."""
    flat = in_batches(decode, z.reshape(-1, z.shape[-1]).astype(dtype))
    return flat.reshape(*z.shape[:-1], 28, 28)


def tile(images: np.ndarray, gap: int = 0) -> np.ndarray:
    """Puts images [rows, columns, height, width] side by side into one image.

    Args:
      images: what to put there.
      gap: black (0) pixels between two images; there are none around the sheet.
    """
    rows, columns, height, width = images.shape
    if gap:
        pad = [(0, 0), (0, 0), (0, gap), (0, gap)]
        images = np.pad(images, pad)
        height, width = height + gap, width + gap
    canvas = images.transpose(0, 2, 1, 3).reshape(rows * height, columns * width)
    return canvas[: canvas.shape[0] - gap, : canvas.shape[1] - gap]


def to_uint8(images: np.ndarray) -> np.ndarray:
    """Pixel values, clipped to 0 .. 1, as grey levels 0 .. 255."""
    return np.rint(np.clip(images, 0, 1) * 255).astype(np.uint8)


def png(image: np.ndarray) -> bytes:
    """An image, uint8 [height, width], as PNG."""
    import imageio.v3 as iio

    return iio.imwrite("<bytes>", image, extension=".png")


def gif(frames: Sequence[np.ndarray], captions: Sequence[str]) -> bytes:
    """Writes an endlessly repeating GIF.

    The last frame is held by its duration: GIF writers merge identical frames, so repeating it
    would not do.

    Args:
      frames: uint8 [height, width] each.
      captions: a line of text for each, shown below it.
    """
    import imageio.v3 as iio

    scale = max(1, WIDTH // frames[0].shape[1])
    pictures = [_captioned(f, c, scale) for f, c in zip(frames, captions, strict=True)]
    durations = [FRAME_MS] * (len(pictures) - 1) + [HOLD_MS]
    duration = durations if len(pictures) > 1 else HOLD_MS  # a list of one is not understood
    return iio.imwrite("<bytes>", pictures, extension=".gif", duration=duration, loop=0, mode="L")


def _captioned(frame: np.ndarray, caption: str, scale: int) -> np.ndarray:
    from PIL import Image, ImageDraw, ImageFont

    height, width = frame.shape[0] * scale, frame.shape[1] * scale
    picture = Image.new("L", (width, height + CAPTION_HEIGHT), 255)
    picture.paste(Image.fromarray(frame).resize((width, height), Image.Resampling.NEAREST))
    font = ImageFont.load_default(size=13)
    ImageDraw.Draw(picture).text((width // 2, height + 3), caption, 0, font, anchor="ma")
    grey = np.rint(np.asarray(picture) / 255 * (GREYS - 1))
    return np.rint(grey * 255 / (GREYS - 1)).astype(np.uint8)
