"""The explorer: its arithmetic against NumPy and TensorFlow, its texts, the page in a browser."""

from __future__ import annotations

import base64
import hashlib
import importlib
import io
import json
import re
import shutil
import subprocess
import zlib
from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np
import pytest
from PIL import Image
from scipy import stats

from common.errors import BadInput
from common.pictures import normal_quantiles
from reproductions import MODULES, program
from reproductions.evidence.kept import REFERENCE
from reproductions.explorer import __main__ as command
from reproductions.explorer import models
from reproductions.explorer.build import (
    GRIDS,
    HERE,
    LANGUAGES,
    SCRIPTS,
    build,
    describe,
)
from reproductions.explorer.measure import codes_to_try, in_node
from tests.chromium import Browser
from tests.conftest import CONDITIONAL, ROOT, WITH_OBJECTIVE

COMMITTED = ROOT / "artifacts" / "explorer.html"
# JavaScript from NumPy, with the same weights, in pixels between 0 and 1; measured: 1.8e-6.
PIXELS = 1e-5
# The same of means and scales of q(z|x); measured: 1.4e-5, of means up to 22.
CODES = 5e-5
# Reconstruction and KL in nats from TensorFlow's, relatively; measured: 4e-6.
NATS = 1e-4
# What is drawn, in grey levels, and written, with two decimals, from NumPy's; measured: 0.50001
# and 0.0052, nearly all of which is rounding.
LEVEL, CELL = 0.51, 0.01
# What a nat of KL weighs, where not 1: one counts for a batch of 128 images, or two for 256.
WEIGHTS = dict.fromkeys(WITH_OBJECTIVE, "1/128")
LARGEST = 8_000_000  # bytes of the page
TWINS = {"mlp_vae": "elbo", "rmsprop_vae": "30000", "tfp_cvae": "elbo"}  # folders with the runs

RUNS = {
    str(f.parent.relative_to(REFERENCE)): f.parent for f in sorted(REFERENCE.rglob("explorer.npz"))
}
node = pytest.mark.skipif(not shutil.which("node"), reason="no node on PATH")


@cache
def kept(run: str) -> tuple[models.Model, np.ndarray, np.ndarray]:
    """A model with the page's rounded weights, and the images and digits that the page shows."""
    with np.load(RUNS[run] / "explorer.npz") as measured:
        return models.rounded(models.load(RUNS[run])), measured["images"], measured["digits"]


# --- Arithmetic -----------------------------------------------------------------------------------


def test_every_module_and_twin_is_here():
    assert set(RUNS) == {*MODULES, *(f"{module}/{twin}" for module, twin in TWINS.items())}


@pytest.mark.parametrize("run", RUNS)
def test_kept_codes_are_those_of_the_weights(run):
    """Weights that are made anew leave the explorer.npz beside them as it was."""
    with np.load(RUNS[run] / "explorer.npz") as m:
        first = np.sort(np.concatenate([np.flatnonzero(m["labels"] == k)[:2] for k in range(10)]))
        step = (m["high"] - m["low"]) / (int(m["levels"]) - 1)
        z = m["low"] + m["codes"][first] * step
        mean, _ = models.load(RUNS[run]).encode(m["images"], m["digits"])
    assert (np.abs(z - mean) <= step).all()


@node
@pytest.mark.parametrize("run", RUNS)
def test_javascript_computes_what_numpy_computes(run):
    model, images, digits = kept(run)
    z = codes_to_try(model, images, digits)
    page = in_node(model, images, digits, z)
    mean, scale = model.encode(images, digits)
    assert np.abs(page["decoded"] - model.decode(z, digits)).max() < PIXELS
    assert np.abs(page["mean"] - mean).max() < CODES
    assert np.abs(page["scale"] - scale).max() < CODES


@node
def test_swapped_channels_are_found():
    """The control: JavaScript with the last layer's first two inputs exchanged."""
    model, images, digits = kept("conv_vae")
    z = codes_to_try(model, images, digits)
    *layers, last = model.decoder
    kernel = last.kernel.copy()
    kernel[..., [0, 1], :] = kernel[..., [1, 0], :]
    broken = replace(model, decoder=[*layers, last._replace(kernel=kernel)])
    page = in_node(broken, images, digits, z)
    assert np.abs(page["decoded"] - model.decode(z, digits)).max() > 100 * PIXELS


