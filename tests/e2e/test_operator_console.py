"""The console outside a demo, over HTTP: sign-in, sessions, roles, and each view."""

from __future__ import annotations

import asyncio
import csv
import json
import re
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from html import unescape
from pathlib import Path

import pytest
import yaml

from gateway.usage.duty_counts import DutyKey, encode_key
from gateway.usage.journal import FOLDER, Journal
from providers.testkit.server import SimulatorThread
from tests.e2e.conftest import KEYS, PATIENT, config_for
from tests.kit.configs import key_hash
from tests.kit.console_installation import PORT, Installation
from tests.kit.gateway_command import in_this_process
from tests.kit.gateway_process import GatewayProcess, running_gateway
from tests.kit.operator_console import ConsoleClient
from tests.kit.waiting import eventually

pytestmark = pytest.mark.slow("starts a gateway for each test")
PROXY = {
    "x-gateway-proxy-secret": "the secret of the proxy",
    "x-forwarded-user": "anna",
    "x-forwarded-groups": "x, ops",
}


@contextmanager
def serving(
    providers: SimulatorThread, folder: Path, environ: Mapping[str, str]
) -> Iterator[tuple[GatewayProcess, Path]]:
    path = config_for(providers, PATIENT, {"usage": {"currency": "USD"}}).write(folder)
    with running_gateway(path, {**KEYS, **PORT, **environ}) as gateway:
        yield gateway, path


@pytest.fixture(scope="module")
def installed(providers: SimulatorThread, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installation]:
    folder, state = tmp_path_factory.mktemp("config"), tmp_path_factory.mktemp("state")
    with serving(providers, folder, {"GATEWAY_STATE_DIR": str(state)}) as (gateway, path):
        client = ConsoleClient(gateway.console_url)
        assert client.get("/requests").status_code == 403
        assert "gateway admin-token create --role viewer" in client.words
        yield Installation(gateway, state, path)


def test_without_a_session_every_page_leads_to_the_sign_in_and_back(installed: Installation) -> None:
    client = ConsoleClient(installed.gateway.console_url)
    answer = client.get("/requests?region=eu")
    assert (answer.status_code, answer.headers["location"]) == (303, "/sign-in?next=%2Frequests%3Fregion%3Deu")
    client.get(answer.headers["location"])
    assert "Admin token" in client.words
    wrong = client.sign_in("agwadmin_wrong")
    assert (wrong.status_code, "set-cookie" in wrong.headers) == (403, False)
    answer = client.sign_in(installed.tokens["viewer"], "/requests?region=eu")
    assert answer.headers["location"] == "/requests?region=eu"
    cookie = answer.headers["set-cookie"]
    assert cookie.startswith("gateway-console=")
    assert "HttpOnly; SameSite=Lax" in cookie
    assert client.get("/requests").status_code == 200


def test_sign_out_and_the_end_of_the_token_end_a_session(installed: Installation) -> None:
    client = installed.visit()
    client.get("/requests")
    copied = client.cookies["gateway-console"]
    assert "You are signed out." in client.post("/sign-out").text
    replay = ConsoleClient(installed.gateway.console_url)
    replay.cookies.set("gateway-console", copied)
    assert replay.get("/requests").status_code == 303
    token = installed.run("admin-token", "create", "--role", "viewer")
    assert client.sign_in(token).status_code == 303
    assert client.get("/requests").status_code == 200
    installed.run("admin-token", "revoke", token.split("_")[1])
    assert client.get("/requests").status_code == 303


def test_requests_are_listed_filtered_and_shown_one_by_one(installed: Installation) -> None:
    request_id = installed.ask()
    client = installed.visit()
    client.get("/requests")
    assert "<title>Requests</title>" in client.page
    assert request_id[:24] in client.words
    assert request_id[:24] not in client.get("/requests?region=us").text
    client.get(f"/requests?id={request_id}")
    assert "Answered by chatgpt-eu" in client.words
    for target in ("/providers?deployment=chatgpt-eu", "/?territory=DE", "/clients?client=app", "/changes"):
        assert f'href="{target}"' in client.page
    client.get(f"/requests?id={request_id}&lang=zh-Hans")
    assert "成功, 状态码 200" in client.words
    assert client.get("/requests?lang=zh-Hans").text.startswith('<!doctype html>\n<html lang="zh-Hans">')


