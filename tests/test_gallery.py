"""The gallery: what it reads, what it escapes, and the page itself in a browser."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from common import animation
from reproductions import CATALOGUE, gallery

HOSTILE = "<script>alert('x')</script>\"'&</script>"
TEMPLATE = (gallery.PACKAGE / "gallery.html").read_text()
MODULES = [entry.module for entry in CATALOGUE]
EPOCHS = 3


# --- A made-up run --------------------------------------------------------------------------------


def make_run(folder: Path, module: str, **record: Any) -> Path:
    """Writes the folder of a small finished run of three epochs (or three hundred steps)."""
    folder.mkdir(parents=True)
    record = {
        "module": module,
        "config": {"epochs": EPOCHS, "learning_rate": 0.001},
        "seed": 7,
        "dtype": "float32",
        "quick": False,
        "finished": True,
        **record,
    }
    (folder / "run.json").write_text(json.dumps(record))
    x, every = ("step", 100) if module == "rmsprop_vae" else ("epoch", 1)
    trace = gallery.EXHIBITS[module].traces[0].column
    columns = dict.fromkeys([x, "loss", "reconstruction", "kl", trace])
    rows = [",".join(columns)]
    for i in range(1, EPOCHS + 1):
        rows.append(",".join(str(i * every) if c == x else str(300 - i) for c in columns))
    (folder / "history.csv").write_text("\n".join(rows) + "\n")
    for name in ("manifold", "class-8", "latent", "curves"):
        (folder / f"{name}.png").write_bytes(animation.png(np.full((30, 40), 90, np.uint8)))
    captions = ["before training", *(f"{x} {i}" for i in range(1, EPOCHS + 1))]
    (folder / "training.gif").write_bytes(animation.gif(make_frames(), captions))
    return folder


def make_frames() -> list[np.ndarray]:
    """A noisy frame before training and one after each epoch."""
    chance = np.random.default_rng(0)
    return [chance.integers(0, 256, (56, 84), np.uint8) for _ in range(EPOCHS + 1)]


def make_page(reference: Path, *own: Path) -> str:
    return gallery.render(gallery.collect(reference, [(run, True) for run in own]), TEMPLATE)


def pixels(picture: gallery.Picture) -> np.ndarray:
    import base64
    import io

    data = base64.b64decode(picture["src"].partition(",")[2])
    return np.asarray(Image.open(io.BytesIO(data)).convert("L"))


# --- A browser ------------------------------------------------------------------------------------

CHROMIUM = next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), ""
)
FLAGS = (
    "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-sync"
    " --disable-background-networking --disable-component-update --disable-dev-shm-usage"
    " --remote-debugging-pipe"
).split()


class Browser:
    """Chromium's DevTools protocol over a pair of pipes: messages of JSON that end with a zero byte."""

    def __init__(self, commands: Any, answers: Any) -> None:
        self._commands, self._answers = commands, answers
        self._buffer, self._number, self._session = b"", 0, {}
        self.events: list[dict[str, Any]] = []

    def call(self, method: str, **params: Any) -> dict[str, Any]:
        self._number += 1
        message = {"id": self._number, "method": method, "params": params, **self._session}
        self._commands.write(json.dumps(message).encode() + b"\0")
        while True:
            answer = self._read()
            if answer.get("id") == self._number:
                assert "error" not in answer, (method, answer)
                return answer["result"]
            self.events.append(answer)

    def wait_for(self, event: str) -> None:
        while not any(e.get("method") == event for e in self.events):
            self.events.append(self._read())

    def open(self, address: str, width: int = 1400, height: int = 900, dark: bool = False) -> None:
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        session = self.call("Target.attachToTarget", targetId=target, flatten=True)
        self._session = {"sessionId": session["sessionId"]}
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{domain}.enable")
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.call("Emulation.setEmulatedMedia", features=[scheme])
        self.call(
            "Emulation.setDeviceMetricsOverride",
            width=width, height=height, deviceScaleFactor=1, mobile=False,
        )  # fmt: skip
        self.events.clear()
        self.call("Page.navigate", url=address)
        self.wait_for("Page.loadEventFired")

    def evaluate(self, expression: str) -> Any:
        """The value of a JavaScript expression; of its promise if it is one."""
        result = self.call(
            "Runtime.evaluate", expression=expression, awaitPromise=True, returnByValue=True
        )
        assert "exceptionDetails" not in result, result
        return result["result"].get("value")

    def click(self, selector: str) -> None:
        """Clicks in the middle of the first element that matches."""
        x, y = self.evaluate(
            f"(() => {{ const e = document.querySelector({json.dumps(selector)});"
            " e.scrollIntoView({block: 'center'}); const r = e.getBoundingClientRect();"
            " return [r.x + r.width / 2, r.y + r.height / 2]; })()"
        )
        for kind in ("mousePressed", "mouseReleased"):
            self.call("Input.dispatchMouseEvent", type=kind, x=x, y=y, button="left", clickCount=1)

    def press(self, key: str) -> None:
        for kind in ("rawKeyDown", "keyUp"):
            self.call("Input.dispatchKeyEvent", type=kind, key=key, code=key,
                      windowsVirtualKeyCode={"ArrowLeft": 37, "Home": 36}[key])  # fmt: skip

    def complaints(self) -> list[Any]:
        """Everything that the console, the log or a script complained of, and every request."""
        self.evaluate("new Promise(done => setTimeout(done, 50))")
        kinds = ("Runtime.exceptionThrown", "Runtime.consoleAPICalled", "Log.entryAdded")
        requests = [
            e["params"]["request"]["url"]
            for e in self.events
            if e.get("method") == "Network.requestWillBeSent"
        ]
        outside = [url[:100] for url in requests if not url.startswith(("data:", "file:"))]
        return [e for e in self.events if e.get("method") in kinds] + outside

    def _read(self) -> dict[str, Any]:
        while b"\0" not in self._buffer:
            piece = self._answers.read(1 << 20)
            assert piece, "Chromium has gone"
            self._buffer += piece
        message, _, self._buffer = self._buffer.partition(b"\0")
        return json.loads(message)


@contextlib.contextmanager
def chromium(profile: Path) -> Iterator[Browser]:
    """Starts Chromium with an empty profile; it reads commands at descriptor 3 and answers at 4."""
    ends = [fcntl.fcntl(end, fcntl.F_DUPFD, 10) for end in (*os.pipe(), *os.pipe())]
    read_commands, write_commands, read_answers, write_answers = ends

    def wire() -> None:
        os.dup2(read_commands, 3)
        os.dup2(write_answers, 4)

    process = subprocess.Popen(
        [CHROMIUM, *FLAGS, f"--user-data-dir={profile}", "about:blank"],
        preexec_fn=wire, pass_fds=(3, 4), stderr=subprocess.DEVNULL,
    )  # fmt: skip
    os.close(read_commands)
    os.close(write_answers)
    with (
        open(write_commands, "wb", buffering=0) as commands,
        open(read_answers, "rb", buffering=0) as answers,
    ):
        try:
            browser = Browser(commands, answers)
            yield browser
            browser._session = {}
            browser.call("Browser.close")
            process.wait(30)
        finally:
            process.kill()
            process.wait()