NATS_IN_NODE = """
const {module, spec, tensors, images, digits, eps} =
  JSON.parse(require("fs").readFileSync(0, "utf8"));
const next = () => Float32Array.from(tensors.shift());
const layers = (network) => network.map((l) => ({...l, kernel: next(), bias: next()}));
const model = {...spec, encoder: layers(spec.encoder), decoder: layers(spec.decoder)};
const means = spec.class_mean && next();
console.log(JSON.stringify(images.map((image, i) => {
  const q = encode(model, image, digits[i]);
  const z = q.mean.map((m, k) => m + sum(eps[i], (e, j) => e * q.scale[k][j]));
  const prior = z.map((_, k) => (means ? means[2 * digits[i] + k] : 0));
  return natsOf(module, model, image, q, z, decode(model, z, digits[i]), prior);
})));
"""


@node
@pytest.mark.parametrize("run", MODULES)
def test_nats_are_those_of_the_modules_own_loss(run):
    """The document's reconstruction and KL, image by image, from the unrounded weights."""
    from common.lazy import tf

    port = importlib.import_module(f"reproductions.{run}")
    model, (_, images, digits) = models.load(RUNS[run]), kept(run)
    eps = np.random.default_rng(1).standard_normal((len(images), model.latent)).astype(np.float32)
    losses = port.loss(program(run).load(RUNS[run]), images, digits, tf.constant(eps))

    names = ("networks.js", "payload.js", "nats.js")
    question = {
        "module": run,
        "spec": describe(model),
        "tensors": [a.ravel().tolist() for a in models.tensors(model)],
        "images": images.reshape(len(images), -1).tolist(),
        "digits": digits.tolist(),
        "eps": eps.tolist(),
    }
    answer = subprocess.run(
        ["node", "-e", "".join((HERE / name).read_text() for name in names) + NATS_IN_NODE],
        input=json.dumps(question), capture_output=True, text=True, check=True,
    )  # fmt: skip
    found = json.loads(answer.stdout)
    for name in ("reconstruction", "kl"):
        ours = np.array([f[name] for f in found])
        theirs = getattr(losses, name).numpy()
        assert np.abs(ours - theirs).max() < NATS * np.abs(theirs).max(), name
    constant = 392 * np.log(2 * np.pi) if program(run).likelihood == "gaussian" else 0
    proper = np.array([f["properReconstruction"] for f in found]) - constant
    assert np.abs(proper - losses.reconstruction).max() < 1e-3 * np.abs(proper).max()


@node
def test_drawing_is_centred_as_in_mnist():
    """A bar in a corner is fitted into 20 pixels, its centre of mass in the middle."""
    script = "".join((HERE / name).read_text() for name in ("networks.js", "nats.js", "pad.js"))
    script += """
    const ink = new Float32Array(PAD * PAD);
    console.log(JSON.stringify([normalise(ink, true)]));
    for (let y = 20; y < 120; y++) ink.fill(1, y * PAD + 30, y * PAD + 60);
    console.log(JSON.stringify([true, false].map((c) => Array.from(normalise(ink, c)))));
    """
    done = subprocess.run(["node", "-e", script], capture_output=True, text=True, check=True)
    empty, drawn = map(json.loads, done.stdout.splitlines())
    assert empty == [None], "an empty canvas encodes nothing"
    centred, plain = np.array(drawn).reshape(2, 28, 28) / 255
    rows, columns = np.nonzero(centred > 0.5)
    assert (np.ptp(rows) + 1, np.ptp(columns) + 1) == (20, 6)
    y, x = (np.indices((28, 28)) * centred).sum(axis=(1, 2)) / centred.sum() + 0.5
    assert abs(y - 14) < 0.2
    assert abs(x - 14) < 0.2
    rows, columns = np.nonzero(plain > 0.5)
    assert (rows.min(), rows.max(), columns.min(), columns.max()) == (2, 11, 3, 5)


# --- The page -------------------------------------------------------------------------------------


def unpacked(page: str) -> tuple[str, list[bytes]]:
    """The page without its data, and the data inflated: deflate may differ from zlib to zlib."""
    pattern = r'(<script type="text/plain" id="[\w-]+">)([^<]+)'
    data = [zlib.decompress(base64.b64decode(text)) for _, text in re.findall(pattern, page)]
    return re.sub(pattern, r"\1", page), data


def test_the_committed_page_is_current(tmp_path):
    assert command.main(["--output", str(tmp_path / "page.html")]) == 0
    made = (tmp_path / "page.html").read_text("utf-8")
    assert unpacked(made) == unpacked(COMMITTED.read_text("utf-8")), (
        "run python -m reproductions.explorer"
    )
    assert len(made.encode()) < LARGEST


