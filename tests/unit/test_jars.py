from __future__ import annotations

import functools
import hashlib
import http.server
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from stream.errors import BrokerError
from stream.kafka.jars import JARS, Jar, fetch_jars

pytest.importorskip("jgo", reason="needs the `local` extra")

BYTES = b"a jar"
JAR = Jar("org.example:thing:1.0", hashlib.sha256(BYTES).hexdigest())


class QuietHandler(http.server.SimpleHTTPRequestHandler):
    """Serves a folder and keeps standard error clean."""

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@pytest.fixture
def repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A local Maven repository of one test's own, empty."""
    monkeypatch.setenv("M2_REPO", str(tmp_path / "m2"))
    return tmp_path / "m2"


@pytest.fixture
def central(tmp_path: Path, repository: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A remote repository that jgo's config file names in place of Maven Central; its folder."""
    assert repository
    folder = tmp_path / "central"
    (folder / JAR.path).parent.mkdir(parents=True)
    (folder / JAR.path).write_bytes(BYTES)
    handler = functools.partial(QuietHandler, directory=str(folder))
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, args=[0.01])  # looks so often whether to stop
    thread.start()
    name_central(tmp_path, monkeypatch, port=server.server_port)
    yield folder
    server.shutdown()
    thread.join()
    server.server_close()


def name_central(folder: Path, monkeypatch: pytest.MonkeyPatch, *, port: int) -> None:
    config = folder / "jgo.conf"
    config.write_text(f"[repositories]\ncentral = http://127.0.0.1:{port}\n")
    monkeypatch.setenv("JGO_CONFIG_FILE", str(config))


def test_a_jar_is_fetched_once(central: Path, repository: Path) -> None:
    """The first call downloads into the local repository and reports it; the second finds it and says nothing."""
    lines: list[str] = []
    assert fetch_jars(lines.append, jars=[JAR]) == (repository / JAR.path,)
    assert (repository / JAR.path).read_bytes() == BYTES
    assert lines[-1] == "[1/1] thing-1.0.jar"

    (central / JAR.path).unlink()
    lines.clear()
    fetch_jars(lines.append, jars=[JAR])

    assert lines == []


def test_a_half_downloaded_jar_is_replaced(central: Path, repository: Path) -> None:
    """A file without the pinned digest, as an interrupted download leaves it, is fetched again."""
    assert central
    (repository / JAR.path).parent.mkdir(parents=True)
    (repository / JAR.path).write_bytes(BYTES[:2])

    fetch_jars(lambda _: None, jars=[JAR])

    assert (repository / JAR.path).read_bytes() == BYTES


def test_a_jar_with_another_digest_is_not_used(central: Path, repository: Path) -> None:
    """A download that is not what was pinned is refused and leaves nothing behind."""
    (central / JAR.path).write_bytes(b"something else")

    with pytest.raises(BrokerError, match="pinned digest"):
        fetch_jars(lambda _: None, jars=[JAR])

    assert [path for path in repository.rglob("*") if path.is_file()] == []


def test_a_jar_nobody_has_is_named(central: Path) -> None:
    """A jar that no repository has is an error that names it."""
    (central / JAR.path).unlink()

    with pytest.raises(BrokerError, match=r"org\.example:thing:1\.0"):
        fetch_jars(lambda _: None, jars=[JAR])


def test_no_network_is_explained(repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A first start without network says that it needs one and that later ones do not."""
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        name_central(tmp_path, monkeypatch, port=unused.getsockname()[1])

        with pytest.raises(BrokerError, match="later starts work offline"):
            fetch_jars(lambda _: None, jars=[JAR])

    assert list(repository.rglob("*.jar")) == []


def test_every_jar_is_pinned() -> None:
    """Each of Kafka's jars has a version and a SHA-256, once, and the three that must be named are among them."""
    names = [jar.coordinate.rsplit(":", 1)[0] for jar in JARS]

    assert len(set(names)) == len(names)
    assert all(len(bytes.fromhex(jar.sha256)) == 32 for jar in JARS)
    for name in ("kafka_2.13", "kafka-clients"):
        assert f"org.apache.kafka:{name}" in names
    assert "org.apache.logging.log4j:log4j-slf4j-impl" in names
