"""A changed policy file is put in force whole, or not at all."""

from __future__ import annotations

from pathlib import Path

import pytest

from stream.bundle import HarmCalibration
from stream.errors import PolicyError
from stream.policy import CompiledPolicy, PolicyWatch, compile_policy
from stream.policy.watch import SETTLE_S

CALIBRATION = {"hate": HarmCalibration(a=1, b=0, n_harmful=0, n_harmless=0, ece=0, ece_null=0, harmful=(), harmless=())}


def text(name: str) -> str:
    """A policy with this name."""
    harms = "{hate: {action: block, act_at: 1, allow_below: 0}}"
    return f'schema_version: 1\nname: {name}\nversion: "1"\nharms: {harms}\n'


class Desk:
    """A policy file, somebody who edits it, and a worker that looks at it every two seconds."""

    def __init__(self, path: Path) -> None:
        self.path, self.now = path, 100.0
        self.write(text("first"))
        self.watch = PolicyWatch(path, CALIBRATION, compile_policy(path, CALIBRATION))

    def write(self, content: str) -> None:
        """Replace the file."""
        self.path.write_text(content, encoding="utf-8")

    def look(self, after: float = 2.0) -> str | None:
        """The name of the policy to put in force, or the error, or None."""
        self.now += after
        seen = self.watch.look(self.now)
        if seen is None:
            return None
        return seen.name if isinstance(seen, CompiledPolicy) else str(seen)


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    """The first policy in force."""
    return Desk(tmp_path / "policy.yaml")


def test_a_file_that_does_not_change_is_no_news(desk: Desk) -> None:
    """Looking at the policy in force gives nothing, nor does writing the same bytes again."""
    assert desk.look() is None
    desk.write(text("first"))
    assert [desk.look() for _ in range(3)] == [None, None, None]


def test_a_change_is_put_in_force_once_it_has_settled(desk: Desk) -> None:
    """A new policy is given out once, by the second look, and is then the one in force."""
    desk.write(text("second"))
    assert [desk.look() for _ in range(4)] == [None, "second", None, None]
    assert desk.watch.in_force.name == "second"
    assert desk.watch.in_force.digest == compile_policy(desk.path, CALIBRATION).digest


def test_a_file_that_is_still_being_written_waits(desk: Desk) -> None:
    """As long as the content changes from look to look nothing is judged, whether it could be in force or not."""
    for half in ("name", text("half"), text("nearly")):
        desk.write(half)
        assert desk.look(SETTLE_S / 2) is None
    desk.write(text("done"))
    assert [desk.look(SETTLE_S / 2) for _ in range(4)] == [None, None, "done", None]


def test_a_bad_file_leaves_the_good_policy_in_force(desk: Desk) -> None:
    """A refused file is an error once, naming the file, and the policy in force stays."""
    desk.write("name: x")
    assert desk.look() is None
    assert desk.look() == f"{desk.path}:1: the file: needs a field `harms`\n" + "\n".join(
        f"{desk.path}:1: the file: needs a field `{field}`" for field in ("schema_version", "version")
    )
    assert desk.look() is None
    assert desk.watch.in_force.name == "first"


def test_the_error_is_one_of_a_policy(desk: Desk) -> None:
    """What is given back for a bad file is a `PolicyError`, not raised."""
    desk.write("name: [")
    desk.watch.look(200.0)
    assert isinstance(desk.watch.look(202.0), PolicyError)


def test_a_file_that_is_gone_is_refused_like_a_bad_one(desk: Desk) -> None:
    """A missing file is an error once, and mending it puts the next policy in force."""
    desk.path.unlink()
    assert [desk.look() for _ in range(3)] == [
        None, f"{desk.path}: cannot read the policy: No such file or directory", None,
    ]  # fmt: skip
    desk.write(text("second"))
    assert [desk.look() for _ in range(2)] == [None, "second"]


def test_going_back_to_the_policy_in_force_ends_the_complaint(desk: Desk) -> None:
    """After a refusal the old content is given out again, so that whoever complained knows all is well."""
    desk.write("name: x")
    desk.look()
    assert desk.look() is not None
    desk.write(text("first"))
    assert [desk.look() for _ in range(3)] == [None, "first", None]


def test_a_short_disturbance_is_not_reported(desk: Desk) -> None:
    """Content that is gone again before it settled is not judged."""
    desk.write("name: x")
    assert desk.look() is None
    desk.write(text("first"))
    assert [desk.look() for _ in range(3)] == [None, None, None]
