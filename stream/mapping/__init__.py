"""Foreign records into ours, as a mapping file says: which of our fields comes from where in the record.

A mapping is data: paths, constants, tables and defaults, nothing that runs. It is checked when the service starts, by
file and line. What one record then lacks makes that record, and no other, an `Unmapped`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import msgspec

from stream.events import SourceRecord
from stream.mapping.compile import compile_fields, parse
from stream.mapping.getters import Getter, UnmappedError
from stream.strictjson import Refusal, read
from stream.yamlfile import load

__all__ = ["Mapping", "Unmapped", "load_mapping"]


@dataclass(frozen=True, slots=True)
class Unmapped:
    """A record that the mapping has no value of some field for; `error` names the path, never what was there."""

    error: str


@dataclass(frozen=True, slots=True)
class Mapping:
    """A mapping in force."""

    name: str
    kind: Literal["event", "decision"]
    digest: str
    """`sha256:` and the hex digest of the file's bytes."""
    fields: Sequence[tuple[str, Getter]]
    required: Sequence[str]

    def apply(self, document: Any, record: SourceRecord) -> dict[str, Any] | Unmapped:
        """The fields of our record, of the types the mapping gives them but not validated.

        `document` is what `record.value` says, any JSON; hence `Any`.
        """
        try:
            fields = {name: value for name, get in self.fields if (value := get(document, record)) is not None}
        except UnmappedError as error:
            return Unmapped(str(error))
        for name in self.required:
            if name not in fields:
                return Unmapped(f"nothing for `{name}`, where the mapping says it is")
        return fields

    def convert(self, value: bytes, *, max_depth: int) -> bytes | None:
        """The JSON of a decision of ours from the value of a foreign one; None where there is none."""
        document = read(value, max_depth=max_depth)
        if isinstance(document, Refusal):
            return None
        mapped = self.apply(document, _Value(value))
        return None if isinstance(mapped, Unmapped) else msgspec.json.encode(mapped)


@dataclass(frozen=True, slots=True)
class _Value:
    """A record of which nothing but the value is known."""

    value: bytes
    offset: int = 0
    timestamp: int | None = None
    key: bytes | None = None
    headers: Sequence[tuple[str, bytes]] = ()


def load_mapping(source: Path | bytes, *, name: str | None = None) -> Mapping:
    """Read a mapping file, or the bytes of one; `name` is what messages call it.

    Raises:
        MappingError: a line `file:line: field: what is wrong` for every problem there is.
    """
    document = load(source, what="mapping", name=name)
    mapping = parse(document)
    return Mapping(
        name=document.name,
        kind=mapping.kind,
        digest=document.digest,
        fields=compile_fields(mapping.fields),
        required=[field for field, info in type(mapping.fields).model_fields.items() if info.is_required()],
    )