def test_page_fetches_and_evaluates_nothing():
    page = COMMITTED.read_text("utf-8")
    (policy,) = re.findall(r'Content-Security-Policy"\s+content="([^"]+)"', page)
    (script,) = re.findall(r"<script>(.*?)</script>", page, re.S)
    (style,) = re.findall(r"<style>(.*?)</style>", page, re.S)
    digests = [
        base64.b64encode(hashlib.sha256(t.encode()).digest()).decode() for t in (style, script)
    ]
    assert policy == (
        "default-src 'none'; img-src data:;"
        f" style-src 'sha256-{digests[0]}'; script-src 'sha256-{digests[1]}'"
    )
    assert not re.search(r"https?:|url\(|@import|\bfetch\(|\beval\(|new Function|innerHTML", page)
    assert set(re.findall(r'(?:href|src)="([^"]*)"', page)) == {"data:,"}


def test_no_placeholder_stands_on_the_page_before_the_script_runs():
    page = COMMITTED.read_text("utf-8")
    assert re.search(r'data-t="title"[^>]*>What six', page)
    assert not re.search(r'data-t="[^"]+"[^>]*>[^<]*\{', page)


def test_every_script_is_on_the_page():
    assert {path.name for path in HERE.glob("*.js")} == set(SCRIPTS)


def test_texts_are_whole_in_both_languages():
    english, chinese = (json.loads((HERE / f"{k}.json").read_text("utf-8")) for k in LANGUAGES)
    assert list(english) == list(chinese)
    names = re.compile(r"\{(\w+)\}")
    for key, text in english.items():
        assert set(names.findall(text)) == set(names.findall(chinese[key])), key
        assert text.strip()
        assert re.search(r"[\u4e00-\u9fff]", chinese[key]) or text == chinese[key], key
    same = [key for key in english if english[key] == chinese[key]]
    assert {
        k for k in same if not k.endswith(("elbo", "kl", "name", "mean", "architecture"))
    } == set()
    used = set(re.findall(r'data-(?:t|label)="([\w.-]+)"', (HERE / "page.html").read_text()))
    for module in MODULES:
        missing = {k for k in used if k not in english and f"{module}.{k}" not in english}
        # Only the conditional models show labels.
        assert missing == (set() if module in CONDITIONAL else {"labels"})


def test_damaged_measurements_are_one_line(tmp_path):
    folder = tmp_path / "mlp_vae"
    folder.mkdir()
    (folder / "explorer.npz").write_bytes(b"PK\x03\x04 cut short")
    with pytest.raises(BadInput, match=r"explorer.npz is damaged .*make it again with python -m"):
        build(tmp_path)


def test_folder_without_models(tmp_path):
    with pytest.raises(BadInput, match="no trained models"):
        build(tmp_path)


# --- In a browser ---------------------------------------------------------------------------------

# Park and Miller's generator, in place of the browser's.
CHANCE = "((n) => () => (n = (16807 * n) % 2147483647) / 2147483647)(1)"
READY = "find('main').getAttribute('aria-busy') === 'false' && !waiting.size && !refreshing"


def open_page(browser: Browser, module: str, **options: Any) -> None:
    browser.open(f"{COMMITTED.as_uri()}#{module}", **options)
    browser.wait_until(READY)


def runs_of(module: str) -> list[str]:
    """The runs that the page shows side by side, in its order."""
    return [module, *(f"{module}/{TWINS[module]}" for _ in range(module in TWINS))]


def drawn(browser: Browser, canvases: str) -> list[np.ndarray]:
    """What is to be seen on the canvases of a JavaScript list, uint8 [height, width, 3] of each."""
    urls = browser.evaluate(f"{canvases}.map((canvas) => canvas.toDataURL())")
    content = [base64.b64decode(url.partition(",")[2]) for url in urls]
    return [np.asarray(Image.open(io.BytesIO(png)).convert("RGB")) for png in content]


def prior_means(model: models.Model) -> np.ndarray:
    """Of the ten digits, [10, latent]."""
    return np.zeros((10, model.latent)) if model.class_mean is None else model.class_mean


