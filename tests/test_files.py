"""Files are written whole or not at all, whatever interrupts the writing."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from common.files import write_atomically
from tests.conftest import ROOT, names, small_disk

SIZE = 1_000_000  # bytes: long enough to be caught in the middle


@pytest.mark.parametrize("content", [b"\0\xff\r\n", "grüß\n", b"", "x" * SIZE])
def test_writes_and_replaces(tmp_path: Path, content: bytes | str) -> None:
    path = tmp_path / "file"
    for old in (None, b"old"):
        if old is not None:
            path.write_bytes(old)
        write_atomically(path, content)
        assert path.read_bytes() == (content if isinstance(content, bytes) else content.encode())
        assert names(tmp_path) == ["file"]


def test_a_relative_path_and_a_long_name(here: Path) -> None:
    name = "n" * 200
    write_atomically(Path(name), "content")
    assert names(here) == [name]


def test_the_users_umask_holds(tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        write_atomically(tmp_path / "file", "content")
    finally:
        os.umask(before)
    assert (tmp_path / "file").stat().st_mode & 0o777 == 0o640


def test_a_link_is_replaced_and_what_it_points_to_stays(tmp_path: Path) -> None:
    (tmp_path / "target").write_text("old")
    (tmp_path / "link").symlink_to("target")
    write_atomically(tmp_path / "link", "new")
    assert (tmp_path / "target").read_text() == "old"
    assert (tmp_path / "link").read_text() == "new"


@pytest.mark.parametrize("refusals", [1, 5, 6])
def test_a_file_that_another_program_has_open_is_tried_again(
    refusals: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    left, replace = list(range(refusals)), os.replace

    def refuse(*paths: Path) -> None:  # as Windows does
        if left:
            left.pop()
            raise PermissionError(errno.EACCES, "Access is denied")
        replace(*paths)

    monkeypatch.setattr(os, "replace", refuse)
    monkeypatch.setattr("time.sleep", lambda seconds: None)
    path = tmp_path / "file"
    if refusals <= 5:
        write_atomically(path, "content")
        assert path.read_text() == "content"
    else:
        with pytest.raises(PermissionError):
            write_atomically(path, "content")
        assert names(tmp_path) == []


@pytest.mark.parametrize("error", [OSError(errno.ENOSPC, "full"), KeyboardInterrupt()])
@pytest.mark.parametrize("function", ["fsync", "replace"])
def test_a_failure_leaves_the_old_file_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: BaseException, function: str
) -> None:
    path = tmp_path / "file"
    path.write_text("old")

    def fail(*_: object) -> None:
        raise error

    monkeypatch.setattr(os, function, fail)
    with pytest.raises(type(error)):
        write_atomically(path, "new")
    assert path.read_text() == "old"
    assert names(tmp_path) == ["file"]


def test_a_full_disk(tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", 2 * SIZE) as disk:
        path = disk / "file"
        write_atomically(path, b"1" * SIZE)
        with pytest.raises(OSError, match="No space left"):
            write_atomically(path, b"2" * 2 * SIZE)
        assert path.read_bytes() == b"1" * SIZE
        assert names(disk) == ["file"]


def test_a_folder_in_its_place_and_a_folder_that_is_missing(tmp_path: Path) -> None:
    (tmp_path / "file").mkdir()
    with pytest.raises(OSError):
        write_atomically(tmp_path / "file", "content")
    with pytest.raises(FileNotFoundError):
        write_atomically(tmp_path / "missing" / "file", "content")
    assert names(tmp_path) == ["file"]


@pytest.mark.parametrize("function", ["fsync", "replace"])
def test_a_kill_just_before_the_end(tmp_path: Path, function: str) -> None:
    """Everything has been written, but the name has not been given."""
    path = tmp_path / "file"
    path.write_text("old")
    code = (
        "import os, sys, time\n"
        "from pathlib import Path\n"
        "from common.files import write_atomically\n"
        f"os.{function} = lambda *_: (print('there', flush=True), time.sleep(600))\n"
        "write_atomically(Path(sys.argv[1]), 'new')"
    )
    command = [sys.executable, "-c", code, str(path)]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout and process.stdout.readline() == "there\n"
        process.kill()
    assert path.read_text() == "old"
    (leftover,) = set(names(tmp_path)) - {"file"}
    assert leftover.startswith(".file.")
    write_atomically(path, "newer")
    assert path.read_text() == "newer"


def test_writers_at_once(tmp_path: Path) -> None:
    """Whoever comes last wins; a reader meanwhile sees one of them, whole."""
    path = tmp_path / "file"
    contents = [bytes([c]) * SIZE for c in b"abcd"]
    write_atomically(path, contents[0])

    def write(content: bytes) -> None:
        for _ in range(10):
            write_atomically(path, content)

    writers = [threading.Thread(target=write, args=[content]) for content in contents]
    for writer in writers:
        writer.start()
    while any(writer.is_alive() for writer in writers):
        assert path.read_bytes() in contents
    for writer in writers:
        writer.join()
    assert path.read_bytes() in contents
    assert names(tmp_path) == ["file"]
