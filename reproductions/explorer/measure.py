"""`python -m reproductions.explorer.measure FOLDER ...`: finds what the page tells of models.

Takes folders below `artifacts/reference` that hold a run with its weights, and writes
`explorer.npz` beside them: the codes of the test set, the test images that the page shows, and how
far TensorFlow, NumPy and JavaScript are apart. It needs the data sets, TensorFlow and Node. The
page itself is made from these files alone.
"""

from __future__ import annotations

import base64
import io
import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from common import datasets
from common.cli import OneLineParser, run_command
from common.errors import BadInput
from common.evaluation import encode_test_set
from common.files import write_atomically
from common.runs import read_record
from reproductions import program
from reproductions.explorer.build import HERE, describe, pack
from reproductions.explorer.models import Model, load, rounded

PER_CLASS = 2  # test images of each class that the page shows, and that the networks are tried on
# By the dimensions of a code: how many codes the page has, and how many levels each coordinate has.
# All 10,000 codes in fifty dimensions would take half a megabyte.
CODES = {2: (10_000, 4_096), 50: (5_000, 256)}
NODE = """
const {spec, weights, images, digits, codes} = JSON.parse(require("fs").readFileSync(0, "utf8"));
(async () => {
  const model = readModel(spec, await inflate(weights));
  const encoded = images.map((x, i) => encode(model, x, digits[i]));
  const decoded = codes.map((z, i) => Array.from(decode(model, z, digits[i]).pixels));
  console.log(JSON.stringify({encoded, decoded}));
})();
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command; returns its exit code."""
    return run_command("explorer.measure", lambda: _measure(argv))


def _measure(argv: Sequence[str] | None) -> None:
    parser = OneLineParser(
        "reproductions.explorer.measure",
        "Finds what the explorer's page tells of trained models.",
    )
    parser.add_argument(
        "folders", nargs="+", type=Path, metavar="FOLDER", help="of a run that the page shows"
    )
    options = parser.parse_args(argv)
    for folder in options.folders:
        found = measure(folder)
        content = io.BytesIO()
        np.savez_compressed(content, **found)  # type: ignore[arg-type]
        write_atomically(folder / "explorer.npz", content.getvalue())
        print(folder, *(f"{name} {found[name]:.2g}" for name in found if name.endswith("_pixels")))


def measure(folder: Path) -> dict[str, np.ndarray]:
    """What `explorer.npz` holds of a run.

    Returns:
      `codes`, unsigned [10000 or 5000, latent], of `levels` between `low` and `high` [latent];
      `labels` uint8 [10000]; `kl` [latent], the mean of each dimension; `images` uint8
      [20, 28, 28] and `digits` [20]; and the largest differences of 20 decoded pictures:
      `numpy_pixels` (NumPy from TensorFlow), `javascript_pixels` (JavaScript from NumPy, with the
      same rounded weights) and `rounding_pixels` (of rounded weights from the trained ones).
    """
    model = load(folder)
    record = read_record(folder)
    port = program(record.module)
    data = datasets.load(port.dataset)
    experiment = port.reopen(folder, data)
    q = encode_test_set(experiment)
    # By images and dimensions; where the scale is triangular, the sum over the latter is the KL.
    z_mean, scale = q.z_mean, q.scale_tril
    offset = z_mean - q.prior_mean
    diagonal = np.diagonal(scale, axis1=1, axis2=2)
    kl = 0.5 * ((scale**2).sum(axis=2) + offset**2 - 1) - np.log(diagonal)

    low, high = z_mean.min(axis=0), z_mean.max(axis=0)
    count, levels = CODES[z_mean.shape[1]]
    codes = np.rint((z_mean[:count] - low) / (high - low) * (levels - 1)).astype(np.uint16)

    shown = np.sort(
        np.concatenate([np.flatnonzero(data.test_labels == k)[:PER_CLASS] for k in range(10)])
    )
    images, digits = data.test_images[shown], data.test_labels[shown]
    kept = rounded(model)
    z = codes_to_try(kept, images, digits)
    in_numpy = model.decode(z, digits)
    page = in_node(kept, images, digits, z)
    return {
        "codes": codes,
        "levels": np.int64(levels),
        "low": low,
        "high": high,
        "labels": data.test_labels,
        "kl": kl.mean(axis=0),
        "images": images,
        "digits": digits,
        "numpy_pixels": np.abs(in_numpy - experiment.pictures_of(z, digits)).max(),
        "javascript_pixels": np.abs(kept.decode(z, digits) - page["decoded"]).max(),
        "rounding_pixels": np.abs(in_numpy - kept.decode(z, digits)).max(),
    }


def codes_to_try(model: Model, images: np.ndarray, digits: np.ndarray) -> np.ndarray:
    """A code of each image, drawn from its q(z|x), [n, latent]."""
    mean, scale = model.encode(images, digits)
    eps = np.random.default_rng(0).standard_normal(mean.shape).astype(np.float32)
    return mean + (scale @ eps[..., np.newaxis])[..., 0]


def in_node(
    model: Model, images: np.ndarray, digits: np.ndarray, z: np.ndarray
) -> dict[str, np.ndarray]:
    """What the page's JavaScript makes of images and codes, run by Node.

    Returns:
      `mean` [n, latent], `scale` [n, latent, latent] and `decoded` [n, 28, 28].
    """
    scripts = [(HERE / name).read_text(encoding="utf-8") for name in ("networks.js", "payload.js")]
    question = {
        "spec": describe(model),
        "weights": base64.b64encode(pack(model)).decode(),
        "images": images.reshape(len(images), -1).tolist(),
        "digits": digits.tolist(),
        "codes": z.tolist(),
    }
    answer = subprocess.run(
        ["node", "-e", "".join([*scripts, NODE])],
        input=json.dumps(question), capture_output=True, text=True,
    )  # fmt: skip
    if answer.returncode:
        raise BadInput(f"node: {answer.stderr.strip()}")
    found = json.loads(answer.stdout)
    return {
        "mean": np.array([q["mean"] for q in found["encoded"]]),
        "scale": np.array([q["scale"] for q in found["encoded"]]),
        "decoded": np.array(found["decoded"]).reshape(-1, 28, 28),
    }


if __name__ == "__main__":
    sys.exit(main())