def test_a_change_needs_the_token_of_the_session_and_no_other_site(installed: Installation) -> None:
    client = installed.visit("admin")
    assert client.send("POST", "/sign-out", data={"csrf": "0" * 64}).status_code == 403
    assert client.get("/requests").status_code == 200
    for headers in (
        {"origin": "https://evil.example"},
        {"sec-fetch-site": "cross-site"},
        {"origin": "null"},
        {"host": "evil.example"},
        {"sec-fetch-dest": "iframe", "sec-fetch-mode": "navigate"},
    ):
        answer = client.send("POST", "/sign-out", data={"csrf": client.csrf}, headers=headers)
        assert answer.status_code == 403, headers
    assert client.get("/requests").headers["x-frame-options"] == "DENY"


def test_no_sign_in_leads_to_another_site(installed: Installation) -> None:
    client = ConsoleClient(installed.gateway.console_url)
    for target in ("https://evil.example", "//evil.example/requests", "/\\evil.example", "/sign-out", "/requests/../x"):
        answer = client.sign_in(installed.tokens["viewer"], target)
        assert answer.headers["location"] == "/requests", target


def test_ten_failures_close_the_sign_in_for_a_minute(providers: SimulatorThread, tmp_path: Path) -> None:
    environ = {"GATEWAY_ADMIN_TOKEN": "a token of sixteen characters"}
    with serving(providers, tmp_path, environ) as (gateway, _):
        client = ConsoleClient(gateway.console_url)
        assert client.sign_in(environ["GATEWAY_ADMIN_TOKEN"]).status_code == 303
        for _ in range(10):
            assert client.sign_in("wrong").status_code == 403
        answer = client.sign_in(environ["GATEWAY_ADMIN_TOKEN"])
        assert (answer.status_code, int(answer.headers["retry-after"]) > 30) == (429, True)
        chinese = client.send("POST", "/sign-in", data={"token": "wrong"}, headers={"accept-language": "zh-CN"})
        assert (chinese.status_code, "从此地址登录失败的次数过多" in chinese.text) == (429, True)


def test_groups_that_a_proxy_sends_give_a_user_the_role(providers: SimulatorThread, tmp_path: Path) -> None:
    environ = {
        "GATEWAY_CONSOLE_PROXY_SECRET": PROXY["x-gateway-proxy-secret"],
        "GATEWAY_CONSOLE_ROLES": "ops=operator, finance=viewer",
    }
    with serving(providers, tmp_path, environ) as (gateway, _):
        client = ConsoleClient(gateway.console_url)
        assert client.get("/requests", **PROXY).status_code == 200
        assert "anna (operator)" in client.words
        for headers in (
            {},
            PROXY | {"x-gateway-proxy-secret": "wrong"},
            PROXY | {"x-forwarded-groups": "other"},
            PROXY | {"x-forwarded-user": ""},
        ):
            assert client.get("/requests", **headers).status_code == 403, headers
        twice = [*PROXY.items(), ("x-forwarded-groups", "finance")]
        assert client.send("GET", "/requests", headers=twice).status_code == 403
        assert client.sign_in("any").status_code == 403


def test_an_open_address_needs_a_public_url_with_tls(providers: SimulatorThread, tmp_path: Path) -> None:
    path = config_for(providers, PATIENT).write(tmp_path)
    environ = {**KEYS, **PORT, "GATEWAY_CONSOLE_HOST": "192.0.2.1", "GATEWAY_CONFIG": str(path)}
    done = in_this_process("serve", "--port", "0", environ=environ)
    assert (done.returncode, "GATEWAY_CONSOLE_URL" in done.stderr) == (2, True)


def test_public_url_makes_the_cookie_secure_and_decides_about_the_host(
    providers: SimulatorThread, tmp_path: Path
) -> None:
    environ = {"GATEWAY_ADMIN_TOKEN": "a token of sixteen characters", "GATEWAY_CONSOLE_URL": "https://console.example"}
    with serving(providers, tmp_path, environ) as (gateway, _):
        client = ConsoleClient(gateway.console_url)
        assert client.get("/sign-in").status_code == 403
        sent = {"token": environ["GATEWAY_ADMIN_TOKEN"]}
        headers = {"host": "console.example", "origin": "https://console.example", "sec-fetch-site": "same-origin"}
        answer = client.send("POST", "/sign-in", data=sent, headers=headers)
        assert answer.headers["set-cookie"].startswith("__Host-gateway-console=")
        assert "; Secure" in answer.headers["set-cookie"]


