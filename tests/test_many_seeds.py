"""Many seeds by one command: each is trained once, and nothing else is taken for its run."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from common.runs import new_run
from reproductions import program
from reproductions.evidence import many_seeds
from tests.conftest import Load, complaint

OPTIONS = ["rmsprop_vae", "--seeds", "2", "--processes", "1", "--output", "seeds"]
SHORT = ["--steps", "100", "--hidden", "16"]
# Relative: one thread may add in another order than two. 0 measured.
THREADS = 1e-5

# Stands for Python: it keeps what it was started with, and does what `BEHAVIOUR` says for its seed.
STUB = """#!{python}
import json, os, signal, sys, time
def note(what):
    with open({log!r}, "a") as log:
        threads = os.environ.get("TF_NUM_INTRAOP_THREADS")
        log.write(json.dumps([what, sys.argv[1:], threads]) + "\\n")
def terminated(*_):
    note("terminated")
    sys.exit(130)
signal.signal(signal.SIGTERM, terminated)
note("started")
behaviour = {behaviour!r}[sys.argv[sys.argv.index("--seed") + 1]]
if behaviour == "waits":
    time.sleep(60)
    note("ran to its end")
while behaviour == 130 and '"--seed", "0"' not in open({log!r}).read():
    time.sleep(0.01)
