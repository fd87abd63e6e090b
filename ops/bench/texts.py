"""Made-up events for the benchmarks: English-like text of realistic lengths, the same on every run."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator

__all__ = ["event", "events", "texts"]

WORDS = """
the a of to and in is it you that he was for on are with as I his they be at one have this from or had by hot
but some what there we can out other were all your when up use word how said an each she which do their time
if will way about many then them would write like so these her long make thing see him two has look more day
could go come did my sound no most number who over know water than call first people may down side been now
find any new work part take get place made live where after back little only round man year came show every
good me give our under image portrait mountain sunset bridge answer question recipe garden kitchen winter
station letter argue angry furious stupid beautiful ugly fight weapon doctor medicine wound blood alone tired
music laughing screaming silence
""".split()  # noqa: SIM905 - prose reads better than a list of quotes
"""Everyday words, with a few a moderation model has something to say about."""


def texts(count: int, *, median_words: int = 18, seed: int = 7) -> Iterator[str]:
    """Yield texts whose lengths are lognormal, as those of posts and chat turns are."""
    chooser = random.Random(seed)
    for number in range(count):
        length = max(1, min(180, round(chooser.lognormvariate(0, 0.7) * median_words)))
        yield f"{' '.join(chooser.choices(WORDS, k=length))} {number}"


def events(count: int, *, median_words: int = 18) -> Iterator[bytes]:
    """Yield content events as JSON."""
    for number, text in enumerate(texts(count, median_words=median_words)):
        yield event(number, text)


def event(number: int, text: str) -> bytes:
    """Write a text as a content event."""
    fields = {
        "id": f"bench-{number}",
        "created_at": "2026-01-01T12:00:00Z",
        "role": "output",
        "text": text,
        "surface": "chat",
        "locale": "en",
        "groups": {"gender": ["women" if number % 2 else "men"]},
    }
    return json.dumps(fields).encode()
