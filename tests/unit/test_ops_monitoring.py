"""What is watched: queries, alerts, dashboard and runbooks, held against the metrics that a worker really has."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import promql_parser as promql
import pytest
import yaml

from stream.settings import Settings
from stream.telemetry import Telemetry
from stream.wiring import fairness_worker, moderate_worker

ROOT = Path(__file__).parents[2]
OPS = ROOT / "ops"
ALERTS_FILE = OPS / "prometheus/alerts.yml"
DASHBOARD_FILE = OPS / "grafana/dashboards/fairway.json"
RUNBOOKS = {path.stem: path for path in (OPS / "runbooks").glob("Fairway*.md")}
DOCUMENTS = sorted([*OPS.glob("*.md"), *OPS.glob("*/*.md")])

PROMETHEUS_OWN = {"up", "ALERTS"}
"""Series that Prometheus makes itself."""

TARGET_LABELS = {"job", "instance", "group", "stage"}
"""Labels that the scrape configuration adds to every series of a worker."""

FLOW = ["Intake", "Queue", "Score", "Decide", "Publish", "Review", "Fairness", "Health"]

Tree = Any
"""What a YAML or JSON file holds; each test says what it expects in it."""


def load(path: Path) -> Tree:
    """A YAML or JSON file of one document."""
    return yaml.safe_load(path.read_text(encoding="utf-8"))


RULES: list[dict[str, Any]] = [rule for group in load(ALERTS_FILE)["groups"] for rule in group["rules"]]
RECORDED = {rule["record"] for rule in RULES if "record" in rule}
ALERTS = [rule for rule in RULES if "alert" in rule]
DASHBOARD = load(DASHBOARD_FILE)
PANELS: list[Tree] = [panel for panel in DASHBOARD["panels"] if panel["type"] != "row"]


def queries() -> Iterator[tuple[str, str]]:
    """Every PromQL query, with where it stands; Grafana's variables are filled in."""
    for rule in RULES:
        yield rule.get("record") or f"{rule['alert']} {rule['labels']['severity']}", rule["expr"]
    for panel in PANELS:
        for target in panel["targets"]:
            query = target["expr"].replace("$__rate_interval", "1m").replace("$group", "fairway")
            yield f"{panel['title']} {target['refId']}", query
    for number, query in enumerate(re.findall(r"(?m)^    (.*fairway[_:].*)$", (OPS / "slo.md").read_text("utf-8"))):
        if "(" in query:
            yield f"slo.md {number}", query


QUERIES = dict(queries())


@cache
def exposed_by(stage: str) -> dict[str, set[str]]:
    """Every series that a worker of the stage exposes, with its labels: all are there before anything happens."""
    telemetry = Telemetry()
    if stage == "moderate":
        policy = OPS / "policies/default.yaml"
        moderate_worker(Settings.model_validate({"bundle": "stub", "policy": policy}), telemetry)
    else:
        fairness_worker(Settings(), telemetry)
    found: dict[str, set[str]] = {}
    for family in telemetry.registry.collect():
        for sample in family.samples:
            found.setdefault(sample.name, set()).update(sample.labels)
    # The partitions that a worker owns come with its assignment, and this one has none.
    return found | {"fairway_lag_records": {"topic", "partition"}}


def exposed() -> dict[str, set[str]]:
    """The same of both stages."""
    moderate, fairness = exposed_by("moderate"), exposed_by("fairness")
    return {name: moderate.get(name, set()) | fairness.get(name, set()) for name in moderate | fairness}


def nodes(query: str) -> list[promql.Expr]:
    """All parts of a parsed query. Raises for a query that is none."""
    found: list[promql.Expr] = []

    def visit(node: promql.Expr) -> bool:
        found.append(node)
        return True

    promql.walk(promql.parse(query), pre_visit=visit)
    return found


def selectors(query: str) -> list[promql.VectorSelector]:
    """What a query selects."""
    vectors = [node.vector_selector if isinstance(node, promql.MatrixSelector) else node for node in nodes(query)]
    return [vector for vector in vectors if isinstance(vector, promql.VectorSelector)]


@pytest.mark.parametrize("query", QUERIES.values(), ids=QUERIES)
def test_queries_ask_for_what_there_is(query: str) -> None:
    """A query names series that a worker exposes, that a rule records or that Prometheus makes itself."""
    names = {selector.name for selector in selectors(query)}
    assert names
    assert names <= exposed().keys() | RECORDED | PROMETHEUS_OWN


@pytest.mark.parametrize("query", QUERIES.values(), ids=QUERIES)
def test_queries_ask_a_stage_for_what_it_has(query: str) -> None:
    """A query that names a stage asks for series that a worker of this stage exposes."""
    for selector in selectors(query):
        stages = {m.value for m in selector.matchers.matchers if m.name == "stage"} & {"moderate", "fairness"}
        assert all(selector.name in exposed_by(stage).keys() | RECORDED | PROMETHEUS_OWN for stage in stages)


