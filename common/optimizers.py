"""Adam, RMSProp and Nadam as TensorFlow 1.14 and 2.0 computed them.

Today's optimisers of the same names compute something else: another epsilon, another start of the
slots, another momentum schedule. In double precision two more facts show (found by replaying the
originals): the TF1 optimisers and `tf.keras`'s Adam keep their hyper-parameters as float32 and cast
them up, and TF1's Adam keeps the powers of its betas as running products in float32.

Adam's update is done by the kernel of TensorFlow that the originals called; the others are written
out.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from common.lazy import tf

BETA1, BETA2 = 0.9, 0.999  # of Adam and Nadam, in all documents
RMSPROP_DECAY = 0.9


class Optimizer:
    """Variables to train, in the document's order, with their slots.

    A slot is a running average of a variable's gradient or of its square, of the variable's shape.
    `starts` has the first value of each of a variable's slots. `state` is everything that a resumed
    run must get back.
    """

    def __init__(self, variables: Sequence[Any], learning_rate: float, starts: Sequence[float]):
        self.variables = list(variables)
        self.dtype = self.variables[0].dtype
        self.learning_rate = learning_rate
        self.slots = [
            [tf.Variable(tf.fill(v.shape, tf.constant(s, v.dtype))) for s in starts]
            for v in self.variables
        ]
        self.state = [slot for slots in self.slots for slot in slots]

    def apply(self, gradients: Sequence[tf.Tensor | None]) -> None:
        """Updates the variables once. A variable whose gradient is None stays as it is."""
        raise NotImplementedError

    def _float32(self, number: float) -> tf.Tensor:
        """`number` rounded to float32 and cast to the variables' type, as the originals hold it."""
        return tf.cast(tf.constant(number, tf.float32), self.dtype)


class TF1Adam(Optimizer):
    """`tf.train.AdamOptimizer` of TF 1.14: epsilon 1e-8, beta powers as running float32 products.

    var -= lr sqrt(1 - beta2^t) / (1 - beta1^t) * m / (sqrt(v) + epsilon)
    """

    def __init__(
        self,
        variables: Sequence[Any],
        learning_rate: float,
        epsilon: float = 1e-8,
    ) -> None:
        super().__init__(variables, learning_rate, starts=[0.0, 0.0])
        self.epsilon = epsilon
        self.beta1_power = tf.Variable(BETA1, dtype=tf.float32)
        self.beta2_power = tf.Variable(BETA2, dtype=tf.float32)
        self.state += [self.beta1_power, self.beta2_power]

    def apply(self, gradients: Sequence[tf.Tensor | None]) -> None:
        _apply_adam(
            self,
            gradients,
            beta1_power=tf.cast(self.beta1_power, self.dtype),
            beta2_power=tf.cast(self.beta2_power, self.dtype),
            epsilon=self._float32(self.epsilon),
        )
        self.beta1_power.assign(self.beta1_power * BETA1)
        self.beta2_power.assign(self.beta2_power * BETA2)


class KerasAdam(Optimizer):
    """`tf.keras.optimizers.Adam` of TF 1.14 and 2.0: epsilon 1e-7, beta^t by `pow`.

    Its epsilon is not rounded to float32.
    """

    def __init__(
        self,
        variables: Sequence[Any],
        learning_rate: float,
        epsilon: float = 1e-7,
    ) -> None:
        super().__init__(variables, learning_rate, starts=[0.0, 0.0])
        self.epsilon = epsilon
        self.iterations = tf.Variable(0, dtype=tf.int64)
        self.state += [self.iterations]

    def apply(self, gradients: Sequence[tf.Tensor | None]) -> None:
        t = tf.cast(self.iterations + 1, self.dtype)
        _apply_adam(
            self,
            gradients,
            beta1_power=tf.pow(self._float32(BETA1), t),
            beta2_power=tf.pow(self._float32(BETA2), t),
            epsilon=tf.constant(self.epsilon, self.dtype),
        )
        self.iterations.assign_add(1)


