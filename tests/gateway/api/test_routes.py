"""The other public endpoints: HEAD, health, models, explain and the hints of a 404."""

from typing import Any

import httpx
import pytest

from gateway.api.path_hints import hint_for
from gateway.assembly.application import Gateway
from tests.kit.case_files import cases
from tests.kit.chat_exchange import WHOLE
from tests.kit.configs import Config, key_hash, table_of
from tests.kit.httpx_transport import HttpxTransport

KEYS = {name: f"gk-{name}" for name in ("app", "backend", "shop")}


CONFIG = Config.beside(__file__).merge(
    {
        "clients": {
            "app": {"keys": [key_hash(KEYS["app"])]},
            "backend": {"keys": [key_hash(KEYS["backend"])], "may_assert": ["user"]},
            "shop": {"keys": [key_hash(KEYS["shop"])], "may_assert": ["territory"]},
        }
    }
)
TABLE = table_of(CONFIG, {"KEY": "sk"})
CHAT = "/v1/chat/completions"
HELLO: dict[str, Any] = {"model": "assistant", "messages": [{"role": "user", "content": "hello"}]}
PEOPLE = [f"person-{number}" for number in range(12)]


async def answer(_: httpx.Request) -> httpx.Response:
    return httpx.Response(200, json=WHOLE)


APP: Any = Gateway(TABLE, HttpxTransport(httpx.MockTransport(answer)))


async def ask(method: str, path: str, key: str = "app", body: Any = None, **headers: str) -> httpx.Response:
    every = {"authorization": f"Bearer {KEYS[key]}", "cf-ipcountry": "DE"}
    every |= {name.replace("_", "-"): value for name, value in headers.items()}
    async with httpx.AsyncClient(transport=httpx.ASGITransport(APP), base_url="http://gateway") as client:
        return await client.request(method, path, headers=every, json=body)


def error_of(response: httpx.Response) -> Any:
    return response.json()["error"]


@pytest.mark.parametrize("path", ["/healthz", "/health", "/readyz", "/v1/models", "/v1/models/gpt-4o", "/docs"])
async def test_head_is_answered_on_every_get_path(path: str) -> None:
    got, looked = await ask("GET", path), await ask("HEAD", path)
    assert (got.status_code, looked.status_code) == (200, 200)
    assert looked.headers["content-type"] == got.headers["content-type"]


async def test_head_of_the_chat_endpoint_names_its_method() -> None:
    looked = await ask("HEAD", CHAT)
    assert (looked.status_code, looked.headers["allow"]) == (405, "POST")


@cases("path", "words")
async def test_unknown_path_gets_a_hint(path: str, words: str) -> None:
    assert words in hint_for(path)
    found = await ask("POST", f"http://gateway{path}")
    assert (found.status_code, error_of(found)["code"]) == (404, "not_found")
    assert words in error_of(found)["message"]


@cases("path", "own")
async def test_path_of_a_dialect_that_is_written_differently_gets_a_hint(path: str, own: str) -> None:
    assert f"did you mean POST {own}?" in hint_for(path)
    found = await ask("POST", f"http://gateway{path}")
    assert (found.status_code, error_of(found)["code"]) == (404, "not_found")


@pytest.mark.parametrize("path", ["/v1/v1/messages", "/v1/v1/messages/count_tokens", "/messages"])
def test_path_of_a_client_of_anthropic_gets_advice_on_its_base_url(path: str) -> None:
    assert "The base URL for Anthropic's clients ends without /v1" in hint_for(path)
    assert "The base URL for OpenAI's clients ends in /v1" in hint_for("/v1/v1/chat/completions")


def test_entry_of_a_dialect_that_keeps_nothing_is_not_there() -> None:
    for path in ("/v1/responses/resp_1", "/v1/responses/resp_1/cancel", "/v1/responses/resp_1/input_items"):
        assert "the gateway keeps no answer" in hint_for(path)
    assert "shorten it in the client" in hint_for("/v1/responses/compact")


GENERATE = "/v1beta/models/assistant:generateContent"


