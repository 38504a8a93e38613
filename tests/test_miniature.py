"""The whole program in miniature: the ports print and draw what the originals did, to the end.

And the controls: a mistake in what a module evaluates, prints or draws, made on purpose, is found,
on the rung that it belongs to.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest

from common import chance, plotting
from common.datasets import Dataset
from common.errors import BadInput
from common.pictures import tile, to_uint8
from common.program import Program
from reproductions import GOLDEN, conv_vae, elbo_cvae, mlp_vae, program, rmsprop_vae, tfp_cvae
from reproductions.evidence import miniature
from reproductions.evidence.documents import DOCUMENTS, of_number
from reproductions.evidence.miniature import Replay, SixteenCodes, Trained
from tests.conftest import SLOW, SLOW_DOCUMENTS, load_whole, long_where

Patch = Callable[[pytest.MonkeyPatch], object]
RECORDINGS = sorted(GOLDEN.glob("*/miniature-*.json"))
NUMBERS = {  # printed or in History; of images
    "mlp_vae": (18, 225),
    "conv_vae": (60, 225),
    "elbo_cvae": (100, 1616),
    "rmsprop_vae": (1, 400),
    "tfp_cvae": (30, 450),
}


class Right(NamedTuple):
    """A port without mistakes, trained on the images and the chance of a miniature."""

    port: Program
    recording: miniature.Recording
    data: Dataset
    trained: Trained


def train(path: Path) -> Right:
    """Trains the port of a miniature."""
    recording = miniature.load(path)
    document = of_number(recording.words["document"])
    assert document is not None
    port = program(document.module)
    data = load_whole(port.dataset)
    experiment = miniature.prepare(port, recording, data)
    return Right(port, recording, data, miniature.train(experiment, recording))


@pytest.fixture(scope="module")
def right() -> Callable[[Path], Right]:
    """`train`, once for all tests of a miniature."""
    return cache(train)


def float64(module: str) -> Path:
    """The miniature of a module in double precision."""
    return GOLDEN / DOCUMENTS[module].number / "miniature-float64.json"


@pytest.mark.parametrize(
    "path",
    long_where(lambda path: path.parent.name in SLOW_DOCUMENTS, RECORDINGS),
    ids=lambda p: f"{p.parent.name}-{p.stem[10:]}",
)
def test_the_port_prints_and_draws_what_the_original_did(
    path: Path, right: Callable[[Path], Right]
) -> None:
    port, recording, _, trained = right(path)
    ours = miniature.read_off(port, recording, trained)
    entry = miniature.as_entry(port.name, recording, ours)
    assert entry["problems"] == []
    assert miniature.as_line(entry).endswith("  equal")
    if recording.words["precision"] == "float64":  # in float32 001 is beyond its horizon by then
        assert (entry["numbers"], entry["images"]) == NUMBERS[port.name]
        assert entry["largest_difference"] < 1e-12
        assert entry["largest_rms_of_an_image"] < 1e-12


# --- Controls that must fail ----------------------------------------------------------------------


def whole_again(right: Right) -> Replay:
    """The run from its start."""
    return miniature.replay(right.port, right.recording, right.data)


def last_epoch_again(right: Right) -> Replay:
    """What a run does after the last step of its last epoch: it validates, and in 002 it draws."""
    model, progress, watch, pictures = right.trained
    experiment = miniature.prepare(right.port, right.recording, right.data)
    for variable, trained in zip(experiment.variables, model.variables, strict=True):
        variable.assign(trained)
    *rows, last = progress.rows
    rows.append(last | experiment.validate(len(progress.rows)))
    progress = dataclasses.replace(progress, rows=rows)
    if pictures is not None:
        drawn = SixteenCodes(experiment)
        drawn.tiles[:0] = pictures.tiles[: -len(drawn.tiles)]
        pictures = drawn
    trained = Trained(experiment, progress, watch, pictures)
    return miniature.read_off(right.port, right.recording, trained)


def end_again(right: Right) -> Replay:
    """What a run does after its training: it prints its results and draws its pictures."""
    return miniature.read_off(right.port, right.recording, right.trained)


class Control(NamedTuple):
    """A mistake, and the rung on which it must be found."""

    module: str
    mistake: str
    patch: Patch
    rung: str
    again: Callable[[Right], Replay] = whole_again  # what of the run is made with the mistake


def set_to(target: Any, name: str, value: Any) -> Patch:
    return lambda monkeypatch: monkeypatch.setattr(target, name, value)


def changed(target: Any, name: str, change: Callable[[Any], Any]) -> Patch:
    """What a function returns, changed."""
    good = getattr(target, name)
    return set_to(target, name, lambda *args, **options: change(good(*args, **options)))


def mean_cost(progress: Any) -> str | None:
    """mlp_vae's line with the mean cost of the epoch for the last batch's."""
    row = progress.rows[-1]
    if (row["epoch"] - 1) % 3:
        return None
    return f"epoch: {row['epoch']:04d} cost= {row['loss']:.9f}"


def other_validation(module: Any, value: Callable[[Any], dict[str, Any]]) -> Patch:
    """val_loss computed in another way from the validation's losses."""

    class Wrong(module.Validation):
        def __call__(self, eps: np.ndarray) -> Any:
            losses = super().__call__(eps)
            return losses._replace(**value(losses))

    return set_to(module, "Validation", Wrong)


