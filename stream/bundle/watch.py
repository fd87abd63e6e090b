"""The folder of the bundle while the service runs: says when another bundle lies there, whole, to be judged."""

from __future__ import annotations

import hashlib
from pathlib import Path

from stream.bundle.load import look
from stream.bundle.manifest import MANIFEST_NAME, MAX_JSON_BYTES
from stream.bundle.signature import SIGNATURE_NAME
from stream.errors import BundleError
from stream.settled import Settled

__all__ = ["SETTLE_S", "BundleWatch"]

# A copy writes one file after the other, and a large model for longer than this; but then its size and time change.
SETTLE_S = 5.0


class BundleWatch:
    """Looks at a bundle's folder when asked. Single-threaded; it never sleeps and has no clock of its own.

    Files are compared by name, size, time and inode, the manifest and its signature by content as well: reading a model
    again every few seconds would cost more than it tells. Whether what lies there is any good is for the loader to say.
    """

    def __init__(self, path: Path) -> None:
        """Take what lies there now for known: so make this before that is loaded, or a change meanwhile is missed."""
        self._path = path
        self._settled = Settled(self._state(), settle_s=SETTLE_S)

    def look(self, now: float) -> bool:
        """Whether there is something to judge: once for each change, when it has stood still for `SETTLE_S`.

        `now` is seconds on any clock that does not go backwards. After a refusal, the old content counts as a change.
        """
        return self._settled.is_due(self._state(), now)

    def reconsider(self) -> None:
        """Judge what lies there once more: what was held against it has changed, such as the policy."""
        self._settled.reconsider()

    def _state(self) -> str:
        state = hashlib.sha256()
        try:
            # Through the link, if it is one: that is how deployments switch versions.
            folder = self._path.resolve()
            for name, status in sorted(look(folder).items()):
                state.update(repr((name, status.st_size, status.st_mtime_ns, status.st_ino)).encode())
            for name in (MANIFEST_NAME, SIGNATURE_NAME):
                if (folder / name).is_file():
                    with (folder / name).open("rb") as file:
                        state.update(file.read(MAX_JSON_BYTES))
        except (BundleError, OSError) as error:
            state.update(str(error).encode())
        return state.hexdigest()
