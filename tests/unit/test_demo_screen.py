"""What the demo shows: the harm that called for the action, and other people's words as nothing but words."""

from __future__ import annotations

import io
from datetime import UTC, datetime

import pytest
from rich.console import Console

from ops.demo.screen import page
from ops.demo.seen import Asked, Decided, Rejected, Seen
from ops.demo.why import Told, Why, because
from stream.events import HarmDecision
from stream.settings import Settings

ACTIONS = {"dangerous": "block", "violence": "restrict", "self_harm": "review"}
FOUND = HarmDecision(0.9, "harmful", 0.3, 0.1)
BARELY_FOUND = HarmDecision(0.6, "harmful", 0.5, 0.1)
OPEN = HarmDecision(0.2, "abstain", 0.3, 0.1)
NOTHING = HarmDecision(0.01, "harmless", 0.3, 0.1)


def told(action: str, *reasons: str, **harms: HarmDecision) -> Told:
    now = datetime(2026, 11, 21, tzinfo=UTC)
    return Told("events:0:1", "benign-001", action, [*reasons], harms, True, "chat", now, now)


@pytest.mark.parametrize(
    ("decision", "text"),
    [
        (told("block", violence=FOUND, dangerous=BARELY_FOUND), "dangerous 0.600 ≥ 0.500"),
        (told("review", violence=OPEN, self_harm=FOUND), "self_harm 0.900 ≥ 0.300"),
        (told("review", violence=OPEN, dangerous=NOTHING), "violence 0.100 ≤ 0.200 < 0.300"),
        (told("review", "fail:unsupported", violence=NOTHING), "has an image, not read"),
        (told("review", "fail:unsupported"), "has an image, not read"),
        (told("restrict", "fail:unsupported", violence=FOUND), "violence 0.900 ≥ 0.300"),
        (
            told("allow", violence=NOTHING, dangerous=HarmDecision(0.09, "harmless", 0.5, 0.1)),
            "dangerous 0.090 < 0.100",
        ),
    ],
)
def test_the_reason_is_what_called_for_the_action(decision: Told, text: str) -> None:
    """The harm shown is one whose action was taken, however clear another is; else a fail rule, or the nearest miss."""
    assert because(decision, ACTIONS).text == text


@pytest.mark.parametrize(("width", "height"), [(80, 24), (100, 40), (200, 60)])
@pytest.mark.parametrize("is_over", [False, True])
def test_a_page_fits_and_shows_words_as_words(width: int, height: int, is_over: bool) -> None:
    """A page fills the screen exactly, and neither markup nor control characters of content have an effect."""
    hostile = "[/] \x1b[31m\r"
    seen = Seen(Settings.model_validate({}), {}, ACTIONS)
    seen.decided += [Decided("benign", "block", hostile, hostile, Why("violence", hostile, n)) for n in range(100)]
    seen.asked += [Asked(True, hostile, Why("violence", hostile))] * 100
    seen.rejected += [Rejected("image", "0:1", hostile, hostile)] * 100
    console = Console(file=io.StringIO(), width=width, height=height, color_system=None)
    lines = console.render_lines(page(seen, lines=height, is_over=is_over), pad=False)
    text = ["".join(segment.text for segment in line if not segment.control) for line in lines]
    assert len(text) == height
    assert {len(line) for line in text} == {width}
    assert "[/]" in "".join(text)
    assert "\x1b" not in "".join(text)