def nats_of(
    module: str, model: models.Model, image: np.ndarray, digit: int, z: np.ndarray
) -> list[tuple[float, float]]:
    """Reconstruction and KL of an image by the document's formulas, and the proper ones."""
    digits = np.array([digit])
    raw = replace(model, output="linear").decode(z[np.newaxis], digits).ravel().astype(float)
    x = ((image >= 128) if model.binarised else image / 255).ravel()
    (mean,), (scale,) = model.encode(image[np.newaxis], digits)
    covariance = scale.astype(float) @ scale.T
    prior_mean, n = prior_means(model)[digit], model.latent
    squares = np.trace(covariance) + ((mean - prior_mean) ** 2).sum() - n
    closed = kl = 0.5 * (squares - np.linalg.slogdet(covariance)[1])
    if module in ("elbo_cvae", "tfp_cvae"):  # of the one z
        kl = stats.multivariate_normal(mean, covariance).logpdf(z)
        kl -= stats.multivariate_normal(prior_mean, np.eye(n)).logpdf(z)
    if model.output == "linear":
        squared = 0.5 * ((raw - x) ** 2).sum()
        return [(squared, kl), (squared + 392 * np.log(2 * np.pi), closed)]
    document = proper = (np.logaddexp(0, raw) - raw * x).sum()
    p = (1 / (1 + np.exp(-raw))).astype(np.float32)
    if module == "rmsprop_vae":
        document = -(x * np.log(1e-10 + p) + (1 - x) * np.log(np.float32(1) - p)).sum()
    if module == "tfp_cvae":
        p = p.astype(float).clip(1e-7, 1 - 1e-7)
        document = -(x * np.log(p + 1e-7) + (1 - x) * np.log(1 - p + 1e-7)).sum()
    return [(document, kl), (proper, closed)]


@pytest.mark.parametrize("module", MODULES)
def test_numbers_on_the_page_are_numpys(browser, module):
    open_page(browser, module)
    page = browser.evaluate(
        "benches.map((b) => ({z: b.z, image: [...state.image], pixels: [...b.decoded.pixels]}))"
    )
    for run, bench in zip(runs_of(module), page, strict=True):
        model, images, digits = kept(run)
        i = digits.tolist().index(4 if module in CONDITIONAL else 7)
        assert bench["image"] == images[i].ravel().tolist()
        mean, _ = model.encode(images[i : i + 1], digits[i : i + 1])
        z = np.array([bench["z"]], np.float32)
        assert np.abs(z - mean).max() < CODES
        picture = model.decode(z, digits[i : i + 1])
        assert np.abs(picture.ravel() - bench["pixels"]).max() < PIXELS
    assert browser.complaints() == []


@pytest.mark.parametrize("module", MODULES)
def test_tables_and_pictures_show_what_numpy_computes(browser, module):
    """Of a two, with which no page begins, and of a z that is not the mean of its q(z|x)."""
    open_page(browser, module)
    two = browser.evaluate("modules[state.module].digits.indexOf(2)")
    browser.click(f"#strip button:nth-child({two + 1})")
    browser.evaluate(f"Math.random = {CHANCE}")
    browser.click("#resample")
    browser.click("#again")
    browser.wait_until(READY)
    check_tables(browser, module)
    check_pictures(browser, module)
    if module != "elbo_cvae":  # of fifty dimensions there is no grid
        check_grid(browser, module)
    assert browser.complaints() == []


def of_a_thousand(n: int) -> str:
    """In per cent, which are none and all only if they are."""
    if 0 < n < 5 or 995 <= n < 1000:
        return f"{n / 10} %"
    return f"{int(n / 10 + 0.5)} %"