@cases("method", "path", "status", "code", "words")
async def test_error_at_a_path_of_gemini_is_in_googles_form(
    method: str, path: str, status: int, code: str, words: str
) -> None:
    body = {"contents": [{"parts": [{"text": "Hi"}]}]}
    found = await ask(method, path, body=body if method == "POST" else None)
    assert (found.status_code, error_of(found)["code"]) == (status, status)
    assert error_of(found)["details"][0]["reason"] == code
    assert words in error_of(found)["message"]


async def test_tokens_of_a_prompt_are_estimated_where_the_assistant_is_offered() -> None:
    counted = await ask(
        "POST", "/v1beta/models/assistant:countTokens", body={"contents": [{"parts": [{"text": "Hi"}]}]}
    )
    assert counted.json() == {"totalTokens": 8}
    assert counted.headers["x-gateway-estimated"] == "true"
    assert counted.headers["x-gateway-region"] == "eu"
    assert "x-gateway-deployment" not in counted.headers
    blocked = await ask("POST", GENERATE.replace("generateContent", "countTokens"), cf_ipcountry="CU", body={})
    assert (blocked.status_code, error_of(blocked)["status"]) == (451, "PERMISSION_DENIED")


async def test_slash_after_models_is_not_an_assistant() -> None:
    found = await ask("GET", "/v1/models/")
    assert (found.status_code, error_of(found)["code"]) == (404, "not_found")
    assert "did you mean GET /v1/models?" in error_of(found)["message"]


async def test_invalid_key_is_answered_with_www_authenticate() -> None:
    for path in ("/v1/models", CHAT):
        refused = await ask("GET" if path != CHAT else "POST", path, authorization="Bearer gk-nobody", body=HELLO)
        assert (refused.status_code, refused.headers["www-authenticate"]) == (401, "Bearer")
        assert "not a provider's" in error_of(refused)["message"]


async def test_assistant_without_a_route_here_is_not_unknown() -> None:
    here = await ask("GET", "/v1/models/house-only")
    assert here.status_code == 200
    elsewhere = await ask("GET", "/v1/models/house-only", cf_ipcountry="US")
    assert (elsewhere.status_code, error_of(elsewhere)["code"]) == (451, "region_blocked")
    asked = await ask("POST", CHAT, cf_ipcountry="US", body={**HELLO, "model": "house-only"})
    assert error_of(asked) == error_of(elsewhere)
    assert error_of(await ask("GET", "/v1/models/hous-only"))["param"] == "model"
    assert error_of(await ask("GET", "/v1/explain?assistant=asistant"))["param"] == "assistant"


async def test_every_response_about_the_caller_has_its_location() -> None:
    for path in ("/v1/models", "/v1/models/assistant", "/v1/explain?assistant=assistant"):
        headers = (await ask("GET", path)).headers
        assert (headers["x-gateway-region"], headers["x-gateway-why"]) == ("eu", "edge_header")
        assert headers["x-gateway-config"] == TABLE.version
    nowhere = (await ask("GET", "/v1/explain?assistant=assistant", cf_ipcountry="XX")).headers
    assert nowhere["x-gateway-why"] == "unknown"
    assert "x-gateway-region" not in nowhere


@pytest.mark.parametrize("path", ["/v1/models", "/v1/models/house-only", "/v1/disclosure?assistant=assistant"])
@pytest.mark.parametrize(("territory", "why", "status"), [("XX", "unknown", 451), ("CU", "edge_header", 451)])
async def test_every_refusal_has_the_same_location_headers_as_a_chat_request(
    path: str, territory: str, why: str, status: int
) -> None:
    """A 451 names the signal that decided and the config version."""
    refused = await ask("GET", path, cf_ipcountry=territory)
    chat = await ask("POST", CHAT, cf_ipcountry=territory, body=HELLO)
    assert (refused.status_code, refused.headers["x-gateway-why"]) == (status, why)
    for name in ("x-gateway-why", "x-gateway-region", "x-gateway-config"):
        assert refused.headers.get(name) == chat.headers.get(name)


@pytest.mark.parametrize("path", ["/v1/explain", "/v1/disclosure"])
async def test_blocked_location_is_refused_before_names_are_looked_up(path: str) -> None:
    """A chat request from there gets the same error. Elsewhere the error is about the unknown name."""
    asked = await ask("POST", CHAT, cf_ipcountry="CU", body={**HELLO, "model": "nobody"})
    answer = await ask("GET", f"{path}?assistant=nobody", cf_ipcountry="CU")
    assert (answer.status_code, error_of(answer)) == (451, error_of(asked))
    assert (await ask("GET", f"{path}?assistant=nobody")).status_code == 404


