"""The hand-written parts of the corpus: what must be refused, what must not, and odd texts, keys and headers."""

from __future__ import annotations

import base64
from typing import Any

from tests.hostile.images import SOUND

__all__ = [
    "BLANKS",
    "FAR_TIMES",
    "HEADERS",
    "KEYS",
    "NOT_EVENTS",
    "NO_JSON_VALUES",
    "ODD",
    "REPEATS",
    "TEXTS",
    "TIMES",
    "WRONG",
    "WRONG_IMAGES",
    "not_json",
]

_BASE = '"created_at":"2024-01-01T00:00:00Z","role":"post"'
_PNG = base64.b64encode(SOUND["png"][1]).decode()


def not_json(value: bytes) -> list[bytes]:
    """Make bytes that are no JSON of an event whose text is "x"."""
    return [
        *(value.replace(b'"x"', other.encode("utf-8", "surrogatepass")) for other in NO_JSON_VALUES),
        *(value[:-1] + b',"x":' + other.encode("utf-8", "surrogatepass") + b"}" for other in NO_JSON_VALUES),
        *(b'{"' + name + b'":1,' + value[1:] for name in (b"\xff", b"\\ud800", b"\x00", b"\\x41", b"a\nb")),
        value.replace(b'"', b"'"),
        value.replace(b":", b"="),
        value.replace(b",", b",,", 1),
        value.replace(b"}", b",}"),
        value.replace(b'"id"', b"id"),
        value.replace(b"}", b"}}"),
        b"/* */" + value,
        b"\xef\xbb\xbf" + value,
        b"\x1e" + value,
        value.decode().encode("utf-16"),
        b"\x1f\x8b\x08\x00" + value,
        b"\x00\x00\x00\x00\x01" + value,  # the frame of a schema registry
        b"[" * 10_000,
        b"[" * 10_000 + b"]" * 10_000,
        b'{"a":' * 10_000 + b"1" + b"}" * 10_000,
        b"[" * 900_000,
        b'{"x":' + b"[" * 200 + b"]" * 200 + b"," + value[1:],
        b"",
        b" ",
        b"\x00",
        b"undefined",
        b"{",
        b'"',
        b"\\",
        b"nul",
    ]


REPEATS = [
    text.encode()
    for text in (
        f'{{"id":"a",{_BASE},"text":"good","text":"bad"}}',
        f'{{"id":"a",{_BASE},"text":"same","text":"same"}}',
        f'{{"id":"a",{_BASE},"text":"good","\\u0074ext":"bad"}}',
        f'{{"id":"a",{_BASE},"text":"good","text" :"bad"}}',
        f'{{"id":"a",{_BASE},"text":"good","text"\n:\t"bad"}}',
        # One colon written as an escape makes up for the colon of the repeated key.
        f'{{"id":"a",{_BASE},"text":"good","text":"ba\\u003ad"}}',
        f'{{"id":"a",{_BASE},"text":"good","text":"ba\\u003Ad"}}',
        f'{{"id":"\\u003a","id":"a",{_BASE},"text":"x\\u003ay"}}',
        f'{{"id":"a","created_at":"2024-01-01T00\\u003a00:00Z",{_BASE},"text":"x"}}',
        f'{{"id":"a",{_BASE},"text":"\\":","text":"bad"}}',
        f'{{"id":"a",{_BASE},"text":"x","groups":{{"age":["old"],"age":["young"]}}}}',
        f'{{"id":"a",{_BASE},"text":"x","generator":{{"name":"a","name":"b"}}}}',
        f'{{"id":"a",{_BASE},"text":"x","image":{{"media_type":"image/png","url":"http://a/","url":"http://b/"}}}}',
        f'{{"id":"a",{_BASE},"text":"x","x":{{"":1,"":2}}}}',
        f'{{"id":"a",{_BASE},"text":"x","x":1,"x":[[{{"y":1}}]]}}',
        f'{{"id":5,"id":"a",{_BASE},"text":"x"}}',
        f'{{"schema_version":2,"schema_version":1,"id":"a",{_BASE},"text":"x"}}',
        f'{{"id":"a",{_BASE},"text":"x","text":{"[" * 190}{"]" * 190},"text":"x"}}',
        '{"a":1,"a":1}',
        '[{"a":1,"a":1}]',
    )
]
"""Objects that have a key twice."""

