"""The gallery: what it reads, what it escapes, and the page itself in a browser."""

from __future__ import annotations

import base64
import hashlib
import html
import io
import json
import re
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from common import plotting
from common.errors import Failure
from common.pictures import gif, normal_quantiles, png
from common.runs import read_record
from reproductions import GOLDEN, MODULES, program
from reproductions.evidence import equivalence
from reproductions.evidence.documents import DOCUMENTS
from reproductions.evidence.kept import REFERENCE
from reproductions.gallery import __main__ as command
from reproductions.gallery import charts, content, markup, pictures
from reproductions.gallery.content import collect
from reproductions.gallery.page import TEMPLATE, render
from tests.chromium import Browser
from tests.conftest import ROOT, complaint, python

HOSTILE = "<script>alert('x')</script>\"'&</script>"
EPOCHS = 3


@pytest.fixture(scope="module", autouse=True)
def encoded_once() -> Iterator[None]:
    """Encodes each image once for all tests of this file: without loss it takes seconds."""
    encode, known = pictures.encode, {}

    def remembered(image: Image.Image, quality: int | None = None) -> pictures.Picture:
        key = image.mode, image.size, quality, image.tobytes()
        if key not in known:
            known[key] = encode(image, quality)
        return known[key]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pictures, "encode", remembered)
        yield


# --- A made-up run --------------------------------------------------------------------------------


def make_run(folder: Path, module: str, **record: Any) -> Path:
    """Writes the folder of a small finished run of three epochs (or three hundred steps).

    Its settings are the document's, except for what `config` says.
    """
    folder.mkdir(parents=True)
    record = {
        "module": module,
        "seed": 7,
        "dtype": "float32",
        "quick": False,
        "finished": True,
        **record,
        "config": vars(program(module).config()) | record.get("config", {}),
    }
    (folder / "run.json").write_text(json.dumps(record))
    x, every = ("step", 100) if module == "rmsprop_vae" else ("epoch", 1)
    trace = DOCUMENTS[module].curves[0].column
    columns = dict.fromkeys([x, "loss", "reconstruction", "kl", trace])
    rows = [",".join(columns)]
    for i in range(1, EPOCHS + 1):
        rows.append(",".join(str(i * every) if c == x else str(300 - i) for c in columns))
    (folder / "history.csv").write_text("\n".join(rows) + "\n")
    for name in ("manifold", "class-8", "latent", "curves"):
        (folder / f"{name}.png").write_bytes(png(np.full((30, 40), 90, np.uint8)))
    captions = ["before training", *(f"{x} {i}" for i in range(1, EPOCHS + 1))]
    (folder / "training.gif").write_bytes(gif(make_frames(), captions))
    return folder


def make_frames() -> list[np.ndarray]:
    """A noisy frame before training and one after each epoch."""
    chance = np.random.default_rng(0)
    return [chance.integers(0, 256, (56, 84), np.uint8) for _ in range(EPOCHS + 1)]


def make_page(reference: Path, *own: Path) -> str:
    return render(collect(reference, [(run, True) for run in own]))


def shown(page: str) -> str:
    """A page without the phrases for its Chinese, which follow what it shows."""
    return page.partition('<script type="application/json" class="phrases">')[0]


def pixels(picture: pictures.Picture) -> np.ndarray:
    data = base64.b64decode(picture["src"].partition(",")[2])
    return np.asarray(Image.open(io.BytesIO(data)).convert("L"))


SHOWN = (
    "[...document.querySelectorAll('main > section')].filter(s => s.offsetHeight).map(s => s.id)"
)


# --- Reading --------------------------------------------------------------------------------------


@pytest.mark.parametrize("module", MODULES)
def test_docstring_says_what_the_page_shows(module: str) -> None:
    text = content.read_docstring(module)
    assert text.what.endswith(".")
    assert text.source.startswith("Source: ")
    assert text.trains.startswith("Trains ")
    assert "Trains " not in text.source
    assert len(text.quirks) >= 3
    assert len(text.deviations) >= 2
    assert all(point.strip() and "\n" not in point for point in text.quirks)


@pytest.mark.parametrize(
    ("module", "column", "xs"),
    [
        ("mlp_vae", "loss", range(1, 51)),
        ("conv_vae", "val_loss", range(1, 31)),
        ("elbo_cvae", "test_elbo", range(1, 101)),
        ("rmsprop_vae", "loss", range(100, 3001, 100)),
        ("tfp_cvae", "val_loss", range(1, 16)),
    ],
)
def test_band_of_the_original(tmp_path: Path, module: str, column: str, xs: range) -> None:
    view = content.read_module(tmp_path, module)
    seeds, low, high, all_until = view["original_bands"][column]
    assert [x for x, _ in low] == [x for x, _ in high] == list(xs)
    assert all(a <= b for (_, a), (_, b) in zip(low, high, strict=True))
    assert (low == high) == (seeds == 1)
    assert all_until == (25 if module == "elbo_cvae" else xs[-1])
    assert set(view["original_pictures"]) == set(DOCUMENTS[module].pictures)