def check_tables(browser: Browser, module: str) -> None:
    """Every cell of the nats, of the shares of the wanted digits, and of the codes."""
    cells = "[...b.{}.rows].map((row) => [...row.cells].map((cell) => cell.textContent))"
    page = browser.evaluate(
        f"benches.map((b) => ({{z: b.z, dims: state.dims, nats: {cells.format('nats')},"
        f" shares: {cells.format('shares')},"
        " chosen: [...b.shares.querySelectorAll('.chosen')].map((cell) => cell.cellIndex),"
        " codes: [...b.readout.querySelectorAll('dd')].map((entry) => entry.textContent)}))"
    )
    measured = dict(browser.evaluate(
        "[...find('measured').rows].map((row) => [...row.cells].map((cell) => cell.textContent))"
        ".map(([name, ...values]) => [name, values])"
    ))  # fmt: skip
    texts = json.loads((HERE / "en.json").read_text("utf-8"))
    sampled = ".sampled" * (module in ("elbo_cvae", "tfp_cvae"))
    names = [texts[f"nats.{k}"] for k in ("reconstruction", f"kl{sampled}", "weight", "sum")]
    weights = [WEIGHTS.get(run, "1") for run in runs_of(module)]
    assert measured[texts["measured.kl_weight"]] == weights
    for run, bench, weight in zip(runs_of(module), page, weights, strict=True):
        model, images, digits = kept(run)
        two, z = digits.tolist().index(2), np.array(bench["z"])
        head, *rows = bench["nats"]
        assert head == ["", texts["nats.document"], texts["nats.proper"]]
        assert [row[0] for row in rows] == names
        assert rows.pop(2)[1:] == [weight, "1"]
        expected = nats_of(module, model, images[two], 2, z)
        for column, (reconstruction, kl), share in zip(
            (1, 2), expected, (1 / int(weight.split("/")[-1]), 1), strict=True
        ):
            found = [float(row[column].replace("−", "-")) for row in rows]
            wanted = [reconstruction, kl, reconstruction + share * kl]
            assert np.abs(np.subtract(found, wanted)).max() < CELL, (run, found, wanted)

        (mean,), (scale,) = model.encode(images[two : two + 1], digits[two : two + 1])
        deviation = np.sqrt((scale**2).sum(axis=1))
        told = [[float(v.replace("−", "-")) for v in t[1:-1].split(", ")] for t in bench["codes"]]
        codes = [vector[bench["dims"]] for vector in (z, mean, deviation)]
        assert np.abs(np.subtract(told, codes)).max() < CELL, (run, told, codes)

        worth = json.loads((RUNS[run] / "run.json").read_text("utf-8"))["evaluation"]
        told = browser.evaluate("document.querySelector('[data-t=\"measured.text\"]').textContent")
        assert f"for the first {worth['images_sampled']} images" in told
        assert f"of {worth['samples']} samples" in told
        if "wanted_digits" in worth:
            shares = [of_a_thousand(n) for n in worth["wanted_digits"]["right"]]
            assert bench["shares"] == [[str(k) for k in range(10)], shares]
        else:
            assert bench["shares"] == []
        assert bench["chosen"] == ([2, 2] if bench["shares"] else [])


def check_pictures(browser: Browser, module: str) -> None:
    """The picture of z, the ten draws from the prior, and z as each digit."""
    page = browser.evaluate("({z: benches.map((b) => b.z), draws: state.draws})")
    pictures, draws, labels = (
        drawn(browser, f"benches.map((b) => b.{name})") for name in ("picture", "draws", "labels")
    )
    for i, run in enumerate(runs_of(module)):
        model, _, _ = kept(run)
        conditional = model.labelled or model.class_mean is not None
        means, z = prior_means(model), np.array(page["z"][i])
        same = z - means[2] + means
        for strip, codes, digits in (
            (pictures[i], z[np.newaxis], np.array([2])),
            (draws[i], np.array(page["draws"]) + means[2], np.full(10, 2)),
            *([(labels[i], same, np.arange(10))] if conditional else []),
        ):
            expected = 255 * model.decode(codes, digits).clip(0, 1)
            found = [strip[:, 30 * k : 30 * k + 28, 0] for k in range(len(codes))]
            assert np.abs(np.subtract(found, expected)).max() < LEVEL, run


def check_grid(browser: Browser, module: str) -> None:
    """Pictures of the document's grid: column 1 of row 0, the first and the last but one of row 1.

    The view is moved to where that one lies: it fills the plane, with some codes on top.
    """
    model, _, _ = kept(module)
    axis = np.array(GRIDS.get(module, normal_quantiles(15)))
    n, middle = len(axis), prior_means(model)[2]
    codes = middle + axis[np.array([[1, 0], [0, 1], [n - 2, 1]])]
    expected = 255 * model.decode(codes, np.full(3, 2)).clip(0, 1)
    browser.click("#grid")
    cells = f"[1, {n}, {2 * n - 2}].map((k) => benches[0].grid[k].picture)"
    browser.wait_until(f"{cells}.every(Boolean)")
    found = drawn(browser, cells)
    assert np.abs(np.subtract([f[:, :, 0] for f in found], expected)).max() < LEVEL

    edges = (axis[1:] + axis[:-1]) / 2
    x, y = middle + np.array([edges[-2:].mean(), edges[:2].mean()])
    half = (edges[1] - edges[0]) / 2
    browser.evaluate(
        f"Object.assign(benches[0].plane.view, {{x: {x}, y: {y}, half: {half}}}),"
        " benches[0].plane.draw()"
    )
    (plane,) = drawn(browser, "[benches[0].plane.canvas]")
    at = ((np.arange(28) + 0.5) * len(plane) / 28).astype(int)
    seen = plane[at][:, at].mean(axis=2)
    assert np.corrcoef(seen.ravel(), expected[2].ravel())[0, 1] > 0.9


