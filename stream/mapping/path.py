"""A place in a foreign record, as a mapping file writes it: `choices[0].message."finish.reason"`."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

__all__ = ["Find", "Path", "parse_path"]

_STEP = re.compile(r'(?:^|(?<=.)\.)(?:"(?P<quoted>[^"]+)"|(?P<plain>[^.\[\]"\s]+))|\[(?P<index>-?[0-9]{1,6})\]')

# Foreign JSON nests a few levels; a longer path is a slip.
_MAX_STEPS = 16


# From the JSON value that a record is to the one at a path, None where there is none or it is null.
Find = Callable[[Any], Any]


@dataclass(frozen=True, slots=True)
class Path:
    """Names of fields and indices of lists, from the outside in; a negative index counts from the end."""

    text: str
    steps: tuple[str | int, ...]

    def finder(self) -> Find:
        """Compile the path. Most are one name, and these functions are most of what a mapping costs."""
        steps = self.steps
        if len(steps) == 1 and isinstance(steps[0], str):
            return _field_finder(steps[0])

        def find(document: Any) -> Any:
            try:
                for step in steps:
                    if type(document) is str:  # it could be indexed too
                        return None
                    document = document[step]
            except (KeyError, IndexError, TypeError):
                return None
            return document

        return find


def _field_finder(name: str) -> Find:
    return lambda document: document.get(name) if type(document) is dict else None


def parse_path(text: str) -> Path:
    """Parse a path; raises ValueError saying how one is written."""
    steps: list[str | int] = []
    position = 0
    while position < len(text):
        step = _STEP.match(text, position)
        if step is None:
            break
        steps.append(step["quoted"] or step["plain"] or int(step["index"]))
        position = step.end()
    if position < len(text) or not 0 < len(steps) <= _MAX_STEPS:
        raise ValueError('must be a path such as `user.name`, `choices[0].text`, `tags[-1]` or `"a.b".c`')
    return Path(text, tuple(steps))