def test_what_one_seed_alone_reached_is_not_said_of_all(tmp_path: Path) -> None:
    """Four of the five runs of 002's original were stopped after 25 epochs."""
    view = content.read_module(tmp_path, "elbo_cvae")
    for epoch, said in ((25, "the original, 5 seeds: "), (100, "the original, 1 seed: −77.86")):
        folder = make_run(tmp_path / f"run-{epoch}", "elbo_cvae")
        (folder / "history.csv").write_text(f"epoch,test_elbo\n{epoch},-78\n")
        run = content.read_run(folder, read_record(folder), {})
        assert said in charts.comparisons(view, run)[0]
    assert "the original, test ELBO, 5 seeds (all of them up to 25)" in [
        curve.name for curve in charts.curves_of(view)
    ]


def test_band_of_the_port(tmp_path: Path) -> None:
    make_run(tmp_path / "conv_vae", "conv_vae")
    runs = [{"loss": [3.0, 2.0], "val_loss": [4.0, 1.0]}, {"loss": [5.0, 1.0], "val_loss": [4, 4]}]
    (tmp_path / "conv_vae" / "seeds.json").write_text(json.dumps({"runs": runs}))
    view = content.read_module(tmp_path, "conv_vae")
    assert view["bands"]["loss"] == (2, [(1, 3), (2, 1)], [(1, 5), (2, 2)], 2)
    curves = {curve.name: curve for curve in charts.curves_of(view)}
    assert curves["the port, training loss, 2 seeds"].style == "band run-0"
    assert curves["the port, validation loss, 2 seeds"].style == "band run-0 second"
    seeds = len(json.loads((GOLDEN / "001" / "full-runs.json").read_text())["runs"])
    assert curves[f"the original, training loss, {seeds} seeds"].style == "band original"
    assert curves["the port, seed 7, training loss"].style == "line run-0"


@pytest.mark.parametrize(
    ("factor", "verdict"), [(1.001, "equivalent within 2 %"), (1.1, "DIFFERENT")]
)
def test_whole_runs_are_those_of_the_folder_given(
    tmp_path: Path, factor: float, verdict: str
) -> None:
    recorded = json.loads((GOLDEN / "000" / "full-runs.json").read_text())["runs"]
    runs = [{"loss": [factor * x for x in run["epoch_mean_cost"]]} for run in recorded]
    make_run(tmp_path / "mlp_vae", "mlp_vae")
    (tmp_path / "mlp_vae" / "seeds.json").write_text(json.dumps({"runs": runs}))
    views = collect(tmp_path, [])
    final, whole = views[0]["whole_runs"]
    assert [c.quantity for c in (final, whole)] == [
        "mean cost of an epoch, final", "mean cost of an epoch, whole curve"
    ]  # fmt: skip
    assert final.verdict == verdict
    assert whole.equivalent is final.equivalent
    assert final.difference == pytest.approx(factor - 1)
    theirs = np.mean([run["epoch_mean_cost"][-1] for run in recorded])
    means = (f"<td>{mean:,.6g} ({len(recorded)})" for mean in (factor * theirs, theirs))
    row = f"<th scope=row>mean cost of an epoch, final<td class=words>{verdict}{''.join(means)}"
    assert render(views).count(f"{row}<td>{factor - 1:+.2%}") == 1


def test_whole_runs_of_the_project(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pictures, "encode", lambda *_: {"src": "", "width": 1, "height": 1})
    monkeypatch.setattr(content, "read_run", lambda *_, **__: None)
    found = [c for view in collect(REFERENCE, []) for c in view["whole_runs"]]
    ours, expected = (
        [(c.module, c.quantity, *c.ours, *c.theirs) for c in comparisons]
        for comparisons in (found, equivalence.available())
    )
    assert ours == expected