def test_an_operator_plans_a_text_reloads_rolls_back_and_releases(installed: Installation) -> None:
    client = installed.visit("operator")
    client.get("/changes")
    config = yaml.safe_load(installed.path.read_text())
    config["assistants"]["assistant"]["routes"]["eu"] = ["chatgpt-eu-2"]
    text = yaml.safe_dump(config)
    client.post("/changes/plan", text=text)
    assert "another first answer assistant/eu chatgpt-eu chatgpt-eu-2" in client.words
    assert "commit this text as the config file" in client.words
    client.post("/changes/plan", text="regions: {")
    assert "does not compile" in client.words
    first = installed.version()
    installed.path.write_text(text)
    client.post("/changes/reload")
    assert "The config file is loaded, on this instance only" in client.words
    second = installed.version()
    assert second != first
    client.post("/changes/rollback", version=first)
    assert f"Roll back to version {first}?" in client.words
    assert "another first answer assistant/eu chatgpt-eu-2 chatgpt-eu" in client.words, "the effect is shown before"
    assert installed.version() == second
    client.post("/changes/rollback", version="zzzz", confirmed="yes")
    assert "'zzzz' is not a version of the history: no version has this name" in client.words
    client.post("/changes/rollback?lang=zh-Hans", version="zzzz", confirmed="yes")
    assert "历史记录中没有可用的版本：'zzzz' is not a version" in client.words
    client.post("/changes/rollback?lang=en", version=first, confirmed="yes")
    assert "pinned, on this instance only" in client.words
    assert installed.version() == first
    client.post("/changes/release", confirmed="yes")
    assert installed.version() == second
    client.get(f"/changes?before={first}&after={second}")
    assert "Differences" in client.words
    [line] = [line for line in installed.trail() if line["event"] == "rolled_back"]
    assert line["who"].startswith("console (token ")


def test_a_viewer_sees_the_changes_and_every_action_is_refused(installed: Installation) -> None:
    client = installed.visit("viewer")
    page = client.get("/changes").text
    version = installed.version()
    for name in ("Reload", "Roll back", "Release", "Stop the schedule"):
        assert f">{name}</button>" not in page
    for path, fields in (
        ("/changes/reload", {}),
        ("/changes/rollback", {"version": version, "confirmed": "yes"}),
        ("/changes/release", {"confirmed": "yes"}),
        ("/changes/schedules/stop", {"assistant": "assistant", "region": "eu", "confirmed": "yes"}),
    ):
        client.get("/changes")
        assert client.post(path, **fields).status_code == 403, path
    assert installed.version() == version


def test_providers_have_their_health_and_the_line_that_takes_one_out(installed: Installation) -> None:
    installed.ask()
    client = installed.visit()
    client.get("/providers?deployment=chatgpt-eu")
    assert "Breaker: closed" in client.words
    assert "deployments: chatgpt-eu: enabled: false" in client.words
    assert "qwen-cn openai" not in client.words


def test_key_of_the_file_is_blocked_and_nothing_else_is_offered(installed: Installation) -> None:
    """The page of clients in the file offers what the admin API does, and no more."""
    operator, admin = installed.visit("operator"), installed.visit("admin")
    admin.get("/clients")
    assert "in the configuration file" in admin.words
    for button in ("Create key", "Rotate", "Revoke", "Create client", "Create project"):
        assert f"<button>{button}" not in admin.page, button
        assert f">{button}</button>" not in admin.page, button
    found = re.search(r'name="id" value="([0-9a-f]{10})"', operator.get("/clients?client=app").text)
    operator.post("/clients/keys/block", id=found[1], client="app")
    assert f"Block the key {found[1]} of app?" in operator.words
    operator.post("/clients/keys/block", id=found[1], client="app", confirmed="yes")
    assert "The key is blocked." in operator.words
    eventually(lambda: f"{found[1]} app blocked Unblock" in (operator.get("/clients?client=app"), operator.words)[1])
    operator.post("/clients/keys/unblock", id=found[1], client="app")
    assert "The key is accepted again" in operator.words
    eventually(lambda: f"{found[1]} app valid Block" in (operator.get("/clients?client=app"), operator.words)[1])
    viewer = installed.visit("viewer")
    assert ">Block</button>" not in viewer.get("/clients").text
    assert viewer.post("/clients/keys/block", id=found[1], client="app", confirmed="yes").status_code == 403


