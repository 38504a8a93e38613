"""The metrics of trained models, against models whose metrics are known."""

from __future__ import annotations

import dataclasses
import json
import os
import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from scipy.stats import multivariate_normal

from common import classifier, evaluation, plotting
from common.chance import Seeded
from common.datasets import Dataset
from common.lazy import tf
from common.program import Program
from common.training import Losses, Posterior
from reproductions import MODULES, evaluate, program
from reproductions.evidence.kept import REFERENCE, original_right
from tests.conftest import (
    CONDITIONAL,
    FACTORS,
    WITH_OBJECTIVE,
    Load,
    complaint,
    evaluate_little,
    small,
    small_of,
    train_on,
)

PIXELS, LATENT, NOISE = 6, 2, 0.7
W = np.random.default_rng(0).normal(size=(PIXELS, LATENT))
COVARIANCE = W @ W.T + NOISE**2 * np.eye(PIXELS)
EXACT_PRECISION = np.eye(LATENT) + W.T @ W / NOISE**2  # of the true posterior


def linear_gaussian(data: Dataset, scale: float, shift: float) -> Any:
    """x = W z + noise, whose log-likelihood is known; q is the true posterior, scaled and moved."""
    covariance = np.linalg.inv(EXACT_PRECISION)
    gain = covariance @ W.T / NOISE**2
    tril = np.linalg.cholesky(covariance) * scale

    decoder = tf.Variable(W)

    def pixels(images: Any) -> tf.Tensor:
        return tf.reshape(tf.cast(images, tf.float64), [-1, 784])[:, :PIXELS] / 64 - 2

    def posterior(images: Any, labels: Any) -> Posterior:
        z_mean = tf.linalg.matvec(gain, pixels(images)) + shift
        batch = tf.shape(z_mean)[0]
        return Posterior(z_mean, tf.tile(tril[None], [batch, 1, 1]), tf.zeros_like(z_mean))

    def loss(images: Any, labels: Any, eps: Any) -> Losses:
        x, q = pixels(images), posterior(images, labels)
        z = q.z_mean + tf.linalg.matvec(q.scale_tril, eps)
        squares = tf.reduce_sum(tf.square(x - tf.linalg.matvec(decoder, z)), axis=1) / NOISE**2
        reconstruction = 0.5 * (squares + PIXELS * np.log(2 * np.pi * NOISE**2))
        return Losses(tf.reduce_mean(reconstruction), reconstruction, tf.zeros_like(squares))

    return SimpleNamespace(
        data=data, loss=loss, posterior=posterior, chance=Seeded(0), latent_dim=LATENT,
        dtype="float64", compile_with_xla=False, batches=SimpleNamespace(batch_size=100),
    )  # fmt: skip


def evaluate_linear(experiment: Any, **sizes: Any) -> dict[str, Any]:
    z_mean = evaluation.encode_test_set(experiment).z_mean
    return evaluation.evaluate(experiment, z_mean, "grey", **sizes)


def exact(data: Dataset) -> float:
    """The test set's mean log-likelihood under the linear-Gaussian model."""
    x = data.test_images.reshape(-1, 784)[:, :PIXELS] / 64 - 2.0
    return float(multivariate_normal(np.zeros(PIXELS), COVARIANCE).logpdf(x).mean())


@pytest.fixture
def noisy() -> Dataset:
    """Test images whose first pixels vary."""
    data = small("mnist")
    images = np.random.default_rng(1).integers(0, 256, data.test_images.shape).astype(np.uint8)
    return dataclasses.replace(data, test_images=images)


def test_with_the_true_posterior_every_sample_gives_the_likelihood(noisy: Dataset) -> None:
    metrics = evaluate_linear(linear_gaussian(noisy, 1.0, 0.0), images=5, samples=10)
    assert metrics["log_likelihood"] == pytest.approx(exact(noisy), abs=0.1)
    experiment = linear_gaussian(noisy, 1.0, 0.0)
    eps = np.random.default_rng(2).normal(size=(500, LATENT))
    weights = evaluation.per_image(experiment, noisy.test_images, noisy.test_labels, eps).log_weight
    assert float(np.mean(weights)) == pytest.approx(exact(noisy), abs=1e-10)


