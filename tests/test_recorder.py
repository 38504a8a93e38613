"""The recorder of the originals: a text's program, the streams, and recordings made again.

The last part needs a Python 3.7, the documents (a folder in $VAE_DOCUMENTS whose files begin with
their numbers) and a pip that can install TensorFlow 1.14.0 for it; elsewhere it is skipped.
"""

from __future__ import annotations

import ast
import gzip
import itertools
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from filelock import FileLock

from common import lockstep
from common.chance import Recorded
from common.datasets import Dataset, cache_folder
from reproductions import GOLDEN
from reproductions.golden import record
from tests.conftest import ROOT
from tests.test_layout import imports

SOURCE = ROOT / "reproductions" / "golden" / "record.py"
SEED = 9102
SAME = 1e-12  # relative, of float64 losses and variables made again; 0 measured
SAME_SUM = 1e-12  # absolute, of float32 numbers near zero; 0 measured
OTHER = 1e-3  # relative, the least that another seed's losses differ by; 0.07 measured
STEPS = 5
PACKAGES = [  # as in golden/README.md
    "tensorflow==1.14.0",
    "numpy==1.16.6",
    "protobuf==3.20.3",
    "scipy==1.7.3",
    "matplotlib==3.4.3",
]


# --- The program in a document's text -------------------------------------------------------------


NOTEBOOK = """\
## A title

Some prose before the first cell.

In [1]:
import math
a = 2

Extracting ./data/images.gz
done


In [2]:
def area(r):

    return math.pi * r ** 2

The area is $\\pi r^2$.

#### A heading

In [None]:
result = area(a)

epoch: 0001 cost= 12.566370614
"""


def test_cells_end_where_prose_and_results_begin() -> None:
    program = record.notebook_cells(NOTEBOOK)
    namespace: dict[str, Any] = {}
    exec(program, namespace)
    assert namespace["result"] == pytest.approx(12.566370614)
    assert not any(word in program for word in ("Extracting", "done", "The area", "epoch"))


def test_the_last_fence_is_the_program() -> None:
    text = "a\n```python\nx = 1\n```\nb\n```bash\nls\n```\n```python\nx = 2\ny = 3\n```\nc\n"
    assert record.last_fence(text) == "x = 2\ny = 3\n"


FLAT = """\
随便
# -*- coding: utf-8 -*-
items = {
'a': 1, # 注释
'b': 2,
}
# 注释
def total(values):
result = 0
result = sum(values) \\
+ result
return result
out = []
with open(path) as f:
out.append(f.name)
for i in range(1, 3):
# i is odd or even
fresh = [i]
if i % 2 == 0 or i == 7:
out.append(('even', i))
done = True
for i, x in enumerate('ab'):
for j in range(2):
pair = (x, f)
out.append(
(pair[0], j))
out.append(total(items.values()))
结束 了
more = prose
"""

RESTORED = """\
items = {
'a': 1, # 注释
'b': 2,
}
def total(values):
    result = 0
    result = sum(values) \\
+ result
    return result
out = []
with open(path) as f:
    out.append(f.name)
    for i in range(1, 3):
        fresh = [i]
        if i % 2 == 0 or i == 7:
            out.append(('even', i))
    done = True
    for i, x in enumerate('ab'):
        for j in range(2):
            pair = (x, f)
            out.append(
(pair[0], j))
out.append(total(items.values()))
"""


def test_blocks_are_restored() -> None:
    assert record.flattened(FLAT) == RESTORED
    namespace = {"path": __file__}
    exec(record.flattened(FLAT), namespace)
    pairs = [("a", 0), ("a", 1), ("b", 0), ("b", 1)]
    assert namespace["out"] == [__file__, ("even", 2), *pairs, 3]


@pytest.mark.parametrize("extract", [record.notebook_cells, record.last_fence, record.flattened])
def test_a_text_without_a_program_is_refused(extract: Callable[[str], str]) -> None:
    with pytest.raises(record.RecordingError, match="the text has no"):
        extract("Only prose.\n")


