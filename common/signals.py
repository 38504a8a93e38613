"""Handles signals in another way for a while."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType


@contextmanager
def signals_handled_by(
    handler: Callable[[int, FrameType | None], object], *numbers: int
) -> Iterator[None]:
    """Handles signals with `handler`; restores the previous handlers on exit.

    Signals belong to the main thread; in others this does nothing.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.signal(number, handler) for number in numbers}
    try:
        yield
    finally:
        for number, previous in before.items():
            signal.signal(number, previous)