def test_runs_that_end_early_are_compared_as_far_as_they_go(tmp_path: Path) -> None:
    whole, short = {"test_elbo": [-99.0] * 100}, {"test_elbo": [-99.0] * 25}
    seeds = {"runs": [whole], "short_runs": [short, short]}
    (tmp_path / "elbo_cvae").mkdir()
    (tmp_path / "elbo_cvae" / "seeds.json").write_text(json.dumps(seeds))
    view = content.read_module(tmp_path, "elbo_cvae")
    rows = [(c.quantity, len(c.ours)) for c in view["whole_runs"]]
    assert rows[-2:] == [("test ELBO, epoch 25", 3), ("test ELBO, first 25 epochs", 3)]
    assert view["bands"]["test_elbo"].seeds == 1, "drawn are whole runs"


def test_damage_in_what_the_project_keeps_is_no_absence(tmp_path: Path) -> None:
    folder = make_run(tmp_path / "mlp_vae", "mlp_vae")
    for name, error in (
        ("lockstep.json", ValueError),
        ("seeds.json", Failure),
        ("run.json", Failure),
    ):
        (folder / name).write_text("{")
        with pytest.raises(error):
            content.read_module(tmp_path, "mlp_vae")
        (folder / name).unlink()


def test_film_has_the_frames_of_the_gif(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", "mlp_vae")
    film, last = pictures.read_film(run / "training.gif", ["before", "1", "2", "3"])
    assert (film["width"], film["height"]) == (84, 56), "caption and magnification are undone"
    assert film["columns"] == 2
    assert film["labels"] == ["before", "1", "2", "3"]
    assert (last["width"], last["height"]) == (84, 56)
    frames = np.array(make_frames(), float)
    sheet = pixels(film["sheet"]).reshape(2, 56, 2, 84).swapaxes(1, 2).reshape(4, 56, 84)
    for i, cell in enumerate(sheet):
        assert np.abs(frames - cell).mean(axis=(1, 2)).argmin() == i


def test_long_film_is_thinned_out(tmp_path: Path) -> None:
    n = pictures.MAX_FRAMES + 30
    frames = [np.full((28, 28), i % 256, np.uint8) for i in range(n)]
    (tmp_path / "training.gif").write_bytes(gif(frames, [str(i) for i in range(n)]))
    film, _ = pictures.read_film(tmp_path / "training.gif", [str(i) for i in range(n)])
    assert len(film["labels"]) == pictures.MAX_FRAMES
    assert (film["labels"][0], film["labels"][-1]) == ("0", str(n - 1))


def read(run: Path) -> content.RunView:
    return content.read_run(run, read_record(run), {})


def test_a_run_is_named_by_the_settings_that_are_not_the_documents(tmp_path: Path) -> None:
    config = {"objective": "elbo", "mean_spread": 64.0}
    run = read(make_run(tmp_path / "0002", "tfp_cvae", config=config))
    assert run["name"] == "your run 0002, objective elbo, mean-spread 64"
    assert read(make_run(tmp_path / "0003", "tfp_cvae"))["name"] == "your run 0003"


def test_labels_that_do_not_fit_are_not_used(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", "mlp_vae")
    film, _ = pictures.read_film(run / "training.gif", ["before", "1"])
    assert film["labels"] == ["picture 1", "picture 2", "picture 3", "picture 4"]


@pytest.mark.parametrize("background", [0.0, 1.0], ids=["dark", "light"])
def test_grid_is_cut_out_of_its_figure(tmp_path: Path, background: float) -> None:
    images = np.full((15, 15, 28, 28), background)
    images[0, 0], images[14, 14], images[0, 14] = 0.2, 0.4, 0.8
    axis = normal_quantiles(15)
    figure = plotting.manifold(images, axis, axis, "Title", "gray")
    (tmp_path / "manifold.png").write_bytes(plotting.to_png(figure, "note"))
    size: pictures.Picture = {"src": "", "width": 420, "height": 420}
    grid = pixels(pictures.read_picture(tmp_path / "manifold.png", size))
    assert grid.shape == (420, 420)
    low, high = images.min(), images.max()
    for row, column in ((0, 0), (14, 14), (0, 14), (7, 7), (14, 0)):
        cell = grid[row * 28 + 6 : row * 28 + 22, column * 28 + 6 : column * 28 + 22]
        expected = 255 * (images[row, column, 0, 0] - low) / (high - low)
        assert np.abs(cell - expected).max() <= 2  # resampling


def test_picture_without_axes_is_shown_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "manifold.png").write_bytes(png(np.full((100, 200), 255, np.uint8)))
    size: pictures.Picture = {"src": "", "width": 420, "height": 420}
    shown = pictures.read_picture(tmp_path / "manifold.png", size)
    assert (shown["width"], shown["height"]) == (200, 100)


def test_films_are_labelled_by_the_history(tmp_path: Path) -> None:
    run = read(make_run(tmp_path / "run", "rmsprop_vae"))
    assert run["history"]["step"] == [100, 200, 300]
    labels = run["films"]["training"]["labels"]
    assert labels == ["before training", "step 100", "step 200", "step 300"]
    assert run["problems"] == []
    assert "curves" not in run["pictures"]


# --- Drawing --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("low", "high", "whole", "expected"),
    [
        (0, 50, False, [0, 10, 20, 30, 40, 50]),
        (0, 15, False, [0, 5, 10, 15]),
        (1949, 3182, False, [2000, 2250, 2500, 2750, 3000]),
        (-190, -78, False, [-175, -150, -125, -100]),
        (0, 1, True, [0, 1]),
        (0, 3, True, [0, 1, 2, 3]),
        (0, 12, True, [0, 5, 10]),
        (0, 15, True, [0, 5, 10, 15]),
    ],
)
def test_ticks(low: float, high: float, whole: bool, expected: list[float]) -> None:
    assert charts.ticks(low, high, whole=whole) == expected