def test_many_clients_are_searched_and_shown_page_by_page(providers: SimulatorThread, tmp_path: Path) -> None:
    """Without a state directory, no block is offered either."""
    sections = {
        f"team-{number:03}": {"keys": [key_hash(str(number))], "project": "red" if number % 2 else "blue"}
        for number in range(120)
    }
    patch = {"usage": {"currency": "USD"}, "projects": {"red": {}, "blue": {}}, "clients": sections}
    path = config_for(providers, PATIENT).without("clients").merge(patch).write(tmp_path)
    with running_gateway(path, {**KEYS, **PORT, "GATEWAY_ADMIN_TOKEN": "a-token-of-the-test"}) as gateway:
        client = ConsoleClient(gateway.console_url)
        client.get("/sign-in")
        client.sign_in("a-token-of-the-test")

        def rows(target: str) -> list[str]:
            return re.findall(r'<th scope="row"><a href="/clients\?client=[^"]*">([^<]*)</a>', client.get(target).text)

        assert rows("/clients") == [f"team-{number:03}" for number in range(50)]
        assert "Page 1 of 3, 120 clients" in client.words
        assert 'rel="next" href="?search=&amp;page=2"' in client.page
        assert rows("/clients?page=3") == [f"team-{number:03}" for number in range(100, 120)]
        assert rows("/clients?page=99999") == rows("/clients?page=3")
        assert rows("/clients?page=-1") == rows("/clients")
        assert rows("/clients?search=TEAM-11") == [f"team-{number}" for number in range(110, 120)]
        assert len(rows("/clients?search=red&page=2")) == 10
        assert rows(f"/clients?search={key_hash('7')[7:17]}") == ["team-007"]
        assert "GATEWAY_STATE_DIR" in client.words
        assert ">Block</button>" not in client.page
        assert rows("/clients?search=none") == []
        assert "There is no client with this name." in client.words


@pytest.fixture(scope="module")
def with_clients(providers: SimulatorThread, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installation]:
    folder, state = tmp_path_factory.mktemp("config"), tmp_path_factory.mktemp("state")
    config = config_for(providers, PATIENT, {"usage": {"currency": "USD"}}).without("clients")
    path = config.merge({"clients_source": "database"}).write(folder)
    with running_gateway(path, {**KEYS, **PORT, "GATEWAY_STATE_DIR": str(state)}) as gateway:
        yield Installation(gateway, state, path)


def test_an_admin_makes_a_client_and_an_operator_its_keys(with_clients: Installation) -> None:
    client = with_clients.visit("admin")
    client.get("/clients")
    client.post("/clients/create", name="shop", definition="[1]")
    assert "The definition must be a JSON object" in client.words
    definition = '{"budgets": [{"amount": "10 USD", "per": "day"}]}'
    client.post("/clients/create", name="shop", definition=definition)
    assert "The client is created." in client.words
    assert "$10" in client.words
    operator = with_clients.visit("operator")
    operator.get("/clients?client=shop")
    answer = operator.post("/clients/keys", client="shop", owner="<b>anna</b>", note="", expires="30d")
    found = re.search(r"agw_local_([a-z0-9]+)_[A-Za-z0-9_\-]+", answer.text)
    assert found is not None
    assert answer.headers["cache-control"] == "no-store"
    assert found[0] not in operator.get("/clients?client=shop").text, "shown this one time"
    assert "&lt;b&gt;anna" in operator.page
    operator.post("/clients/budgets/top-up", of="client", owner="shop", per="day", amount="5 USD", client="shop")
    assert "$15" in operator.words
    operator.post("/clients/budgets/top-up", of="client", owner="shop", per="day", amount="many", client="shop")
    assert "`amount` must be an amount with its currency" in operator.words
    operator.post("/clients/keys/revoke", id=found[1], client="shop")
    assert f"Revoke the key {found[1]} of shop?" in operator.words
    operator.post("/clients/keys/revoke", id=found[1], client="shop", confirmed="yes")
    assert "The key is revoked." in operator.words
    assert operator.post("/clients/remove", client="shop", confirmed="yes").status_code == 403
    client.get("/clients?client=shop")
    client.post("/clients/remove", client="shop", confirmed="yes")
    assert "There is no client yet." in client.words


