"""Runs the client of a package registry, or another downloader, and watches what it fetches."""

from __future__ import annotations

import contextlib
import os
import re
import subprocess
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from tqdm import tqdm

SILENCE = 8.0  # seconds without a byte after which a client is stopped
POLL = 0.1  # seconds between two looks at what a client has fetched


class SourceFailed(Exception):
    """A source does not have the data set; the message says why."""


def reason(error: Exception) -> str:
    """What an exception says, without errno and path."""
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return str(error.args[-1]) if error.args else type(error).__name__


@dataclass(frozen=True)
class Client:
    """Runs a registry's client in a scratch folder, and shows on a bar how that fills."""

    folder: Path
    bar: tqdm

    def run(self, *command: str, started: str = "") -> None:
        """Runs a command in the folder.

        Args:
          *command: the program and its arguments.
          started: a file that the command makes before it turns to the network, if it has much to
            do before. Silence counts from then on.

        Raises:
          SourceFailed: it cannot be started, fails, or fetches nothing for SILENCE seconds.
        """
        with tempfile.TemporaryFile("w+", errors="replace") as log:
            try:
                process = subprocess.Popen(
                    command,
                    cwd=self.folder,
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.DEVNULL,
                    stderr=log,
                    start_new_session=True,  # Ctrl-C is for us; we end the client
                )
            except OSError as error:
                raise SourceFailed(f"{command[0]} cannot be started ({reason(error)})") from error
            try:
                self._watch(process, started)
            finally:
                process.kill()  # nothing happens to one that has ended
                process.wait()
            if process.returncode != 0:
                log.seek(0)
                raise SourceFailed(complaint(log.read()) or f"{Path(command[0]).stem} failed")

    def _watch(self, process: subprocess.Popen[bytes], started: str) -> None:
        fetched, heard = 0, time.monotonic()
        while process.poll() is None:
            time.sleep(POLL)
            before, fetched = fetched, self._fetched()
            self.bar.update(min(fetched, self.bar.total or 0) - self.bar.n)
            if fetched != before or (started and not (self.folder / started).exists()):
                heard = time.monotonic()
            elif time.monotonic() - heard > SILENCE:
                raise SourceFailed(f"no byte arrived for {SILENCE:g} s")

    def _fetched(self) -> int:
        """Returns the number of bytes in the folder."""
        total = 0
        for folder, _, names in os.walk(self.folder):
            for name in names:
                with contextlib.suppress(OSError):  # clients rename and remove files meanwhile
                    total += os.lstat(os.path.join(folder, name)).st_size
        return total


def complaint(log: str) -> str:
    """Returns the line of a client's error messages that says most, or ""."""
    telling = re.search(
        r"^(?:E:|tar:|npm (?:error|ERR!)) +(?!code |errno |syscall |path )(\S.*)$",
        log,
        re.MULTILINE,
    )
    return telling[1] if telling else log.strip().split("\n")[-1]
