"""`gateway plan`, `diff` and `key new --ed25519` without a running gateway: output and exit status."""

from __future__ import annotations

import json
import stat
from contextlib import closing
from pathlib import Path

import pytest

from gateway.changes.change_log import ChangeLog, ReviewedChange
from gateway.changes.plan import ChangePlan
from gateway.cli.plan import compiled_state
from gateway.config.examples import example_path
from gateway.state.history import open_history
from gateway.usage.journal import FOLDER, Journal
from gateway.usage.quotas import limits_of_quota
from tests.cli.conftest import Command
from tests.cli.recorded_versions import add_version
from tests.kit.case_files import cases
from tests.kit.config_cases import edited
from tests.kit.configs import BASE, Config

CONFIG = Config.parse("""
version: 1
assistants: {assistant: {routes: {de: [house]}}}
regions: {de: {territories: [DE], boundary: [DE]}}
deployments:
  house: {provider: openai-compatible, model: m, endpoint: "http://127.0.0.1:1/v1", stores: DE, processes: DE}
  spare: {provider: openai-compatible, model: m, endpoint: "http://127.0.0.1:2/v1", stores: DE, processes: DE}
location: {unknown: de}
""")
TWO_STEPS = CONFIG.merge("assistants: {assistant: {routes: {de: [spare, house]}}}")


@pytest.fixture(autouse=True)
def files() -> None:
    CONFIG.write(Path())
    TWO_STEPS.write(Path(), "new.yaml")


def test_plan_compares_with_the_config(gateway: Command) -> None:
    shown = gateway("plan", "new.yaml", "--config", "gateway.yaml")
    assert (shown.status, shown.err) == (0, "")
    assert "steps: house -> spare then house\n      +spare\n" in shown.out
    shown = gateway("plan", "new.yaml", "--config", "gateway.yaml", "--exit-code", "--markdown")
    assert (shown.status, shown.out.startswith("### Plan `")) == (3, True)
    shown = gateway("plan", "gateway.yaml", "--from", "new.yaml", "--json")
    assert json.loads(shown.out)["routes"][0]["removed"] == ["spare"]
    shown = gateway("plan", "gateway.yaml", "--config", "gateway.yaml", "--exit-code")
    assert (shown.status, "nothing changes" in shown.out) == (0, True)


def test_plan_with_an_unused_state_directory_reads_no_config_of_the_folder(gateway: Command) -> None:
    Path("config").mkdir()
    CONFIG.write(Path("config"))
    Path("state").mkdir()
    shown = gateway("plan", "new.yaml", "--state", "state")
    assert (shown.status, "no gateway has used the state directory state yet: name the config" in shown.err) == (
        2,
        True,
    )
    assert gateway("plan", "new.yaml", "--state", "state", "--config", "gateway.yaml").status == 0


def test_plan_after_a_rehearsal_names_its_state_directory(gateway: Command) -> None:
    with closing(open_history(Path("state") / "simulated")):
        pass
    shown = gateway("plan", "new.yaml", "--state", "state")
    assert "has used the state directory state yet but in a rehearsal (--state state/simulated)" in shown.err


def test_plan_fails_for_a_config_with_errors(gateway: Command) -> None:
    CONFIG.merge("assistants: {assistant: {routes: {de: [house, nobody]}}}").write(Path(), "new.yaml")
    shown = gateway("plan", "new.yaml", "--config", "gateway.yaml", "--json")
    (check,) = json.loads(shown.out)["checks"]
    assert (shown.status, check["ok"]) == (1, False)
    assert "unknown deployment 'nobody'" in check["findings"][0]
    assert (json.loads(shown.out)["changes"], json.loads(shown.out)["after"]) == (None, None)
    for form in ((), ("--markdown",)):
        shown = gateway("plan", "new.yaml", "--config", "gateway.yaml", *form)
        assert (shown.status, "othing changes" in shown.out, "changes are unknown" in shown.out) == (1, False, True)


def test_plan_lists_new_warnings_and_strict_fails_on_them(gateway: Command) -> None:
    CONFIG.merge("deployments: {house: {api_key: '${NOT_SET}'}}").write(Path(), "new.yaml")
    shown = gateway("plan", "new.yaml", "--config", "gateway.yaml")
    assert "NOT_SET is not set" in shown.out
    assert gateway("plan", "new.yaml", "--config", "gateway.yaml", "--no-secrets").status == 0
    assert gateway("plan", "new.yaml", "--config", "gateway.yaml", "--strict").status == 1