def test_plane_draws_z_and_the_codes_where_they_are(browser):
    """The marker at z, which alone has its colour; and the threes, which are green."""
    open_page(browser, "mlp_vae")
    browser.click("#clear")  # no image: no ellipses of q(z|x)
    browser.click("#legend button:nth-child(4)")
    browser.drag("article[data-kind=document] .plane", [(0.5, 0.5), (0.6, 0.5), (0.75, 0.125)])
    browser.wait_until(READY)
    planes = drawn(browser, "benches.map((b) => b.plane.canvas)")
    views = browser.evaluate("benches.map((b) => b.plane.view)")
    z = np.array(browser.evaluate("benches[0].z"))
    for run, plane, view in zip(runs_of("mlp_vae"), planes, views, strict=True):
        side, middle, half = len(plane), (view["x"], view["y"]), view["half"]
        accent = np.abs(plane.astype(int) - (0xC2, 0x41, 0x0C)).max(axis=2) < 8
        y, x = np.argwhere(accent).mean(axis=0) + 0.5
        at = ((z - middle) * (1, -1) / half + 1) * side / 2
        assert np.hypot(*(at - (x, y))) < 2, run

        with np.load(RUNS[run] / "explorer.npz") as m:
            step = (m["high"] - m["low"]) / (int(m["levels"]) - 1)
            threes = m["low"] + m["codes"][m["labels"][: len(m["codes"])] == 3] * step
        place = (((threes - middle) * (1, -1) / half + 1) * side / 2).astype(int)
        place = place[((place > 1) & (place < side - 2)).all(axis=1)]
        assert len(place) > 900
        red, green, _ = plane.astype(int).transpose(2, 0, 1)
        is_green = green - red > 25
        near = np.zeros((side, side), bool)
        for i in (-1, 0, 1):
            for j in (-1, 0, 1):
                near[place[:, 1] + i, place[:, 0] + j] = True
        assert is_green[place[:, 1], place[:, 0]].mean() > 0.7, f"{run}: some lie under the name"
        assert (is_green & ~near).sum() < 0.05 * is_green.sum(), run
    assert browser.complaints() == []


def test_dragging_keys_and_the_twin(browser):
    open_page(browser, "mlp_vae")
    z = "benches.map((b) => b.z)"
    browser.drag("article[data-kind=document] .plane", [(0.5, 0.5), (0.6, 0.5), (0.75, 0.25)])
    browser.wait_until(READY)
    one, two = browser.evaluate(z)
    view = browser.evaluate("benches[0].plane.view")
    half = view["half"]
    assert np.allclose(one, [view["x"] + half / 2, view["y"] + half / 2], atol=half / 100)
    assert one == two, "the same z in both"
    pictures = browser.evaluate("benches.map((b) => [...b.decoded.pixels])")
    assert np.abs(np.subtract(*pictures)).max() > 0.1

    browser.press("ArrowLeft")
    browser.press("ArrowUp")
    (x, y), _ = browser.evaluate(z)
    assert np.allclose([x, y], [one[0] - half / 40, one[1] + half / 40])
    browser.press("Home")
    assert browser.evaluate(z) == [[0, 0], [0, 0]]
    left_alone = browser.evaluate(
        "[['-', 'ctrlKey'], ['=', 'metaKey'], ['ArrowLeft', 'altKey']].map(([key, held]) =>"
        " benches[0].plane.canvas.dispatchEvent("
        "new KeyboardEvent('keydown', {key, [held]: true, cancelable: true})))"
    )
    assert left_alone == [True, True, True], "these keys are the browser's"
    assert browser.evaluate(z) == [[0, 0], [0, 0]]

    browser.click("[data-mode=twin]")
    on_show = "[...document.querySelectorAll('article')].filter((a) => a.offsetHeight).length"
    assert browser.evaluate(on_show) == 1
    browser.click("[data-mode=both]")
    assert browser.evaluate(on_show) == 2
    browser.click("[data-view=prior]")
    assert browser.evaluate("benches[1].plane.view.half") == 4
    browser.click("[data-view=in]")
    assert browser.evaluate("benches[1].plane.view.half") < 4
    browser.click("#legend button:nth-child(4)")
    assert browser.evaluate("[...state.visible]") == [3]
    browser.click("[data-mode=document]")
    browser.click("#grid")  # of the document's model alone: the twin is out of sight
    browser.wait_until(READY)
    assert browser.evaluate("benches[0].grid.every((g) => g.picture)") is True
    browser.click("[data-view=prior]")
    assert browser.evaluate("benches.map((b) => b.plane.view.half)") == [4, 4]
    assert browser.complaints() == []


