"""Chance: a run's draws depend on nothing but the seed, a recording's are its streams."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
from scipy import stats

from common import chance
from common.chance import Batches, Recorded, Seeded, SeededInitializer, buffered_shuffle
from common.errors import BadInput
from common.lazy import tf

SIGMAS = 5  # a sample's moment may stray this many of its standard errors; measured: 1.8 at most
P_VALUE = 1e-3  # of a fit, seeds fixed; measured: 0.02 at least, 0 for a buffer of another size
N = 1_000_000  # numbers in a sample
SHAPE = (4, 3)
BIG = 2**63 - 1  # the largest seed that the commands accept


# --- Seeded ---------------------------------------------------------------------------------------


Draw = Callable[[Seeded], np.ndarray]


def draws() -> dict[str, Draw]:
    """One draw of every purpose, and of neighbouring indices."""
    return {
        "noise 0": lambda c: c.noise(0, SHAPE),
        "noise 1": lambda c: c.noise(1, SHAPE),
        "noise 2^32": lambda c: c.noise(2**32, SHAPE),
        "validation 0": lambda c: c.validation_noise(0, SHAPE),
        "validation 1": lambda c: c.validation_noise(1, SHAPE),
        "codes a": lambda c: c.codes("a", SHAPE),
        "codes b": lambda c: c.codes("b", SHAPE),
        "weights": lambda c: c.initializer().normal(SHAPE, 1.0),
        "order 0": lambda c: c.batches(12, 12, "drop")(0),
        "order 1": lambda c: c.batches(12, 12, "drop")(1),
        "buffered_shuffle 0": lambda c: c.batches(12, 12, "drop", buffer=5)(0),
        "buffered_shuffle 1": lambda c: c.batches(12, 12, "drop", buffer=5)(1),
    }


@pytest.mark.parametrize("seed", [0, 1, BIG])
def test_a_draw_does_not_depend_on_what_was_drawn_before(seed: int) -> None:
    expected = {name: draw(Seeded(seed)) for name, draw in draws().items()}  # each on its own
    forwards, backwards = Seeded(seed), Seeded(seed)
    for name, draw in [*draws().items(), *draws().items()]:
        np.testing.assert_array_equal(draw(forwards), expected[name], name)
    for name, draw in reversed(draws().items()):
        np.testing.assert_array_equal(draw(backwards), expected[name], name)


def test_seeds_purposes_and_indices_all_draw_differently() -> None:
    seeds = [0, 1, 2**32, BIG]
    seen = {
        (seed, name): draw(Seeded(seed)).ravel().tolist()
        for seed in seeds
        for name, draw in draws().items()
    }
    for a, b in itertools.combinations(seen, 2):
        assert seen[a] != seen[b], f"{a} and {b} are the same draw"


def test_neighbouring_steps_do_not_share_a_stretch_of_the_stream() -> None:
    """Were an index added to the counter's low word, step 1 would begin inside step 0."""
    seeded = Seeded(3)
    streams: list[Callable[[int, tuple[int, ...]], np.ndarray]] = [
        seeded.noise,
        seeded.validation_noise,
    ]
    long = {s: streams[s](0, (4096,)) for s in (0, 1)}
    for s, other, index in itertools.product((0, 1), (0, 1), range(5)):
        if s == other and index == 0:
            continue
        start = streams[other](index, (16,))
        windows = np.lib.stride_tricks.sliding_window_view(long[s], 4)
        for begin in range(12):  # the streams may fall into step late: rejected draws shift them
            assert not (windows == start[begin : begin + 4]).all(axis=1).any()


def assert_moments(z: np.ndarray, variance: float, fourth: float) -> None:
    """Mean 0, the variance, and no correlation between neighbours.

    `fourth` is the distribution's fourth moment: it gives the variance's standard error.
    """
    z = z.astype(np.float64).ravel()
    n = len(z)
    assert abs(z.mean()) < SIGMAS * np.sqrt(variance / n)
    assert abs(np.mean(z**2) - variance) < SIGMAS * np.sqrt((fourth - variance**2) / n)
    assert abs(np.mean(z[1:] * z[:-1])) < SIGMAS * variance / np.sqrt(n)