def _apply_adam(
    adam: TF1Adam | KerasAdam,
    gradients: Sequence[tf.Tensor | None],
    *,
    beta1_power: tf.Tensor,
    beta2_power: tf.Tensor,
    epsilon: tf.Tensor,
) -> None:
    """The kernel that both Adams called."""
    for variable, (m, v), gradient in zip(adam.variables, adam.slots, gradients, strict=True):
        if gradient is None:
            continue
        tf.raw_ops.ResourceApplyAdam(
            var=variable.handle,
            m=m.handle,
            v=v.handle,
            beta1_power=beta1_power,
            beta2_power=beta2_power,
            lr=adam._float32(adam.learning_rate),
            beta1=adam._float32(BETA1),
            beta2=adam._float32(BETA2),
            epsilon=epsilon,
            grad=gradient,
        )


class TF1RMSProp(Optimizer):
    """`tf.train.RMSPropOptimizer` of TF 1.14: the mean square **starts at ones**, epsilon 1e-10.

    ms += (1 - decay) (g^2 - ms);  var -= lr g / sqrt(ms + epsilon)

    The originals' momentum was zero, so its slot is omitted, which saves a pass over memory.
    """

    def __init__(
        self,
        variables: Sequence[Any],
        learning_rate: float,
        epsilon: float = 1e-10,
        initial_mean_square: float = 1.0,
    ) -> None:
        super().__init__(variables, learning_rate, starts=[initial_mean_square])
        self.epsilon = epsilon

    def apply(self, gradients: Sequence[tf.Tensor | None]) -> None:
        learning_rate, epsilon = self._float32(self.learning_rate), self._float32(self.epsilon)
        decay = self._float32(RMSPROP_DECAY)
        for variable, (ms,), gradient in zip(self.variables, self.slots, gradients, strict=True):
            if gradient is None:
                continue
            ms.assign_add((1.0 - decay) * (tf.square(gradient) - ms))
            variable.assign_sub(learning_rate * gradient / tf.sqrt(ms + epsilon))


class LegacyNadam(Optimizer):
    """The legacy Nadam of `tf.keras`, in TF 1.14 and long after: its momentum warms up slowly.

    mu_t = beta1 (1 - 0.5 * 0.96^(schedule_decay t)) with schedule_decay 0.004; today's Nadam has
    0.96^t, which is another optimiser. epsilon is 1e-7; no hyper-parameter is rounded to float32.
    """

    def __init__(
        self,
        variables: Sequence[Any],
        learning_rate: float,
        epsilon: float = 1e-7,
        schedule_decay: float = 0.004,
    ) -> None:
        super().__init__(variables, learning_rate, starts=[0.0, 0.0])
        self.epsilon = epsilon
        self.schedule_decay = schedule_decay
        self.iterations = tf.Variable(0, dtype=tf.int64)
        self.mu_product = tf.Variable(tf.ones([], self.dtype))  # mu_1 mu_2 ... mu_t
        self.state += [self.iterations, self.mu_product]

    def _mu(self, t: tf.Tensor) -> tf.Tensor:
        base = tf.constant(0.96, self.dtype)
        return BETA1 * (1.0 - 0.5 * tf.pow(base, t * self.schedule_decay))

    def apply(self, gradients: Sequence[tf.Tensor | None]) -> None:
        t = tf.cast(self.iterations + 1, self.dtype)
        mu, mu_next = self._mu(t), self._mu(t + 1)
        product = self.mu_product * mu
        gradient_factor = (1.0 - mu) / (1.0 - product)
        m_factor = mu_next / (1.0 - product * mu_next)
        beta2_power = tf.pow(tf.constant(BETA2, self.dtype), t)
        for variable, (m, v), gradient in zip(self.variables, self.slots, gradients, strict=True):
            if gradient is None:
                continue
            m.assign(BETA1 * m + (1.0 - BETA1) * gradient)
            v.assign(BETA2 * v + (1.0 - BETA2) * tf.square(gradient))
            m_bar = gradient_factor * gradient + m_factor * m
            v_hat = v / (1.0 - beta2_power)
            variable.assign_sub(self.learning_rate * m_bar / (tf.sqrt(v_hat) + self.epsilon))
        self.mu_product.assign(product)
        self.iterations.assign_add(1)