def test_chart_leaves_out_what_is_not_finite() -> None:
    curve = charts.Curve("loss", [(1, 3.0), (2, float("nan")), (3, float("inf")), (4, 1.0)], "line")
    drawn = charts.chart([curve], "epoch", "nats")
    assert "nan" not in drawn
    assert "inf" not in drawn
    assert drawn.count("<circle") == 2


@pytest.mark.parametrize("points", [[], [(1, float("nan"))]])
def test_chart_of_nothing(points: list[charts.Point]) -> None:
    assert "No numbers" in charts.chart([charts.Curve("loss", points, "line")], "epoch", "nats")


def test_chart_of_a_single_constant() -> None:
    drawn = charts.chart([charts.Curve("loss", [(1, 0.0)], "line")], "epoch", "nats")
    assert drawn.count("<circle") == 1


def test_far_point_is_named_and_not_drawn() -> None:
    line = charts.Curve("loss", [(100, 270.0), (3000, 165.0)], "line")
    printed = charts.Curve("printed", [(1, 645.08), (1000, 173.02)], "printed", single=True)
    drawn = charts.chart([line, printed], "step", "nats")
    assert "printed (not shown: 645.08 at 1)" in drawn
    assert drawn.count('<circle class="printed"') == 2  # the other one, and the legend's


def test_comparison_with_the_original(tmp_path: Path) -> None:
    make_run(tmp_path / "mlp_vae", "mlp_vae")
    view = content.read_module(tmp_path, "mlp_vae")
    seeds, low, high, _ = view["original_bands"]["loss"]
    (sentence,) = charts.comparisons(view, view["runs"][0])
    said = f"After epoch 3: mean cost of an epoch 297; the original, {seeds} seeds: "
    assert sentence.startswith(said)
    assert f"{low[2][1]:,.6g} to {high[2][1]:,.6g}" in sentence


@pytest.mark.parametrize(
    ("module", "config", "reason"),
    [
        ("mlp_vae", {"objective": "elbo"}, "objective elbo"),
        ("mlp_vae", {"batch_size": 64, "hidden": 8}, "batch-size 64"),
        ("mlp_cvae", {"objective": "elbo", "batch_size": 64}, "batch-size 64 and objective elbo"),
        ("tfp_cvae", {"objective": "elbo", "mean_spread": 64.0}, "objective elbo"),
    ],
)
def test_loss_in_other_units_is_not_compared(
    tmp_path: Path, module: str, config: dict[str, Any], reason: str
) -> None:
    make_run(tmp_path / module, module)
    own = make_run(tmp_path / "0002", module, config=config)
    views = collect(tmp_path, [(own, True)])
    view = views[MODULES.index(module)]
    reference, run = view["runs"]
    lines = {c.style for c in charts.curves_of(view) if c.style.startswith("line run")}
    assert {style.split()[1] for style in lines} == {"run-0"}
    assert "After epoch 3: " in charts.comparisons(view, reference)[0]
    sentence = f"With {reason} the loss is in other units: not in the chart above."
    assert charts.comparisons(view, run) == [sentence]
    text = render(views)
    assert text.count(sentence) == 1
    assert text.count(f"<title>{run['name']}</title><") >= 2, "reconstruction and KL are drawn"


