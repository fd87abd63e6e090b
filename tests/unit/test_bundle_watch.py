"""A changed bundle folder is judged once, when it has stood still, whatever way it was changed."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from stream.bundle.watch import SETTLE_S, BundleWatch
from tests.bundles import copy_of_lite


class Desk:
    """A bundle's folder, somebody who changes it, and a worker that looks at it every ten seconds."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.now = copy_of_lite(folder), 100.0
        self.watch = BundleWatch(folder)

    def look(self, after: float = 10.0) -> bool:
        """Whether there is something to judge."""
        self.now += after
        return self.watch.look(self.now)

    def looks(self, times: int, after: float = 10.0) -> list[bool]:
        """What each of several looks says."""
        return [self.look(after) for _ in range(times)]


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    """A bundle in force."""
    return Desk(tmp_path / "bundle")


def test_what_does_not_change_is_no_news(desk: Desk) -> None:
    """The bundle in force is never judged again."""
    assert desk.looks(4) == [False] * 4


def _flip(folder: Path) -> None:
    content = bytearray((folder / "manifest.sig").read_bytes())
    content[0] ^= 1
    status = (folder / "manifest.sig").stat()
    (folder / "manifest.sig").write_bytes(content)
    os.utime(folder / "manifest.sig", ns=(status.st_atime_ns, status.st_mtime_ns))


def _replace_keeping_time(folder: Path) -> None:
    status = (folder / "model.onnx").stat()
    shutil.copy2(folder / "model.onnx", folder.parent / "model.onnx")
    (folder.parent / "model.onnx").replace(folder / "model.onnx")
    os.utime(folder / "model.onnx", ns=(status.st_atime_ns, status.st_mtime_ns))


@pytest.mark.parametrize(
    "change",
    [
        lambda folder: (folder / "model.onnx").write_bytes(b"other"),
        lambda folder: (folder / "extra.bin").touch(),
        lambda folder: (folder / "CARD.md").unlink(),
        lambda folder: (folder / "manifest.json").unlink(),
        shutil.rmtree,
        _flip,
        _replace_keeping_time,
    ],
    ids=["content", "added", "removed", "no-manifest", "gone", "signature-in-place", "same-size-and-time"],
)
def test_every_change_is_seen_once(desk: Desk, change: Callable[[Path], None]) -> None:
    """Whatever changes in the folder is given out once, by the second look."""
    change(desk.folder)
    assert desk.looks(4) == [False, True, False, False]


def test_a_copy_under_way_waits(desk: Desk) -> None:
    """As long as files come or grow from look to look nothing is judged."""
    for size in range(4):
        (desk.folder / "model.onnx").write_bytes(bytes(size))
        assert not desk.look(SETTLE_S / 2)
    assert desk.looks(3, SETTLE_S / 2) == [False, True, False]


def test_a_link_that_is_turned_is_a_change(desk: Desk, tmp_path: Path) -> None:
    """A deployment that switches a link from one version to the next is seen, even to the same bytes."""
    link = tmp_path / "current"
    link.symlink_to(desk.folder)
    desk.watch = BundleWatch(link)
    assert desk.looks(2) == [False, False]
    other = copy_of_lite(tmp_path / "other")
    link.unlink()
    link.symlink_to(other)
    assert desk.looks(3) == [False, True, False]


def test_going_back_after_a_refusal_is_a_change(desk: Desk) -> None:
    """Once a bad state was judged, the good one before it is judged as well, so that the complaint ends."""
    (desk.folder / "extra.bin").touch()
    assert desk.looks(2) == [False, True]
    (desk.folder / "extra.bin").unlink()
    assert desk.looks(3) == [False, True, False]


def test_what_was_refused_can_be_judged_again(desk: Desk) -> None:
    """When something else has changed, such as the policy, the same folder is judged once more."""
    (desk.folder / "extra.bin").touch()
    assert desk.looks(3) == [False, True, False]
    desk.watch.reconsider()
    assert desk.looks(2) == [True, False]
