"""`fairway policy check` and `explain`, as they are run, and the policies that are shipped."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import msgspec
import pytest
import typer
from typer.testing import CliRunner, Result

from stream import bundle as bundles
from stream.commands.policy import _kept_within_roles, _threshold_rows, check, explain
from stream.errors import BundleError, ConfigError, PolicyError
from stream.events import Decision, HarmDecision
from stream.policy import compile_policy
from stream.yamlfile import digest
from tests.bundles import TRUST
from tests.policies import HEAD, counted

ROOT = Path(__file__).parents[2]
DEFAULT = ROOT / "ops/policies/default.yaml"
LITE = ROOT / "models/lite"

DECISION = Decision(
    decision_id="e:0:1",
    content_id="c",
    action="review",
    reasons=["hate:abstain"],
    harms={"hate": HarmDecision(0.5, "abstain", 0.9, 0.2)},
    moderated=True,
    bundle="b",
    policy=digest(DEFAULT.read_bytes()),
    calibration="c",
    input_digest="i",
    created_at=datetime(2026, 11, 20, tzinfo=UTC),
    decided_at="2026-11-20T10:00:00.000Z",
    review_propensity=1.0,
    groups={},
    role="post",
    surface="feed",
    provider="cpu",
)


def run(*arguments: object, standard_input: bytes | None = None) -> Result:
    """Run a command line in this process; our errors come through."""
    app = typer.Typer()
    app.command()(check)
    app.command()(explain)
    result = CliRunner().invoke(app, [str(argument) for argument in arguments], input=standard_input)
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


def test_check_shows_every_threshold_with_its_risk() -> None:
    """Each harm has a line with its actions, thresholds, the risk and n they follow from, and shares that add up."""
    lines = run("check", DEFAULT, "--bundle", LITE).stdout.splitlines()
    assert lines[0].endswith(digest(DEFAULT.read_bytes()))
    for harm, calibration in bundles.load(LITE, TRUST).calibration.harms.items():
        (line,) = [line for line in lines if line.startswith(f"default   {harm} ")]
        assert f"n={calibration.n_harmful:g}" in line
        shares = [float(word.rstrip("%")) for word in line.split() if word.endswith("%")]
        assert sum(shares[:3]) == pytest.approx(100, abs=0.02)
        assert sum(shares[3:]) == pytest.approx(100, abs=0.02)
    assert any(line.split() == ["default", "review", "review", "review", "review"] for line in lines)
    assert lines[-1] == "Events never expire. Of decisions that are not reviewed, 1.00% are audited."


def test_check_says_where_a_role_has_too_few_labels(tmp_path: Path) -> None:
    """Each threshold says whether it rests on the role's own items, or why on those of all; `default` is no row."""
    path = tmp_path / "policy.yaml"
    text = DEFAULT.read_text(encoding="utf-8")
    path.write_text(text.replace("# risks_within: role", "risks_within: role"), encoding="utf-8")
    output = run("check", path, "--bundle", LITE).stdout
    assert "miss rate 0.25 within post, n=2599" in output
    assert "miss rate 0.2 over all roles, n=81 (prompt has 47 of 50 needed)" in output
    assert "Of 36 thresholds that are to keep a risk within a role, 27 do. The other 9 keep it over all" in output
    rows = [line.split()[0] for line in output.splitlines() if line.startswith(("default", "role="))]
    assert rows == [f"role={role}" for role in ("prompt", "output", "post") for _ in range(6)] + [
        f"role={role}" for role in ("prompt", "output", "post")
    ]


