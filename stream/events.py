"""The nouns of the service: what comes in, what is computed, what goes out.

`ContentEvent` is the only one made from bytes we do not trust, so it is a pydantic model. Everything between decode and
encode is a struct of arrays over one batch, so that no per-event object is built until a `Decision` leaves.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import IntEnum, StrEnum
from typing import Annotated, Literal, Protocol

import msgspec
import numpy as np
from numpy.typing import NDArray
from pydantic import AwareDatetime, BaseModel, BeforeValidator, ConfigDict, Field

__all__ = [
    "MAX_GROUPS",
    "MAX_GROUP_VALUES",
    "SCHEMA_VERSION",
    "Action",
    "ContentEvent",
    "Decision",
    "EventBatch",
    "FailCondition",
    "Generator",
    "HarmDecision",
    "Image",
    "LineRecord",
    "RejectReason",
    "Rejected",
    "ReviewRecord",
    "ReviewWhy",
    "Scores",
    "Selection",
    "SourceRecord",
    "label",
    "rfc3339",
]

SCHEMA_VERSION = 1
"""Version of every record below. Adding an optional field keeps it; changing or removing one raises it."""

# Identifiers are echoed in decisions, logs and headers: 256 characters is longer than any id we have seen and short
# enough to bound a decision.
Identifier = Annotated[str, Field(min_length=1, max_length=256)]
Name = Annotated[str, Field(min_length=1, max_length=128)]

Groups = Mapping[str, Sequence[str]]
"""Axis to values: whom the content is by or about, by `groups` of the event."""

MAX_GROUPS, MAX_GROUP_VALUES = 16, 32
"""Axes of groups in one event, and values on one axis: what decisions carry on is bounded by them."""


class Action(StrEnum):
    """What happens to a piece of content. Order of severity is the policy's, not this enum's."""

    ALLOW = "allow"
    LABEL = "label"
    RESTRICT = "restrict"
    BLOCK = "block"
    REVIEW = "review"


class Selection(IntEnum):
    """What is believed about one harm in one event: the answer, or that there is none."""

    HARMLESS = 0
    ABSTAIN = 1
    HARMFUL = 2


class FailCondition(IntEnum):
    """Why an event could not be moderated as it should be. Values are bit positions in a `(m,) uint8` mask."""

    SCORER_ERROR = 0
    """The model failed on this event alone."""
    UNSUPPORTED = 1
    """The event has a part that the bundle cannot look at: an image or a text for a model of the other, an image by its
    address alone, or one that no decoder reads."""
    TRUNCATED = 2
    """The content is longer, larger or smaller than what the bundle reads: not all of a text or of an image's frames
    was read, or too little of an image; what was read looked harmless or undecided."""
    EXPIRED = 3
    """The event is older than the policy's `max_age_s`."""


class RejectReason(StrEnum):
    """Why an input can have no decision: the closed list of dead-letter reason codes."""

    TOMBSTONE = "tombstone"
    TOO_LARGE = "too_large"
    DECODE_ERROR = "decode_error"
    DUPLICATE_KEY = "duplicate_key"
    MAPPING_ERROR = "mapping_error"
    SCHEMA_ERROR = "schema_error"
    SCHEMA_VERSION = "schema_version"
    EMPTY_CONTENT = "empty_content"
    TIMESTAMP = "timestamp"
    IMAGE = "image"
    OUTPUT_REFUSED = "output_refused"


def rfc3339(value: object) -> datetime:
    """A time as events write it: RFC 3339, read to the microsecond, its offset kept; naive where it has none.

    Raises:
        ValueError: it is something else.
    """
    if isinstance(value, datetime):
        return value  # from a mapping, which has read it
    try:
        if isinstance(value, str):
            return msgspec.convert(value, datetime)
    except msgspec.ValidationError:
        pass
    raise ValueError("should be RFC 3339 text with an offset")


def label(name: str, version: str | None) -> str:
    """A generator as one word: `name@version`, or its name where it has no version."""
    return f"{name}@{version}" if version else name


class Generator(BaseModel):
    """The model that generated the content."""

    model_config = ConfigDict(frozen=True, extra="allow")

    name: Name
    version: Annotated[str, Field(max_length=128)] | None = None

    @property
    def label(self) -> str:
        """Name and version as one word."""
        return label(self.name, self.version)


class Image(BaseModel):
    """An image, as base64 bytes (`data`) or by reference (`url`); never fetched by the service."""

    model_config = ConfigDict(frozen=True, extra="allow")

    media_type: Literal["image/png", "image/jpeg", "image/webp", "image/gif"]
    data: str | None = None
    url: Annotated[str, Field(max_length=2048)] | None = None


class ContentEvent(BaseModel):
    """One piece of generated content, as it arrives.

    Fields this version does not know are accepted: their names travel in the decision's `unknown_fields`, their values
    in the review record's copy of the event. They never influence a decision.
    """

    model_config = ConfigDict(frozen=True, extra="allow")

    schema_version: Annotated[int, Field(ge=1)] = SCHEMA_VERSION
    id: Identifier
    created_at: Annotated[AwareDatetime, BeforeValidator(rfc3339)]
    role: Literal["prompt", "output", "post"]
    text: str | None = None
    image: Image | None = None
    prompt: str | None = None
    generator: Generator | None = None
    surface: Name = "default"
    locale: Annotated[str, Field(max_length=35)] | None = None
    author: Annotated[str, Field(max_length=256)] | None = None
    groups: dict[Name, Annotated[list[Name], Field(max_length=MAX_GROUP_VALUES)]] | None = Field(
        default=None, max_length=MAX_GROUPS
    )
    tenant: Name | None = None


