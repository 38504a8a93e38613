"""Puts the page together: one file, from what lies beside this one and the reference results."""

from __future__ import annotations

import base64
import json
import re
import zlib
from html import escape
from pathlib import Path
from typing import Any

import numpy as np

from common.errors import BadInput
from common.evaluation import DRAWN
from common.pictures import normal_quantiles
from common.runs import read_npz, read_record
from reproductions import MODULES, program, rmsprop_vae
from reproductions.evidence.documents import DOCUMENTS
from reproductions.explorer.models import Model, load, step_of, tensors
from reproductions.explorer.networks import Layer
from reproductions.gallery.markup import csp_hash, script_json

HERE = Path(__file__).parent
SCRIPTS = (
    "networks.js", "payload.js", "nats.js", "pad.js", "plane.js",
    "base.js", "models.js", "show.js", "app.js",
)  # fmt: skip
LANGUAGES = ("en", "zh")
# The document's own grid of codes: normal quantiles from 5 % to 95 %, or evenly spaced.
GRIDS = {"rmsprop_vae": rmsprop_vae.GRID.tolist()}
EVALUATED = (
    "reconstruction", "kl", "elbo", "log_likelihood", "effective_samples", "samples",
    "images_sampled",
)  # fmt: skip


def build(reference: Path) -> str:
    """The page, from the runs below a folder that have `weights.npz` and `explorer.npz`.

    Raises:
      BadInput: there is none, or one is damaged.
    """
    modules: dict[str, Any] = {}
    blobs: dict[str, bytes] = {}
    for module in MODULES:
        found = {"document": reference / module}
        for variant in DOCUMENTS[module].variants:
            found["twin"] = reference / module / variant.name
        runs = {k: f for k, f in found.items() if (f / "explorer.npz").exists()}
        if "document" not in runs:
            continue
        measured = _read(runs["document"] / "explorer.npz")
        dataset = program(module).dataset
        blobs[f"{dataset}-images"] = zlib.compress(measured["images"].tobytes(), 9)
        blobs[f"{dataset}-labels"] = zlib.compress(measured["labels"].tobytes(), 9)
        modules[module] = {
            "document": DOCUMENTS[module].name,
            "dataset": dataset,
            "digits": measured["digits"].tolist(),
            "grid": GRIDS.get(module, normal_quantiles(15).round(6).tolist()),
            "runs": {k: _add_run(f"{module}-{k}", f, blobs) for k, f in runs.items()},
        }
    if not modules:
        raise BadInput(f"there are no trained models with an explorer.npz below {reference}")
    return _page(modules, blobs)


def _add_run(name: str, folder: Path, blobs: dict[str, bytes]) -> dict[str, Any]:
    """What the page says of a run; adds its weights and codes to `blobs`."""
    record, measured = read_record(folder), _read(folder / "explorer.npz")
    model = load(folder)
    blobs[f"{name}-weights"] = pack(model)
    blobs[f"{name}-codes"] = zlib.compress(_apart(measured["codes"].T), 9)
    evaluation = record.evaluation
    low, high = measured["low"], measured["high"]
    levels = int(measured["levels"])
    z_mean = low + measured["codes"] / (levels - 1) * (high - low)
    labels = measured["labels"][: len(z_mean)]
    means = np.stack([z_mean[labels == k].mean(axis=0) for k in range(10)])
    return {
        "name": name,
        "spec": describe(model),
        "low": _numbers(low),
        "high": _numbers(high),
        "levels": levels,
        "near": _numbers(np.quantile(z_mean, [0.003, 0.997], axis=0)),  # nearly all codes
        "means": _numbers(means),
        "kl": _numbers(measured["kl"]),
        "evaluation": {key: evaluation[key] for key in EVALUATED},
        "wanted": evaluation.get("wanted_digits"),
        "drawn": DRAWN,  # pictures of each digit
        # run.json keeps two digits of the weight, which is one over a whole number
        "weight": 1 / round(1 / evaluation["kl_weight"]),
        "differences": [
            float(measured[key]) for key in ("numpy_pixels", "javascript_pixels", "rounding_pixels")
        ],
    }


def _numbers(array: np.ndarray) -> list[Any]:
    """Numbers for the page, with as many digits as it can use."""
    return array.astype(float).round(4).tolist()


def _read(path: Path) -> dict[str, np.ndarray]:
    try:
        return read_npz(path.read_bytes())
    except ValueError as error:
        again = f"python -m reproductions.explorer.measure {path.parent}"
        raise BadInput(f"{path} is damaged ({error}): make it again with {again}") from error


# --- Weights --------------------------------------------------------------------------------------


def describe(model: Model) -> dict[str, Any]:
    """What the page must know of a model beside its weights."""

    def tensor(array: np.ndarray) -> dict[str, Any]:
        return {"step": step_of(array), "count": array.size}

    def describe_layer(layer: Layer) -> dict[str, Any]:
        entry = {
            "kind": layer.kind,
            "activation": layer.activation,
            "kernel": tensor(layer.kernel),
            "bias": tensor(layer.bias),
        }
        if layer.kind == "dense":
            return entry
        return entry | {
            "size": len(layer.kernel),
            "shape": list(layer.shape),
            "stride": layer.stride,
            "padding": layer.padding,
        }

    return {
        "encoder": [describe_layer(layer) for layer in model.encoder],
        "decoder": [describe_layer(layer) for layer in model.decoder],
        "latent": model.latent,
        "output": model.output,
        "posterior": model.posterior,
        "binarised": model.binarised,
        "labelled": model.labelled,
        "class_mean": None if model.class_mean is None else tensor(model.class_mean),
    }


def pack(model: Model) -> bytes:
    """All weights as whole numbers of their tensors' steps, deflated."""
    whole = [np.rint(a / step_of(a)).astype(np.int32).ravel() for a in tensors(model)]
    flat = np.concatenate(whole)
    return zlib.compress(_apart(np.where(flat < 0, -2 * flat - 1, 2 * flat)), 9)


def _apart(numbers: np.ndarray) -> bytes:
    """Sixteen-bit numbers as all of their low bytes, then all of their high ones: they deflate
    better."""
    return np.ascontiguousarray(
        numbers.astype("<u2").ravel().view(np.uint8).reshape(-1, 2).T
    ).tobytes()


# --- The page -------------------------------------------------------------------------------------


def _page(modules: dict[str, Any], blobs: dict[str, bytes]) -> str:
    texts = {k: json.loads((HERE / f"{k}.json").read_text("utf-8")) for k in LANGUAGES}
    style = (HERE / "style.css").read_text("utf-8")
    script = '"use strict";\n' + "".join((HERE / name).read_text("utf-8") for name in SCRIPTS)
    data = "".join(
        f'<script type="text/plain" id="{name}">{base64.b64encode(content).decode()}</script>\n'
        for name, content in blobs.items()
    )
    data += "".join(
        f'<script type="application/json" id="{name}">{script_json(content)}</script>\n'
        for name, content in (("modules", modules), ("texts", texts))
    )
    page = (HERE / "page.html").read_text("utf-8")
    # English stands in the page from the start, so that little moves when the script begins; only
    # the texts with a placeholder wait for it.
    plain = {key: escape(text, quote=False) for key, text in texts["en"].items() if "{" not in text}
    page = re.sub(r'(data-t="([^"]+)"[^>]*>)', lambda m: m[1] + plain.get(m[2], ""), page)
    for name, content in {
        "style_hash": csp_hash(style), "script_hash": csp_hash(script),
        "style": style, "data": data, "script": script,
    }.items():  # fmt: skip
        page = page.replace(f"${name}$", content)
    return page
