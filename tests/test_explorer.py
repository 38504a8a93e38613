"""The explorer: its arithmetic against NumPy and TensorFlow, its texts, the page in a browser."""

from __future__ import annotations

import base64
import hashlib
import importlib
import json
import re
import shutil
import subprocess
import zlib
from collections.abc import Iterator
from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np
import pytest

from common.errors import BadInput
from reproductions import MODULES, program
from reproductions.evidence.kept import REFERENCE
from reproductions.explorer import __main__ as command
from reproductions.explorer import models
from reproductions.explorer.build import HERE, LANGUAGES, SCRIPTS, TWINS, build, describe, pack
from reproductions.explorer.measure import codes_to_try, in_node
from tests.chromium import CHROMIUM, Browser, chromium
from tests.conftest import ROOT
from tests.test_networks import swap_channels

COMMITTED = ROOT / "artifacts" / "explorer.html"
# JavaScript from NumPy, with the same weights, in pixels between 0 and 1; measured: 1.8e-6.
PIXELS = 1e-5
# The same of means and scales of q(z|x); measured: 1.4e-5, of means up to 22.
CODES = 5e-5
# Reconstruction and KL in nats from TensorFlow's, relatively; measured: 4e-6.
NATS = 1e-4
LARGEST = 8_000_000  # bytes of the page
LINES = 900  # of JavaScript

RUNS = {
    str(f.parent.relative_to(REFERENCE)): f.parent for f in sorted(REFERENCE.rglob("explorer.npz"))
}
node = pytest.mark.skipif(not shutil.which("node"), reason="no node on PATH")
in_a_browser = pytest.mark.skipif(not CHROMIUM, reason="no chromium on PATH")


@cache
def kept(run: str) -> tuple[models.Model, np.ndarray, np.ndarray]:
    """A model with the page's rounded weights, and the images and digits that the page shows."""
    with np.load(RUNS[run] / "explorer.npz") as measured:
        return models.rounded(models.load(RUNS[run])), measured["images"], measured["digits"]


# --- Arithmetic -----------------------------------------------------------------------------------


def test_every_module_and_twin_is_here():
    assert set(RUNS) == {*MODULES, *(f"{module}/{twin}" for module, twin in TWINS.items())}


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
@pytest.mark.parametrize("run", MODULES)
def test_swapped_channels_are_found(run):
    """The control: JavaScript with two channels of a kernel swapped."""
    model, images, digits = kept(run)
    z = codes_to_try(model, images, digits)
    broken = replace(model, decoder=swap_channels(model.decoder))
    page = in_node(broken, images, digits, z)
    assert np.abs(page["decoded"] - model.decode(z, digits)).max() > 100 * PIXELS