def test_a_drawn_digit_is_encoded_as_numpy_does(browser):
    open_page(browser, "mlp_vae")
    browser.drag("#pad", [(0.5, 0.1), (0.5, 0.4), (0.5, 0.9)])
    browser.wait_until(READY)
    image = np.array(browser.evaluate("[...state.image]"), np.uint8).reshape(1, 28, 28)
    assert image.max() == 255
    model, _, _ = kept("mlp_vae")
    mean, _ = model.encode(image, np.zeros(1, int))
    assert np.abs(np.array(browser.evaluate("benches[0].q.mean")) - mean[0]).max() < CODES
    before = browser.evaluate("benches[0].z")
    browser.click("#resample")
    browser.wait_until(READY)
    assert browser.evaluate("benches[0].z") != before
    browser.click("#clear")
    browser.wait_until(READY)
    assert browser.evaluate("[state.image, benches[0].q, benches[1].q]") == [None, None, None]
    assert "an empty canvas encodes nothing" in browser.evaluate("benches[0].nats.textContent")
    assert browser.complaints() == []


def test_a_moved_z_stays_where_it_is_for_another_digit(browser):
    """As far from the new digit's mean, where digits have means; it goes with a new image."""
    for module in CONDITIONAL:
        open_page(browser, module)
        from_prior = "benches.map((b) => b.z.map((v, i) => v - priorMean(b)[i]))"
        at_mean = "benches.every((b) => vector(b.z, 6) === vector(b.q.mean, 6))"
        browser.click("#digits button:nth-child(2)")
        assert browser.evaluate(at_mean), "q(z|x) knows the digit, and nobody moved z"
        browser.drag("article[data-kind=document] .plane", [(0.5, 0.5), (0.6, 0.3)])
        moved = browser.evaluate(from_prior)
        browser.click("#digits button:nth-child(8)")
        assert np.allclose(browser.evaluate(from_prior), moved)
        assert not browser.evaluate(at_mean)
        browser.click("#strip button:nth-child(3)")
        assert browser.evaluate(at_mean)
    assert browser.complaints() == []


def test_z_is_said_once_and_by_name(browser):
    open_page(browser, "tfp_cvae")
    browser.evaluate(
        "window.said = [], new MutationObserver(() => said.push(find('status').textContent))"
        ".observe(find('status'), {childList: true}), 1"
    )
    browser.drag("article[data-kind=document] .plane", [(0.5, 0.5), (0.6, 0.3)])
    expected = browser.evaluate(
        "`The document's model: z = ${vector(benches[0].z)}; Its twin: z = ${vector(benches[1].z)}`"
    )
    browser.wait_until(f"said.at(-1) === {json.dumps(expected)}")
    browser.click("#scheme")  # which draws all anew
    browser.evaluate("new Promise((done) => setTimeout(done, 900))")
    assert browser.evaluate("said").count(expected) == 1
    browser.click("[data-mode=twin]")
    browser.wait_until(f"said.at(-1) === {json.dumps(expected.split('; ')[1])}")
    assert browser.complaints() == []


@pytest.mark.parametrize("half", [0.05, 0.3, 1, 30])
def test_axes_have_numbers_at_every_zoom(browser, half):
    """Two or more along each axis, where they belong; to the hundredth where it takes that."""
    open_page(browser, "mlp_vae")
    view = {"x": 0.07, "y": -1.234, "half": half}
    written = browser.evaluate(
        "(() => { const written = [], {fillText} = CanvasRenderingContext2D.prototype;"
        " CanvasRenderingContext2D.prototype.fillText = (...what) => written.push(what);"
        f" Object.assign(benches[0].plane.view, {json.dumps(view)}); benches[0].plane.draw();"
        " CanvasRenderingContext2D.prototype.fillText = fillText; return written; })()"
    )
    side = browser.evaluate("benches[0].plane.canvas.clientWidth")
    across = [(z, x - 3) for z, x, y in written if y == side - 5]
    up = [(z, y + 4) for z, x, y in written if x == 4]
    for ticks, middle, sign in ((across, view["x"], 1), (up, view["y"], -1)):
        assert 2 <= len(ticks) <= 12
        assert len({len(z.partition(".")[2]) for z, _ in ticks}) == 1, "all to the same decimal"
        for z, at in ticks:
            z = float(z.replace("−", "-"))
            assert abs((sign * (z - middle) / half + 1) * side / 2 - at) <= 1