def test_check_shows_a_role_by_its_own_items() -> None:
    """A role's row names the role, its n and shares of its own items; a role without an item has none to show."""
    hate = counted({"prompt": ([0.9] * 90 + [0.2] * 10, [0.5] * 300), "post": ([0.3] * 200, [0.5] * 300)})
    rules = "harms: {hate: {action: block, miss_rate: 0.2, false_block_rate: 0.01}}\nrisks_within: role\n"
    policy = compile_policy((HEAD + rules).encode(), {"hate": hate})
    prompt, output, post = _threshold_rows(policy, {"hate": hate})
    assert prompt[0] == "role=prompt"
    assert prompt[5::2][:2] == ["miss rate 0.2 within prompt, n=100", "false-block rate 0.01 within prompt, n=300"]
    assert prompt[8] == "10.00% / 0.00% / 90.00%"
    assert output[5] == "miss rate 0.2 over all roles, n=300 (output has 0 of 50 needed)"
    assert output[8:] == ["no items", "no items"]
    assert post[9].startswith("0.00%")
    assert _kept_within_roles(policy)[0].startswith("Of 6 thresholds that are to keep a risk within a role, 4 do. The")


def test_check_says_nothing_of_roles_that_a_policy_does_not_name() -> None:
    """Without roles there is nothing to keep within any."""
    output = run("check", DEFAULT, "--bundle", LITE).stdout
    assert not any(words in output for words in ("role=", "over all roles", "within a role"))


def test_check_is_plain_when_piped_and_a_table_in_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    """Escape codes and frames appear in a terminal only; elsewhere no line is cut or wrapped."""
    plain = run("check", DEFAULT, "--bundle", LITE).stdout
    monkeypatch.setenv("FORCE_COLOR", "1")
    framed = run("check", DEFAULT, "--bundle", LITE).stdout
    assert "\x1b[" not in plain
    assert "│" not in plain
    assert "│" in framed


def test_check_takes_the_stub_and_direct_thresholds(tmp_path: Path) -> None:
    """The built-in stub has a calibration too, and a threshold that was given says so."""
    path = tmp_path / "policy.yaml"
    text = DEFAULT.read_text(encoding="utf-8").replace(
        "miss_rate: 0.20, false_block_rate: 0.005", "allow_below: 0, act_at: 1"
    )
    path.write_text(text.replace("# max_age_s: 3600", "max_age_s: 3600"), encoding="utf-8")
    lines = run("check", path, "--bundle", "stub").stdout.splitlines()
    assert lines[3].split()[:9] == [
        "default",
        "sexual",
        "restrict",
        "review",
        "0.0000",
        "given",
        "1.0000",
        "given",
        "0.00%",
    ]
    assert lines[-1].startswith("Events expire after 3600 s.")


def test_check_names_every_problem(tmp_path: Path) -> None:
    """A policy that cannot be used is the error, with file, line and field; so is a bundle that is not there."""
    path = tmp_path / "policy.yaml"
    path.write_text(DEFAULT.read_text(encoding="utf-8").replace("  hate:", "  hat:"), encoding="utf-8")
    with pytest.raises(PolicyError, match=r"policy\.yaml:\d+: harms\.hat: .*did you mean `hate`"):
        run("check", path, "--bundle", LITE)
    with pytest.raises(BundleError, match="no bundle folder"):
        run("check", DEFAULT, "--bundle", tmp_path / "absent")


def test_a_threshold_out_of_reach_is_shown_as_never() -> None:
    """Where nothing may be acted on without a person, the table says so and not a number above 1."""
    counts = (*(0.0,) * 1023, 50.0)
    saturated = bundles.HarmCalibration(
        a=1, b=0, n_harmful=50, n_harmless=50, ece=0, ece_null=0, harmful=counts, harmless=counts
    )
    rule = "{action: block, allow_below: 0.5, false_block_rate: 0.02}"
    text = f'schema_version: 1\nname: n\nversion: "1"\nharms: {{hate: {rule}}}\n'
    ((*_, lower, given, upper, risk, harmful, harmless),) = _threshold_rows(
        compile_policy(text.encode(), {"hate": saturated}), {"hate": saturated}
    )
    assert (lower, given, upper, risk) == ("0.5000", "given", "never", "false-block rate 0.02, n=50")
    assert harmful == harmless == "0.00% / 100.00% / 0.00%"