def test_only_who_decides_has_a_policy() -> None:
    """A fairness worker names no policy and no model, or its group would seem to have two."""
    assert "fairway_policy_info" in exposed_by("moderate")
    assert {"fairway_policy_info", "fairway_model_info"}.isdisjoint(exposed_by("fairness"))


@pytest.mark.parametrize("query", QUERIES.values(), ids=QUERIES)
def test_queries_match_labels_that_there_are(query: str) -> None:
    """A query matches only labels that the series has from the worker or from the scrape configuration."""
    for selector in selectors(query):
        if (own := exposed().get(str(selector.name))) is not None:
            assert {matcher.name for matcher in selector.matchers.matchers} <= own | TARGET_LABELS, selector.name


@pytest.mark.parametrize("query", QUERIES.values(), ids=QUERIES)
def test_queries_group_by_labels_that_there_are(query: str) -> None:
    """A query groups by labels that at least one of its series has."""
    have = set(TARGET_LABELS)
    for name in {str(selector.name) for selector in selectors(query)}:
        have |= exposed().get(name, {"harm", "condition", "reason", "le"})
    for node in nodes(query):
        if isinstance(node, promql.AggregateExpr) and node.modifier is not None:
            assert set(node.modifier.labels) <= have


def test_unknown_series_are_noticed() -> None:
    """The checks above refuse a series that no worker has."""
    assert {s.name for s in selectors("sum(rate(fairway_nonsense_total[5m]))")} - exposed().keys() == {
        "fairway_nonsense_total"
    }


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: str(path.relative_to(OPS)))
def test_documents_name_series_that_there_are(path: Path) -> None:
    """Every series that a document names exists."""
    text = path.read_text(encoding="utf-8")
    named = set(re.findall(r"\bfairway_[a-z_]*[a-z]", text)) | set(re.findall(r"\bfairway:[a-z_]+:[a-z0-9]+", text))
    known = exposed().keys() | {name.removesuffix("_total") for name in exposed()} | RECORDED
    assert named <= known


# --- alerts and runbooks ---------------------------------------------------------------------------------------------
def test_every_alert_has_a_runbook_and_every_runbook_an_alert() -> None:
    """Alerts and runbooks have the same names, and the table of runbooks lists them all."""
    listed = set(re.findall(r"\[(Fairway\w+)\]", (OPS / "runbooks/README.md").read_text(encoding="utf-8")))
    assert {alert["alert"] for alert in ALERTS} == RUNBOOKS.keys() == listed


@pytest.mark.parametrize("alert", ALERTS, ids=lambda alert: f"{alert['alert']}-{alert['labels']['severity']}")
def test_alerts_say_how_bad_and_what_to_do(alert: dict[str, Any]) -> None:
    """An alert has a severity of two, a summary with the group or the worker in it, and points at its runbook."""
    assert alert["labels"]["severity"] in {"page", "ticket"}
    assert "$labels." in alert["annotations"]["summary"]
    assert ROOT / alert["annotations"]["runbook"] == RUNBOOKS[alert["alert"]]


@pytest.mark.parametrize("path", RUNBOOKS.values(), ids=RUNBOOKS)
def test_runbooks_have_the_same_parts(path: Path) -> None:
    """A runbook says what the alert means, what to check and what to do, in that order, and names panels that exist."""
    text = path.read_text(encoding="utf-8")
    parts = [text.index(part) for part in (f"# {path.stem}", "**Meaning.**", "**Check**", "**Act**")]
    assert parts == sorted(parts)


@pytest.mark.parametrize("path", sorted(OPS.glob("*/*.md")), ids=lambda path: str(path.relative_to(OPS)))
def test_links_lead_somewhere(path: Path) -> None:
    """Relative links in the documents lead to files that are there."""
    links = re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", path.read_text(encoding="utf-8"))
    assert [link for link in links if not (path.parent / link).exists()] == []