async def test_error_response_names_the_config_version() -> None:
    for path in ("/v1/models/nothing", "/v1/explain?assistant=nobody", "/v1/receipts/nothing"):
        refused = await ask("GET", path)
        assert (refused.status_code, refused.headers["x-gateway-config"]) == (404, TABLE.version)


async def test_created_time_of_an_assistant_is_equal_in_every_worker(monkeypatch: pytest.MonkeyPatch) -> None:
    first = (await ask("GET", "/v1/models")).json()
    monkeypatch.setattr("time.time", lambda: 1.0)
    later: Any = Gateway(TABLE)
    monkeypatch.undo()
    async with httpx.AsyncClient(transport=httpx.ASGITransport(later), base_url="http://gateway") as client:
        headers = {"authorization": f"Bearer {KEYS['app']}", "cf-ipcountry": "DE"}
        assert (await client.get("/v1/models", headers=headers)).json() == first


async def test_client_gets_no_addresses_of_internal_servers_and_no_key_sources() -> None:
    explanation = (await ask("GET", "/v1/explain?assistant=quiet", cf_ipcountry="US")).text
    assert '"site":null' in explanation
    assert '"detail":"no credential"' in explanation
    for secret in ("inside.example", "NOT_SET_ANYWHERE"):
        assert secret not in explanation


async def test_every_451_links_to_the_configured_page() -> None:
    for method, path, body in (("POST", CHAT, HELLO), ("GET", "/v1/models", None), ("GET", "/v1/disclosure", None)):
        blocked = await ask(method, f"{path}?assistant=assistant", body=body, cf_ipcountry="CU")
        assert blocked.status_code == 451
        assert blocked.headers["link"] == '<https://assistant.example/where>; rel="blocked-by"'
    assert "link" not in (await ask("GET", "/v1/models/nothing")).headers


# --- the user of a request ------------------------------------------------------------------------


async def deployment_for(key: str, **options: Any) -> str:
    user = options.pop("user", None)
    answer = await ask("POST", CHAT, key, {**HELLO, **({"user": user} if user else {})}, **options)
    assert answer.status_code == 200
    return answer.headers["x-gateway-deployment"]


async def test_only_a_permitted_backend_may_name_the_user() -> None:
    by_user = {name: await deployment_for("app", user=name) for name in PEOPLE}
    assert set(by_user.values()) == {"a", "b"}
    for name, deployment in by_user.items():
        assert await deployment_for("backend", x_gateway_user=name) == deployment
    first, other = next((one, two) for one in by_user for two in by_user if by_user[one] != by_user[two])
    assert await deployment_for("backend", x_gateway_user=first, user=other) == by_user[first]
    for key in ("app", "shop"):
        assert await deployment_for(key, x_gateway_user=first, user=other) == by_user[other]


async def test_two_different_users_are_refused_and_a_repeated_one_is_accepted() -> None:
    twice = [("authorization", f"Bearer {KEYS['backend']}"), ("x-gateway-user", "anna"), ("x-gateway-user", "bert")]
    async with httpx.AsyncClient(transport=httpx.ASGITransport(APP), base_url="http://gateway") as client:
        refused = await client.post(CHAT, headers=[*twice, ("cf-ipcountry", "DE")], json=HELLO)
    assert (refused.status_code, error_of(refused)["code"]) == (400, "invalid_request")
    assert "`x-gateway-user`" in error_of(refused)["message"]


async def test_explain_notes_what_was_ignored_and_takes_what_was_not() -> None:
    ignored = (await ask("GET", "/v1/explain?assistant=assistant", x_gateway_user="anna")).json()
    assert ignored["user"] == {"signal": None, "note": "ignored: this key may not assert a user"}
    taken = (await ask("GET", "/v1/explain?assistant=assistant&user=bert", "backend", x_gateway_user="anna")).json()
    assert taken["user"] == {"signal": "assertion", "note": ""}
    plain = (await ask("GET", "/v1/explain?assistant=assistant&user=anna")).json()
    assert "user" not in plain
    assert taken["weighted"]["side"] == plain["weighted"]["side"]
    assert "anna" not in str(taken)