@pytest.mark.parametrize(
    ("module", "config"),
    [
        ("mlp_vae", {"epochs": 3, "learning_rate": 0.01}),
        ("conv_vae", {"batch_size": 64}),
        ("elbo_cvae", {"batch_size": 64}),
        ("rmsprop_vae", {"batch_size": 128}),
    ],
)
def test_loss_in_the_same_units_is_compared(
    tmp_path: Path, module: str, config: dict[str, Any]
) -> None:
    own = make_run(tmp_path / "0002", module, config=config)
    view = collect(tmp_path, [(own, True)])[MODULES.index(module)]
    (run,) = view["runs"]
    assert any(c.name.startswith(run["name"]) and c.points for c in charts.curves_of(view))
    assert "; the original, " in charts.comparisons(view, run)[0]


# --- The page -------------------------------------------------------------------------------------


class Outline(HTMLParser):
    """The elements of a page, and the text of its scripts."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.scripts: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        if self.elements and self.elements[-1][0] == "script" and data.strip():
            self.scripts.append(data)

    def values(self, attribute: str) -> list[str]:
        return [a[attribute] or "" for _, a in self.elements if attribute in a]


@pytest.fixture
def reference(tmp_path: Path) -> Path:
    """Reference results: a run of every module, and the verdicts."""
    folder = tmp_path / "reference"
    for module in MODULES:
        make_run(folder / module, module)
    entry = {
        "precision": "float64", "steps": 400, "horizon": 400, "largest_difference": 5e-12,
        "largest_step": 388, "digits": {"1": 15.6, "10": 15.2, "100": None}, "passed": True,
    }  # fmt: skip
    for module in MODULES:
        if module != "mlp_cvae":
            content = {"entries": [{"module": module, **entry}]}
            (folder / module / "lockstep.json").write_text(json.dumps(content))
    return folder


def test_page_is_whole(reference: Path) -> None:
    page = make_page(reference)
    outline = Outline(page)
    ids = outline.values("id")
    sections = [a["id"] for tag, a in outline.elements if tag == "section"]
    assert sections == ["overview", *MODULES]
    assert len(ids) == len(set(ids))
    assert {link[1:] for link in outline.values("href") if link.startswith("#")} == set(ids)
    live = {link for link in outline.values("href") if link.startswith("explorer.html#")}
    assert live == {f"explorer.html#{module}" for module in MODULES}
    assert len([a for t, a in outline.elements if t == "img"]) >= 6 * 3
    for tag, attributes in outline.elements:
        if tag == "img":
            assert {"alt", "width", "height"} <= set(attributes)
    for module in MODULES:
        assert f"<code>python -m reproductions.{module}</code>" in page
        assert f"<p class=title lang=zh>{html.escape(DOCUMENTS[module].title)}</p>" in page
    assert shown(page).count("equal to 15 digits over 10 steps") == 5
    assert "described without a program" in shown(page)
    assert "2,961.34" in page
    assert "No run yet" not in shown(page)


@pytest.mark.parametrize("module", MODULES)
def test_contents_of_a_module_are_its_headings(reference: Path, module: str) -> None:
    _, _, part = shown(make_page(reference)).partition(f"<section class=module id={module}>")
    part, _, _ = part.partition("</section>")
    headings = re.findall(r"<h3 id=(\S+)>(.+?)</h3>", part)
    contents = re.findall(r'<li><a href="#(\S+)">(.+?)</a>', part)
    assert contents == headings
    assert (f"{module}-run-0", "The port, seed 7") in contents
    assert {"Training", "Proof", "Kept quirks", "Deviations"} <= {text for _, text in contents}


def test_pictures_beside_the_originals_are_those_of_the_runs_that_are_named(
    tmp_path: Path, reference: Path
) -> None:
    """The original's, the kept run's, and a quick run's, which is called one."""
    own = make_run(tmp_path / "own", "mlp_vae", quick=True)
    (own / "manifold.png").write_bytes(png(np.full((30, 40), 200, np.uint8)))
    _, _, part = shown(make_page(reference, own)).partition("<section class=module id=mlp_vae>")
    part, _, _ = part.partition("</section>")
    found = re.findall(r'<img src="([^"]+)"[^>]* alt="manifold: ([^"]+)"', part)
    assert [whose for _, whose in found] == [
        "the original, TensorFlow 1.14.0", "the port, seed 7", "your run own (quick)"
    ]  # fmt: skip
    original, *ours = (pixels({"src": src, "width": 0, "height": 0}) for src, _ in found)
    recorded = Image.open(GOLDEN / "000" / "picture-manifold.png").convert("L")
    np.testing.assert_array_equal(original, recorded)
    for picture, grey in zip(ours, (90, 200), strict=True):
        assert np.abs(picture.astype(int) - grey).max() <= 2  # of WebP
    assert "<b>Your run own (quick)</b><br>" in part
    assert "<b>The port, seed 7</b><br>" in part