def test_lost_territory_fails_the_plan_until_it_is_accepted(gateway: Command) -> None:
    demo = example_path("demo.yaml").read_text("utf-8")
    Path("demo.yaml").write_text(demo, "utf-8")
    Path("new.yaml").write_text(edited(demo, ("[gemini, qwen-hk, qwen-intl]", "[chatgpt-us, gemini]")), "utf-8")
    asked = ("plan", "new.yaml", "--from", "demo.yaml")
    shown = gateway(*asked)
    assert shown.status == 1
    assert "users in 2 territories lose their answer" in shown.out
    assert "FAIL answered" in shown.out
    assert "`--accept-loss HK,MO` accepts this" in " ".join(shown.out.split())
    assert "HK (Hong Kong), MO (Macao)" in gateway(*asked, "--markdown").out
    (lost,) = (it for it in json.loads(gateway(*asked, "--json").out)["answers"] if it["kind"] == "lost")
    assert (lost["territories"], lost["assistant"], lost["region"]) == (["HK", "MO"], "assistant", "default")
    shown = gateway(*asked, "--accept-loss", "HK")
    assert shown.status == 1
    assert "`--accept-loss MO` accepts this" in " ".join(shown.out.split())
    assert gateway(*asked, "--accept-loss", "HK", "--accept-loss", "MO").status == 0
    assert gateway(*asked, "--accept-loss", "hk, MO").status == 0
    shown = gateway(*asked, "--accept-loss", "HK,Macao")
    assert (shown.status, "'MACAO' is not a territory" in shown.err) == (2, True)


def test_lost_region_is_accepted_by_a_group_or_a_star(gateway: Command) -> None:
    demo = example_path("demo.yaml").read_text("utf-8")
    Path("demo.yaml").write_text(demo, "utf-8")
    Path("new.yaml").write_text(edited(demo, ("      eu: [chatgpt-eu]\n", "")), "utf-8")
    asked = ("plan", "new.yaml", "--from", "demo.yaml")
    shown = gateway(*asked)
    assert (shown.status, "`--accept-loss '*'` accepts this" in " ".join(shown.out.split())) == (1, True)
    assert gateway(*asked, "--accept-loss", "*").status == 0
    assert gateway(*asked, "--accept-loss", "@EEA").status == 1
    assert gateway(*asked, "--accept-loss", "@eea,CH").status == 0


