"""`make demo`: play made-up content through a real local Kafka, show what becomes of it, prove the account, end."""

from __future__ import annotations

import argparse
import logging
import signal
import sys
import time
from collections.abc import Callable, Iterable
from contextlib import closing
from types import FrameType

from rich.console import Console
from rich.live import Live
from rich.text import Text

from ops.demo.content import items
from ops.demo.play import play
from ops.demo.screen import ACTIONS, page, plain
from ops.demo.seen import Seen
from ops.demo.service import SIGNALS, ignore_signals, running
from ops.demo.summary import summarize
from ops.demo.why import actions_of_harms
from stream.errors import FairwayError
from stream.kafka.audit import audit

RATE = 14.0
"""Records a second: as fast as one can just about read along."""
WIDTH = 100
"""Columns where there is no screen."""
LIVE_WIDTH, LIVE_HEIGHT = 80, 24
"""The least screen for the live page; on a smaller one, and without a terminal, there are lines."""
AUDIT_WAIT_S = 10.0
"""Workers commit twice a second."""
FAILED, INTERRUPTED = 1, 130


def main() -> int:
    """Run the demo; the exit status is 0 only where every event got its one output."""
    parser = argparse.ArgumentParser(prog="python -m ops.demo", description=__doc__)
    parser.add_argument("--rate", type=float, default=RATE, help="records a second")
    arguments = parser.parse_args()
    console = _console()
    # What the Kafka clients log is not for this screen; what matters of it comes back as an error.
    logging.basicConfig(handlers=[logging.NullHandler()])
    for number in SIGNALS:
        signal.signal(number, _interrupt)
    try:
        status = _demo(console, rate=arguments.rate)
    except KeyboardInterrupt:
        status = INTERRUPTED
    except FairwayError as error:
        console.print(f"\nThe demo failed: {error}", style="red", markup=False, soft_wrap=True)
        status = FAILED
    console.print("Everything is stopped and the temporary folder removed.")
    return status


def _interrupt(_number: int, _frame: FrameType | None) -> None:
    """End the way Ctrl-C does; a second one, in the middle of that, would break what is being stopped."""
    ignore_signals()
    raise KeyboardInterrupt


def _console() -> Console:
    sys.stdout.reconfigure(errors="replace")  # type: ignore[union-attr]  # a text file, whatever else it may be
    console = Console(highlight=False)
    return console if console.is_terminal else Console(highlight=False, width=WIDTH)


def _demo(console: Console, *, rate: float) -> int:
    console.print("Fairway demo: content of our own making, through a real Kafka. Ctrl-C ends it.", style="bold")
    played = items()
    with running(_progress(console)) as service:
        seen = Seen(service.settings, {item.key: item for item in played}, actions_of_harms(service.settings))
        with closing(play(service, played, seen, rate=rate)) as frames:
            _show(console, seen, frames)
        report = audit(service.settings, wait_s=AUDIT_WAIT_S)
        summarize(console, seen, report)
    return 0 if report.is_sound else FAILED


def _progress(console: Console) -> Callable[[str], None]:
    started = time.monotonic()
    return lambda line: console.print(f"{time.monotonic() - started:5.1f} s  {line}", markup=False, soft_wrap=True)


def _show(console: Console, seen: Seen, frames: Iterable[None]) -> None:
    """Follow the play on a page that is drawn anew, or line by line where there is no screen for it."""
    has_room = console.width >= LIVE_WIDTH and console.height >= LIVE_HEIGHT
    if not (console.is_terminal and has_room) or console.is_dumb_terminal:
        _show_lines(console, seen, frames)
        return
    with Live(console=console, screen=True, auto_refresh=False) as live:
        for _ in frames:
            live.update(page(seen, lines=console.height), refresh=True)


def _show_lines(console: Console, seen: Seen, frames: Iterable[None]) -> None:
    decided = rejected = 0
    for _ in frames:
        for decision in seen.decided[decided:]:
            action = Text(f"{decision.action:9}", ACTIONS.get(decision.action, ""))
            why = (f"  {decision.why.text}", "dim")
            console.print(Text.assemble(action, plain(decision.shown), why), soft_wrap=True)
        for letter in seen.rejected[rejected:]:
            text = f"{letter.coordinates} {letter.reason}: {letter.error}"
            console.print(Text.assemble(("rejected ", "bold red"), f"{plain(letter.shown)}  ", text), soft_wrap=True)
        decided, rejected = len(seen.decided), len(seen.rejected)


if __name__ == "__main__":
    sys.exit(main())
