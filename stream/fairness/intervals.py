"""Confidence intervals for rates, their differences and their ratios, from counts [S22].

All are pointwise intervals for a fixed number of decisions. Nobody may watch a hundred of them a minute and call the
first that leaves zero an alarm: at 95 % about one in twenty does so by chance, and more when looked at again and again.

Arguments are arrays of one shape: counts with 0 <= count <= n. Results are float64 of that shape, NaN where n is zero.
"""

from __future__ import annotations

from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
from numpy.typing import ArrayLike, NDArray

__all__ = ["Interval", "newcombe", "rate", "risk_ratio", "wilson"]

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Interval:
    """The ends of intervals, one for each entry."""

    low: Floats
    high: Floats


def rate(count: ArrayLike, n: ArrayLike) -> Floats:
    """Share count / n, in [0, 1].

    >>> rate([1, 0], [4, 0]).tolist()
    [0.25, nan]
    """
    count, n = _floats(count, n)
    return np.divide(count, n, out=np.full_like(count, np.nan), where=n > 0)


def wilson(count: ArrayLike, n: ArrayLike, *, confidence: float = 0.95) -> Interval:
    """Wilson's score interval for a rate (Wilson 1927); inside [0, 1] and of some width even at rates of 0 and 1.

    >>> interval = wilson(0, 10)
    >>> round(float(interval.low), 4), round(float(interval.high), 4)
    (0.0, 0.2775)
    """
    count, n = _floats(count, n)
    z, p = _z(confidence), rate(count, n)
    n = np.where(n > 0, n, np.nan)
    centre = (p + z**2 / (2 * n)) / (1 + z**2 / n)
    half = z / (1 + z**2 / n) * np.sqrt(p * (1 - p) / n + z**2 / (4 * n**2))
    return Interval(np.clip(centre - half, 0, 1), np.clip(centre + half, 0, 1))


def newcombe(
    count: ArrayLike, n: ArrayLike, other_count: ArrayLike, other_n: ArrayLike, *, confidence: float = 0.95
) -> Interval:
    """Newcombe's interval for the difference of two rates, count/n - other_count/other_n (Newcombe 1998, method 10).

    It combines the two Wilson intervals by the squares of their arms, and lies inside [-1, 1].
    """
    p, q = rate(count, n), rate(other_count, other_n)
    of_p, of_q = wilson(count, n, confidence=confidence), wilson(other_count, other_n, confidence=confidence)
    low = p - q - np.hypot(p - of_p.low, of_q.high - q)
    high = p - q + np.hypot(of_p.high - p, q - of_q.low)
    return Interval(low, high)


def risk_ratio(
    count: ArrayLike, n: ArrayLike, other_count: ArrayLike, other_n: ArrayLike, *, confidence: float = 0.95
) -> Interval:
    """Interval for the ratio of two rates, symmetric on the log scale (Katz et al. 1978).

    Katz' variance does not exist where a count is zero, and is zero where both rates are 1. There half a decision is
    added to every count and n (Walter 1975), and the end that the data cannot bound is left open: the low end is 0
    where `count` is 0, the high end is infinite where `other_count` is 0, and both are NaN where both are.
    """
    x, m, y, k = _floats(count, n, other_count, other_n)
    z = _z(confidence)
    adjust = np.where((x == 0) | (y == 0) | ((x == m) & (y == k)), 0.5, 0.0)
    known = (m > 0) & (k > 0) & ((x > 0) | (y > 0))
    xa, ma, ya, ka = (np.where(known, part + adjust, np.nan) for part in (x, m, y, k))
    log_ratio = np.log(xa / ma) - np.log(ya / ka)
    half = z * np.sqrt(1 / xa - 1 / ma + 1 / ya - 1 / ka)
    low = np.where((x == 0) & known, 0.0, np.exp(log_ratio - half))
    high = np.where((y == 0) & known, np.inf, np.exp(log_ratio + half))
    return Interval(low, high)


def _z(confidence: float) -> float:
    return NormalDist().inv_cdf(0.5 + confidence / 2)


def _floats(*values: ArrayLike) -> list[Floats]:
    return [np.asarray(value, dtype=np.float64) for value in values]
