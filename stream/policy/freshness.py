"""Is the calibration of a bundle young enough for a policy? Pure: the time is given."""

from __future__ import annotations

from datetime import datetime, timedelta

from stream.errors import BundleError
from stream.policy.compiled import CompiledPolicy

__all__ = ["refuse_old_calibration"]

MAX_AHEAD = timedelta(days=1)
"""Clocks and time zones differ by hours. What is dated further ahead would otherwise never be too old."""


def refuse_old_calibration(
    policy: CompiledPolicy, created_at: datetime | None, *, now: datetime, bundle: str, is_fitted: bool = True
) -> None:
    """Raise `BundleError` where `bundle`, calibrated at `created_at`, is older than the policy allows.

    None for `created_at` is a calibration that does not age, such as that of the stub. One that was never fitted on
    anything is too old for every policy that asks for an age.
    """
    allowed = policy.max_calibration_age_days
    if allowed is None or created_at is None:
        return
    if not is_fitted:
        raise BundleError(
            f"{bundle} was never calibrated, on no day; policy {policy.name} allows {allowed:g} days "
            "(calibration.max_age_days): calibrate the bundle on labelled texts, or take that line out of the policy"
        )
    age = now - created_at
    if age < -MAX_AHEAD:
        raise BundleError(
            f"{bundle} says that it was calibrated on {created_at:%Y-%m-%d}, which is {-age.days} days ahead, so that "
            f"its age cannot be held against the {allowed:g} days of policy {policy.name}: set the clock right, or "
            "calibrate the bundle again"
        )
    if age > timedelta(days=allowed):
        raise BundleError(
            f"{bundle} was calibrated {age.days} days ago, on {created_at:%Y-%m-%d}; policy {policy.name} allows "
            f"{allowed:g} (calibration.max_age_days): calibrate the bundle again on recent content, or raise that age "
            "if you know that content has not changed"
        )
