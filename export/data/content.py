"""What labels are about, a text or an image: what a model is given of it, which copies it has, how it is divided.

An image lies in a file of its own below the folder of the file that labels it. It is walked here and never decoded: the
scorer does that, one image after another, as in a worker.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path, PurePosixPath
from typing import Protocol

from export.data.items import length_bucket, pixel_bucket
from export.data.splits import text_digest
from stream.events import FailCondition
from stream.images import media_type_of, read_header
from stream.scoring.bare import PictureError, undress

__all__ = ["NOW", "Content", "Picture", "Text", "event_of", "read_picture", "why_unscored"]

_CREATED_AT, NOW = "2026-01-01T00:00:00Z", 1_767_225_600.0
"""The same moment, so that nothing that is evaluated is too old: scores do not depend on time."""


class Content(Protocol):
    """A text or an image, as far as measuring needs to know which."""

    @property
    def fields(self) -> Mapping[str, object]:
        """What an event has of it."""
        ...

    @property
    def digest(self) -> str:
        """64 hex digits that its copies share: it decides the split, and is counted as one in every interval."""
        ...

    @property
    def kinds(self) -> Mapping[str, str]:
        """By what it is divided beside role and source."""
        ...

    @property
    def held_bytes(self) -> int:
        """About how many bytes it keeps in memory."""
        ...


@dataclass(frozen=True, slots=True)
class Text:
    """A text; those that differ in case, punctuation, digits or emoji alone are copies."""

    text: str

    @property
    def fields(self) -> Mapping[str, object]:
        """The text."""
        return {"text": self.text}

    @property
    def digest(self) -> str:
        """That of its letters."""
        return text_digest(self.text)

    @property
    def kinds(self) -> Mapping[str, str]:
        """Its length, since a long one is read in windows."""
        return {"length": length_bucket(self.text)}

    @property
    def held_bytes(self) -> int:
        """Its characters."""
        return len(self.text)


@dataclass(frozen=True, slots=True)
class Picture:
    """An image that has been walked to its end."""

    data: bytes
    media_type: str
    pixels: int
    """Of its canvas, as the header has it."""
    digest: str
    """That of the image without metadata: copies with another title are one. Coded anew it is another image."""

    @property
    def fields(self) -> Mapping[str, object]:
        """The image in base64, which is how events carry it."""
        return {"image": {"media_type": self.media_type, "data": base64.b64encode(self.data).decode("ascii")}}

    @property
    def kinds(self) -> Mapping[str, str]:
        """Its size and its format.

        Nothing of an image is long. But a model reads all images in one size, so small ones are blown up and large ones
        lose what is fine in them. And where harmful images come from another place than harmless ones, size and format
        tell them apart without a look, which models do learn (arXiv 2403.17608): one that has shows it here.
        """
        return {"size": pixel_bucket(self.pixels), "format": self.media_type.removeprefix("image/")}

    @property
    def held_bytes(self) -> int:
        """Its bytes."""
        return len(self.data)


def event_of(content: Content, *, id: str, role: str, **more: str | None) -> bytes:  # noqa: A002 - the field's name
    """The record that a producer would send for this content; fields of `more` that are None are left out."""
    known = {name: value for name, value in more.items() if value is not None}
    return json.dumps({"id": id, "created_at": _CREATED_AT, "role": role, **content.fields, **known}).encode()


def read_picture(folder: Path, name: str, *, max_bytes: int) -> Picture:
    """Read the image `name` below `folder`, whose links and dots are resolved already.

    Raises `PictureError`, which quotes nothing of the name, for one that is not there or is elsewhere, by a link too;
    for more than `max_bytes`, of which no more is read; and for what is no whole image.
    """
    data = _read(_find(folder, name), max_bytes)
    media_type = media_type_of(data)
    if media_type is None:
        raise PictureError("is no PNG, JPEG, WebP or GIF")
    header = read_header(data, media_type)
    if isinstance(header, str):
        raise PictureError(header)
    bare = undress(data, media_type)
    return Picture(data, media_type, header.width * header.height, sha256(bare.data).hexdigest())


def why_unscored(conditions: int) -> str:
    """Why an event has no score, from its mask of `FailCondition`."""
    if conditions & 1 << FailCondition.UNSUPPORTED:
        return "unsupported: it is nothing that the model reads, or cannot be decoded"
    return "the model gave no score"


def _find(folder: Path, name: str) -> Path:
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts:
        raise PictureError("is not a path below the folder of this file; put it there")
    try:
        found = (folder / name).resolve(strict=True)
    except (OSError, RuntimeError, ValueError):  # a link to itself is a RuntimeError, a zero in a name a ValueError
        raise PictureError("is a path to nothing") from None
    if not found.is_relative_to(folder):
        raise PictureError("is a link out of the folder of this file; put the image itself there")
    if not found.is_file():
        raise PictureError("is no file")
    return found


def _read(path: Path, max_bytes: int) -> bytes:
    try:
        with path.open("rb") as file:
            data = file.read(max_bytes + 1)
    except OSError as error:
        raise PictureError(f"cannot be read: {error.strerror}") from None
    if len(data) > max_bytes:
        raise PictureError(f"has more than {max_bytes} bytes (max_event_bytes)")
    return data