ODD = [
    text.encode()
    for text in (
        f'{{"id":"a",{_BASE},"text":"\\u0000"}}',
        f'{{"id":"a",{_BASE},"text":"\\ud83d\\ude00 \\" : \\\\u003a"}}',
        f'{{"\\u0069d":"a",{_BASE},"text":"x"}}',
        f'\t{{ "id" : "a" , {_BASE}\r\n, "text" : "x" }}\n',
        f'{{"id":"a",{_BASE},"text":"x","model_config":1,"__class__":"y","__dict__":{{}},"self":1,"":0}}',
        f'{{"id":"a",{_BASE},"text":"x","x":{"9" * 4000}}}',
        f'{{"id":"a",{_BASE},"text":"x","x":-0,"y":1e-999,"z":1E+2}}',
        f'{{"id":"a",{_BASE},"text":"{{\\"id\\":\\"b\\",\\"id\\":\\"c\\"}}"}}',
        f'{{"id":"a",{_BASE},"text":"x","x":{{"text":"y"}},"y":[{{"text":1}},{{"text":2}}]}}',
        f'{{"id":"a",{_BASE},"text":"x","x":{"[" * 31}{"]" * 31}}}',
        f'{{"id":"a",{_BASE},"text":"x","x":[{"[]," * 300}{{}}]}}',
        f'{{"id":"a",{_BASE},"text":"x","x":"\x7f\u2028\u2029\ufeff\uffff"}}',
        '{"id":"a","created_at":"2024-01-01T00\\u003a00:00Z","role":"post","text":"x"}',
    )
]
"""Events, however unusual."""