def test_plan_without_an_active_config_shows_everything_as_new(
    gateway: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GATEWAY_CONFIG", "not-yet.yaml")
    shown = gateway("plan", "new.yaml")
    assert (shown.status, shown.out.startswith("plan nothing -> ")) == (0, True), shown.err


@cases("words", "message")
def test_plan_and_history_commands_reject_unusable_options(
    gateway: Command, words: tuple[str, ...], message: str
) -> None:
    shown = gateway(*words)
    assert (shown.status, message in shown.err) == (2, True), shown.err
    assert not Path("none").exists()


def test_diff_shows_changes_or_lines(gateway: Command) -> None:
    shown = gateway("diff", "gateway.yaml", "new.yaml")
    assert (shown.status, "steps: house -> spare then house" in shown.out) == (0, True)
    changed_line = next(line for line in TWO_STEPS.text.splitlines() if line.startswith("assistants:"))
    assert f"+{changed_line}\n" in gateway("diff", "gateway.yaml", "new.yaml", "--text").out


def test_diff_has_no_checks_and_escapes_line_breaks_in_names(gateway: Command) -> None:
    assert "checks" not in gateway("diff", "gateway.yaml", "new.yaml").out
    shown = gateway("rollback", "--state", "state", "--as", "ada\n* forged")
    assert (shown.status, "printable" in shown.err) == (2, True)


def test_key_pair_overwrites_no_file(gateway: Command) -> None:
    shown = gateway("key", "new", "--ed25519", "admin.pem")
    assert shown.status == 0
    public = Path("admin.pem.pub").read_text().strip()
    assert public in shown.out
    assert stat.S_IMODE(Path("admin.pem").stat().st_mode) == 0o600
    assert "PRIVATE KEY" not in shown.out
    before = Path("admin.pem").read_bytes()
    shown = gateway("key", "new", "--ed25519", "admin.pem")
    assert (shown.status, "no file was overwritten" in shown.err) == (2, True)
    assert Path("admin.pem").read_bytes() == before


@pytest.mark.parametrize("damage", ["no database" * 1000, ""])
def test_plan_rejects_an_unreadable_history(gateway: Command, damage: str) -> None:
    """The active version may differ from the config, so the plan must not report "nothing changes"."""
    Path("state").mkdir()
    Path("state/history.db").write_text(damage, "utf-8")
    words = ("plan", "new.yaml", "--config", "gateway.yaml", "--state", "state")
    shown = gateway(*words)
    assert (shown.status, shown.out) == (2, "")
    assert "history" in shown.err
    assert "use --from FILE" in shown.err
    assert gateway(*words, "--from", "gateway.yaml").status == 0


@pytest.mark.parametrize("is_edited", [False, True])
def test_plan_compares_with_the_catalogue_of_the_active_version(
    gateway: Command, monkeypatch: pytest.MonkeyPatch, is_edited: bool
) -> None:
    """The active version needs neither `--config` nor the catalogue file, which may have been edited since."""
    monkeypatch.delenv("GATEWAY_CONFIG", raising=False)
    folder = Path("elsewhere")
    folder.mkdir()
    (folder / "own.yaml").write_text("version: 1\nmodels: {openai: {gpt-4o: {retires_on: 2099-01-01}}}\n", "utf-8")
    CONFIG.merge("catalogue: {models: [own.yaml]}").write(folder)
    log = ChangeLog(Path("state"))
    state = compiled_state(folder / "gateway.yaml", secrets=True)
    log.record_switch(ReviewedChange(ChangePlan("", state.config.version), {}), state, "file", "")
    log.close()
    if is_edited:
        (folder / "own.yaml").write_text("version: 1\nmodels: {openai: {gpt-4o: {retires_on: 2098-01-01}}}\n", "utf-8")
    shown = gateway("plan", "elsewhere/gateway.yaml", "--state", "state")
    assert (shown.status, shown.err) == (0, "")
    assert shown.out.startswith(f"plan {state.config.version} -> ")
    assert ("nothing changes" in shown.out) != is_edited


def test_plan_rejects_a_missing_state_directory(gateway: Command) -> None:
    shown = gateway("plan", "new.yaml", "--config", "gateway.yaml", "--state", "stat")
    assert (shown.status, "there is no state directory stat" in shown.err) == (2, True)
    Path("state").mkdir()
    assert (
        "steps: house -> spare then house"
        in gateway("plan", "new.yaml", "--config", "gateway.yaml", "--state", "state").out
    )


def test_plan_shows_what_is_used_of_a_quota_whose_limit_changes(gateway: Command) -> None:
    with_quota = CONFIG.merge("{quotas: {q: {requests: {day: 9}}}, deployments: {house: {quota: q}}}")
    add_version(Path("state"), with_quota, "2026-11-01", "ada", "")
    (limit,) = limits_of_quota(compiled_state(with_quota.write(Path(), "old.yaml"), secrets=True).config.quotas["q"])
    with closing(Journal.open(Path("state") / FOLDER)) as journal:
        journal.rebuild([(limit, 7, 0)], {})
    with_quota.merge("quotas: {q: {requests: {day: 5}}}").write(Path(), "new.yaml")
    assert "quota q: 7 of 5 requests a day are used" in gateway("plan", "new.yaml", "--state", "state").out
    assert "are used" not in gateway("plan", "old.yaml", "--state", "state").out
    add_version(Path("other"), with_quota, "2026-11-01", "ada", "")
    assert "are used" not in gateway("plan", "new.yaml", "--state", "other").out
    assert not (Path("other") / FOLDER).exists(), "a plan writes nothing"


def test_plan_and_check_name_each_key_of_prompt_caches(gateway: Command) -> None:
    house = {"provider": "vllm", "model": "m", "endpoint": "https://llm.example.com/v1", "stores": "US"}
    claude = {"provider": "anthropic", "model": "claude-sonnet-5", "endpoint": "global", "api_key": "k"}
    house |= {"processes": "US", "api_key": "k"}
    before = BASE.merge({"deployments": {"claude": claude, "house": house}})
    changed = {"chatgpt-us": {"cache_key": "strip"}, "claude": {"cache": "auto"}, "house": {"cache_isolation": "user"}}
    files = before.write(Path(), "before.yaml"), before.merge({"deployments": changed}).write(Path(), "after.yaml")
    shown = " ".join(gateway("plan", "--from", files[0], files[1], "--no-secrets").out.split())
    for words in ("cache key: pseudonym -> strip", "cache: client -> auto", "cache isolation: none -> user"):
        assert words in shown
    assert "cache keys" not in shown
    shown = " ".join(gateway("check", files[1], "--no-secrets").out.split())
    for words in ("chatgpt-us gets as a cache key: nothing", "`cache: auto`", "salt for its cache by user"):
        assert words in shown
    found = json.loads(gateway("check", "--json", files[1], "--no-secrets").out)["deployments"]
    assert [found[name][key] for name in changed for key in changed[name]] == ["strip", "auto", "user"]


def test_check_shows_a_cache_key_that_is_passed_on_and_one_without_effect(gateway: Command) -> None:
    claude = {"provider": "anthropic", "model": "claude-sonnet-5", "endpoint": "global", "api_key": "k"}
    claude["cache_key"] = "pass"
    passed_on = {"passthrough": ["prompt_cache_key"]}
    file = BASE.merge({"deployments": {"claude": claude, "chatgpt-us": passed_on}}).write(Path(), "passed.yaml")
    shown = gateway("check", file, "--no-secrets")
    assert "chatgpt-us gets as a cache key: the client's own\n" in shown.out
    assert "deployments.claude.cache_key: it has no effect: anthropic has no field `prompt_cache_key`" in shown.err