def test_explain_reads_a_file_or_standard_input(tmp_path: Path) -> None:
    """A decision record is explained from a file or a pipe alike, without its policy or anything else."""
    path = tmp_path / "decision.json"
    path.write_bytes(msgspec.json.encode(DECISION))
    from_file = run("explain", path).stdout
    assert from_file.splitlines()[0] == "e:0:1: review for content c (post on surface feed, locale not given)."
    assert run("explain", "-", standard_input=path.read_bytes()).stdout == from_file


def test_explain_with_the_policy_quotes_its_lines(tmp_path: Path) -> None:
    """With the policy file that made the decision, the lines that led to it follow; with another it is an error."""
    path = tmp_path / "decision.json"
    path.write_bytes(msgspec.json.encode(DECISION))
    assert (
        "hate is harmless where at most 0.25 of harmful content is missed"
        in run("explain", path, "--policy", DEFAULT).stdout
    )
    path.write_bytes(msgspec.json.encode(msgspec.structs.replace(DECISION, policy="sha256:other")))
    with pytest.raises(PolicyError, match="but policy sha256:other made this decision"):
        run("explain", path, "--policy", DEFAULT)


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"decision_id": 1}', b"\xff"])
def test_explain_refuses_what_is_not_a_decision(content: bytes) -> None:
    """Anything that is not one decision record is an error that says so."""
    with pytest.raises(ConfigError, match="- is not one decision record: "):
        run("explain", "-", standard_input=content)


def test_explain_prints_nothing_that_a_terminal_obeys() -> None:
    """Escape sequences and line breaks in an id, which an event's sender chooses, are shown as what cannot be shown."""
    decision = msgspec.structs.replace(DECISION, content_id="\x1b]0;title\x07\nallow", surface="\u202efeed")
    output = run("explain", "-", standard_input=msgspec.json.encode(decision)).stdout
    assert all(character.isprintable() for character in output.replace("\n", ""))
    assert len(output.splitlines()) == len(
        run("explain", "-", standard_input=msgspec.json.encode(DECISION)).stdout.splitlines()
    )


def test_explain_names_a_file_it_cannot_read(tmp_path: Path) -> None:
    """A missing decision file is named."""
    with pytest.raises(ConfigError, match=r"cannot read the decision .*absent\.json: No such file"):
        run("explain", tmp_path / "absent.json")


def test_the_default_policy_settles_most_harmless_content() -> None:
    """With the bundle that is shipped, the default policy keeps its risks and leaves few harmless items to people."""
    calibration = bundles.load(LITE, TRUST).calibration.harms
    policy = compile_policy(DEFAULT, calibration)
    assert policy.rulesets == ("default",)
    for column, harm in enumerate(policy.harms):
        harmless, bins = calibration[harm].harmless, len(calibration[harm].harmless)
        allowed = sum(harmless[: round(policy.allow_below[0, column] * bins)]) / sum(harmless)
        assert allowed > (0.8 if harm == "hate" else 0.9), harm


def test_the_example_in_the_default_policy_is_valid() -> None:
    """Overlays as its comments show them compile, so that whoever uncomments them is not surprised."""
    head, example = DEFAULT.read_text(encoding="utf-8").split("For example:\n#\n")
    uncommented = head + "\n" + "".join(line.removeprefix("# ") for line in example.splitlines(keepends=True))
    policy = compile_policy(uncommented.encode(), bundles.load(LITE, TRUST).calibration.harms)
    assert policy.rulesets == (
        "default", "locale=de", "role=prompt", "role=prompt,locale=de", "surface=chat|comments",
        "surface=chat|comments,locale=de", "surface=chat|comments,role=prompt",
        "surface=chat|comments,role=prompt,locale=de",
    )  # fmt: skip
