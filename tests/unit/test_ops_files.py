"""What is deployed: images, compose file and Kubernetes manifests, held against the settings and the command line."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import pytest
import typer.main
import yaml
from compose_spec import PyCompose

from stream import cli
from stream.kafka.jars import KAFKA_VERSION
from stream.settings import CONFIG_VARIABLE, ENV_PREFIX, Settings, load_settings

ROOT = Path(__file__).parents[2]
OPS = ROOT / "ops"
COMPOSE = ROOT / "docker-compose.yml"
DOCKERFILES = (OPS / "images/Dockerfile", OPS / "images/Dockerfile.gpu")
MANIFESTS = sorted((OPS / "kubernetes").glob("*.yaml"))
DOCUMENTS = sorted([ROOT / "README.md", ROOT / "models/README.md", *OPS.glob("*.md"), *OPS.glob("*/*.md")])
SETTING_NAMES = {ENV_PREFIX + name.upper() for name in Settings.model_fields} | {CONFIG_VARIABLE}

Tree = Any
"""What a YAML file holds; each test says what it expects in it."""


def relative(path: Path) -> str:
    """Name a test case after its file."""
    return str(path.relative_to(ROOT))


def documents(path: Path) -> list[Tree]:
    """All documents of a YAML file."""
    return list(yaml.safe_load_all(path.read_text(encoding="utf-8")))


SERVICES: dict[str, Tree] = documents(COMPOSE)[0]["services"]
OWN_SERVICES = {name: service for name, service in SERVICES.items() if service["image"].startswith("fairway:")}
WORKERS = {name: service for name, service in OWN_SERVICES.items() if "worker" in service["command"]}
RESOURCES: list[Tree] = [resource for path in MANIFESTS for resource in documents(path)]
RUNNING: list[Tree] = [resource for resource in RESOURCES if "template" in resource.get("spec", {})]
STATEFUL: list[Tree] = [resource for resource in RUNNING if resource["kind"] == "StatefulSet"]
CONFIG_MAP: dict[str, str] = next(resource["data"] for resource in RESOURCES if resource["kind"] == "ConfigMap")


def resource_name(resource: Tree) -> str:
    """Name a test case after its resource."""
    return f"{resource['kind']}/{resource['metadata']['name']}"


# --- every file ------------------------------------------------------------------------------------------------------
DATA_FILES = sorted(
    path for kind in ("*.yml", "*.yaml", "*.json") for path in OPS.rglob(kind) if ".fairway" not in path.parts
)


@pytest.mark.parametrize("path", [COMPOSE, *DATA_FILES], ids=relative)
def test_parses(path: Path) -> None:
    """Every YAML and JSON file under ops/ parses, and holds something."""
    text = path.read_text(encoding="utf-8")
    parsed = json.loads(text) if path.suffix == ".json" else list(yaml.safe_load_all(text))
    assert parsed


DEPLOYED_FILES = sorted([COMPOSE, *DOCKERFILES, *MANIFESTS, *DOCUMENTS, *(OPS / "prometheus").iterdir()])


@pytest.mark.parametrize("path", DEPLOYED_FILES, ids=relative)
def test_settings_that_are_named_exist(path: Path) -> None:
    """Every FAIRWAY_ name in what is deployed or explained is a setting."""
    named = set(re.findall(r"\bFAIRWAY_[A-Z][A-Z_]*[A-Z]\b", path.read_text(encoding="utf-8")))
    assert named <= SETTING_NAMES


# --- commands --------------------------------------------------------------------------------------------------------
def commands_in(path: Path) -> Iterator[list[str]]:
    """The `fairway` commands of a document: code in a line, and lines of code."""
    text = path.read_text(encoding="utf-8")
    spans = re.findall(r"`(fairway [^`]+)`", text)
    lines = re.findall(r"^ *(?:\$ )?(fairway [a-z][^`\n]*)$", text, flags=re.MULTILINE)
    for command in spans + lines:
        yield shlex.split(re.split(r"[|<>;#]|&&", command)[0])


def refusal(words: list[str]) -> str | None:
    """Why the command line knows no such command or option; None where it does."""
    command: Any = typer.main.get_command(cli._app())
    arguments = words[1:]
    while arguments and hasattr(command, "commands"):
        name = arguments.pop(0)
        if name.startswith("-"):
            return None if name in {"--help", "--version"} else f"no option {name}"
        if name not in command.commands:
            return f"no command {name}"
        command = command.commands[name]
    if command.context_settings.get("ignore_unknown_options"):  # another parser reads them
        return None
    known = {option for parameter in command.params for option in parameter.opts} | {"--help"}
    return unknown_option(arguments, known)


def export_refusal(words: list[str]) -> str | None:
    """The same of `fairway export`, whose commands the export package reads by a parser of its own."""
    from export.__main__ import _parser  # noqa: PLC0415 - it needs the export extra

    (commands,) = (action.choices for action in _parser()._actions if isinstance(action.choices, dict))
    name, *arguments = words[2:]
    if name not in commands:
        return f"no command export {name}"
    return unknown_option(arguments, set(commands[name]._option_string_actions))


def unknown_option(arguments: list[str], known: set[str]) -> str | None:
    unknown = {word.partition("=")[0] for word in arguments if word.startswith("--")} - known
    return f"no option {', '.join(sorted(unknown))}" if unknown else None


@pytest.mark.parametrize("path", DOCUMENTS, ids=relative)
def test_commands_that_are_named_exist(path: Path) -> None:
    """Every `fairway` command in the documents, with its options, is one that the command line has."""
    assert {" ".join(words): why for words in commands_in(path) if (why := refusal(words))} == {}


@pytest.mark.export
def test_export_commands_that_are_named_exist() -> None:
    """Every `fairway export` command in the documents, with its options, is one that the export package has."""
    named = [words for path in DOCUMENTS for words in commands_in(path) if words[1:2] == ["export"] and words[2:]]
    assert ["import"] in [words[2:3] for words in named]
    assert {" ".join(words): why for words in named if (why := export_refusal(words))} == {}
    assert export_refusal(["fairway", "export", "nonsense"]) == "no command export nonsense"
    assert export_refusal(["fairway", "export", "import", "--guess"]) == "no option --guess"


@pytest.mark.parametrize(
    "words",
    [
        *(s["command"] for s in OWN_SERVICES.values()),
        *(r["spec"]["template"]["spec"]["containers"][0]["args"] for r in RUNNING),
    ],
    ids=" ".join,
)
def test_containers_start_with_commands_that_exist(words: list[str]) -> None:
    """Every container runs a command that the command line has."""
    assert refusal(["fairway", *words]) is None


@pytest.mark.parametrize(
    "words", ["fairway nonsense", "fairway topics destroy", "fairway audit --guess", "fairway --loud"]
)
def test_commands_that_do_not_exist_are_noticed(words: str) -> None:
    """The check above refuses unknown commands, subcommands and options."""
    assert refusal(words.split()) is not None


# --- images ----------------------------------------------------------------------------------------------------------
def copied(dockerfile: Path) -> Iterator[str]:
    """What an image copies from the repository, relative to its root."""
    for line in dockerfile.read_text(encoding="utf-8").splitlines():
        if line.startswith("COPY ") and "--from=" not in line:
            yield from line.split()[1:-1]


@pytest.mark.parametrize("dockerfile", DOCKERFILES, ids=relative)
def test_images_copy_what_is_there(dockerfile: Path) -> None:
    """Images copy existing paths only, and nothing that .dockerignore keeps from them."""
    patterns = (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines()
    allowed = [pattern[1:].rstrip("/") for pattern in patterns if pattern.startswith("!")]
    sources = [source.rstrip("/") for source in copied(dockerfile)]
    assert [source for source in sources if not (ROOT / source).exists()] == []
    assert [s for s in sources if not any(fnmatch(s, a) or s.startswith(f"{a}/") for a in allowed)] == []


@pytest.mark.parametrize("dockerfile", DOCKERFILES, ids=relative)
def test_images_are_hash_locked_and_not_root(dockerfile: Path) -> None:
    """The last stage runs as a numbered user that is not root and stops on SIGTERM; all that pip fetches has a hash."""
    text = dockerfile.read_text(encoding="utf-8")
    last = text.rsplit("\nFROM ", 1)[1].splitlines()
    assert "USER 10001:10001" in last
    assert "STOPSIGNAL SIGTERM" in last
    installs = [line for line in text.splitlines() if " install " in line and "pip" in line]
    assert all("--require-hashes" in line or "--no-index" in line for line in installs)


@pytest.mark.parametrize("dockerfile", DOCKERFILES, ids=relative)
def test_images_pass_hadolint(dockerfile: Path) -> None:
    """The linter for Dockerfiles has nothing to say."""
    hadolint = Path(sys.executable).with_name("hadolint")
    done = subprocess.run([hadolint, "--no-color", dockerfile], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "")


# --- docker-compose.yml ----------------------------------------------------------------------------------------------
def test_compose_keeps_to_its_specification() -> None:
    """The compose file is one, with no key that the specification does not have."""
    assert PyCompose.from_json(json.dumps(documents(COMPOSE)[0])).service_names() == list(SERVICES)


@pytest.mark.parametrize("service", OWN_SERVICES.values(), ids=OWN_SERVICES)
def test_compose_environments_are_good_settings(service: Tree) -> None:
    """What the compose file sets is accepted as settings, and the container outlives the drain."""
    settings, _ = load_settings(environ=service["environment"])
    assert int(service["stop_grace_period"].removesuffix("s")) > settings.drain_s + 10


@pytest.mark.parametrize("service", SERVICES.values(), ids=SERVICES)
def test_compose_services_are_confined(service: Tree) -> None:
    """No service has capabilities or new privileges, all are bounded in memory, and only this machine reaches them."""
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert service["mem_limit"]
    assert all(port.startswith("127.0.0.1:") for port in service.get("ports", []))
    assert service.get("read_only", False) or service["image"].startswith("apache/kafka:")


@pytest.mark.parametrize("service", SERVICES.values(), ids=SERVICES)
def test_compose_mounts_what_is_there(service: Tree) -> None:
    """What is mounted from the clone exists, is mounted for reading, and named volumes are declared."""
    for mount in service.get("volumes", []):
        source, *rest = mount.split(":")
        if source.startswith("."):
            assert (ROOT / source).is_dir()
            assert rest[-1] == "ro"
        else:
            assert source in documents(COMPOSE)[0]["volumes"]


def test_compose_waits_for_what_is_needed() -> None:
    """Workers start after the topics, the topics after Kafka; all that stays up has a health check."""
    assert all(
        worker["depends_on"]["topics"]["condition"] == "service_completed_successfully" for worker in WORKERS.values()
    )
    assert SERVICES["topics"]["depends_on"]["kafka"]["condition"] == "service_healthy"
    assert [name for name, service in SERVICES.items() if "healthcheck" not in service] == ["topics"]
    assert all("/ready" in worker["healthcheck"]["test"][-1] for worker in WORKERS.values())


def test_compose_workers_differ_in_name_and_have_work() -> None:
    """Instance ids are unique, and there are no more moderate workers than partitions."""
    names = [worker["environment"]["FAIRWAY_INSTANCE_ID"] for worker in WORKERS.values()]
    assert len(set(names)) == len(names)
    moderate = [worker for worker in WORKERS.values() if worker["command"] == ["worker"]]
    assert 2 <= len(moderate) <= int(SERVICES["topics"]["environment"]["FAIRWAY_PARTITIONS"])


def test_compose_runs_the_kafka_that_is_tested() -> None:
    """The compose file has the version of Kafka that the tests run on."""
    assert SERVICES["kafka"]["image"] == f"apache/kafka:{KAFKA_VERSION}"


@pytest.mark.parametrize("path", [COMPOSE, *DOCKERFILES, *MANIFESTS], ids=relative)
def test_no_secret_is_written_down(path: Path) -> None:
    """No deployment file gives a value to anything called password, secret, token or key."""
    text = path.read_text(encoding="utf-8")
    assert re.findall(r"(?im)^\s*[\w-]*(?:password|token|secret_key|api_key)[\w-]*\s*[:=]\s*(?!false)\S+", text) == []


# --- Kubernetes ------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("resource", RUNNING, ids=resource_name)
def test_pods_are_confined(resource: Tree) -> None:
    """Pods run as a numbered user without privileges, on a read-only file system, bounded in memory."""
    pod = resource["spec"]["template"]["spec"]
    container = pod["containers"][0]
    assert (pod["securityContext"]["runAsNonRoot"], pod["securityContext"]["runAsUser"]) == (True, 10001)
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert pod["automountServiceAccountToken"] is False
    assert "memory" in container["resources"]["limits"]


@pytest.mark.parametrize("resource", RUNNING, ids=resource_name)
def test_pods_get_good_settings_and_no_others(resource: Tree) -> None:
    """What a pod's environment says is accepted as settings, and Kubernetes adds no FAIRWAY_ name of its own."""
    pod = resource["spec"]["template"]["spec"]
    own = {entry["name"]: "pod-0" for entry in pod["containers"][0].get("env", [])}
    load_settings(environ=CONFIG_MAP | own)
    assert {"configMapRef": {"name": "fairway-settings"}} in pod["containers"][0]["envFrom"]
    assert pod["enableServiceLinks"] is False