def test_digits_that_were_asked_for_are_shown_with_tfp_cvae(reference: Path) -> None:
    views = collect(reference, [])
    assert [v["document"].module for v in views if v["asked"]] == ["tfp_cvae"]
    assert make_page(reference).count("<h3 id=tfp_cvae-asked>") == 1


def test_commands_of_the_overview_are_those_of_the_readme() -> None:
    readme = (ROOT / "README.md").read_text()
    _, _, part = TEMPLATE.read_text().partition("How this page was made")
    found = re.findall(r"<code>(.+?)</code>", part, re.DOTALL)
    lines = [line for code in found for line in re.sub(r"<.+?>", "", code).splitlines()]
    assert len(lines) == 6
    for line in lines:
        assert html.unescape(line) in readme


def test_film_by_the_documents_rule(tmp_path: Path) -> None:
    run = make_run(tmp_path / "elbo_cvae", "elbo_cvae")
    rows = "".join(f"{i},-90,80,10,-90\n" for i in range(1, 8))
    (run / "history.csv").write_text(f"epoch,loss,reconstruction,kl,test_elbo\n{rows}")
    kept = [0, 1, 2, 4, 6, 7]
    chance = np.random.default_rng(0)
    frames = list(chance.integers(0, 256, (len(kept), 56, 84), np.uint8))
    (run / "document.gif").write_bytes(gif(frames, [str(i) for i in kept]))
    views = collect(tmp_path, [])
    film = views[3]["runs"][0]["films"]["document"]
    assert film["labels"] == ["before training", *(f"epoch {i}" for i in kept[1:])]
    assert "The document&#x27;s own GIF keeps 6 of these pictures" in render(views)


def test_page_fetches_nothing(reference: Path) -> None:
    page = make_page(reference)
    outline = Outline(page)
    assert all(v.startswith("data:image/webp;base64,") for v in outline.values("src"))
    links = [v.partition("#")[0] for v in outline.values("href")]
    assert set(links) == {"", "data:,", "explorer.html"}
    assert not re.search(r"url\(|@import|https?:", page)
    script = next(s for s in outline.scripts if "use strict" in s)
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    policy = next(c for c in outline.values("content") if "default-src" in c)
    assert "default-src 'none'" in policy
    assert f"script-src 'sha256-{digest}'" in policy


def test_nothing_of_a_hostile_run_becomes_markup(tmp_path: Path, reference: Path) -> None:
    clean = Outline(make_page(reference, make_run(tmp_path / "clean", "mlp_vae")))
    run = make_run(
        tmp_path / HOSTILE.replace("/", ""), "mlp_vae",
        document=HOSTILE, config={HOSTILE: HOSTILE, "epochs": [HOSTILE]},
        results={HOSTILE: float("nan")}, environment={HOSTILE: HOSTILE},
        evaluation={"kl": HOSTILE, "wanted_digits": {"right": [], "share": HOSTILE}},
    )  # fmt: skip
    (run / "manifold.png").rename(run / f"{HOSTILE.replace('/', '')}.png")
    rows = (run / "history.csv").read_text().splitlines()
    quoted = HOSTILE.replace('"', '""')
    lines = [f'{rows[0]},"{quoted}"', *(f"{row},1" for row in rows[1:])]
    (run / "history.csv").write_text("\n".join(lines))

    page = make_page(reference, run)
    assert "<script>alert" not in page
    assert "&lt;script&gt;alert(" in page, "it is shown, as text"
    hostile = Outline(page)
    assert len(hostile.scripts) == len(clean.scripts)
    assert not any("alert" in script for script in hostile.scripts)
    assert not [n for _, a in hostile.elements for n in a if n.startswith("on")]


def test_a_run_shows_what_it_is_worth(tmp_path: Path) -> None:
    wanted = {"right": [1000, 250, *[0] * 8], "share": 0.125}
    worth = {"reconstruction": 144.019, "kl": 13.21, "elbo": -157.23, "wanted_digits": wanted}
    run = make_run(tmp_path / "run", "tfp_cvae", evaluation=worth)
    page = make_page(tmp_path, run)
    assert "<td>144.02<td>13.21<td>−157.23<td>–" in page, "log-likelihood: not known"
    assert "<td>100.0%<td>25.0%<td>0.0%" in page
    assert shown(page).count("The test set: nats per image") == 1, "of runs without figures nothing"


def test_json_cannot_end_its_script() -> None:
    text = markup.script_json([HOSTILE, "<!--"])
    assert "<" not in text
    assert json.loads(text) == [HOSTILE, "<!--"]


