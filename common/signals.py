"""Signals handled in another way for a while."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType


@contextmanager
def handled(by: Callable[[int, FrameType | None], object], *numbers: int) -> Iterator[None]:
    """Hands signals to `by`, and afterwards to who had them before.

    Signals belong to the main thread; in others this does nothing.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.signal(number, by) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