def test_importance_sampling_finds_the_likelihood_that_the_elbo_misses(noisy: Dataset) -> None:
    metrics = evaluate_linear(linear_gaussian(noisy, 1.3, 0.1), images=500, samples=2000)
    error = metrics["log_likelihood"] - exact(noisy)
    assert abs(error) < 4 * metrics["log_likelihood_se"]
    assert 0 < metrics["log_likelihood_se"] < 0.1
    # The ELBO falls short by KL(q || true posterior), which is known.
    shift = np.full(LATENT, 0.1)
    gap = LATENT * (1.3**2 - 1) / 2 - LATENT * np.log(1.3) + shift @ EXACT_PRECISION @ shift / 2
    assert exact(noisy) - metrics["elbo"] == pytest.approx(
        gap, abs=4 * metrics["log_likelihood_se"]
    )
    assert gap > 4 * metrics["log_likelihood_se"]
    assert metrics["active_units"] == LATENT
    assert 1 < metrics["effective_samples"] < 2000


def config_of(port: Any, **settings: Any) -> Any:
    """The document's settings, with fewer filters where they would cost time."""
    return port.config(**settings, **({"base_depth": 2} if port.name == "tfp_cvae" else {}))


@pytest.mark.parametrize("module", WITH_OBJECTIVE)
def test_the_objective_elbo_weighs_the_kl_as_an_elbo_does(module: str) -> None:
    port = program(module)
    data = small(port.dataset)
    experiment = port.experiment(config_of(port, objective="elbo"), data, Seeded(0), "float64")
    spread_out(experiment)
    undrawn = dataclasses.replace(port, draw=None)
    metrics = undrawn.evaluate(experiment, images=3, samples=5)
    assert metrics["kl_weight"] == 1.0
    assert metrics["elbo"] - evaluation.log_normaliser(port.likelihood) == pytest.approx(
        -metrics["objective"], rel=0.02
    )


def test_the_class_means_can_start_farther_apart() -> None:
    port, data = program("tfp_cvae"), small("mnist")
    near, far = (
        port.experiment(port.config(mean_spread=spread), data, Seeded(0), "float64").model
        for spread in (1.0, 128.0)
    )
    means = [model.class_mean(tf.eye(10, dtype=tf.float64)).numpy() for model in (near, far)]
    np.testing.assert_allclose(means[1], 128 * means[0], rtol=1e-12)
    assert all(
        np.array_equal(a, b) for a, b in zip(near.variables[:-4], far.variables[:-4], strict=True)
    )


def spread_out(experiment: Any) -> None:
    """Moves the weights, so that the KL differs from image to image as in a trained model."""
    for i, variable in enumerate(experiment.variables):
        noise = np.random.default_rng(i).normal(size=variable.shape)
        variable.assign(variable + 0.05 * noise)


ONE_SAMPLE = {"elbo_cvae", "tfp_cvae"}  # whose KL is that of the z that is decoded
SAME = 1e-10  # relative


@pytest.mark.parametrize("module", MODULES)
def test_closed_form_and_sampled_kl_agree(module: str) -> None:
    """log q/p is quadratic in eps, so its mean over these points is its expectation, exactly."""
    port = program(module)
    data = small(port.dataset)
    experiment = port.experiment(config_of(port), data, Seeded(0), "float64")
    spread_out(experiment)
    axes = np.sqrt(experiment.latent_dim) * np.eye(experiment.latent_dim)
    eps = np.concatenate([axes, -axes])
    images, labels = (
        np.repeat(a[:1], len(eps), axis=0) for a in (data.test_images, data.test_labels)
    )
    of_image = evaluation.per_image(experiment, images, labels, eps)
    sampled = -of_image.log_weight - of_image.reconstruction
    kl = float(of_image.kl[0])
    assert np.mean(sampled) == pytest.approx(kl, rel=SAME)
    own = experiment.loss(images, labels, tf.constant(eps)).kl.numpy()  # by the document's code
    assert own.mean() == pytest.approx(kl, rel=SAME)
    assert (np.ptp(own) > SAME * kl) == (module in ONE_SAMPLE)


