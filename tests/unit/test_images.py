"""Images by their headers: what is accepted, what is not, and in which words."""

from __future__ import annotations

import base64
import tracemalloc
from typing import Any

import pytest

from stream.events import Image
from stream.images import ImageHeader, ImageLimits, image_problem, read_header
from tests.hostile.images import BROKEN, SOUND, gif, jpeg, png, vp8_chunk, webp, webp_chunk

LIMITS = ImageLimits(max_bytes=1_000_000, max_pixels=40_000_000, max_frames=64)


def image(kind: str, data: bytes) -> Image:
    return Image.model_validate({"media_type": kind, "data": base64.b64encode(data).decode()})


def at(url: str) -> Image:
    return Image.model_validate({"media_type": "image/png", "url": url})


@pytest.mark.parametrize("name", SOUND)
def test_sound_images_are_accepted(name: str) -> None:
    """An image that is what it says, within the limits, has no problem."""
    assert image_problem(image(*SOUND[name]), LIMITS) is None


@pytest.mark.parametrize("name", BROKEN)
def test_broken_images_have_a_problem(name: str) -> None:
    """A bomb, a stump, a polyglot or an image of another kind has a problem with its data."""
    problem = image_problem(image(*BROKEN[name]), LIMITS)
    assert problem is not None
    assert problem.startswith("image.data: ")


@pytest.mark.parametrize("name", BROKEN)
def test_looking_allocates_no_more_than_a_few_times_the_image(name: str) -> None:
    """What an image claims or would inflate to is never allocated: looking takes memory in proportion to its bytes."""
    kind, data = BROKEN[name]
    tracemalloc.start()
    read_header(data, kind)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 100_000 + 10 * len(data)


@pytest.mark.parametrize(
    ("kind", "data", "problem"),
    [
        ("image/png", gif(), "says image/png, begins as image/gif"),
        ("image/png", b"<svg/>", "says image/png, begins as nothing this service knows"),
        ("image/png", png()[:-1], "cut short"),
        ("image/png", png() + b"x", "goes on after its end"),
        ("image/gif", gif(0), "has no pixels"),
        ("image/jpeg", jpeg(headers=2), "does not have one header and then pixels"),
        ("image/webp", webp(*[webp_chunk(b"X   ", b"")] * 5000, vp8_chunk()), "made of too many small parts"),
    ],
)
def test_a_problem_is_said_in_words(kind: str, data: bytes, problem: str) -> None:
    """The text says what is wrong with the image and quotes nothing of it."""
    assert read_header(data, kind) == problem


def test_the_largest_size_counts() -> None:
    """A GIF whose frame is larger than its screen is as large as both together."""
    frame = b"," + bytes([5, 0, 0, 0, 10, 0, 1, 0, 0x80]) + bytes(6) + b"\x02\x00"
    assert read_header(gif(2, frame=frame, screen=(3, 4)), "image/gif") == ImageHeader(15, 4, 2)


def test_limits_are_inclusive() -> None:
    """As many bytes, pixels and frames as are allowed are accepted, and one more of any is not."""
    data = gif(3, screen=(6, 2))
    found = image("image/gif", data)
    limits = {"max_bytes": len(data), "max_pixels": 12, "max_frames": 3}
    assert image_problem(found, ImageLimits(**limits)) is None
    for name, limit in limits.items():
        assert image_problem(found, ImageLimits(**limits | {name: limit - 3})) is not None


def test_what_cannot_be_decoded_within_bounds_is_not_decoded() -> None:
    """Base64 of more than max_bytes is refused by its length alone, whatever it holds."""
    problem = image_problem(Image(media_type="image/png", data="!" * 2_000_000), LIMITS)
    assert problem == "image.data: more than 1000000 bytes"


@pytest.mark.parametrize(
    "data", ["!!!!", "QQ", "QQ=", "QUJD\n", " QUJD", "QUJD====", "QUJD=", "_-_-", "é", "data:image/png,x"]
)
def test_data_is_strict_base64(data: str) -> None:
    """Base64 has its own alphabet, its padding and nothing else."""
    problem = image_problem(Image(media_type="image/png", data=data), LIMITS)
    assert problem == "image.data: not base64 (RFC 4648 section 4, padded, no line breaks)"


@pytest.mark.parametrize(
    "url",
    [
        "https://example.org/a.png?b=c#d",
        "HTTP://192.0.2.1:8080",
        "s3://bucket/key with%20space",
        "gs://bucket/é.png",
    ],
)
def test_addresses_of_stores_are_accepted_unfetched(url: str) -> None:
    """An http, https, s3 or gs address is accepted; nothing is asked of it."""
    expected = None if " " not in url else "image.url: must be an http, https, s3 or gs address"
    assert image_problem(at(url), LIMITS) == expected


@pytest.mark.parametrize("url", ["", "a.png", "//a/b", "file:///etc/passwd", "http://", "https:///b", "http://a/\n"])
def test_other_addresses_are_refused(url: str) -> None:
    """What is no address, or one of this machine, is refused."""
    assert image_problem(at(url), LIMITS) == "image.url: must be an http, https, s3 or gs address"


@pytest.mark.parametrize(("fields", "problem"), [({}, "neither"), ({"data": "", "url": "https://a/b"}, "both")])
def test_an_image_has_data_or_an_address(fields: dict[str, Any], problem: str) -> None:
    """One of data and url is there, not both: two readers could take different ones."""
    found = image_problem(Image(media_type="image/png", **fields), LIMITS)
    assert found is not None
    assert problem in found