NO_JSON_VALUES = (
    "NaN",
    "-NaN",
    "Infinity",
    "-Infinity",
    "nan",
    "[NaN]",
    '{"a":[1,Infinity]}',
    "1e999",
    "-1e999",
    "[1E400]",
    "9" * 5000,
    "-" + "9" * 5000,
    '"\\ud800"',
    '"\\udc00"',
    '"\\ude00\\ud83d"',
    '"\\ud83d\\ud83d"',
    '{"\\ud800":1}',
    '"\ud800"',  # a surrogate in UTF-8, which has none
    '"a\nb"',
    '"\t"',
    '"\x00"',
    '"\\x41"',
    '"\\u00zz"',
    '"\\"',
    "'a'",
    "01",
    "-",
    "+1",
    ".5",
    "1.",
    "0x1",
    "1_000",
    "True",
    "None",
    "[1,]",
    "[,1]",
    '{"a":1,}',
    '{"a"}',
    "{1:2}",
    "[1 2]",
    "/**/1",
    "",
    '"',
    "[" * 10_000 + "]" * 10_000,
    '{"a":' * 10_000 + "1" + "}" * 10_000,
    "[" * 33 + "]" * 33,
)
NOT_EVENTS = (
    b"{}",
    b"[]",
    b"null",
    b"1",
    b"-0.5",
    b"true",
    b'"text"',
    b'[{"id":"a"}]',
    b'{"a":1}',
    b" {} ",
    b'"\\u0000"',
)
WRONG: dict[str, tuple[Any, ...]] = {
    "schema_version": ("1", 1.0, 1.5, True, 0, -1, None, [1], {"a": 1}),
    "id": (1, None, True, "", "x" * 257, ["a"], {"a": "b"}, 1.5),
    "created_at": (
        *(1735689600, 1735689600000, 1.5, True, None, "", "now", "1735689600", "1735689600000", "20240101", "1e9"),
        *("2024-01-01", "2024-01-01T00:00:00", "2024-13-01T00:00:00Z", "2024-02-30T00:00:00Z", "2024-01-01T24:00:00Z"),
        *("2024-01-01T00:00:60Z", "2024-01-01T00:00:00+99:00", "２０２４-01-01T00:00:00Z", " 2024-01-01T00:00:00Z"),  # noqa: RUF001 - on purpose
        *("-2024-01-01T00:00:00Z", "12024-01-01T00:00:00Z", "2024-W01-1T00:00:00Z", ["a"]),
    ),
    "role": ("Output", "output ", "", None, 1, ["output"], "comment"),
    "text": (1, True, ["a"], {"a": 1}, 1.5),
    "image": (
        *("x", [], {}, {"data": "x"}, {"media_type": "image/png", "data": 5}, {"media_type": 1, "url": "http://a/b"}),
        *({"media_type": "image/svg+xml", "data": "x"}, {"media_type": "image/png", "url": "http://a/" + "b" * 2048}),
    ),
    "prompt": (5, ["a"], False),
    "generator": ("m", [], {}, {"name": ""}, {"name": "m" * 129}, {"name": 1}, {"name": "m", "version": 2}),
    "surface": ("", None, "s" * 129, 1),
    "locale": ("l" * 36, 1, ["de"]),
    "author": ("a" * 257, 5),
    "groups": (
        *([], "gender:women", {"gender": "women"}, {"": ["a"]}, {"gender": [1]}, {"gender": [""]}, {"gender": [None]}),
        *({"gender": {"a": 1}}, {"gender": ["w"] * 33}, {f"a{i}": ["b"] for i in range(17)}, {"g" * 129: ["a"]}),
    ),
    "tenant": ("", 1, "t" * 129),
}
WRONG_IMAGES: tuple[dict[str, Any], ...] = (
    {},
    {"data": None, "url": None},
    {"data": "", "url": "https://example.org/a.png"},
    *({"data": data} for data in ("!!!!", "QQ", "Q", "QQ=", "QQ==QQ==", "====", "iVBO\nRw0K", "_-_-", "é", "\u0000")),
    {"data": "data:image/png;base64," + _PNG},
    {"data": " " + _PNG},
    *(
        {"url": url}
        for url in ("", "x", "//a/b", "/etc/passwd", "file:///etc/passwd", "ftp://a/b", "javascript:alert(1)")
    ),
    *({"url": url} for url in ("http://", "https:///b", "http://a b/c", "http://a/\n", "data:image/png;base64,AAAA")),
    *({"url": url} for url in ("http://\u0000/b", " http://a/b", "HTTP:/a/b", "httpss://a/b")),
)
TIMES = (
    "2024-01-01T00:00:00Z",
    "2024-01-01t00:00:00z",
    "2024-01-01T00:00:00.123456Z",
    "2024-01-01T00:00:00.123456789+00:00",
    "2024-02-29T23:59:59-11:30",
    "2024-01-01 00:00:00+14:00",
    "2000-01-01T00:00:00Z",
)
FAR_TIMES = (
    "1999-12-31T23:59:59Z",
    "1970-01-01T00:00:00Z",
    "0001-01-01T00:00:00+23:59",
    "2150-01-01T00:00:00Z",
    "9999-12-31T23:59:59-23:59",
    "2000-01-01T00:00:00+00:01",
)
BLANKS = (None, "", " ", "\n\t\r", "\u00a0\u2003\u3000\u2028", "\x1c\x1d\x1e\x1f\x85")
TEXTS = (
    "plain words",
    "a: b :c ::",
    'he said "no": {"a":1,"a":2}',
    "\u0000\u0001\x7f\u0085",
    "\u202egnihtemos\u202c \u200bz\u200be\u200br\u200bo",
    "z̸̧̢̛̗͚͖̹̮͎̈́̿̓̋͛̐̾͝a̷l̶g̵o̴",
    "👩‍👩‍👧‍👦🏳️‍🌈" * 5,
    "ⓗⓔⓛⓛⓞ 𝖍𝖊𝖑𝖑𝖔 ｈｅｌｌｏ һеⅼⅼо",  # noqa: RUF001 - on purpose
    '\\u003a \\ " \\" /',
    "</script><!--]]>{{7*7}}${x}%s%n\r\n' OR 1=1;--",
    "\ufeff\ufffd\uffff\U0010ffff",
    "مرحبا שלום 你好 नमस्ते",
    "word " * 400,
    "x" * 4000,
)
KEYS = (None, b"", b"key", b"\x00\xff\xfe", "ключ".encode(), b"k" * 10_000, b'{"a":1}')
HEADERS: tuple[tuple[tuple[str, bytes], ...], ...] = (
    (),
    (("traceparent", b"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"),),
    (("traceparent", b"\xff\x00"), ("traceparent", b"again")),
    (("fairway.dlq.reason", b"forged"), ("fairway.dlq.topic", b"elsewhere"), ("fairway.dlq.offset", b"-1")),
    (("fairway.redrive.attempts", b"99999999999999999999"),),
    (("fairway.redrive.attempts", b"\xff"), ("fairway.redrive.of", b"a:b:c:d")),
    (("", b""), ("ключ", "значение".encode()), ("a" * 1000, b"b" * 10_000)),
    tuple((f"h{i}", b"v") for i in range(100)),
)
