"""The screen: what was decided and why, what people are asked, what was rejected and the group table, on one page."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import zip_longest

from rich.console import Console, ConsoleOptions, Group, RenderableType, RenderResult
from rich.layout import Layout
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from ops.demo.seen import Decided, Seen
from stream.fairness.report import Ends, GroupRow

__all__ = ["ACTIONS", "page", "plain"]

HEADER_LINES = 4
GROUP_LINES = 17
"""14 groups, a head and a frame; half of what the header leaves on a small screen."""
EMPTY_LINES = 3

ACTIONS = {"allow": "green", "label": "cyan", "review": "magenta", "restrict": "yellow", "block": "red"}
"""Actions, least severe first, and their colours."""

Cell = str | tuple[str, str]
"""Text, or text and its style."""
Row = Sequence[Cell]


@dataclass(frozen=True, slots=True)
class _Rows:
    """A table of as many rows as there is room for: the last ones, or the first where `from_top`."""

    rows: Sequence[Row]
    stretched: int | None = None
    """The column that takes what room the others leave, and is cut where that is not enough."""
    from_top: bool = False

    def __rich_console__(self, _console: Console, options: ConsoleOptions) -> RenderResult:
        room = options.height or len(self.rows)
        shown = self.rows[:room] if self.from_top else self.rows[-room:]
        table = Table.grid(padding=(0, 2, 0, 0), expand=self.stretched is not None)
        for number in range(max(map(len, shown), default=0)):
            table.add_column(no_wrap=True, overflow="ellipsis", ratio=1 if number == self.stretched else None)
        for row in shown:
            table.add_row(*map(_text, row))
        yield table


def page(seen: Seen, *, lines: int, is_over: bool = False) -> Layout:
    """Everything on one page of so many lines; of decisions the latest, or some of each kind when it is over."""
    groups = min(GROUP_LINES, (lines - HEADER_LINES) // 2) if seen.tables else EMPTY_LINES
    middle = Layout(ratio=1)
    middle.split_row(
        Layout(_panel(_asked(seen), _about_asked(seen), "magenta"), ratio=3),
        Layout(_panel(_rejected(seen, is_over=is_over), f"rejected: {len(seen.rejected)}", "red"), ratio=2),
    )
    layout = Layout()
    layout.split_column(
        Layout(_header(seen, is_over=is_over), size=HEADER_LINES),
        Layout(_panel(_decided(seen, is_over=is_over), "decided, and why", "green"), ratio=1),
        middle,
        Layout(_panel(_groups(seen), _about_groups(seen), "blue"), size=groups),
    )
    return layout


def plain(text: str) -> str:
    """Other people's words: no control character may reach the terminal."""
    return "".join(character if character.isprintable() else " " for character in text)


def _text(cell: Cell) -> Text:
    text, style = (cell, "") if isinstance(cell, str) else cell
    return Text(plain(text), style)


def _panel(content: RenderableType, title: str, color: str) -> Panel:
    return Panel(content, title=Text(title), title_align="left", border_style=color, padding=(0, 1))


def _header(seen: Seen, *, is_over: bool) -> Panel:
    stage = "played" if is_over else seen.stage
    speed = "" if is_over else f"   {seen.per_s():.0f} decisions/s"
    progress = f"   {seen.sent} of {seen.total} sent{speed}   decided {seen.delay_ms:.0f} ms after sending (median)"
    first = Text.assemble((stage, "bold"), progress, no_wrap=True, overflow="ellipsis")
    counts = seen.by_action()
    second = Text("   ").join(
        [Text(f"{action} {counts[action]}", color) for action, color in ACTIONS.items() if action in counts]
        + [Text(f"rejected {len(seen.rejected)}", "bold red")]
    )
    return _panel(Group(first, second), "Fairway", "bold")


def _decided(seen: Seen, *, is_over: bool) -> _Rows:
    rows = [
        ((d.action, ACTIONS.get(d.action, "")), d.where, d.shown, (d.why.text, "dim"))
        for d in (_of_each_kind(seen.decided) if is_over else seen.decided)
    ]
    return _Rows(rows, stretched=2, from_top=is_over)


def _of_each_kind(decisions: Sequence[Decided]) -> list[Decided]:
    """The clearest decision of each action and harm; one of each action in turn, the most severe first."""
    kinds: dict[str, dict[str, Decided]] = {action: {} for action in reversed(ACTIONS)}
    for decided in sorted(decisions, key=lambda decided: -decided.why.clarity):
        kinds[decided.action].setdefault(decided.why.about, decided)
    turns = zip_longest(*(kind.values() for kind in kinds.values()))
    return [decided for turn in turns for decided in turn if decided is not None]


def _about_asked(seen: Seen) -> str:
    return f"a person is asked: {len(seen.asked)}, {sum(asked.is_abstained for asked in seen.asked)} abstained on"


def _asked(seen: Seen) -> _Rows:
    return _Rows([(asked.shown, (asked.why.text, "dim")) for asked in seen.asked], stretched=0)


def _rejected(seen: Seen, *, is_over: bool) -> _Rows:
    """Which records and why; how many of each kind when it is over."""
    if not is_over:
        rows = [(r.reason, (r.coordinates, "dim"), r.shown) for r in seen.rejected]
        return _Rows(rows, stretched=2)
    counts = Counter(rejected.reason for rejected in seen.rejected)
    examples = {rejected.reason: rejected.error for rejected in seen.rejected}
    counted = [(str(n), reason, (examples[reason], "dim")) for reason, n in counts.most_common()]
    return _Rows(counted, stretched=2, from_top=True)


def _about_groups(seen: Seen) -> str:
    if not seen.tables:
        return "by group: counted when the play pauses"
    table = next(iter(seen.tables.values()))
    return f"allowed, by group {table.group_meaning}; {table.pane_n} decisions, % (95 % interval)"


def _groups(seen: Seen) -> _Rows:
    rows: list[Row] = [[(title, "bold") for title in ("", "group", "   n", "allowed", "rest", "difference")]]
    for axis, table in sorted(seen.tables.items()):
        for number, group in enumerate(sorted(table.groups, key=lambda row: -row.n)):
            rows.append(((axis if number == 0 else "", "bold"), group.group, f"{group.n:4}", *_figures(group)))
    return _Rows(rows if seen.tables else [], from_top=True)


def _figures(row: GroupRow) -> Row:
    """What was allowed of the group and of the rest, and the difference, as far as there are enough data."""
    few = ("not enough data", "dim")
    if row.rate is None or row.interval is None:
        return (few, "", "")
    own = f"{row.rate:4.0%} {_ends(row.interval)}"
    if row.rest_rate is None or row.difference is None or row.difference_interval is None:
        return (own, few, "")
    difference = f"{row.difference * 100:+4.0f} {_ends(row.difference_interval, sign='+')}"
    return (own, f"{row.rest_rate:4.0%}", difference)


def _ends(interval: Ends, *, sign: str = "") -> str:
    """An interval of shares in hundredths; an end that the data do not bound is left open."""
    low, high = ("" if end is None else f"{end * 100:{sign}.0f}" for end in interval)
    return f"({low} to {high})"
