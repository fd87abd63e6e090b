"""Records that a stream of untrusted content may hold, each with the answer it must get under the default limits.

`hostile_records(n, seed=...)` gives every hand-written record once and then made-up ones, whose answer is known from
how they were made and not from reading them. The same n and seed give the same records.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice
from random import Random
from typing import Any

from stream.events import RejectReason
from tests.hostile.images import BROKEN, SOUND
from tests.hostile.samples import (
    BLANKS,
    FAR_TIMES,
    HEADERS,
    KEYS,
    NO_JSON_VALUES,
    NOT_EVENTS,
    ODD,
    REPEATS,
    TEXTS,
    TIMES,
    WRONG,
    WRONG_IMAGES,
    not_json,
)

__all__ = ["HostileRecord", "hostile_records", "sound_event", "written"]

# The default of the setting. What is larger here stays below 1,048,588 bytes, or no broker would take it.
MAX_EVENT_BYTES = 1_000_000
MAX_DEPTH = 32

Event = dict[str, Any]
Made = tuple[bytes | None, RejectReason | None]


@dataclass(frozen=True, slots=True)
class HostileRecord:
    """A record as it is produced, and the reason to reject it for; None where it is an event."""

    name: str
    value: bytes | None
    key: bytes | None
    headers: tuple[tuple[str, bytes], ...]
    expected: RejectReason | None


def hostile_records(n: int, *, seed: int) -> list[HostileRecord]:
    """Give n records, in an order that the seed decides; with n below some 250, hand-written ones alone."""
    random = Random(seed)
    made = [(name, *pair) for name, pair in written().items()]
    records = [
        HostileRecord(name, value, random.choice(KEYS), random.choice(HEADERS), expected)
        for name, value, expected in islice((*made, *islice(_made_up(random), max(0, n - len(made)))), n)
    ]
    random.shuffle(records)
    return records


def sound_event(random: Random) -> Event:
    """An event that is nothing but unusual."""
    event: Event = {
        "id": random.choice(("a", "é" * 200, "x" * 256, "topic:0:1", f"e-{random.getrandbits(64)}", "\u202e\u0000")),
        "created_at": random.choice(TIMES),
        "role": random.choice(("prompt", "output", "post")),
        "text": random.choice(TEXTS) + str(random.getrandbits(32)),
    }
    optional: dict[str, tuple[Any, ...]] = {
        "schema_version": (1,),
        "prompt": (None, *TEXTS),
        "generator": (None, {"name": "m:7b"}, {"name": "m", "version": ""}, {"name": "m", "version": "1"}),
        "surface": ("chat", "s" * 128),
        "locale": (None, "", "de-AT", "x-" + "y" * 33),
        "author": (None, "", "u:1"),
        "groups": (None, {}, {"a:b": ["c:d"]}, {"age": [], "gender": ["w"] * 32}, {f"a{i}": ["b"] for i in range(16)}),
        "tenant": (None, "acme"),
        "image": (None, {"media_type": "image/png", "url": "https://example.org/a.png?b=c:d"}),
    }
    event |= {name: random.choice(values) for name, values in optional.items() if random.random() < 0.4}
    names = random.sample(sorted(event), len(event))
    return {name: event[name] for name in names}


def written() -> dict[str, Made]:
    """The hand-written records: name to value and expected reason."""
    event = {"id": "a", "created_at": "2024-01-01T00:00:00Z", "role": "post", "text": "x"}
    image = {"id": "a", "created_at": "2024-01-01T00:00:00Z", "role": "post"}
    found: dict[str, Made] = {"tombstone": (None, RejectReason.TOMBSTONE)}
    for size, reason in ((MAX_EVENT_BYTES, None), (MAX_EVENT_BYTES + 1, RejectReason.TOO_LARGE)):
        found[f"{size} bytes"] = _padded(event, size), reason
        found[f"{size} bytes, quotes"] = _padded(event | {"text": '":' * 1000}, size), reason
    found["large and no JSON"] = b"\xff" * 1_040_000, RejectReason.TOO_LARGE
    found |= {f"not JSON: {i}": (value, RejectReason.DECODE_ERROR) for i, value in enumerate(not_json(_dump(event)))}
    found |= {f"shape: {value!r}": (value, RejectReason.SCHEMA_ERROR) for value in NOT_EVENTS}
    found |= {
        f"{name}: {str(value)[:40]} {i}": (_dump(event | {name: value}), RejectReason.SCHEMA_ERROR)
        for name, values in WRONG.items()
        for i, value in enumerate(values)
    }
    found |= {f"time: {time}": (_dump(event | {"created_at": time}), RejectReason.TIMESTAMP) for time in FAR_TIMES}
    found |= {f"repeat: {i}": (value, RejectReason.DUPLICATE_KEY) for i, value in enumerate(REPEATS)}
    found |= {f"odd: {i}": (value, None) for i, value in enumerate(ODD)}
    found |= {
        f"image: {name}": (_dump(image | {"image": {"media_type": kind, "data": _base64(data)}}), expected)
        for samples, expected in ((SOUND, None), (BROKEN, RejectReason.IMAGE))
        for name, (kind, data) in samples.items()
    }
    found |= {
        f"image: {i}": (_dump(image | {"image": {"media_type": "image/png"} | fields}), RejectReason.IMAGE)
        for i, fields in enumerate(WRONG_IMAGES)
    }
    return found


def _made_up(random: Random) -> Iterator[tuple[str, bytes | None, RejectReason | None]]:
    while True:
        for make in MAKERS:
            yield (make.__name__.strip("_"), *make(random))


def _sound(random: Random) -> Made:
    return _dump(sound_event(random), random), None


def _unknown_fields(random: Random) -> Made:
    event = sound_event(random) | {f"x-{name}": _json(random, 8) for name in range(random.randint(1, 30))}
    return _dump(event, random), None


def _deep_enough(random: Random) -> Made:
    return _nested(sound_event(random), random.randint(1, MAX_DEPTH - 1), random), None


def _too_deep(random: Random) -> Made:
    return _nested(sound_event(random), random.randint(MAX_DEPTH, 3000), random), RejectReason.DECODE_ERROR


def _cut(random: Random) -> Made:
    value = _dump(sound_event(random), random).strip()
    return value[: random.randrange(len(value))], RejectReason.DECODE_ERROR


def _byte_that_no_text_has(random: Random) -> Made:
    value = _dump(sound_event(random), random)
    at = random.randrange(len(value))
    return value[:at] + random.choice((b"\x00", b"\xff", b"\xc0", b"\x01", b"\x1f")) + value[
        at:
    ], RejectReason.DECODE_ERROR


def _something_behind(random: Random) -> Made:
    tail = random.choice((b"{}", b",", b"]", b"\x00", b"null", b"//", b"\xef\xbb\xbf", _dump(sound_event(random))))
    return _dump(sound_event(random), random) + tail, RejectReason.DECODE_ERROR


def _other_encoding(random: Random) -> Made:
    text = json.dumps(sound_event(random))
    return text.encode(
        random.choice(("utf-16", "utf-32", "utf-8-sig", "utf-16-le", "utf-7"))
    ) + b"\xff", RejectReason.DECODE_ERROR


def _no_json_value(random: Random) -> Made:
    return _insert(random, random.choice(NO_JSON_VALUES)), RejectReason.DECODE_ERROR


def _noise(random: Random) -> Made:
    return b"\x80" + random.randbytes(random.randint(0, 300)), RejectReason.DECODE_ERROR


def _repeated_key(random: Random) -> Made:
    """One of the keys again, in front, written in one of many ways, with another value or the same."""
    event = sound_event(random)
    name = random.choice(sorted(event))
    value = random.choice((event[name], TEXTS[0], None, {"a": [1]}, 5))
    key = random.choice((json.dumps(name), _escaped(name), json.dumps(name) + random.choice((" ", "\t", "\n \r"))))
    body = _dump(event, random).lstrip()[1:]
    return f"{{{key}:{json.dumps(value)},".encode() + body, RejectReason.DUPLICATE_KEY


def _repeated_key_inside(random: Random) -> Made:
    name = json.dumps(random.choice(("", "a", "a:b", '":', "é")))
    pair = f"{{{name}:1,{name}:{random.choice(('1', '2', 'null'))}}}"
    wrapped = random.choice(("{}", "[{}]", '{{"b":{}}}', '[1,{{"c":[{}]}}]')).format(pair)
    return _insert(random, wrapped), RejectReason.DUPLICATE_KEY


def _wrong_type(random: Random) -> Made:
    name = random.choice(sorted(WRONG))
    event = {key: value for key, value in sound_event(random).items() if key != "schema_version"}
    return _dump(event | {name: random.choice(WRONG[name])}, random), RejectReason.SCHEMA_ERROR


def _missing_field(random: Random) -> Made:
    event = sound_event(random)
    for name in random.sample(("id", "created_at", "role"), random.randint(1, 3)):
        del event[name]
    return _dump(event, random), RejectReason.SCHEMA_ERROR


def _later_version(random: Random) -> Made:
    """Of a later version everything but the version may be different."""
    event = sound_event(random) | {"schema_version": random.choice((2, 10, 2**63, 10**300))}
    if random.random() < 0.5:
        event |= {name: _json(random, 3) for name in random.sample(sorted(WRONG), 3) if name != "schema_version"}
    return _dump(event, random), RejectReason.SCHEMA_VERSION


def _nothing_to_moderate(random: Random) -> Made:
    event = sound_event(random) | {"image": None, "text": random.choice(BLANKS)}
    if random.random() < 0.3:
        del event["text"]
    return _dump(event, random), RejectReason.EMPTY_CONTENT


def _far_time(random: Random) -> Made:
    return _dump(sound_event(random) | {"created_at": random.choice(FAR_TIMES)}, random), RejectReason.TIMESTAMP


def _image(random: Random) -> Made:
    kind, data = random.choice(sorted(SOUND.values()))
    image = {"media_type": kind, "data": _base64(data)} | random.choice(({}, {"x": 1}))
    return _dump(sound_event(random) | {"image": image, "text": random.choice((*TEXTS, *BLANKS))}, random), None


def _cut_image(random: Random) -> Made:
    """A PNG, GIF or WebP has an end, so that every beginning of one is too little."""
    name = random.choice([name for name, (kind, _) in SOUND.items() if kind != "image/jpeg"])
    kind, data = SOUND[name]
    image = {"media_type": kind, "data": _base64(data[: random.randrange(len(data))])}
    return _dump(sound_event(random) | {"image": image}, random), RejectReason.IMAGE


def _wrong_image(random: Random) -> Made:
    image = {"media_type": "image/png"} | random.choice(WRONG_IMAGES)
    return _dump(sound_event(random) | {"image": image}, random), RejectReason.IMAGE


MAKERS: tuple[Callable[[Random], Made], ...] = (
    _sound,
    _unknown_fields,
    _deep_enough,
    _too_deep,
    _cut,
    _byte_that_no_text_has,
    _something_behind,
    _other_encoding,
    _no_json_value,
    _noise,
    _repeated_key,
    _repeated_key_inside,
    _wrong_type,
    _missing_field,
    _later_version,
    _nothing_to_moderate,
    _far_time,
    _image,
    _cut_image,
    _wrong_image,
)


def _dump(event: Event, random: Random | None = None) -> bytes:
    """An event as JSON, in one of the ways that there are to write it."""
    if random is None:
        return json.dumps(event, separators=(",", ":")).encode()
    separators = random.choice(((",", ":"), (", ", ": "), ("\n,\t", " :\r\n")))
    text = json.dumps(event, separators=separators, ensure_ascii=random.random() < 0.5)
    return (random.choice(("", " ", "\r\n\t")) + text + random.choice(("", "\n"))).encode()


def _insert(random: Random, value: str) -> bytes:
    """An event with an unknown field of this value, which need not be JSON."""
    return b'{"x":' + value.encode("utf-8", "surrogatepass") + b"," + _dump(sound_event(random), random).lstrip()[1:]


def _nested(event: Event, levels: int, random: Random) -> bytes:
    """An event with an unknown field of so many levels of arrays or objects."""
    opening, closing = random.choice((("[", "]"), ('{"a":', "}"), (' [1,{"b": ', "}]")))
    if len(closing) > 1:
        levels = levels // 2 if levels < MAX_DEPTH else (levels + 1) // 2
    inner = opening * levels + "0" + closing * levels
    return f'{{"x":{inner},'.encode() + _dump(event).lstrip()[1:]


def _padded(event: Event, size: int) -> bytes:
    """An event of exactly this many bytes, most of them text."""
    room = size - len(_dump(event))
    return _dump(event | {"text": event["text"] + "word " * (room // 5) + "w" * (room % 5)})


def _json(random: Random, depth: int) -> Any:
    """Any JSON value, of up to so many levels."""
    kind = random.randrange(7 if depth else 5)
    if kind == 5:
        return [_json(random, depth - 1) for _ in range(random.randint(0, 3))]
    if kind == 6:
        return {random.choice(TEXTS) + str(i): _json(random, depth - 1) for i in range(random.randint(0, 3))}
    return (None, random.random() < 0.5, random.choice(TEXTS), random.getrandbits(80), random.random())[kind]


def _escaped(text: str) -> str:
    """A JSON string with every character as an escape."""
    return '"' + "".join(f"\\u{ord(character):04x}" for character in text) + '"'


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode()