def test_a_change_fits_in_one_place() -> None:
    assert record.with_changes("f(a, b=b)\n", [(", b=b)", ")")]) == "f(a)\n"
    for program in ("f(a)\n", "f(a, b=b)\ng(a, b=b)\n"):
        with pytest.raises(record.RecordingError, match="times in the program, not once"):
            record.with_changes(program, [(", b=b)", ")")])


# --- Data and streams -----------------------------------------------------------------------------


def test_batches_are_those_of_the_proof() -> None:
    theirs = Recorded(SEED).batches(25, 8, "carry")  # a pass is 3 batches, one image is dropped
    for step, ours in enumerate(itertools.islice(record.batch_stream(SEED, 25, 8), 10)):
        np.testing.assert_array_equal(ours, theirs(step))


def test_noise_is_that_of_the_proof() -> None:
    theirs = Recorded(SEED)
    for step, ours in enumerate(itertools.islice(record.noise_stream(SEED, (8, 2)), 3)):
        np.testing.assert_array_equal(ours, theirs.noise(step, (8, 2)))


@pytest.mark.parametrize("number", sorted(record.DOCUMENTS))
def test_initial_weights_are_those_of_the_recordings(number: str) -> None:
    stored = json.loads((GOLDEN / number / "lockstep-float64.json").read_text())
    shapes = [tuple(variable["shape"]) for variable in stored["variables"]]
    drawn = record.DOCUMENTS[number].start(np.random.RandomState(SEED), shapes)
    ours = [record.statistics(value.astype(np.float32)) for value in drawn]
    np.testing.assert_allclose(ours, stored["initial_weights"], rtol=SAME, atol=SAME_SUM)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_a_nudge_is_one_unit_in_the_last_place(dtype: str) -> None:
    value = np.random.RandomState(0).standard_normal((20, 30)).astype(dtype)
    value[0] = 0
    (moved,) = record.nudged([value], run=1)
    units = np.abs(moved - value)[1:] / np.spacing(np.abs(value[1:]))
    assert moved.dtype == value.dtype
    assert set(np.unique(units)) <= {0.5, 1.0}  # half of one below a power of two
    assert {-1.0, 1.0} == set(np.unique(np.sign(moved - value)[1:]))
    np.testing.assert_array_equal(moved[0], 0)
    np.testing.assert_array_equal(record.nudged([value], run=0)[0], value)
    assert (record.nudged([value], run=2)[0] != moved).any()


def test_the_envelope_is_the_largest_difference_so_far() -> None:
    assert record.envelope([2.0, 4.0, 8.0], [[2.0, 5.0, 8.0], [2.2, 4.0, 8.0]]) == [0.1, 0.25, 0.25]
    assert record.envelope([2.0, 4.0], []) == [0.0, 0.0]


def test_idx_files_plain_and_packed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    images = np.arange(18, dtype=np.uint8).reshape(2, 3, 3)
    monkeypatch.setattr(record, "IDX", {"x_train": ("images-idx3", images.shape)})
    content = bytes(16) + images.tobytes()  # what the header says is not asked
    with pytest.raises(record.RecordingError, match="neither Keras's npz nor images-idx3"):
        record.read_data(tmp_path, "mnist")
    for name, packed in (("images-idx3.gz", gzip.compress(content)), ("images-idx3", content)):
        (tmp_path / name).write_bytes(packed)
        with pytest.raises(record.RecordingError, match="are not those of mnist"):
            record.read_data(tmp_path, "mnist")
        with monkeypatch.context() as known:
            sha256 = record.hashlib.sha256(images.tobytes()).hexdigest()
            known.setattr(record, "SHA256", {"mnist": sha256})
            np.testing.assert_array_equal(record.read_data(tmp_path, "mnist")["x_train"], images)


# --- The script -----------------------------------------------------------------------------------


def test_it_stands_alone_on_python_3_7() -> None:
    ast.parse(SOURCE.read_text(), feature_version=(3, 7))
    others = {name.split(".")[0] for name in imports(SOURCE)} - sys.stdlib_module_names
    assert others == {"numpy"}


def test_an_error_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    program = tmp_path / "000.txt"
    program.write_text("Only prose.\n")
    options = ["--document", "000", "--data", str(tmp_path), "--output", str(tmp_path / "a.json")]
    assert record.main([str(program), *options]) == 2
    assert capsys.readouterr().err == "record.py: the text has no notebook cell\n"
    assert not (tmp_path / "a.json").exists()


