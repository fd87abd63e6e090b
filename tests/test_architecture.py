"""The rules that keep the code as it was meant, read off the syntax tree: who may import what, what is documented."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

from stream.settings import Settings

ROOT = Path(__file__).parents[1]
PACKAGES = ("stream", "export", "ops", "tests")
CODE = ("stream/", "export/", "ops/")
MAX_LINES = 400

CORE = tuple(
    f"stream/{name}"
    for name in (
        *("events.py", "pipeline.py", "decode.py", "images.py", "strictjson.py", "encode.py", "sampling.py"),
        *("mapping/", "uncertainty/", "fairness/", "policy/decide.py", "policy/compile", "policy/overlay.py"),
    )
)
"""What computes and nothing else."""
OUTSIDE = {"faust", "aiokafka", "kafka", "onnxruntime", "torch", "structlog", "logging", "os", "socket", "asyncio"}
CHANCE = {"time", "random", "secrets", "uuid"}

HOMES = {
    "faust": ("stream/kafka/", "ops/bench/"),
    "mode": ("stream/kafka/", "ops/bench/"),
    "aiokafka": ("stream/kafka/", "ops/bench/", "ops/demo/"),
    "kafka": ("stream/kafka/", "ops/bench/", "ops/demo/"),
    "PIL": ("stream/scoring/picture.py", "export/bundling/golden_images.py"),
    "onnxruntime": ("stream/scoring/session.py", "export/graphs/", "export/bundling/", "ops/bench/"),
    "tokenizers": ("stream/scoring/tokenize.py", "export/text/", "export/importing/", "ops/bench/"),
    "yaml": ("stream/yamlfile.py",),
    "torch": ("export/train.py", "export/models/", "export/training/", "export/graphs/", "export/importing/"),
    "onnx": ("export/graphs/", "export/importing/"),
    "safetensors": ("export/models/encoder.py", "export/training/", "export/importing/"),
    "transformers": ("export/importing/",),
    "matplotlib": ("export/reporting/figures.py",),
    "prometheus_client": ("stream/telemetry.py",),
    "typer": ("stream/cli.py", "stream/commands/", "export/__main__.py", "ops/bench/", "ops/demo/"),
    "rich": ("stream/commands/", "export/commands/", "ops/"),
}
"""The home of each library outside of the tests: a release that breaks something breaks it there."""
EXPORT_FLOORS = (
    {"errors", "progress"},
    {"text", "data", "counterfactual", "bundling"},
    {"functional", "measuring"},
    {"models", "reporting"},
    {"graphs", "training"},
    {"train", "importing"},
    {"learners", "making"},
    {"recipe"},
    {"commands"},
    {"__main__"},
)
"""The parts of the export package, from the ground up: each knows those on the floors below it, and itself."""
READS_THE_ENVIRONMENT = {"os.environ", "os.environb", "os.getenv"}
SETS_UP_LOGS = {"structlog.configure", "logging.basicConfig", "logging.config"}


@cache
def modules() -> dict[str, ast.Module]:
    """Every Python file of the project, by its path from the root."""
    paths = sorted(path for package in PACKAGES for path in (ROOT / package).rglob("*.py"))
    return {path.relative_to(ROOT).as_posix(): ast.parse(path.read_text(encoding="utf-8")) for path in paths}


def within(*places: str) -> Iterator[tuple[str, ast.Module]]:
    return ((path, tree) for path, tree in modules().items() if path.startswith(places))


@cache
def imports(tree: ast.Module) -> set[str]:
    """Names of the modules that a module imports, also inside functions."""
    found = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    return found | {node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) and node.module}


def packages(tree: ast.Module) -> set[str]:
    return {name.partition(".")[0] for name in imports(tree)}


@cache
def dotted(tree: ast.Module) -> set[str]:
    """Every `name.attribute` in a module, and every `from name import attribute`."""
    found = {
        f"{node.value.id}.{node.attr}"
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name)
    }
    sources = [node for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)]
    return found | {f"{node.module}.{alias.name}" for node in sources for alias in node.names}


def public(tree: ast.Module) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef]:
    """Public functions and classes, and public methods of public classes."""
    for node in tree.body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef) and not node.name.startswith("_"):
            yield node
            parts = node.body if isinstance(node, ast.ClassDef) and not _is_protocol(node) else []
            methods = (part for part in parts if isinstance(part, ast.FunctionDef | ast.AsyncFunctionDef))
            yield from (method for method in methods if not method.name.startswith("_"))


def _is_protocol(node: ast.ClassDef) -> bool:
    return any("Protocol" in ast.unparse(base) for base in node.bases)


def test_the_core_reaches_for_nothing() -> None:
    """The core imports no broker, runtime, log or environment, no clock and nothing that draws lots."""
    found = {path: packages(tree) & (OUTSIDE | CHANCE) for path, tree in within(*CORE)}
    assert len(found) > len(CORE)
    assert {path: names for path, names in found.items() if names} == {}


@pytest.mark.parametrize("library", HOMES)
def test_a_library_stays_at_home(library: str) -> None:
    """Each library with a home is imported there and nowhere else."""
    users = [path for path, tree in within(*CODE) if library in packages(tree)]
    assert users
    assert [path for path in users if not path.startswith(HOMES[library])] == []


def test_arrows_point_one_way() -> None:
    """The service imports neither export nor ops, export imports no ops, and nothing imports the tests."""
    banned = {"stream/": {"export", "ops", "tests"}, "export/": {"ops", "tests"}, "ops/": {"export", "tests"}}
    found = {path: packages(tree) & names for folder, names in banned.items() for path, tree in within(folder)}
    assert {path: names for path, names in found.items() if names} == {}


def test_the_export_package_is_built_in_floors() -> None:
    """Every part of the export package has a floor, and imports only parts that are below it."""
    floors = {part: number for number, parts in enumerate(EXPORT_FLOORS) for part in parts}
    upward = [
        (path, used)
        for path, tree in within("export/")
        if (part := Path(path).parts[1].removesuffix(".py")) != "__init__"
        for used in sorted({name.split(".")[1] for name in imports(tree) if name.startswith("export.")} - {part})
        if floors[used] >= floors[part]
    ]
    assert upward == []


def test_the_broker_is_reached_from_the_outside_only() -> None:
    """Within the service, nothing but the composition root and the commands imports `stream.kafka`."""
    users = [path for path, tree in within("stream/") if any(name.startswith("stream.kafka") for name in imports(tree))]
    assert [
        path for path in users if not path.startswith(("stream/kafka/", "stream/commands/", "stream/wiring.py"))
    ] == []


@pytest.mark.parametrize(
    ("names", "home"), [(READS_THE_ENVIRONMENT, "stream/settings.py"), (SETS_UP_LOGS, "stream/telemetry.py")]
)
def test_what_is_done_once_is_done_in_one_place(names: set[str], home: str) -> None:
    """Only the settings read the environment, and only telemetry sets up the log."""
    assert [path for path, tree in within("stream/") if names & dotted(tree)] == [home]


def test_no_arrow_is_hidden() -> None:
    """No import hides behind TYPE_CHECKING."""
    assert [path for path, tree in within(*CODE) if "typing.TYPE_CHECKING" in dotted(tree)] == []


def test_no_module_is_too_long_to_read() -> None:
    """A module of the code has at most 400 lines."""
    lines = {path: (ROOT / path).read_text(encoding="utf-8").count("\n") for path, _ in within(*CODE)}
    assert {path: count for path, count in lines.items() if count > MAX_LINES} == {}


def test_every_module_says_what_it_is() -> None:
    """Every module of the code that is not empty begins with a docstring."""
    assert [path for path, tree in within(*CODE) if tree.body and not ast.get_docstring(tree)] == []


def test_everything_public_is_documented() -> None:
    """Every public function, class and method of the service and the export has a docstring."""
    silent = [
        f"{path}:{node.lineno} {node.name}"
        for path, tree in within("stream/", "export/")
        for node in public(tree)
        if not ast.get_docstring(node)
    ]
    assert silent == []


def test_every_test_states_its_rule() -> None:
    """The docstring of a test is one sentence on one line, or on two."""
    tests = [
        (f"{path}:{node.lineno} {node.name}", ast.get_docstring(node) or "")
        for path, tree in within("tests/")
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name.startswith("test_")
    ]
    assert tests
    assert [test for test, rule in tests if not re.fullmatch(r"[A-Z`0-9\"(][^\n]+(\n[^\n]+)?\.", rule)] == []


def test_every_setting_says_what_it_is() -> None:
    """Every setting has a description of a sentence or more, which `fairway config` shows."""
    described = {name: field.description or "" for name, field in Settings.model_fields.items()}
    assert [name for name, text in described.items() if not re.fullmatch(r"\S.{10,}\.", text)] == []


def test_every_setting_is_read() -> None:
    """A setting that no part of the service reads is gone."""
    read = set().union(*(dotted(tree) for path, tree in within("stream/") if path != "stream/settings.py"))
    assert [name for name in Settings.model_fields if f"settings.{name}" not in read] == []


def test_no_file_refers_to_one_machine() -> None:
    """No file names a path in somebody's home or outside of the repository."""
    paths = [path for package in (*PACKAGES, "models") for path in (ROOT / package).rglob("*") if path.is_file()]
    paths = [path for path in (*paths, *ROOT.glob("*.*")) if path.suffix in {".py", ".md", ".yaml", ".yml", ".toml"}]
    elsewhere = re.compile(r"(?<![\w./{}-])/(home|Users|root|work|mnt)[/]|\.\./[s]hared")
    found = [path.relative_to(ROOT).as_posix() for path in paths if elsewhere.search(path.read_text(encoding="utf-8"))]
    assert found == []