def test_a_client_is_made_in_a_form_by_a_visitor_with_the_note_of_the_token(with_clients: Installation) -> None:
    with_clients.tokens["noted"] = with_clients.run("admin-token", "create", "--role", "admin", "--note", "Ada <b>")
    admin = with_clients.visit("noted")
    assert "Ada &lt;b&gt; (admin)" in admin.get("/clients").text
    limits = {"rpm": "60", "tpm": "", "concurrent": " 4 "}
    form = {"name": "made", "assistants": "assistant", **limits, "amount": "10 USD", "per": "day", "definition": "{}"}
    admin.post("/clients/create", **{**form, "rpm": "many"})
    assert "rpm" in admin.words
    assert 'value="many"' in admin.page, "what was typed stays"
    admin.post("/clients/create", **form)
    assert "The client is created." in admin.words
    assert 'limits: {"concurrent": 4, "rpm": 60}' in admin.words
    assert "$10" in admin.words
    admin.post("/clients/remove", client="made", confirmed="yes")


def test_an_admin_makes_changes_and_removes_a_project(with_clients: Installation) -> None:
    admin = with_clients.visit("admin")
    admin.get("/clients")
    assert "There is no project yet." in admin.words
    admin.post("/clients/projects/create", project="<i>apps</i>", definition='{"budgets": []}')
    assert "<i>apps" not in admin.page, "a refused name is shown as text"
    budgets = '{"budgets": [{"amount": "50 USD", "per": "month"}]}'
    admin.post("/clients/projects/create", project="apps", definition=budgets)
    assert "The project is created." in admin.words
    assert "$50" in admin.words
    admin.post("/clients/create", name="shop", definition='{"project": "apps"}')
    assert "unknown project" not in admin.words, "budgets are read at once, not when the config version has the project"
    admin.post("/clients/projects/change", project="apps", definition='{"budgets": ')
    assert "The definition must be a JSON object" in admin.words
    admin.post("/clients/projects/change", project="apps", definition=budgets.replace("50", "70"))
    assert "The project is changed." in admin.words
    assert "$70" in admin.words
    admin.post("/clients/projects/remove", project="apps", confirmed="yes")
    assert "shop" in admin.words, "a project with clients is not removed, and the page names them"
    assert "The project is removed." not in admin.words
    admin.post("/clients/remove", client="shop", confirmed="yes")
    admin.post("/clients/projects/remove", project="apps")
    assert "Remove the project apps and its budgets?" in admin.words
    admin.post("/clients/projects/remove", project="apps", confirmed="yes")
    assert "The project is removed." in admin.words
    assert "There is no project yet." in admin.words


def test_a_new_currency_leaves_the_other_budgets_and_names_the_broken_ones(with_clients: Installation) -> None:
    admin = with_clients.visit("admin")
    admin.act("/clients", "/clients/projects/create", project="euros", definition=budget_of("50 USD", "month"))
    definition = {"project": "euros", "budgets": [{"tokens": 7000, "per": "day"}]}
    admin.act("/clients", "/clients/create", name="counted", definition=json.dumps(definition))
    admin.act("/clients", "/clients/create", name="paid", definition=budget_of("10 USD", "day"))
    before = with_clients.path.read_text()
    config = yaml.safe_load(before)
    config["usage"] |= {"currency": "EUR", "rates": {"USD": "0.92", "CNY": "0.12", "as_of": "2026-11-20"}}
    with_clients.path.write_text(yaml.safe_dump(config))
    admin.act("/changes", "/changes/reload")
    admin.get("/clients")
    assert "counted client day 7,000 tokens" in admin.words
    for name in ("project euros", "client paid"):
        assert f"{name}: budgets" in admin.words
    admin.get("/clients?client=counted")
    assert "7,000 tokens" in admin.words
    assert "project euros: budgets" in admin.words
    token = {"GATEWAY_ADMIN_TOKEN": with_clients.tokens["admin"]}
    done = in_this_process("budgets", "show", "--admin", with_clients.gateway.admin_url, environ=token)
    assert "invalid: project euros: budgets" in done.stdout
    with_clients.path.write_text(before)
    admin.act("/changes", "/changes/reload")
    for name in ("counted", "paid"):
        admin.act("/clients", "/clients/remove", client=name, confirmed="yes")
    admin.act("/clients", "/clients/projects/remove", project="euros", confirmed="yes")
    assert "There is no project yet." in admin.words


def budget_of(amount: str, per: str) -> str:
    return json.dumps({"budgets": [{"amount": amount, "per": per}]})


