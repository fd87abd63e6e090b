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
from stream.bundle import HarmCalibration, RoleCalibration
from stream.errors import ConfigError
from stream.events import Decision, FailCondition
from stream.policy import CompiledPolicy, compile_policy, refuse_old_calibration
from stream.policy.compiled import Risk
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
    them, be left without an answer, and be acted on; and the same of the harmless ones. A rule set for one role shows
    shares of that role's items; a risk says of how many items it was taken, and where those of all roles had to stand
    in for a role's own. A bundle calibrated longer ago than the policy allows is refused, as a worker refuses it.
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
    for line in _kept_within_roles(policy):
        typer.echo(f"{line}\n")
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
            *_thresholds(policy, row, column),
            *(_shares(policy, row, column, counts) for counts in _items(calibration[harm], policy.roles[row])),
        ]
        for row, name in _rulesets(policy)
        for column, harm in enumerate(policy.harms)
    ]


def _rulesets(policy: CompiledPolicy) -> list[tuple[int, str]]:
    """Number and name of each rule set that an event can have."""
    return [(row, name) for row, name in enumerate(policy.rulesets) if row in policy.index.reachable]


def _thresholds(policy: CompiledPolicy, row: int, column: int) -> list[str]:
    """The two thresholds, each with the risk it follows from and the number of items that is taken on."""
    basis, role = policy.basis[row][column], policy.roles[row]
    lower, upper = policy.allow_below[row, column], policy.act_at[row, column]
    return [
        f"{lower:.4f}",
        _given_by("miss rate", basis.miss, role),
        f"{upper:.4f}" if upper <= 1 else "never",
        _given_by("false-block rate", basis.false_block, role),
    ]


def _given_by(name: str, risk: Risk | None, role: str | None) -> str:
    if risk is None:
        return "given"
    if risk.role is not None:
        return f"{name} {risk.rate:g} within {risk.role}, n={risk.n:g}"
    if (lacking := risk.lacking) is not None:
        too_few = f"{role} has {lacking.n:g} of {lacking.needed} needed"
        return f"{name} {risk.rate:g} over all roles, n={risk.n:g} ({too_few})"
    return f"{name} {risk.rate:g}, n={risk.n:g}"


def _items(measured: HarmCalibration, role: str | None) -> tuple[Sequence[float], Sequence[float]]:
    """The histograms of harmful and of harmless items, of one role or of all."""
    part: HarmCalibration | RoleCalibration | None = measured if role is None else measured.roles.get(role)
    return ((), ()) if part is None else (part.harmful, part.harmless)


def _shares(policy: CompiledPolicy, row: int, column: int, counts: Sequence[float]) -> str:
    if not sum(counts):
        return "no items"
    lower, upper = float(policy.allow_below[row, column]), float(policy.act_at[row, column])
    found = shares(np.asarray(counts), lower=lower, upper=upper)
    return f"{found.allowed:.2%} / {found.abstained:.2%} / {found.acted:.2%}"


def _kept_within_roles(policy: CompiledPolicy) -> list[str]:
    """How many risks that should be kept within a role are; nothing where none should be."""
    risks = [
        risk
        for row, _ in _rulesets(policy)
        for basis in policy.basis[row]
        for risk in (basis.miss, basis.false_block)
        if risk is not None and (risk.role is not None or risk.lacking is not None)
    ]
    if not risks:
        return []
    lacking = sum(risk.lacking is not None for risk in risks)
    kept = f"Of {len(risks)} thresholds that are to keep a risk within a role, {len(risks) - lacking} do."
    others = (
        f" The other {lacking} keep it over all roles together, for want of calibration items of the role: a bundle "
        "calibrated on more of them changes that, or thresholds given in an overlay for the role."
    )
    return [kept + (others if lacking else "")]


def _fail_rows(policy: CompiledPolicy) -> list[list[str]]:
    rows = policy.fail_action.tolist()
    return [[name, *(policy.actions[action] for action in rows[row])] for row, name in _rulesets(policy)]


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