@pytest.mark.parametrize("resource", STATEFUL, ids=resource_name)
def test_workers_are_probed_and_drained(resource: Tree) -> None:
    """Workers are asked /live and /ready on their web port, and have time to drain."""
    pod = resource["spec"]["template"]["spec"]
    container = pod["containers"][0]
    settings, _ = load_settings(environ=CONFIG_MAP)
    assert container["ports"] == [{"name": "web", "containerPort": settings.web_port}]
    assert container["livenessProbe"]["httpGet"] == {"path": "/live", "port": "web"}
    assert container["readinessProbe"]["httpGet"] == {"path": "/ready", "port": "web"}
    assert pod["terminationGracePeriodSeconds"] > settings.drain_s + 10
    assert 1 <= resource["spec"]["replicas"] <= settings.partitions


@pytest.mark.parametrize("resource", STATEFUL, ids=resource_name)
def test_workers_keep_their_names(resource: Tree) -> None:
    """The pod's name is the instance id: a restart then moves no partition."""
    env = resource["spec"]["template"]["spec"]["containers"][0]["env"]
    assert env == [{"name": "FAIRWAY_INSTANCE_ID", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}}]


@pytest.mark.parametrize("resource", STATEFUL, ids=resource_name)
def test_selectors_select(resource: Tree) -> None:
    """A stage's StatefulSet, its governing Service and its PodDisruptionBudget mean the same pods."""
    name, labels = resource["metadata"]["name"], resource["spec"]["template"]["metadata"]["labels"]
    named = {other["kind"]: other for other in RESOURCES if other["metadata"]["name"] == name}
    assert set(named) == {"StatefulSet", "Service", "PodDisruptionBudget"}
    assert resource["spec"]["selector"]["matchLabels"] == labels
    assert named["Service"]["spec"]["selector"] == labels
    assert named["PodDisruptionBudget"]["spec"]["selector"]["matchLabels"] == labels
    assert resource["spec"]["serviceName"] == name


def test_mounted_volumes_are_declared() -> None:
    """Every volume that a pod mounts is one that it has."""
    for pod in (resource["spec"]["template"]["spec"] for resource in RUNNING):
        mounted = {mount["name"] for mount in pod["containers"][0]["volumeMounts"]}
        assert mounted == {volume["name"] for volume in pod["volumes"]}