# --- Wanted digits --------------------------------------------------------------------------------


def test_the_classifier_is_a_judge(whole: Load) -> None:
    data = whole("mnist")
    right = classifier.classify(data.test_images / 255) == data.test_labels
    assert right.mean() >= 0.99
    assert classifier.WEIGHTS.stat().st_size < 200_000


def test_pictures_of_the_wanted_digit_are_counted() -> None:
    data = small("mnist")
    experiment: Any = SimpleNamespace(
        data=data, model=None, chance=Seeded(0), latent_dim=2,
        posterior=lambda images, labels: Posterior(
            tf.one_hot(labels, 2, dtype=tf.float64),
            tf.zeros([len(labels), 2, 2]),
            tf.one_hot(labels, 10, dtype=tf.float64)[:, :2],
        ),
    )  # fmt: skip

    def draw(model: Any, digit: int, eps: np.ndarray) -> np.ndarray:
        shown = 3 if digit == 7 else digit  # 7 is refused
        pictures = data.train_images[data.train_labels == shown][:20] / 255
        return np.resize(pictures, (len(eps), 28, 28))

    z_mean = evaluation.encode_test_set(experiment).z_mean
    found = evaluation.wanted_digits(experiment, z_mean, draw, evaluation.DRAWN)
    assert found["right"][7] == found["grid_right"][7] == 0
    assert min(k for digit, k in enumerate(found["right"]) if digit != 7) > 900
    assert found["share"] == sum(found["right"]) / 10_000


def test_the_original_is_judged_as_it_was_by_another_classifier() -> None:
    first, *others = original_right()
    assert first.sum() / 2250 == pytest.approx(0.45, abs=0.03)
    assert first[0] == 225
    assert first[4] <= 5
    for right in others:
        assert right.sum() / 2250 == pytest.approx(first.sum() / 2250, abs=0.03)


def test_an_interval_of_a_share() -> None:
    low, high = evaluate.interval(45, 225)
    assert low == pytest.approx(0.153, abs=2e-3)  # Wilson's, worked out by hand
    assert high == pytest.approx(0.257, abs=2e-3)


@pytest.mark.parametrize("module", MODULES)
def test_the_factors_are_exact_also_where_the_kl_hardly_varies(module: str) -> None:
    port = program(module)
    experiment = port.experiment(config_of(port), small_of(module), Seeded(0), "float32")
    factors = evaluation.objective_factors(experiment)
    assert factors == pytest.approx(FACTORS.get(module, (1, 1)), rel=1e-5)


def test_five_images_of_five_classes_have_centres() -> None:
    port = program("mlp_cvae")
    images = small("mnist")
    few = dataclasses.replace(
        images,
        train_labels=images.train_labels % 5,
        test_images=images.test_images[:5],
        test_labels=images.test_labels[:5] % 5,
    )
    centres = evaluation.class_centres(port.experiment(port.config(), few, Seeded(0), "float32"))
    assert np.isfinite(centres[:5]).all()
    assert np.isposinf(centres[5:]).all()  # so no code is nearest to a class without images


# --- The command ----------------------------------------------------------------------------------

RECORD = {
    "module": "mlp_vae", "config": {}, "seed": 0, "dtype": "float32", "quick": False,
    "finished": True,
}  # fmt: skip


