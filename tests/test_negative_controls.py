"""Controls that must fail: each mistake, planted in a port on purpose, is rejected by lockstep."""

from __future__ import annotations

from typing import Any

import pytest

from common.errors import BadInput
from reproductions import conv_vae
from reproductions.evidence.controls import CONTROLS, Control
from reproductions.evidence.lockstep import follow
from reproductions.evidence.mistakes import planted
from reproductions.evidence.sharpness import eager
from tests.conftest import SLOW, Load, long_where, train_on

CASES = [
    (control, precision, latest)
    for control in CONTROLS
    for precision, latest in (("float32", control.float32), ("float64", control.float64))
    if latest is not None
]


@pytest.mark.parametrize(
    ("control", "precision", "latest"),
    long_where(lambda case: case[0].mistake.module in SLOW, CASES),
    ids=lambda v: f"{v.mistake.module}: {v.mistake.what}" if isinstance(v, Control) else str(v),
)
def test_the_wrong_variant_is_rejected(
    control: Control, precision: str, latest: int, whole: Load, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The steps run without a graph: for so few, making one takes longer."""
    train_on(monkeypatch, whole)
    with planted(control.mistake), eager():
        verdict = follow(control.mistake.module, precision, latest)
    assert verdict.first_bad_step is not None


def test_what_float32_cannot_see_float64_does() -> None:
    assert all(control.float64 is not None for control in CONTROLS)


def test_swapped_filters_do_not_even_fit(whole: Load, monkeypatch: pytest.MonkeyPatch) -> None:
    """conv_vae's transposed convolutions with 8, then 16 filters have other shapes."""
    good = conv_vae.keras.layers.Conv2DTranspose

    def swapped(filters: int, *args: Any, **options: Any) -> Any:
        return good({16: 8, 8: 16}.get(filters, filters), *args, **options)

    train_on(monkeypatch, whole)
    monkeypatch.setattr(conv_vae.keras.layers, "Conv2DTranspose", swapped)
    with pytest.raises(BadInput, match="variables are not those of conv_vae"):
        follow("conv_vae", "float64", steps=1)