def test_a_viewer_changes_no_client(with_clients: Installation) -> None:
    client = with_clients.visit("viewer")
    client.get("/clients")
    own = ("keys", "keys/rotate", "keys/revoke", "budgets/top-up", "budgets/reset", "create", "change", "remove")
    for path in (*own, "projects/create", "projects/change", "projects/remove"):
        fields = {"client": "shop", "id": "abcdefgh", "confirmed": "yes", "per": "day", "owner": "shop", "name": "x"}
        fields["project"] = "apps"
        client.get("/clients")
        assert client.post(f"/clients/{path}", **fields).status_code == 403, path
    operator = with_clients.visit("operator")
    for path in ("create", "change", "remove", "projects/create", "projects/change", "projects/remove"):
        assert operator.act("/clients", f"/clients/{path}", client="shop", project="apps").status_code == 403, path


def test_duties_are_counted_by_region(installed: Installation) -> None:
    client = installed.visit()
    client.get("/duties?year=2027")
    assert "Nothing was counted in this year." in client.words

    async def count() -> None:
        with closing(Journal.open(installed.state / FOLDER)) as journal:
            for region, territory in (("us", "US-WA"), ("us", "US-CA"), ("eu", "DE")):
                await journal.count([encode_key(DutyKey("2027-03", region, territory, "tutor", "", "crisis"))])

    asyncio.run(count())
    client.get("/duties?year=2027")
    rows = re.findall(r'<tr><th scope="row">(.*?)</th><td class="number">(\d+)</td>', client.page)
    assert rows == [("eu", "1"), ("us", "2")]
    assert client.get("/duties?year=27").status_code == 400


def test_spend_has_a_plot_a_table_and_a_file(installed: Installation) -> None:
    installed.ask()
    client = installed.visit()

    def spent() -> bool:
        client.get("/spend?by=model")
        return "By Model" in client.words

    eventually(spent)
    assert "gpt-6-luna" in client.words
    assert "<rect" in client.page
    assert "user" not in re.findall(r'<option value="(\w+)"', client.page)
    link = re.search(r'href="(/spend\?[^"]*format=csv)"', client.page)
    file = client.get(link[1].replace("&amp;", "&"))
    assert file.headers["content-type"] == "text/csv; charset=utf-8"
    lines = list(csv.DictReader(file.text.splitlines()))
    assert {line["group"] for line in lines} == {"model", "day"}
    client.get("/spend")
    inside = re.search(r'<a href="([^"]*client=app[^"]*)">app</a>', client.page)
    client.get(unescape(inside[1]))
    assert "By Assistant" in client.words
    assert ">assistant</a>" in client.page
    assert "No assistant recorded" not in client.words
    assert client.get("/spend?assistant=other").status_code == 200
    assert "There is no usage in these days." in client.words
    assert client.get("/spend?from=2020-01-01&to=2020-01-31").status_code == 200
    assert "There is no usage in these days." in client.words
    for days in (
        "from=2020-02-01&to=2020-01-31",
        "from=2020-02-01",
        "to=2020-02-01",
        "from=0001-01-01&to=0001-01-31",
        "from=2026-01-01&to=9999-12-31",
    ):
        assert client.get(f"/spend?{days}").status_code == 400, days
    admin = installed.visit("admin")
    assert "End user (pseudonym)" in admin.get("/spend?by=user").text
    assert "End user (pseudonym)" not in admin.get("/spend?by=user&assistant=assistant").text


def test_refusals_and_unknown_pages_have_the_language_of_the_visitor(installed: Installation) -> None:
    client, chinese = ConsoleClient(installed.gateway.console_url), {"accept-language": "zh-CN"}
    unknown = client.send("GET", "/nothing", headers=chinese)
    assert (unknown.status_code, unknown.headers["content-type"]) == (404, "text/html; charset=utf-8")
    assert "控制台在此路径没有页面" in unknown.text
    foreign = client.send("GET", "/requests", headers={**chinese, "host": "evil.example"})
    assert foreign.status_code == 403
    assert "这不是控制台的地址" in foreign.text
    assert "no page at this path" in client.send("GET", "/nothing", headers={"accept-language": "de"}).text


def test_world_shows_who_answers_without_the_parts_of_a_demo(installed: Installation) -> None:
    client = ConsoleClient(installed.gateway.console_url)
    assert client.get("/?territory=DE").headers["location"] == "/sign-in?next=%2F%3Fterritory%3DDE"
    client = installed.visit()
    assert client.get("/?territory=DE").status_code == 200
    assert re.search(r"chatgpt-eu(-2)? answers", client.words)
    assert 'class="ask" hidden' in client.page
    assert '<a href="/requests">Requests</a>' in client.page
    assert client.send("PUT", "/console/faults").status_code == 404