# --- Recordings made again ------------------------------------------------------------------------


def python37() -> str | None:
    """A Python 3.7 that starts (pyenv's shim may not)."""
    versions = sorted(Path.home().glob(".pyenv/versions/3.7*/bin/python"))
    for candidate in [shutil.which("python3.7"), *map(str, versions)]:
        if candidate and not subprocess.run([candidate, "-V"], capture_output=True).returncode:
            return candidate
    return None


@pytest.fixture(scope="session")
def documents() -> Path:
    """The folder of the documents."""
    folder = os.environ.get("VAE_DOCUMENTS")
    if not folder:
        pytest.skip("VAE_DOCUMENTS names no folder with the documents")
    return Path(folder)


@pytest.fixture(scope="session")
def tf114(documents: Path) -> str:
    """The Python of an environment with TensorFlow 1.14.0, made once and kept in the cache."""
    python = python37()
    if python is None:
        pytest.skip("there is no Python 3.7")
    folder = cache_folder() / "tf114"
    folder.parent.mkdir(parents=True, exist_ok=True)
    interpreter, complete = folder / "bin" / "python", folder / "complete"
    with FileLock(folder.with_suffix(".lock")):
        if not complete.exists():
            for command in (
                [python, "-m", "venv", "--clear", str(folder)],
                [str(interpreter), "-m", "pip", "install", "--quiet", *PACKAGES],
            ):
                done = subprocess.run(command, capture_output=True, text=True)
                if done.returncode:
                    reason = (done.stderr.strip() or "no reason given").splitlines()[-1]
                    pytest.skip(f"no TensorFlow 1.14.0 for Python 3.7: {reason}")
            complete.touch()
    return str(interpreter)


@pytest.fixture
def again(
    documents: Path, tf114: str, whole: Callable[[str], Dataset], tmp_path: Path
) -> Callable[..., Path]:
    """`again(number, seed, envelope_runs)` records the first steps in float64; the file's path."""

    def make(number: str, seed: int, envelope_runs: int = 0) -> Path:
        texts = sorted(documents.glob(f"{number}*"))
        if not texts:
            pytest.skip(f"VAE_DOCUMENTS holds no document {number}")
        name = record.DOCUMENTS[number].data
        data = whole(name)
        np.savez(
            tmp_path / f"{name}.npz",
            x_train=data.train_images,
            y_train=data.train_labels,
            x_test=data.test_images,
            y_test=data.test_labels,
        )
        output = tmp_path / f"{number}.json"
        options = f"--document {number} --seed {seed} --steps {STEPS} --precision float64"
        places = ["--data", str(tmp_path), "--output", str(output)]
        runs = ["--envelope-runs", str(envelope_runs)]
        command = [tf114, str(SOURCE), str(texts[0]), *options.split(), *places, *runs]
        subprocess.run(command, check=True)
        return output

    return make


@pytest.mark.network
@pytest.mark.parametrize("number", ["000", "001", "003"])  # those that need only these packages
def test_a_recording_can_be_made_again(number: str, again: Callable[..., Path]) -> None:
    ours = lockstep.load(again(number, SEED, envelope_runs=1))
    stored = lockstep.load(GOLDEN / number / "lockstep-float64.json")
    assert (ours.document, ours.names, ours.seed) == (number, stored.names, stored.seed)
    np.testing.assert_allclose(ours.loss, stored.loss[:STEPS], rtol=SAME)
    assert ours.envelope.max() < SAME
    for mark, statistics in ours.weights.items():
        np.testing.assert_allclose(statistics, stored.weights[mark], rtol=SAME, atol=SAME_SUM)


@pytest.mark.network
def test_another_seed_is_another_recording(again: Callable[..., Path]) -> None:
    ours = lockstep.load(again("000", SEED + 1))
    stored = lockstep.load(GOLDEN / "000" / "lockstep-float64.json")
    assert np.abs(ours.loss / stored.loss[:STEPS] - 1).max() > OTHER
