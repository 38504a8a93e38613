"""Frames in, GIF out. A frame costs milliseconds: NumPy tiles and a Pillow caption, no figure."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

Array = np.ndarray

FRAME_MS = 200  # how long a frame is shown
HOLD_MS = 3000  # how long the last one is
CAPTION_HEIGHT = 22  # pixels
GREYS = 32  # levels of grey: as good to the eye in a moving picture, and a third of the bytes
WIDTH = 420  # pixels; smaller frames are magnified by whole numbers up to this


def tile(images: Array, gap: int = 0) -> Array:
    """Puts images [rows, columns, height, width] side by side: one image [rows*h, columns*w]."""
    rows, columns, height, width = images.shape
    if gap:
        pad = [(0, 0), (0, 0), (0, gap), (0, gap)]
        images = np.pad(images, pad)
        height, width = height + gap, width + gap
    canvas = images.transpose(0, 2, 1, 3).reshape(rows * height, columns * width)
    return canvas[: canvas.shape[0] - gap, : canvas.shape[1] - gap]


def to_uint8(images: Array) -> Array:
    """Pixel values, clipped to 0 .. 1, as grey levels 0 .. 255."""
    return np.rint(np.clip(images, 0, 1) * 255).astype(np.uint8)


def png(image: Array) -> bytes:
    """An image, uint8 [height, width], as PNG."""
    import imageio.v3 as iio

    return iio.imwrite("<bytes>", image, extension=".png")


def gif(frames: Sequence[Array], captions: Sequence[str]) -> bytes:
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


def _captioned(frame: Array, caption: str, scale: int) -> Array:
    from PIL import Image, ImageDraw, ImageFont

    height, width = frame.shape[0] * scale, frame.shape[1] * scale
    picture = Image.new("L", (width, height + CAPTION_HEIGHT), 255)
    picture.paste(Image.fromarray(frame).resize((width, height), Image.Resampling.NEAREST))
    font = ImageFont.load_default(size=13)
    ImageDraw.Draw(picture).text((width // 2, height + 3), caption, 0, font, anchor="ma")
    grey = np.rint(np.asarray(picture) / 255 * (GREYS - 1))
    return np.rint(grey * 255 / (GREYS - 1)).astype(np.uint8)
