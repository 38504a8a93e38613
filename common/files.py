"""Files that are written whole or not at all."""

from __future__ import annotations

import contextlib
import os
import secrets
import time
from pathlib import Path


def write_atomically(path: Path, content: bytes | str) -> None:
    """Replaces `path` by `content` in one step: a reader sees the old file or the new one.

    The content is on the disk before the name is. A kill leaves at most a file beside `path`, whose
    name is a dot, that of `path`, a dot and random digits.

    Raises:
      OSError: the disk is full, or the folder cannot be written; `path` is as it was.
    """
    data = content.encode() if isinstance(content, str) else content
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    try:
        with temporary.open("xb") as stream:
            stream.write(data)
            stream.flush()
            os.fsync(stream.fileno())
        _replace(temporary, path)
    except BaseException as error:
        with contextlib.suppress(OSError):
            temporary.unlink()
        if isinstance(error, OSError):  # it names what the reader knows
            error.filename, error.filename2 = str(path), None
        raise


def _replace(temporary: Path, path: Path) -> None:
    """Waits a little where Windows refuses, because another program has the file open."""
    for seconds in (0.05, 0.1, 0.2, 0.4, 0.8):
        with contextlib.suppress(PermissionError):
            os.replace(temporary, path)
            return
        time.sleep(seconds)
    os.replace(temporary, path)