time.sleep(0.5)
sys.exit(behaviour)
"""


@pytest.fixture
def stub(here: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Callable[[], list[Any]]]:
    """`stub({seed: exit code or "waits"})` replaces the runs; gives what they noted."""

    def make(behaviour: dict[str, int | str]) -> Callable[[], list[Any]]:
        script, log = here / "stub", here / "log"
        text = STUB.format(python=sys.executable, log=str(log), behaviour=behaviour)
        script.write_text(text)
        script.chmod(0o755)
        monkeypatch.setattr(many_seeds.sys, "executable", str(script))
        return lambda: [json.loads(line) for line in log.read_text().splitlines()]

    return make


@pytest.fixture
def trained(here: Path, monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """The options of each run that the command makes; the runs are finished as they begin."""
    made: list[list[str]] = []

    class Done:
        returncode = 0

        def __init__(self, module: str, folder: Path, options: list[str], alone: bool) -> None:
            made.append(options)
            port = program(module)
            record = port.record(port.options(options).given)
            record.source_sha256, record.finished = port.source_digest, True
            with new_run(record, folder) as run:
                run.write_history([{"step": 100.0, "loss": 160.0 + len(made) ** 2}])

        def poll(self) -> int:
            return self.returncode

    monkeypatch.setattr(many_seeds, "_start", Done)
    return made


def test_each_seed_is_trained_once(
    trained: list[list[str]], capsys: pytest.CaptureFixture[str]
) -> None:
    for _ in range(2):
        assert many_seeds.main([*OPTIONS, *SHORT]) == 0
    assert trained == [["--seed", str(n), *SHORT] for n in range(2)]
    assert "  loss: mean 162.5, sd 2.121, 161 to 164\n" in capsys.readouterr().out


def test_a_run_of_other_settings_or_other_code_is_refused(
    trained: list[list[str]], capsys: pytest.CaptureFixture[str]
) -> None:
    assert many_seeds.main([*OPTIONS, *SHORT]) == 0
    assert many_seeds.main([*OPTIONS, *SHORT, "--dtype", "float64"]) == 2
    assert many_seeds.main([*OPTIONS, *SHORT[2:], "--steps", "200"]) == 2
    path = Path("seeds/seed-1/run.json")
    record = json.loads(path.read_text())
    other = {"source_sha256": "0" * 64}
    for change in (other, other | {"finished": False}, {"earlier_sessions": [other]}):
        path.write_text(json.dumps(record | change))
        assert many_seeds.main([*OPTIONS, *SHORT]) == 2
    advice = "remove it or name another folder"
    assert capsys.readouterr().err.splitlines() == [
        *[f"many_seeds: seeds/seed-0 holds a run of other settings: {advice}"] * 2,
        *[f"many_seeds: seeds/seed-1 holds a run of other code: {advice}"] * 3,
    ]
    assert len(trained) == 2


@pytest.mark.parametrize(
    "wrong",
    [["--stepps", "9"], ["--seed", "9"], ["--resume"], ["--seeds", "0"], ["--processes", "0"]],
)
def test_an_option_that_cannot_be_used_is_refused_before_any_run(
    wrong: list[str], trained: list[list[str]], capsys: pytest.CaptureFixture[str]
) -> None:
    assert many_seeds.main([*OPTIONS, *wrong]) == 2
    assert wrong[0] in complaint(capsys, "many_seeds")
    assert trained == []


def test_a_stop_ends_the_runs_and_begins_no_other(stub: Callable[..., Any]) -> None:
    noted = stub({"0": "waits", "1": 130, "2": "waits", "3": "waits"})
    assert many_seeds.main(["rmsprop_vae", "--seeds", "4", "--processes", "2", *SHORT]) == 130
    seeds = [(what, arguments[arguments.index("--seed") + 1]) for what, arguments, _ in noted()]
    assert sorted(seeds) == [("started", "0"), ("started", "1"), ("terminated", "0")]


def test_a_run_that_fails_is_told_when_the_others_are_made(
    stub: Callable[..., Any], capsys: pytest.CaptureFixture[str]
) -> None:
    noted = stub({"0": 4, "1": 4})
    assert many_seeds.main([*OPTIONS, *SHORT]) == 1
    said = capsys.readouterr()
    assert said.err == "many_seeds: 2 runs failed, the first in seeds/seed-0\n"
    assert said.out == "seeds/seed-0: failed, 1 to go\nseeds/seed-1: failed, 0 to go\n"
    assert [what for what, *_ in noted()] == ["started", "started"]


@pytest.mark.parametrize("processes", ["1", "2"])
def test_a_stopped_run_goes_on_and_keeps_its_options(
    processes: str, stub: Callable[..., Any], here: Path
) -> None:
    port = program("rmsprop_vae")
    (here / "seeds" / "seed-0").mkdir(parents=True)
    record = port.record(port.options([*SHORT, "--seed", "0"]).given)
    (here / "seeds" / "seed-0" / "run.json").write_text(record.to_json())
    noted = stub({"0": 1, "1": 1})
    own = [*SHORT, "--data-dir", "data"]
    many_seeds.main([*OPTIONS, "--processes", processes, *own])
    runs = {arguments[3]: (arguments, threads) for _, arguments, threads in noted()}
    for seed, (arguments, threads) in runs.items():
        assert arguments[:2] == ["-m", "reproductions.rmsprop_vae"]
        assert arguments[2:8] == ["--seed", seed, *SHORT]
        assert arguments[8:11] == ["--data-dir", "data", f"--output=seeds/seed-{seed}"]
        assert ("--resume" in arguments) == (seed == "0")
        expected = (True, "1") if processes == "2" else (False, None)
        assert ("--quiet" in arguments, threads) == expected
    assert set(runs) == {"0", "1"}


@pytest.mark.long
def test_two_seeds_at_a_time_are_two_runs_of_their_own(tmp_path: Path, whole: Load) -> None:
    whole("mnist")
    output, alone = tmp_path / "seeds", tmp_path / "alone"
    options = ["rmsprop_vae", "--seeds", "2", "--processes", "2", "--output", str(output), *SHORT]
    assert many_seeds.main(options) == 0
    last = ["--quiet", "--seed", "1", *SHORT, "--output", str(alone)]
    assert program("rmsprop_vae").main(last) == 0
    first, second, same = (
        np.load(folder / "steps.npz")["loss"]
        for folder in (output / "seed-0", output / "seed-1", alone)
    )
    np.testing.assert_allclose(second, same, rtol=THREADS)
    assert (first != second).all()
    record = json.loads((output / "seed-1" / "run.json").read_text())
    assert record["environment"]["threads"] == {"intra_op": 1, "inter_op": 1}