def test_alerts_fire_when_they_should() -> None:
    """Prometheus' own tool finds the rules valid, and each alert fires and keeps quiet as alerts.test.yml says."""
    promtool = shutil.which("promtool")
    if promtool is None:
        pytest.skip("promtool is not installed; it comes with Prometheus")
    command = [promtool, "test", "rules", str(OPS / "prometheus/alerts.test.yml")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_every_alert_is_tested() -> None:
    """Each alert is in alerts.test.yml."""
    tested = set(re.findall(r"Fairway[A-Z]\w+", (OPS / "prometheus/alerts.test.yml").read_text(encoding="utf-8")))
    assert {alert["alert"] for alert in ALERTS} <= tested


# --- the dashboard ---------------------------------------------------------------------------------------------------
def test_dashboard_follows_the_flow() -> None:
    """Its rows are in the order in which a record goes through, and no two panels lie on each other."""
    rows = [panel["title"].partition(":")[0] for panel in DASHBOARD["panels"] if panel["type"] == "row"]
    assert rows == FLOW
    ids = [panel["id"] for panel in DASHBOARD["panels"]]
    assert len(set(ids)) == len(ids)
    cells = [
        (x, y)
        for at in (panel["gridPos"] for panel in DASHBOARD["panels"])
        for x in range(at["x"], at["x"] + at["w"])
        for y in range(at["y"], at["y"] + at["h"])
    ]
    assert len(set(cells)) == len(cells)
    assert all(x < 24 for x, _ in cells)


def test_dashboard_can_be_pointed_at_any_prometheus_and_group() -> None:
    """Data source and group are variables, and every query uses both."""
    assert [variable["name"] for variable in DASHBOARD["templating"]["list"]] == ["datasource", "group"]
    for target in (target for panel in PANELS for target in panel["targets"]):
        assert target["datasource"]["uid"] == "${datasource}"
        assert "$group" in target["expr"] or target["expr"].startswith("ALERTS")


def test_dashboard_names_alerts_that_there_are() -> None:
    """Alerts that panels point at exist."""
    named = {name for panel in PANELS for name in re.findall(r"Fairway[A-Z]\w+", panel.get("description", ""))}
    assert named <= RUNBOOKS.keys()


@pytest.mark.parametrize("path", RUNBOOKS.values(), ids=RUNBOOKS)
def test_runbooks_point_at_panels_that_there_are(path: Path) -> None:
    """Panels that a runbook names are on the dashboard, by their full name or its beginning."""
    titles = [panel["title"] for panel in PANELS]
    named = [
        " ".join(name.split()) for name in re.findall(r"\*([A-Z][^*]{8,})\*(?!\*)", path.read_text(encoding="utf-8"))
    ]
    assert [name for name in named if not any(title.startswith(name) for title in titles)] == []


# --- the scrape configurations ---------------------------------------------------------------------------------------
def test_prometheus_scrapes_the_workers_that_compose_starts() -> None:
    """Targets are the compose file's workers on their web port, labelled with their stage."""
    services = load(ROOT / "docker-compose.yml")["services"]
    expected = {
        f"{name}:{service['environment']['FAIRWAY_WEB_PORT']}": "fairness"
        if "fairness" in service["command"]
        else "moderate"
        for name, service in services.items()
        if "worker" in service.get("command", [])
    }
    (job,) = load(OPS / "prometheus/prometheus.yml")["scrape_configs"]
    found = {target: config["labels"]["stage"] for config in job["static_configs"] for target in config["targets"]}
    assert found == expected
    assert {config["labels"]["group"] for config in job["static_configs"]} == {Settings().group}
    assert job["job_name"] == "fairway"


def test_kubernetes_gives_the_same_labels() -> None:
    """The ServiceMonitor makes job, group, stage and instance from what the Services are labelled with."""
    monitor = load(OPS / "kubernetes/monitoring.yaml")["spec"]
    (endpoint,) = monitor["endpoints"]
    assert {rule["targetLabel"] for rule in endpoint["relabelings"]} | {"job"} == TARGET_LABELS
    for stage in ("moderate", "fairness"):
        resources = yaml.safe_load_all((OPS / f"kubernetes/{stage}.yaml").read_text(encoding="utf-8"))
        service = next(resource for resource in resources if resource["kind"] == "Service")
        labels = service["metadata"]["labels"]
        assert monitor["selector"]["matchLabels"].items() <= labels.items()
        assert labels[monitor["jobLabel"]] == "fairway"
        assert labels["app.kubernetes.io/component"] == stage
        assert endpoint["port"] in {port["name"] for port in service["spec"]["ports"]}
        config = load(OPS / "kubernetes/settings.yaml")["data"]
        assert labels["app.kubernetes.io/instance"] == config["FAIRWAY_GROUP"]


def test_grafana_reads_the_prometheus_that_compose_starts() -> None:
    """The provisioned data source is the compose file's Prometheus, and the dashboards lie where Grafana looks."""
    services = load(ROOT / "docker-compose.yml")["services"]
    (source,) = load(OPS / "grafana/provisioning/datasources/prometheus.yml")["datasources"]
    (provider,) = load(OPS / "grafana/provisioning/dashboards/fairway.yml")["providers"]
    mounts = dict(volume.split(":")[:2] for volume in services["grafana"]["volumes"])
    assert source["url"] == "http://prometheus:9090"
    assert mounts["./ops/grafana/dashboards"] == provider["options"]["path"]
    home = services["grafana"]["environment"]["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"]
    assert home == f"{provider['options']['path']}/{DASHBOARD_FILE.name}"
    assert json.loads(DASHBOARD_FILE.read_text(encoding="utf-8"))["uid"] == "fairway"
