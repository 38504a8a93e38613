"""TensorFlow and its companions, loaded when a name in them is first used.

`from common.lazy import tf` costs nothing until `tf.something` is touched, so a module can be
written as its tutorial is and still answer `--help` at once. It also means that nothing can reach a
device before `common.devices` has set it up: the first touch goes through `devices.load`.
"""

from __future__ import annotations

from types import ModuleType
from typing import TYPE_CHECKING, Any

from common import devices


class _Lazy(ModuleType):
    """A stand-in for a module that imports the real one at the first attribute access."""

    def __getattr__(self, name: str) -> Any:
        return getattr(devices.load(self.__name__), name)


if TYPE_CHECKING:
    import keras
    import tensorflow as tf
    import tensorflow_probability as tfp
    import tf_keras
else:
    tf = _Lazy("tensorflow")
    keras = _Lazy("keras")
    tf_keras = _Lazy("tf_keras")
    tfp = _Lazy("tensorflow_probability")

__all__ = ["keras", "tf", "tf_keras", "tfp"]