def test_page_without_any_run(tmp_path: Path) -> None:
    page = make_page(tmp_path)
    assert shown(page).count("This page shows no run, because") == 1
    assert shown(page).count("No run yet: the command above makes one.") == len(MODULES)
    assert shown(page).count("No verdict is stored.") == len(MODULES) - 1
    assert (
        page.count("<code>python -m reproductions.evidence.full_runs tfp_cvae --part proof</code>")
        == 1
    )
    assert shown(page).count("<em>no run yet</em>") == len(MODULES) - 1


@pytest.mark.parametrize(
    ("name", "content", "problem"),
    [
        ("history.csv", b"epoch,loss\n1,a lot\n", "history.csv is missing or cannot be read"),
        ("history.csv", b"epoch,loss\n1\n", "history.csv is missing or cannot be read"),
        ("history.csv", b"\xff\xfe", "history.csv is missing or cannot be read"),
        ("latent.png", b"not a picture", "latent.png cannot be read"),
        ("latent.png", b"\x89PNG\r\n\x1a\n\0\0", "latent.png cannot be read"),
        ("latent.png", b"%!PS-Adobe-3.0 EPSF-3.0\n%%EOF\n", "latent.png cannot be read"),
        ("history.csv", b"epoch\n" + 200_000 * b"1", "history.csv is missing or cannot be read"),
        ("training.gif", b"GIF89a", "training.gif is missing or cannot be read"),
        ("training.gif", None, "training.gif is missing or cannot be read"),
    ],
)
def test_broken_file_is_named_and_the_rest_is_shown(
    tmp_path: Path, name: str, content: bytes | None, problem: str
) -> None:
    run = make_run(tmp_path / "mlp_vae", "mlp_vae")
    if content is None:
        (run / name).unlink()
    else:
        (run / name).write_bytes(content)
    views = collect(tmp_path, [])
    assert views[0]["runs"][0]["problems"] == [problem]
    assert problem in render(views)


@pytest.mark.parametrize("broken", [{"wanted_digits": [1]}, {"wanted_digits": {"right": [1]}}])
def test_broken_evaluation_is_named_and_the_rest_is_shown(
    tmp_path: Path, broken: dict[str, Any]
) -> None:
    run = make_run(tmp_path / "run", "mlp_cvae", evaluation=broken)
    page = shown(make_page(tmp_path, run))
    assert "The evaluation in run.json cannot be read." in page
    assert "The plane of codes, decoded" in page