def test_a_browser_that_cannot_unpack_says_so(browser):
    open_page(browser, "mlp_vae")
    assert browser.evaluate("find('old').offsetHeight") == 0
    browser.evaluate("delete window.DecompressionStream, location.hash = 'conv_vae'")
    browser.wait_until("find('old').offsetHeight > 0")
    browser.wait_for("Runtime.exceptionThrown")  # else the next page's test may hear of it


def test_language_is_switched_as_a_whole(browser):
    open_page(browser, "tfp_cvae")
    browser.click("[data-language=zh]")
    assert browser.evaluate("[document.documentElement.lang, document.title]") == [
        "zh", "六个自编码器学到了什么",
    ]  # fmt: skip
    left = browser.evaluate(
        "[...document.querySelectorAll('main p, h3, h4, main button, summary, th')]"
        ".filter((e) => e.offsetHeight).map((e) => e.textContent)"
    )
    english = [t for t in left if re.search(r"[a-z]{4,} [a-z]{3,} [a-z]{3,}", t)]
    assert english == [], "no sentence is left in English"
    browser.click("#digits button:nth-child(8)")
    browser.wait_until(READY)
    assert browser.evaluate("state.digit") == 7
    assert browser.complaints() == []
    browser.click("[data-language=en]")


def test_sliders_begin_with_the_dimensions_of_largest_kl(browser):
    open_page(browser, "elbo_cvae")
    assert browser.evaluate("find('bars').children.length") == 50
    with np.load(RUNS["elbo_cvae"] / "explorer.npz") as measured:
        largest = np.argsort(-measured["kl"]).tolist()
    assert browser.evaluate("state.dims") == largest[:2]
    assert browser.evaluate("[0, 1].map((i) => Number(find(`dim-${i}`).value))") == largest[:2]
    sliders = "[...find('sliders').querySelectorAll('input')].map((i) => Number(i.dataset.dim))"
    assert browser.evaluate(sliders) == largest[:8]
    browser.evaluate("find('dim-1').value = 6, find('dim-1').dispatchEvent(new Event('change')), 1")
    browser.wait_until(READY)
    shown = "benches[0].readout.children[1].textContent"
    assert browser.evaluate(
        f"state.dims[1] === 6 && {shown} === vector(state.dims.map(d => benches[0].z[d]))"
    )
    browser.evaluate("find('dim-0').value = 6, find('dim-0').dispatchEvent(new Event('change')), 1")
    assert browser.evaluate("state.dims") == [6, largest[0]], "they change places"
    assert browser.evaluate("[0, 1].map((i) => Number(find(`dim-${i}`).value))") == [6, largest[0]]
    browser.evaluate("setZ(benches[0].z.map((v, d) => d === state.dims[1] ? 5.678 : -0.123)), 1")
    browser.wait_until(READY)
    told = "[...find('sliders').querySelectorAll('output')].map((o) => o.value)"
    assert browser.evaluate(told) == ["5.68", *["−0.12"] * 7], "z itself, not the slider's step"
    browser.evaluate("find('path').value = 1, find('path').dispatchEvent(new Event('input')), 1")
    browser.wait_until(READY)
    model, images, digits = kept("elbo_cvae")
    nine = digits.tolist().index(9)
    mean, _ = model.encode(images[nine : nine + 1], digits)
    assert np.abs(np.array(browser.evaluate("benches[0].z")) - mean[0]).max() < CODES
    assert browser.complaints() == []


@pytest.mark.parametrize("width", [360, 800, 1400])
def test_page_is_not_wider_than_the_window(browser, width):
    for module in ("tfp_cvae", "elbo_cvae"):
        open_page(browser, module, width=width, dark=width == 800)
        assert browser.evaluate("document.documentElement.scrollWidth") <= width
    assert browser.complaints() == []