def test_the_command_prints_and_draws_what_each_model_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    sheets: list[np.ndarray] = []
    image_grid = plotting.image_grid

    def noted(images: np.ndarray, *rest: Any) -> Any:
        sheets.append(images)
        return image_grid(images, *rest)

    found: dict[str, dict[str, Any]] = {}
    plain_evaluate = Program.evaluate

    def kept(port: Program, *args: Any, **options: Any) -> dict[str, Any]:
        found[port.name] = plain_evaluate(port, *args, **options)
        return found[port.name]

    monkeypatch.setattr(plotting, "image_grid", noted)
    monkeypatch.setattr(Program, "evaluate", kept)
    train_on(monkeypatch)
    evaluate_little(monkeypatch)  # 20 drawn pictures of each digit
    monkeypatch.setattr(evaluate, "DRAWN", 20)
    folders = [str(REFERENCE / name) for name in CONDITIONAL]
    picture = tmp_path / "x.png"
    sizes = ["--images", "3", "--samples", "5"]
    assert evaluate.main([*folders, *sizes, "--picture", str(picture)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert picture.stat().st_size > 10_000
    [sheet] = sheets
    columns = ("reconstruction", "kl", "objective", "elbo", "log_likelihood", "log_likelihood_se",
               "effective_samples", "active_units", "kl_weight")  # fmt: skip
    for k, name in enumerate(CONDITIONAL):
        port, metrics = program(name), found[name]
        assert (metrics["images_sampled"], metrics["samples"]) == (3, 5)
        row = next(line for line in lines if line.startswith(f"{name}, seed 0 "))
        numbers = re.findall(r"[-\d.]+", row.removeprefix(f"{name}, seed 0"))
        assert [float(n) for n in numbers] == [
            pytest.approx(metrics[column], abs=0.5 if column == "effective_samples" else 0.006)
            for column in columns
        ]
        for what, key, of in (("prior", "right", 20), ("grid", "grid_right", 225)):
            row = next(line for line in lines if line.startswith(f"{name}, seed 0: {what}"))
            right = metrics["wanted_digits"][key]
            shares = [*(n / of for n in right), sum(right) / of / 10]
            assert re.findall(r"\d+%", row) == [f"{share:.0%}" for share in shares]
        # The centre of each digit's grid stands in the first of its five rows.
        first, model = 5 * (k + 1), port.load(REFERENCE / name)  # after the original
        for digit in range(10):
            drawn = port.draw(model, digit, np.zeros([1, 2]))[0]  # type: ignore[misc]
            around = sheet[first : first + 5, digit]
            assert np.abs(around - np.clip(drawn, 0, 1)).max(axis=(1, 2)).min() < 1e-5
    [original] = [line for line in lines if line.startswith("original")]
    shares = original_right().mean(axis=0) / 225
    assert re.findall(r"\d+%", original) == [f"{share:.0%}" for share in [*shares, shares.mean()]]


def test_bad_runs_get_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert evaluate.main([str(tmp_path)]) == 2
    assert "holds no run" in complaint(capsys, "evaluate")
    for record, said in (
        (["module"], "run.json is damaged"),
        (RECORD | {"module": "gan"}, "holds a run of gan, not of mlp_vae"),
        (RECORD | {"finished": False}, "--resume"),
    ):
        (tmp_path / "run.json").write_text(json.dumps(record))
        assert evaluate.main([str(tmp_path)]) == 2
        assert said in complaint(capsys, "evaluate")


def test_a_picture_that_cannot_be_drawn_is_refused_before_any_work(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    os.mkfifo(tmp_path / "pipe")
    for module, picture, said in (
        ("mlp_vae", "x.png", f"needs a run of {' or '.join(CONDITIONAL)}"),
        ("mlp_cvae", "nowhere/x.png", f"there is no folder {tmp_path / 'nowhere'}"),
        ("mlp_cvae", ".", "is a folder, not a file"),
        ("mlp_cvae", "pipe", "is no ordinary file"),
    ):
        record = RECORD | {"module": module}
        (tmp_path / "run.json").write_text(json.dumps(record))
        assert evaluate.main([str(tmp_path), "--picture", str(tmp_path / picture)]) == 2
        assert said in complaint(capsys, "evaluate")