class SourceRecord(Protocol):
    """A record as the transport hands it over. aiokafka's `ConsumerRecord` is one."""

    @property
    def offset(self) -> int:
        """Its position in the partition."""
        ...

    @property
    def timestamp(self) -> int | None:
        """When it was written, milliseconds since the epoch."""
        ...

    @property
    def key(self) -> bytes | None:
        """What its producer partitioned it by."""
        ...

    @property
    def value(self) -> bytes | None:
        """Its content; None is a tombstone."""
        ...

    @property
    def headers(self) -> Sequence[tuple[str, bytes]]:
        """Names and values, in order; a name may repeat."""
        ...


@dataclass(frozen=True, slots=True)
class LineRecord:
    """A line of input, or a text of our own, as a record: its number is its offset."""

    offset: int
    value: bytes | None
    timestamp: int | None = None
    key: bytes | None = None
    headers: Sequence[tuple[str, bytes]] = ()


@dataclass(frozen=True, slots=True)
class Rejected:
    """An input that can have no decision. `error` says what is wrong and where, never what the content was."""

    position: int
    reason: RejectReason
    error: str


@dataclass(frozen=True, slots=True)
class EventBatch:
    """m decoded events as columns; row i of every column is the same event."""

    positions: NDArray[np.int64]
    """(m,) index of each event in the slice it came from, ascending."""
    offsets: NDArray[np.int64]
    """(m,) offset of each event in its partition."""
    input_digests: Sequence[str]
    """(m) `sha256:` and the hex digest of the record's value."""
    created_at: NDArray[np.float64]
    """(m,) seconds since the epoch."""
    times: Sequence[datetime]
    """(m) the same moments with the offset they were written with."""
    ids: Sequence[str]
    roles: Sequence[str]
    texts: Sequence[str | None]
    """(m) the text to score; None where there is only an image."""
    prompts: Sequence[str | None]
    """(m) what the content answers; None where it answers nothing."""
    images: Sequence[Image | None]
    surfaces: Sequence[str]
    locales: Sequence[str | None]
    tenants: Sequence[str | None]
    generators: Sequence[str | None]
    """(m) `name@version` of the model that generated the content."""
    groups: Sequence[Groups]
    unknown_fields: Sequence[Sequence[str]]
    """(m) names of the fields that this version does not know."""

    def __len__(self) -> int:
        return len(self.ids)


@dataclass(frozen=True, slots=True)
class Scores:
    """What the model says about m events, before calibration.

    `logits` is (m, h) float32, the maximum over windows, NaN in rows that were not scored; `conditions` is (m,) uint8,
    a mask of `FailCondition` bits; `windows` is (m,) int16, how many overlapping windows each text was read in, or how
    many pieces of an image were looked at.
    """

    logits: NDArray[np.float32]
    conditions: NDArray[np.uint8]
    windows: NDArray[np.int16]

    @property
    def scored(self) -> NDArray[np.bool_]:
        """(m,) True where the model gave logits."""
        return np.logical_not(np.isnan(self.logits).any(axis=1))


class HarmDecision(msgspec.Struct, frozen=True):
    """One harm in one decision: its calibrated probability, what was selected, and the two thresholds in force."""

    probability: float
    selection: Literal["harmless", "abstain", "harmful"]
    act_at: float
    allow_below: float


class Decision(msgspec.Struct, frozen=True, kw_only=True):
    """One action for one event, with everything needed to replay and explain it.

    `decision_id` is `topic:partition:offset` of the event, so a replay gives the same id and a consumer that keys by it
    sees each decision once.
    """

    schema_version: int = SCHEMA_VERSION
    decision_id: str
    content_id: str
    action: str
    reasons: list[str]
    harms: dict[str, HarmDecision] | msgspec.Raw
    moderated: bool
    bundle: str
    policy: str
    calibration: str
    mapping: str | None = None
    input_digest: str
    created_at: datetime
    decided_at: str
    review_propensity: float
    groups: dict[str, list[str]]
    role: str
    surface: str
    locale: str | None = None
    tenant: str | None = None
    generator: str | None = None
    provider: str
    windows: int = 1
    unknown_fields: list[str] = []


class ReviewWhy(StrEnum):
    """Why a person is asked."""

    ABSTAINED = "abstained"
    FAIL_RULE = "fail_rule"
    POLICY = "policy"
    AUDIT_SAMPLE = "audit_sample"


class ReviewRecord(msgspec.Struct, frozen=True, kw_only=True):
    """A decision that a person should look at, with the event as it was received unless that is switched off."""

    schema_version: int = SCHEMA_VERSION
    why: str
    decision: msgspec.Raw | Decision
    event: msgspec.Raw = msgspec.Raw(b"null")
    event_omitted: Literal["switched_off", "too_large"] | None = None
