"""Settings of a module: the fields of its Config, with meaning, unit, bounds and choices.

A Config is checked when it is made, so a wrong value is refused from Python as it is from the
command line, whose options are made from the same fields.
"""

from __future__ import annotations

import dataclasses
import numbers
import types
import typing
from collections.abc import Sequence
from typing import Any

from common.errors import BadInput

MAX_SEED = 2**63 - 1


def setting(default: float, text: str, at_least: float, at_most: float) -> Any:
    """A number of the document, with its meaning, unit and bounds."""
    return dataclasses.field(
        default=default, metadata={"text": text, "bounds": (at_least, at_most), "variant": False}
    )


def variant(
    default: float | None, text: str, at_least: float, at_most: float, trains: bool = True
) -> Any:
    """A number that the document does not have; its default changes nothing.

    Args:
      trains: whether it changes the training, and not only what is drawn.
    """
    bounds = (at_least, at_most)
    metadata = {"text": text, "bounds": bounds, "variant": True, "trains": trains}
    return dataclasses.field(default=default, metadata=metadata)


def choice(options: Sequence[str], text: str) -> Any:
    """A named variant; the first option is the document's."""
    return dataclasses.field(
        default=options[0], metadata={"text": text, "options": options, "variant": True}
    )


class Settings:
    """Base of every Config: a frozen dataclass whose fields are made by the functions above."""

    def __post_init__(self) -> None:
        """Checks the values, and makes plain numbers of NumPy's.

        Raises:
          BadInput: one of them is no number, out of bounds or no choice.
        """
        hints = typing.get_type_hints(type(self))
        for item in dataclasses.fields(self):  # type: ignore[arg-type]
            try:
                value = _checked(item, number_type(hints[item.name]), getattr(self, item.name))
            except ValueError as error:
                raise BadInput(f"{item.name}: {error}") from None
            object.__setattr__(self, item.name, value)  # the dataclass is frozen

    @property
    def trained(self) -> dict[str, Any]:
        """The settings that change the training."""
        fields = dataclasses.fields(self)  # type: ignore[arg-type]
        return {f.name: getattr(self, f.name) for f in fields if f.metadata.get("trains", True)}


def _checked(item: dataclasses.Field[Any], kind: type, value: Any) -> Any:
    """The value of a field. Raises ValueError, with a sentence, if it is not allowed."""
    if "options" in item.metadata:
        if value not in item.metadata["options"]:
            raise ValueError(f"{value!r} is none of {', '.join(item.metadata['options'])}")
        return value
    if value is None and item.default is None:
        return value
    return checked_number(kind, value, *item.metadata["bounds"])


def checked_number(kind: type, value: Any, low: float, high: float) -> Any:
    """The value as an int or a float.

    Raises:
      ValueError: with a sentence; it is no number of this kind, or out of bounds.
    """
    abstract = numbers.Integral if kind is int else numbers.Real
    number = isinstance(value, abstract) and not isinstance(value, bool)
    if not number or not low <= value <= high:  # NaN and infinity fail this, too
        what = "a whole number" if kind is int else "a number"
        raise ValueError(f"{value!r} is not {what} from {low:,} to {high:,}")
    return kind(value)


def check_whole(name: str, value: Any, high: int) -> int:
    """A value as an int.

    Raises:
      BadInput: with its name; it is no whole number from 0 to `high`.
    """
    try:
        return checked_number(int, value, 0, high)
    except ValueError as error:
        raise BadInput(f"{name}: {error}") from None


def number_type(hint: Any) -> type:
    """int for `int | None`, and so on."""
    if isinstance(hint, types.UnionType):
        return next(t for t in typing.get_args(hint) if t is not type(None))
    return hint