@pytest.mark.parametrize("name", ["noise", "validation_noise", "codes"])
def test_noise_is_standard_normal_in_float32(name: str) -> None:
    draw = getattr(Seeded(7), name)
    z = draw("sheet" if name == "codes" else 5, (N // 50, 50))
    assert z.shape == (N // 50, 50)
    assert z.dtype == np.float32
    assert_moments(z, variance=1.0, fourth=3.0)
    assert stats.kstest(z.ravel()[: N // 10], "norm").pvalue > P_VALUE


@pytest.mark.parametrize("seed", [-1, 1.5, True, "1", 2**63])
def test_a_seed_is_a_whole_number(seed: Any) -> None:
    with pytest.raises(BadInput, match=r"^seed: .* is not a whole number from 0 to "):
        Seeded(seed)


def test_the_noise_of_consecutive_steps_is_uncorrelated() -> None:
    z = np.stack([Seeded(7).noise(step, (1000,)) for step in range(200)]).astype(np.float64)
    correlation = np.mean(z[1:] * z[:-1])
    assert abs(correlation) < SIGMAS / np.sqrt(z[1:].size)


# --- Initial weights ------------------------------------------------------------------------------


def weights(seed: int = 11) -> SeededInitializer:
    return SeededInitializer(np.random.Generator(np.random.Philox(seed)))


def test_normal_weights_have_their_standard_deviation() -> None:
    w = weights().normal((N // 100, 100), 0.05)
    assert w.dtype == np.float32
    assert_moments(w, variance=0.05**2, fourth=3 * 0.05**4)


def test_truncated_normal_weights_stay_within_two_sigma_and_have_its_variance() -> None:
    sigma = 0.001
    w = weights().truncated_normal((N // 100, 100), sigma)
    assert w.dtype == np.float32
    assert np.abs(w).max() <= np.float32(2) * np.float32(sigma)
    assert np.abs(w).max() > 1.999 * sigma  # it is cut at two, not before
    law = stats.truncnorm(-2, 2)
    assert law.var() == pytest.approx(0.774, abs=5e-4)
    assert_moments(w / sigma, variance=law.var(), fourth=law.moment(4))
    assert stats.kstest((w / sigma).ravel()[: N // 10], law.cdf).pvalue > P_VALUE


# (kernel, fan in, fan out). A transposed kernel is [height, width, filters out, filters in]: Keras
# calls the third number "in" all the same, and the sum does not mind.
KERNELS = [
    ((784, 256), 784, 256),
    ((3136, 2), 3136, 2),
    ((3, 3, 1, 32), 9 * 1, 9 * 32),
    ((5, 5, 16, 32), 25 * 16, 25 * 32),
    ((3, 3, 64, 32), 9 * 64, 9 * 32),
    ((7, 7, 32, 2), 49 * 32, 49 * 2),
]


@pytest.mark.parametrize(("shape", "fan_in", "fan_out"), KERNELS)
def test_glorot_uniform_fills_its_interval(
    shape: tuple[int, ...], fan_in: int, fan_out: int
) -> None:
    limit = (6 / (fan_in + fan_out)) ** 0.5
    assert chance.glorot_limit(shape) == pytest.approx(limit, rel=1e-15)
    w = np.stack([weights(seed).glorot_uniform(shape) for seed in range(20)])
    assert w.dtype == np.float32
    assert w.shape[1:] == shape
    assert np.abs(w).max() <= np.float32(limit)
    assert_moments(w, variance=limit**2 / 3, fourth=limit**4 / 5)
    assert stats.kstest(w.ravel()[: N // 10], stats.uniform(-limit, 2 * limit).cdf).pvalue > P_VALUE


def test_assign_glorot_draws_kernels_in_order_and_zeroes_biases() -> None:
    variables = [tf.Variable(np.full(s, np.nan)) for s in [(3, 3, 1, 4), (4,), (36, 5), (5,)]]
    chance.assign_glorot(variables, weights())
    same = weights()
    np.testing.assert_array_equal(variables[0], same.glorot_uniform((3, 3, 1, 4)))
    np.testing.assert_array_equal(variables[1], np.zeros(4))
    np.testing.assert_array_equal(variables[2], same.glorot_uniform((36, 5)))
    np.testing.assert_array_equal(variables[3], np.zeros(5))


# --- Batches --------------------------------------------------------------------------------------


def orders(n: int, seed: int = 0) -> Callable[[int], np.ndarray]:
    """The order of pass k."""
    return lambda k: np.random.RandomState([seed, k]).permutation(n)


def next_batches(n: int, batch_size: int) -> Iterator[list[int]]:
    """TF1's `DataSet.next_batch(batch_size)`, told from its source, on `orders(n)`."""
    epochs_completed, index_in_epoch = 0, 0
    images = orders(n)(0).tolist()
    while True:
        start = index_in_epoch
        if start + batch_size > n:
            epochs_completed += 1
            rest = images[start:n]
            images = orders(n)(epochs_completed).tolist()
            index_in_epoch = batch_size - len(rest)
            yield rest + images[:index_in_epoch]
        else:
            index_in_epoch += batch_size
            yield images[start:index_in_epoch]


# (images, batch size): tails of every length, none, a batch as long as a pass, the documents' own
CARRIED = [(10, 4), (11, 4), (12, 4), (7, 7), (9, 8), (5, 1), (55_000, 128), (55_000, 64)]


@pytest.mark.parametrize(("n", "batch_size"), CARRIED)
def test_carry_makes_the_batches_of_next_batch(n: int, batch_size: int) -> None:
    batches = Batches(orders(n), n, batch_size, "carry")
    assert batches.steps_per_epoch == n // batch_size
    passes = 3 if n > 100 else 9
    for step, expected in zip(
        range(passes * n // batch_size + 2), next_batches(n, batch_size), strict=False
    ):
        assert batches(step).tolist() == expected, f"step {step}"
        assert batches.size(step) == batch_size


@pytest.mark.parametrize(
    ("tail", "n", "batch_size", "sizes"),
    [
        ("keep", 10, 4, [4, 4, 2]),
        ("keep", 12, 4, [4, 4, 4]),
        ("keep", 3, 7, [3]),
        ("drop", 10, 4, [4, 4]),
        ("drop", 12, 4, [4, 4, 4]),
        ("drop", 9, 8, [8]),
    ],
)
def test_keep_has_the_tail_of_a_pass_as_a_small_batch_and_drop_leaves_it_out(
    tail: chance.Tail, n: int, batch_size: int, sizes: list[int]
) -> None:
    batches = Batches(orders(n), n, batch_size, tail)
    steps = batches.steps_per_epoch
    assert steps == len(sizes)
    for k in range(3):
        parts = [batches(k * steps + i) for i in range(steps)]
        assert [len(part) for part in parts] == sizes
        np.testing.assert_array_equal(np.concatenate(parts), orders(n)(k)[: sum(sizes)])


@pytest.mark.parametrize("tail", ["carry", "drop", "keep"])
@pytest.mark.parametrize(("n", "batch_size"), [(10, 4), (12, 4), (7, 7)])
def test_batches_are_a_function_of_the_step_and_as_long_as_announced(
    n: int, batch_size: int, tail: chance.Tail
) -> None:
    batches = Batches(orders(n), n, batch_size, tail)
    steps = range(5 * n)
    in_order = [batches(step).tolist() for step in steps]
    for step in np.random.RandomState(0).permutation(steps).tolist():
        assert batches(step).tolist() == in_order[step]
        assert batches.size(step) == len(in_order[step])


@pytest.mark.parametrize(
    ("n", "tail"), [(11, "carry"), (11, "drop"), (0, "carry"), (0, "drop"), (0, "keep")]
)
def test_too_few_images_for_one_batch_are_refused(n: int, tail: chance.Tail) -> None:
    with pytest.raises(BadInput, match=f"^{n} training images do not fill a batch of 12: "):
        Seeded(0).batches(n, 12, tail)


def test_the_orders_of_a_run_are_uniform() -> None:
    """All 24 orders of four images come equally often."""
    batches = Seeded(1).batches(4, 4, "drop")
    counts = Counter(tuple(batches(k).tolist()) for k in range(4800))
    assert len(counts) == 24
    assert stats.chisquare(list(counts.values())).pvalue > P_VALUE


# --- The partial shuffle --------------------------------------------------------------------------


def shuffle_law(n: int, buffer: int) -> dict[tuple[int, ...], float]:
    """Probability of every order that `tf.data`'s `shuffle(buffer)` can hand out.

    Fill a buffer, hand out any of its items with equal probability, refill from the source while
    there is one: all choices are followed.
    """
    law: Counter[tuple[int, ...]] = Counter()

    def follow(out: tuple[int, ...], held: set[int], source: int, p: float) -> None:
        while source < n and len(held) < buffer:
            held, source = held | {source}, source + 1
        if not held:
            law[out] += p  # type: ignore[assignment]
        for item in held:
            follow((*out, item), held - {item}, source, p / len(held))

    follow((), set(), 0, 1.0)
    return dict(law)


def fits(sample: list[tuple[int, ...]], law: dict[tuple[int, ...], float]) -> bool:
    """Whether a sample of orders follows the law: none that it excludes, chi-square on the rest."""
    counts = Counter(sample)
    if not counts.keys() <= law.keys():
        return False
    if len(law) == 1:
        return True
    observed = [counts[order] for order in law]
    expected = [len(sample) * p for p in law.values()]
    return bool(stats.chisquare(observed, expected).pvalue > P_VALUE)


@pytest.mark.parametrize(("n", "buffer"), [(5, 3), (6, 2), (4, 4), (3, 10), (5, 1)])
def test_buffered_orders_follow_the_law_of_tf_data(n: int, buffer: int) -> None:
    generator = np.random.Generator(np.random.Philox(5))
    sample = [tuple(buffered_shuffle(generator, n, buffer).tolist()) for _ in range(20_000)]
    assert fits(sample, shuffle_law(n, buffer))


def test_tf_data_itself_follows_that_law() -> None:
    """The law above is not our reading of tf.data's manual."""
    n, buffer, passes = 5, 3, 20_000
    orders = tf.data.Dataset.range(n).shuffle(buffer, seed=2).repeat(passes).batch(n * passes)
    flat = next(iter(orders)).numpy().reshape(passes, n)
    sample = [tuple(order) for order in flat.tolist()]
    assert fits(sample, shuffle_law(n, buffer))
    assert not fits(sample, shuffle_law(n, buffer + 1))
    assert not fits(sample, shuffle_law(n, buffer - 1))


# --- Recorded -------------------------------------------------------------------------------------


def test_recorded_weights_are_the_stream_of_the_seed() -> None:
    """golden/README.md: RandomState(s); normal without truncation, Glorot for kernels; float32."""
    ours, theirs = Recorded(17).initializer(), np.random.RandomState(17)
    for draw in (ours.normal, ours.truncated_normal):
        w = draw((5, 3), 0.001)
        assert w.dtype == np.float32
        np.testing.assert_array_equal(w, theirs.normal(0, 0.001, (5, 3)).astype(np.float32))
    for shape in [(6, 4), (3, 3, 2, 5)]:
        limit = np.sqrt(6 / ((shape[-2] + shape[-1]) * np.prod(shape[:-2])))
        w = ours.glorot_uniform(shape)
        assert w.dtype == np.float32
        np.testing.assert_array_equal(w, theirs.uniform(-limit, limit, shape).astype(np.float32))


@pytest.mark.parametrize("tail", ["carry", "drop", "keep"])
def test_recorded_batches_are_the_stream_of_seed_plus_one(tail: chance.Tail) -> None:
    """Whatever the document's rule, recordings drop the tail and never use a buffer."""
    batches = Recorded(17).batches(10, 4, tail, buffer=3)
    stream = np.random.RandomState(18)
    assert batches.steps_per_epoch == 2
    for k in range(5):
        order = stream.permutation(10)
        np.testing.assert_array_equal(batches(2 * k), order[:4])
        np.testing.assert_array_equal(batches(2 * k + 1), order[4:8])
    np.testing.assert_array_equal(batches(0), np.random.RandomState(18).permutation(10)[:4])


def test_the_recorded_streams_do_not_disturb_each_other() -> None:
    recorded = Recorded(17)
    recorded.initializer().normal((100,), 1.0)
    recorded.batches(10, 4, "drop")(6)
    recorded.codes("frame", (3, 2))
    np.testing.assert_array_equal(recorded.noise(0, (4, 2)), Recorded(17).noise(0, (4, 2)))


@pytest.mark.parametrize("steps", [[1, 0], [0, 2], [0, 0], [0, 1, 0]])
def test_recorded_noise_can_be_asked_for_in_any_order(steps: list[int]) -> None:
    stream, recorded = np.random.RandomState(19), Recorded(17)
    expected = [stream.standard_normal((4, 2)).astype(np.float32) for _ in range(3)]
    for step in steps:
        eps = recorded.noise(step, (4, 2))
        assert eps.dtype == np.float32
        np.testing.assert_array_equal(eps, expected[step])