NATS_IN_NODE = """
const {module, spec, tensors, weight, images, digits, eps} =
  JSON.parse(require("fs").readFileSync(0, "utf8"));
const next = () => Float32Array.from(tensors.shift());
const layers = (network) => network.map((l) => ({...l, kernel: next(), bias: next()}));
const model = {...spec, encoder: layers(spec.encoder), decoder: layers(spec.decoder)};
const means = spec.class_mean && next();
console.log(JSON.stringify(images.map((image, i) => {
  const q = encode(model, image, digits[i]);
  const z = q.mean.map((m, k) => m + sum(eps[i], (e, j) => e * q.scale[k][j]));
  const prior = z.map((_, k) => (means ? means[2 * digits[i] + k] : 0));
  return natsOf(module, model, weight, image, q, z, decode(model, z, digits[i]), prior);
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
        "weight": 1,
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


def test_the_committed_page_is_current(tmp_path, monkeypatch):
    monkeypatch.chdir(ROOT)
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
    assert set(re.findall(r'(?:href|src)="([^"]*)"', page)) == {"data:,", "gallery.html"}


def test_javascript_is_short():
    assert {path.name for path in HERE.glob("*.js")} == set(SCRIPTS)
    assert sum(len((HERE / name).read_text().splitlines()) for name in SCRIPTS) <= LINES


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
        assert missing == (set() if module in ("mlp_cvae", "tfp_cvae") else {"labels"})


def test_folder_without_models(tmp_path):
    with pytest.raises(BadInput, match="no trained models"):
        build(tmp_path)


def test_packed_weights_come_back():
    model, _, _ = kept("tfp_cvae")
    numbers = np.frombuffer(zlib.decompress(pack(model)), np.uint8).reshape(2, -1).astype(int)
    whole = numbers[0] + 256 * numbers[1]
    signed = np.where(whole % 2, -(whole + 1) // 2, whole // 2)
    first = model.encoder[0].kernel
    assert np.array_equal(signed[: first.size] * models.step_of(first), first.ravel())


# --- In a browser ---------------------------------------------------------------------------------

READY = "find('main').getAttribute('aria-busy') === 'false' && !waiting.size && !refreshing"


@pytest.fixture(scope="module")
def browser(tmp_path_factory) -> Iterator[Browser]:
    with chromium(tmp_path_factory.mktemp("profile")) as started:
        yield started


def open_page(browser: Browser, module: str, **options: Any) -> None:
    browser.open(f"{COMMITTED.as_uri()}#{module}", **options)
    browser.wait_until(READY)


@in_a_browser
@pytest.mark.parametrize("module", MODULES)
def test_numbers_on_the_page_are_numpys(browser, module):
    open_page(browser, module)
    page = browser.evaluate(
        "benches.map((b) => ({kind: b.kind, z: b.z, digit: state.digit, image: [...state.image],"
        " pixels: [...b.decoded.pixels],"
        " shown: [...b.nats.rows].map((r) => r.cells[1].textContent)}))"
    )
    assert len(page) == 1 + (module in TWINS)
    for bench in page:
        twin = bench["kind"] == "twin"
        model, images, digits = kept(f"{module}/{TWINS[module]}" if twin else module)
        i = digits.tolist().index(4)
        assert bench["image"] == images[i].ravel().tolist()
        mean, scale = model.encode(images[i : i + 1], digits[i : i + 1])
        z = np.array([bench["z"]], np.float32)
        assert np.abs(z - mean).max() < CODES
        picture = model.decode(z, digits[i : i + 1])
        assert np.abs(picture.ravel() - bench["pixels"]).max() < PIXELS
        if not model.binarised and model.class_mean is None:
            kl = 0.5 * (scale**2).sum() + 0.5 * (mean**2).sum() - model.latent / 2
            kl -= np.log(np.diagonal(scale[0])).sum()
            assert abs(float(bench["shown"][2]) - kl) < 0.01
    assert browser.complaints() == []


@in_a_browser
def test_dragging_keys_and_the_twin(browser):
    open_page(browser, "mlp_vae")
    z = "benches.map((b) => b.z)"
    browser.drag("article[data-kind=document] .plane", [(0.5, 0.5), (0.6, 0.5), (0.75, 0.25)])
    browser.wait_until(READY)
    one, two = browser.evaluate(z)
    half = browser.evaluate("benches[0].plane.view.half")
    assert np.allclose(one, [half / 2, half / 2], atol=half / 100)
    assert one == two, "the same z in both"
    pictures = browser.evaluate("benches.map((b) => [...b.decoded.pixels])")
    assert np.abs(np.subtract(*pictures)).max() > 0.1

    browser.press("ArrowLeft")
    browser.press("ArrowUp")
    (x, y), _ = browser.evaluate(z)
    assert np.allclose([x, y], [one[0] - half / 40, one[1] + half / 40])
    browser.press("Home")
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
    browser.click("#grid")
    browser.wait_until(READY)
    assert browser.evaluate("benches[0].grid.every((g) => g.picture)") is True
    assert browser.complaints() == []


@in_a_browser
def test_drawing(browser):
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


@in_a_browser
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


@in_a_browser
def test_fifty_dimensions(browser):
    open_page(browser, "elbo_cvae")
    assert browser.evaluate("find('bars').children.length") == 50
    browser.evaluate("find('dim-1').value = 6, find('dim-1').dispatchEvent(new Event('change')), 1")
    browser.wait_until(READY)
    shown = "benches[0].readout.children[1].textContent"
    assert browser.evaluate(
        f"state.dims[1] === 6 && {shown} === vector(state.dims.map(d => benches[0].z[d]))"
    )
    browser.evaluate("find('path').value = 1, find('path').dispatchEvent(new Event('input')), 1")
    browser.wait_until(READY)
    model, images, digits = kept("elbo_cvae")
    nine = digits.tolist().index(9)
    mean, _ = model.encode(images[nine : nine + 1], digits)
    assert np.abs(np.array(browser.evaluate("benches[0].z")) - mean[0]).max() < CODES
    assert browser.complaints() == []


@in_a_browser
@pytest.mark.parametrize("width", [360, 800, 1400])
def test_page_is_not_wider_than_the_window(browser, width):
    for module in ("tfp_cvae", "elbo_cvae"):
        open_page(browser, module, width=width, dark=width == 800)
        assert browser.evaluate("document.documentElement.scrollWidth") <= width
    assert browser.complaints() == []
