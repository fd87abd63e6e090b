"""`fairway policy check` and `fairway policy explain`: what a policy would do, and why one decision was made."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import msgspec
import numpy as np
import typer
from rich.console import Console
from rich.table import Table

from stream import bundle as bundles
from stream.bundle import HarmCalibration
from stream.errors import ConfigError
from stream.events import Decision, FailCondition
from stream.policy import CompiledPolicy, compile_policy, refuse_old_calibration
from stream.policy.explain import explain as explain_decision
from stream.policy.explain import explain_rules
from stream.settings import Settings, load_settings
from stream.uncertainty.risk import shares
from stream.yamlfile import load

__all__ = ["check", "explain"]


def check(
    file: Annotated[Path | None, typer.Argument(help="Policy file; by default the one the settings name.")] = None,
    bundle: Annotated[Path | None, typer.Option(help="Model bundle whose calibration the risks are taken on.")] = None,
) -> None:
    """Check a policy against a model bundle, and show the thresholds it leads to and what they would do.

    The shares are of the bundle's calibration items: of the harmful ones, how many would be allowed, which is missing
    them, be left without an answer, and be acted on; and the same of the harmless ones. A bundle calibrated longer ago
    than the policy allows is refused, as a worker refuses it.
    """
    settings, _ = load_settings({"policy": file, "bundle": bundle})
    calibration, calibrated_at = _calibration(settings)
    policy = compile_policy(settings.policy, calibration)
    is_fitted = any(harm.is_fitted for harm in calibration.values())
    now, name = datetime.now(UTC), str(settings.bundle)
    refuse_old_calibration(policy, calibrated_at, now=now, bundle=name, is_fitted=is_fitted)
    typer.echo(f"{settings.policy}: {policy.name}, version {policy.version}, {policy.digest}")
    typer.echo(
        f"From least to most severe: {', '.join(policy.actions)}. Shares are of {settings.bundle}'s calibration."
    )
    _show(THRESHOLD_COLUMNS, _threshold_rows(policy, calibration))
    typer.echo()
    _show(("rule set", *(condition.name.lower() for condition in FailCondition)), _fail_rows(policy))
    typer.echo()
    age = "never expire" if policy.max_age_s is None else f"expire after {policy.max_age_s:g} s"
    typer.echo(f"Events {age}. Of decisions that are not reviewed, {policy.audit_rate:.2%} are audited.")


def explain(
    decision_json: Annotated[Path, typer.Argument(help="A decision record; - reads standard input.")],
    policy: Annotated[Path | None, typer.Option(help="The policy file that made it; its digest is checked.")] = None,
) -> None:
    """Say in sentences why a decision was made, from its record alone; with its policy file, which lines led to it."""
    content = sys.stdin.buffer.read() if str(decision_json) == "-" else _read(decision_json)
    try:
        decision = msgspec.json.decode(content, type=Decision)
    except msgspec.DecodeError as error:
        raise ConfigError(f"{decision_json} is not one decision record: {error}") from None
    lines = explain_decision(decision)
    if policy is not None:
        lines += explain_rules(decision, load(policy, what="policy"))
    typer.echo("\n".join(map(_printable, lines)))


THRESHOLD_COLUMNS = (
    "rule set",
    "harm",
    "harmful gets",
    "no answer gets",
    "allow below",
    "from",
    "act at",
    "from",
    "harmful: allowed / no answer / acted",
    "harmless: allowed / no answer / acted",
)


def _calibration(settings: Settings) -> tuple[Mapping[str, HarmCalibration], datetime | None]:
    from stream import wiring  # noqa: PLC0415 - `fairway --help` should not pay for it

    if settings.bundle == wiring.STUB:
        return wiring.load_model(settings).calibration, None
    # Without the model itself: it takes a second to load, and a GPU may be needed.
    calibration = bundles.load(settings.bundle, bundles.trust_of(settings)).calibration
    return calibration.harms, calibration.created_at


def _threshold_rows(policy: CompiledPolicy, calibration: Mapping[str, HarmCalibration]) -> list[list[str]]:
    return [
        [
            name,
            harm,
            policy.actions[policy.harm_action[row, column]],
            policy.actions[policy.abstain_action[row, column]],
            *_thresholds(policy, row, column, calibration[harm]),
            *(
                _shares(policy, row, column, counts)
                for counts in (calibration[harm].harmful, calibration[harm].harmless)
            ),
        ]
        for row, name in enumerate(policy.rulesets)
        for column, harm in enumerate(policy.harms)
    ]


def _thresholds(policy: CompiledPolicy, row: int, column: int, measured: HarmCalibration) -> list[str]:
    """The two thresholds, each with the risk it follows from and the number of items that is taken on."""
    basis = policy.basis[row][column]
    lower, upper = policy.allow_below[row, column], policy.act_at[row, column]
    return [
        f"{lower:.4f}",
        _given_by("miss rate", basis.miss_rate, measured.n_harmful),
        f"{upper:.4f}" if upper <= 1 else "never",
        _given_by("false-block rate", basis.false_block_rate, measured.n_harmless),
    ]


def _given_by(risk: str, rate: float | None, n: float) -> str:
    return "given" if rate is None else f"{risk} {rate:g}, n={n:g}"


def _shares(policy: CompiledPolicy, row: int, column: int, counts: Sequence[float]) -> str:
    lower, upper = float(policy.allow_below[row, column]), float(policy.act_at[row, column])
    found = shares(np.asarray(counts), lower=lower, upper=upper)
    return f"{found.allowed:.2%} / {found.abstained:.2%} / {found.acted:.2%}"


def _fail_rows(policy: CompiledPolicy) -> list[list[str]]:
    rows = zip(policy.rulesets, policy.fail_action.tolist(), strict=True)
    return [[name, *(policy.actions[action] for action in actions)] for name, actions in rows]


def _show(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """A table in a terminal; elsewhere aligned columns without a frame, and no line broken."""
    console = Console(markup=False, emoji=False)  # a surface may be called [b]
    if console.is_terminal:
        table = Table(*columns, header_style="bold")
        for row in rows:
            table.add_row(*row)
        console.print(table)
        return
    widths = [max(map(len, column)) for column in zip(columns, *rows, strict=True)]
    for row in (columns, *rows):
        typer.echo("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


def _printable(line: str) -> str:
    """Without what would move the cursor or begin another line: ids and surfaces come from whoever sent the event."""
    return "".join(character if character.isprintable() else "\N{REPLACEMENT CHARACTER}" for character in line)


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise ConfigError(f"cannot read the decision {path}: {error.strerror}") from None
