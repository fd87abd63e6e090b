"""`fairway tail`: watch a topic. What people wrote and who they are is printed only when asked for."""

from __future__ import annotations

import json
from contextlib import suppress
from itertools import islice
from typing import Annotated, Any

import typer
from rich.console import Console

from stream.settings import Settings, load_settings

__all__ = ["line", "tail"]

ACTION_STYLES = {"allow": "green", "label": "cyan", "restrict": "yellow", "block": "red", "review": "magenta"}


def tail(
    topic: Annotated[
        str, typer.Argument(help="events, decisions, review, dead-letter, reports, state, control or a topic's name.")
    ],
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object per line.")] = False,
    from_beginning: Annotated[bool, typer.Option("--from-beginning", help="Start with what is there.")] = False,
    maximum: Annotated[int | None, typer.Option("--max", min=1, help="Stop after so many records.")] = None,
    content: Annotated[bool, typer.Option("--content", help="Print content, keys, ids and groups as well.")] = False,
    bootstrap_servers: Annotated[str | None, typer.Option(help="Kafka brokers, host:port separated by commas.")] = None,
) -> None:
    """Print the records of a topic as they arrive. Ctrl-C stops it."""
    settings, _ = load_settings({"bootstrap_servers": bootstrap_servers})
    # Imported here: `fairway --help` should not pay for the Kafka client.
    from stream.kafka.following import follow  # noqa: PLC0415
    from stream.kafka.redaction import describer  # noqa: PLC0415

    name = _topic(settings, topic)
    describe = describer(settings, name, content=content)
    console = Console(soft_wrap=True, highlight=False, markup=False, emoji=False)
    with suppress(KeyboardInterrupt):
        for record in islice(follow(settings, name, from_beginning=from_beginning), maximum):
            document = describe(record)
            if as_json:
                typer.echo(json.dumps(document))
            else:
                console.print(line(document), style=_style(document))


def line(document: dict[str, Any]) -> str:
    """One line for a person. Control characters are escaped: much of it is other people's words, and this a terminal.

    `document` is a JSON object as `stream.kafka.redaction` makes them.
    """
    rest = dict(document)
    at, partition, offset, size = (rest.pop(name) for name in ("at", "partition", "offset", "bytes"))
    if "decision" in rest:
        text = _decision(rest.pop("decision"), rest.pop("why", None))
    elif "reason" in rest:
        attempts = rest.pop("attempts")
        text = f"{rest.pop('reason')} {rest.pop('source')} attempt {attempts}, {size} bytes: {rest.pop('error')}"
    else:
        text = f"{size} bytes"
    shown = {name: value for name, value in rest.items() if value not in (None, False)}
    extra = f"  {json.dumps(shown, ensure_ascii=False)}" if shown else ""
    return _printable(f"{at[11:23]} {partition}:{offset}  {text}{extra}")


def _decision(decision: dict[str, Any], why: str | None) -> str:
    harms = decision.get("harms")
    probabilities = [
        f"{name}={harm.get('probability')}"
        for name, harm in (harms.items() if isinstance(harms, dict) else ())
        if isinstance(harm, dict) and harm.get("selection") != "harmless"
    ]
    reasons = decision.get("reasons")
    parts = [
        f"{decision.get('action', '?'):8}",
        f"({why})" if why else "",
        str(decision.get("decision_id", "no decision")),
        str(decision.get("content_id", "")),
        str(decision.get("surface", "")),
        ", ".join(map(str, reasons)) if isinstance(reasons, list) else "",
        " ".join(probabilities),
        "" if decision.get("moderated", True) else "UNMODERATED",
    ]
    return " ".join(part for part in parts if part)


def _style(document: dict[str, Any]) -> str:
    if "reason" in document or "foreign" in document:
        return "red"
    decision = document.get("decision", {})
    return ACTION_STYLES.get(str(decision.get("action")), "none")


def _topic(settings: Settings, name: str) -> str:
    """The topic a short name stands for; any other name is a topic's own."""
    short = {
        "events": settings.events_topic,
        "decisions": settings.decisions_topic,
        "review": settings.review_topic,
        "dead-letter": settings.dead_letter_topic,
        "reports": settings.reports_topic,
        "state": settings.fairness_state_topic,
        "control": settings.control_topic,
    }
    return short.get(name, name)


def _printable(text: str) -> str:
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
