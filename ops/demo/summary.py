"""The last words: the page once more, how decisions compare with what was meant, the audit, and where to go next."""

from __future__ import annotations

import sys
from collections import Counter
from pathlib import Path

from rich.console import Console
from rich.table import Table
from rich.text import Text

from ops.demo.content import CONTENT
from ops.demo.screen import ACTIONS, page
from ops.demo.seen import Seen
from ops.demo.service import ROOT
from stream.kafka.audit import AuditReport

__all__ = ["summarize"]

PAGE_LINES = 40
"""Room for all groups and for what they are to be seen with."""

HONEST = (
    "models/lite weighs words and knows English; it errs, and asks where unsure: models/lite/CARD.md\n"
    "The content was written for this page and the groups were dealt out by chance: neither measures the model."
)
MEANT = ("benign", "borderline", "harmful")


def summarize(console: Console, seen: Seen, report: AuditReport) -> None:
    """Print it all."""
    console.print(page(seen, lines=PAGE_LINES, is_over=True), height=PAGE_LINES)
    console.print(_meant(seen))
    console.print(HONEST, soft_wrap=True)
    console.print()
    console.print(_audited(report))
    console.print()
    console.print(_next(), soft_wrap=True)


def _meant(seen: Seen) -> Table:
    """What the authors of the content meant against what was decided; the service never saw the former."""
    counts = Counter((decided.meant, decided.action) for decided in seen.decided)
    actions = [action for action in ACTIONS if any(counts[meant, action] for meant in MEANT)]
    table = Table("meant as", *actions, box=None, header_style="bold", pad_edge=False, padding=(0, 3, 0, 0))
    for meant in MEANT:
        table.add_row(
            meant, *(Text(str(counts[meant, action]), ACTIONS[action], justify="right") for action in actions)
        )
    return table


def _audited(report: AuditReport) -> Text:
    total = report.total
    counted = (
        f"{total.events} events, {total.decided} decided, {total.dead_lettered} rejected, {total.missing} missing, "
        f"{total.duplicated} duplicated"
    )
    if report.is_sound:
        return Text.assemble("Audit, from the topics alone: ", counted, ". ", ("SOUND", "bold green"))
    examples = "; ".join(f"{name}: {', '.join(found)}" for name, found in total.examples.items())
    return Text.assemble("Audit, from the topics alone: ", counted, ". ", ("NOT SOUND: ", "bold red"), examples)


def _next() -> str:
    fairway = Path(sys.executable).with_name("fairway")
    command = fairway.relative_to(Path.cwd()) if fairway.is_relative_to(Path.cwd()) else fairway
    commands = {
        "policy check": "what the policy would do, risk by risk",
        f"score < {CONTENT.relative_to(ROOT)}": "the same decisions in a pipe, without Kafka",
        "broker": "a Kafka that stays; then as README.md says",
    }
    lines = [f"  {f'{command} {rest}':{len(str(command)) + 34}}  # {why}" for rest, why in commands.items()]
    return "\n".join(["Next:", *lines])