def test_the_grid_of_any_digit_has_its_caption(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", "tfp_cvae", config={"digit": 3})
    (run / "class-8.png").rename(run / "class-3.png")
    assert "Asked for the digit 3: the codes around its prior mean" in make_page(tmp_path, run)


def test_unfinished_run_is_shown_as_one(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", "mlp_vae", finished=False)
    assert "This run is not finished." in shown(make_page(tmp_path, run))


# --- The command ----------------------------------------------------------------------------------


def test_command_takes_finished_runs(
    here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(command, "REFERENCE", here / "no reference")
    runs = here / "artifacts" / "runs" / "mlp_vae"
    make_run(runs / "0001", "mlp_vae")
    make_run(runs / "0002", "mlp_vae")
    make_run(runs / "0003", "mlp_vae", finished=False)
    (runs / "latest").symlink_to("0003")
    assert command.main([]) == 0
    page = (here / "artifacts" / "gallery.html").read_text()
    assert "Your run 0002</h3>" in page
    assert "your run 0001" in page
    assert "Your run 0001</h3>" not in page, "pictures of the newest alone"
    assert "0003" not in page
    assert capsys.readouterr().out.startswith("artifacts/gallery.html: 2 runs, ")


def test_command_takes_the_runs_named(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(command, "REFERENCE", here / "no reference")
    one, two = make_run(here / "one", "mlp_vae"), make_run(here / "two", "conv_vae")
    assert command.main([str(one), str(two), "--output", "out/page.html"]) == 0
    page = (here / "out" / "page.html").read_text()
    assert "Your run one</h3>" in page
    assert "Your run two</h3>" in page
    assert list((here / "out").iterdir()) == [here / "out" / "page.html"]


@pytest.mark.parametrize("arguments", [["nowhere"], ["."], ["--colour", "red"]])
def test_bad_input_is_one_line(
    here: Path, capsys: pytest.CaptureFixture[str], arguments: list[str]
) -> None:
    assert command.main(arguments) == 2
    complaint(capsys, "gallery")
    assert not (here / "artifacts").exists()


def test_tensorflow_is_not_imported(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", "tfp_cvae", config={"objective": "elbo"})
    program = (
        "import sys; from reproductions.gallery import __main__ as gallery;"
        " gallery.REFERENCE /= 'none';"
        " sys.exit(gallery.main(sys.argv[1:]) or 'tensorflow' in sys.modules)"
    )
    arguments = [str(run), "--output", str(tmp_path / "page.html")]
    python(program, *arguments)


# --- In a browser ---------------------------------------------------------------------------------


def test_page_in_chromium(browser: Browser, tmp_path: Path, reference: Path) -> None:
    page = tmp_path / "gallery.html"
    page.write_text(make_page(reference, make_run(tmp_path / "own", "mlp_vae")))
    browser.open(page.as_uri(), width=1400)
    assert browser.evaluate(SHOWN) == ["overview"]
    broken = "[...document.images].filter(i => !i.complete || !i.naturalWidth).length"
    assert browser.evaluate("document.images.length") > 20
    assert browser.evaluate(broken) == 0
    for module in MODULES:
        browser.click(f"body > nav a[href='#{module}']")
        assert browser.evaluate(SHOWN) == [module]
        marked = "[...document.querySelectorAll('[aria-current]')].map(a => a.hash).join()"
        browser.wait_until(f"{marked} === '#{module}'")
    browser.click("#tfp_cvae .contents [href='#tfp_cvae-proof']")
    assert browser.evaluate(SHOWN) == ["tfp_cvae"]
    assert browser.evaluate(marked) == "#tfp_cvae"
    proof = "document.querySelector('#tfp_cvae-proof').getBoundingClientRect()"
    browser.wait_until(f"0 <= {proof}.y && {proof}.y < 900")
    browser.click("#tfp_cvae [rel=prev]")
    assert browser.evaluate(SHOWN) == ["rmsprop_vae"]

    output = "document.querySelector('#rmsprop_vae output').textContent"
    sheet = "getComputedStyle(document.querySelector('#rmsprop_vae .screen img'))"
    assert browser.evaluate(output) == "step 300"
    browser.click("#rmsprop_vae input[type=range]")
    browser.press("Home")
    assert browser.evaluate(output) == "before training"
    assert browser.evaluate(f"[{sheet}.left, {sheet}.top]") == ["0px", "0px"]
    browser.click("#rmsprop_vae .play")
    assert browser.evaluate("document.querySelector('#rmsprop_vae .play').textContent") == "Pause"
    browser.wait_until("document.querySelector('#rmsprop_vae .play').textContent === 'Play'")
    assert browser.evaluate(output) == "step 300"

    browser.click("#rmsprop_vae .copy")
    browser.wait_until("document.querySelector('#rmsprop_vae .copy').textContent !== 'Copy'")
    assert browser.complaints() == []


@pytest.fixture
def page(tmp_path: Path, reference: Path) -> str:
    """The address of the page of the made-up runs."""
    path = tmp_path / "gallery.html"
    path.write_text(make_page(reference))
    return path.as_uri()


@pytest.mark.parametrize("width", [420, 1400])
def test_page_is_not_wider_than_the_window(browser: Browser, page: str, width: int) -> None:
    for module in ["overview", *MODULES]:
        browser.open(f"{page}#{module}", width=width, dark=True)
        assert browser.evaluate("document.documentElement.scrollWidth") <= width
        assert browser.complaints() == []


def test_page_without_javascript_is_one_long_page(browser: Browser, page: str) -> None:
    browser.open(page, javascript=False)
    assert browser.evaluate(SHOWN) == ["overview", *MODULES]
    controls = "[...document.querySelectorAll('button, input')].filter(e => e.offsetHeight)"
    assert browser.evaluate(f"{controls}.length") == 0


def test_page_in_chinese(browser: Browser, page: str) -> None:
    browser.open(page)
    texts = (
        "written.map(([english]) => [english, word(english)])"
        ".filter(([, shown]) => /[a-z]{3,} [a-z]{2,} [a-z]{2,}/.test(shown))"
    )
    browser.click("[data-language=zh]")
    assert browser.evaluate("document.querySelector('h1').textContent") == (
        "六个变分自编码器的复现"
    )
    assert browser.evaluate("document.title") == "六个变分自编码器的复现"
    assert browser.evaluate(texts) == [], "nothing but what the docstrings say is in English"
    browser.evaluate("location.hash = 'rmsprop_vae'")
    output = "document.querySelector('#rmsprop_vae output').textContent"
    assert browser.evaluate(output) == "第 300 步"
    browser.click("[data-language=en]")
    assert browser.evaluate(output) == "step 300"
    assert browser.complaints() == []
