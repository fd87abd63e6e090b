from __future__ import annotations

import pytest

from export.data.sources import SOURCES, licence_of
from export.errors import ExportError


def test_sources_come_once_and_sorted() -> None:
    """Each source is named once, whatever the order of the rows."""
    assert [source.name for source in licence_of(["edos", "davidson", "edos"])] == ["davidson", "edos"]


def test_no_model_without_a_licence() -> None:
    """A source without a recorded licence stops the export and says where to record it."""
    with pytest.raises(ExportError, match=r"'mystery': add it to export/data/sources\.py"):
        licence_of(["davidson", "mystery"])


@pytest.mark.parametrize("source", SOURCES.values(), ids=lambda source: source.name)
def test_attribution_where_the_licence_asks(source: object) -> None:
    """Every Creative Commons attribution licence comes with a name to attribute to."""
    assert bool(source.attribution) == ("CC-BY" in source.licence)  # type: ignore[attr-defined]