def on_training_images(data: Dataset) -> Dataset:
    """As many of the training images in the place of the test set."""
    n = len(data.test_images)
    return dataclasses.replace(
        data, test_images=data.train_images[:n], test_labels=data.train_labels[:n]
    )


def of_training_images(module: Any) -> Patch:
    """Validates on training images."""

    class Wrong(module.Validation):
        def __init__(self, loss: Any, data: Dataset, batch_size: int, dtype: str) -> None:
            super().__init__(loss, on_training_images(data), batch_size, dtype)

    return set_to(module, "Validation", Wrong)


def with_training_noise(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        chance.Miniature,
        "validation_noise",
        lambda self, k, shape: np.resize(self.noise(0, (100, 2)), shape),
    )


def of_other_images(results: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """`results` of training images, which are given as the test set."""

    def wrong(experiment: Any) -> Any:
        return results(dataclasses.replace(experiment, data=on_training_images(experiment.data)))

    return wrong


def shifted_labels(monkeypatch: pytest.MonkeyPatch) -> None:
    good = plotting.latent_scatter
    monkeypatch.setattr(
        plotting, "latent_scatter", lambda z, labels, *rest: good(z, np.roll(labels, 1), *rest)
    )


def flipped(monkeypatch: pytest.MonkeyPatch) -> None:
    good = plotting.manifold
    monkeypatch.setattr(
        plotting, "manifold", lambda images, *rest, **k: good(images[::-1], *rest, **k)
    )


def other_digit(monkeypatch: pytest.MonkeyPatch) -> None:
    good = tfp_cvae.class_means
    monkeypatch.setattr(tfp_cvae, "class_means", lambda model: np.roll(good(model), 1, axis=0))


EVALUATION, PICTURES = "evaluation", "pictures"
UNIFORM = lambda n: np.linspace(-1.6, 1.6, n)  # noqa: E731
CONTROLS = [
    Control("mlp_vae", "axes of the grid swapped",
            changed(mlp_vae, "grid_codes", lambda z: z[..., ::-1]), PICTURES, end_again),
    Control("mlp_vae", "rows flipped", flipped, PICTURES, end_again),
    Control("mlp_vae", "evenly spaced codes for quantiles",
            set_to(mlp_vae, "normal_quantiles", UNIFORM), PICTURES, end_again),
    Control("mlp_vae", "Greys for Greys_r", set_to(mlp_vae, "CMAP", "Greys"), PICTURES, end_again),
    Control("mlp_vae", "a sigmoid too many",
            changed(mlp_vae, "pictures_of", lambda x: 1 / (1 + np.exp(-x))), PICTURES, end_again),
    Control("mlp_vae", "every second epoch printed", set_to(mlp_vae, "PRINT_EVERY", 2), EVALUATION),
    Control("mlp_vae", "the mean cost for the last batch's",
            set_to(mlp_vae, "report", mean_cost), EVALUATION),
    Control("mlp_vae", "weights larger by a hundredth",
            changed(chance.RecordedInitializer, "truncated_normal", lambda w: 1.01 * w),
            "initial values"),
    Control("mlp_vae", "twice the loss",
            changed(mlp_vae, "loss", lambda losses: losses._replace(loss=2 * losses.loss)),
            "forward pass"),
    Control("mlp_vae", "4,999 images held back", set_to(mlp_vae, "HELD_BACK", 4_999), "data"),
    Control("mlp_vae", "pixels divided by 256",
            set_to(mlp_vae, "PIXEL_SCALE", np.float32(1 / 256)), "data"),
    Control("mlp_vae", "the tail of a pass dropped",
            lambda m: m.setattr(chance.Miniature, "batches", chance.Recorded.batches),
            "later steps"),
    Control("mlp_vae", "ten times the learning rate",
            set_to(mlp_vae, "TF1Adam", lambda v, rate: TF1_ADAM(v, 10 * rate)), "update"),
    Control("conv_vae", "validation without the KL",
            other_validation(conv_vae, lambda v: {"kl": np.zeros_like(v.kl)}),
            EVALUATION, last_epoch_again),
    Control("conv_vae", "validation on training images",
            of_training_images(conv_vae), EVALUATION, last_epoch_again),
    Control("conv_vae", "validation with the training's noise",
            with_training_noise, EVALUATION, last_epoch_again),
    Control("conv_vae", "labels of other points", shifted_labels, PICTURES, end_again),
    Control("conv_vae", "no sigmoid",
            changed(conv_vae, "pictures_of", lambda p: np.log(p) - np.log1p(-p)),
            PICTURES, end_again),
    Control("rmsprop_vae", "rows not flipped", flipped, PICTURES, end_again),
    Control("rmsprop_vae", "quantiles for evenly spaced codes",
            set_to(rmsprop_vae, "GRID", np.linspace(-2, 2, 20)), PICTURES, end_again),
    Control("rmsprop_vae", "the loss of step 2 printed as that of step 1",
            set_to(rmsprop_vae, "report", lambda p: f"Step 1, Loss: {p.losses[1, 0]:f}"),
            EVALUATION),
    Control("elbo_cvae", "the training's ELBO for the test's",
            of_training_images(elbo_cvae), EVALUATION, last_epoch_again),
    Control("elbo_cvae", "GIF rule off by one",
            changed(elbo_cvae, "document_frames", lambda kept: [max(k - 1, 0) for k in kept]),
            PICTURES, end_again),
    Control("elbo_cvae", "pictures darker by a grey level",
            changed(elbo_cvae, "pictures_of", lambda p: p * 254 / 255),
            PICTURES, last_epoch_again),
    Control("elbo_cvae", "grey levels not stretched",
            set_to(elbo_cvae, "frame",
                   lambda *given: tile(to_uint8(elbo_cvae.pictures_of(*given)), gap=2)),
            PICTURES, last_epoch_again),
    Control("tfp_cvae", "class mean of the next digit", other_digit, PICTURES, end_again),
    Control("tfp_cvae", "mean over images for mean over batches",
            other_validation(
                tfp_cvae, lambda v: {"loss": np.average(v.loss, weights=[256, 96])}
            ),
            EVALUATION, last_epoch_again),
]  # fmt: skip
TF1_ADAM = mlp_vae.TF1Adam


@pytest.mark.parametrize(
    "control",
    long_where(lambda c: c.module in SLOW, CONTROLS),
    ids=lambda c: f"{c.module}: {c.mistake}",
)
def test_a_mistake_is_found_on_its_rung(
    control: Control, right: Callable[[Path], Right], monkeypatch: pytest.MonkeyPatch
) -> None:
    without_mistake = right(float64(control.module))
    control.patch(monkeypatch)
    found = miniature.compare(without_mistake.recording, control.again(without_mistake))
    assert found, "passed"
    assert found[0].rung == control.rung, found[0]


@pytest.mark.long
@pytest.mark.parametrize("module", SLOW)
def test_the_last_epoch_again_without_a_mistake_is_the_originals(
    module: str, right: Callable[[Path], Right]
) -> None:
    """What the controls of a last epoch are measured against."""
    without_mistake = right(float64(module))
    again = last_epoch_again(without_mistake)
    assert miniature.compare(without_mistake.recording, again) == []


def test_variables_of_other_shapes_are_all_that_is_said(right: Callable[[Path], Right]) -> None:
    port, recording, data, _ = right(float64("mlp_vae"))
    words = recording.words | {"variables": recording.words["variables"][:-1]}
    numbers = recording.numbers | {"initial": recording.numbers["initial"][:-1]}
    fewer = miniature.Recording(words, numbers)
    [found] = miniature.compare(fewer, miniature.replay(port, recording, data))
    assert found.rung == "variables"


def test_miniatures_are_found_beside_each_other_and_in_folders(tmp_path: Path) -> None:
    for folder in (tmp_path, tmp_path / "000"):
        folder.mkdir(exist_ok=True)
        for suffix in ("json", "npz"):
            name = f"miniature-float64.{suffix}"
            (folder / name).write_bytes((GOLDEN / "000" / name).read_bytes())
    found = miniature.find(tmp_path, ["mlp_vae"], "both")
    assert [module for module, _ in found] == ["mlp_vae", "mlp_vae"]


def test_a_result_of_training_images_is_found(right: Callable[[Path], Right]) -> None:
    port, recording, _, trained = right(float64("mlp_vae"))
    wrong = dataclasses.replace(port, results=of_other_images(port.results))
    [found] = miniature.compare(recording, miniature.read_off(wrong, recording, trained))
    assert str(found).startswith("evaluation: printed number 18")


@pytest.mark.parametrize(
    ("words", "end"),
    [("{}", None), ("[]", None), ("[" * 100_000, None), ("", None), ("", 0), ("", 9_000), ("", -1)],
)
def test_a_damaged_miniature_is_one_line(words: str, end: int | None, tmp_path: Path) -> None:
    path = tmp_path / "miniature-float64.json"
    for suffix in (".json", ".npz"):
        content = (GOLDEN / "003" / path.with_suffix(suffix).name).read_bytes()
        path.with_suffix(suffix).write_bytes(content[:end] if suffix == ".npz" else content)
    if end is None:
        miniature.load(path)
        path.write_text(words)
    with pytest.raises(BadInput, match="no whole miniature"):
        miniature.load(path)


def test_a_miniature_that_lacks_something_says_what(tmp_path: Path) -> None:
    words = json.loads((GOLDEN / "003" / "miniature-float64.json").read_text())
    with np.load(GOLDEN / "003" / "miniature-float64.npz") as arrays:
        numbers = dict(arrays)
    del words["seed"], numbers["tiles_envelope"]
    (tmp_path / "miniature-float64.json").write_text(json.dumps(words))
    np.savez(tmp_path / "miniature-float64.npz", **numbers)
    with pytest.raises(BadInput, match=r"\(without seed, tiles_envelope\)$"):
        miniature.load(tmp_path / "miniature-float64.json")
