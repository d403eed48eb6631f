"""The list of assistants in the form of the API that asks."""

import httpx
import pytest

from gateway.api.dialects.model_lists import encode_list, encode_model, form_of
from gateway.api.errors import ApiError
from gateway.assembly.application import Gateway
from gateway.model.served import Use
from gateway.service.capabilities import Offer
from tests.kit.case_files import cases
from tests.kit.configs import BASE, Config, table_of

NAMES = ["a", "b", "c", "d"]


OFFERS = {name: Offer(frozenset({"chat"}), *((100_000, 8_000) if name == "a" else (None, 200))) for name in NAMES}
"""Only `a` has a known limit of prompts."""


def test_entry_has_the_known_limits_under_the_names_of_its_form() -> None:
    known = {"max_input_tokens": 100_000, "max_tokens": 8_000}
    assert encode_model("messages", "a", OFFERS["a"]).items() >= known.items()
    known = {"inputTokenLimit": 100_000, "outputTokenLimit": 8_000}
    assert encode_model("generate", "a", OFFERS["a"]).items() >= known.items()
    assert "max_input_tokens" not in encode_model("messages", "b", OFFERS["b"])
    entry = encode_model("chat", "a", OFFERS["a"])
    assert not {"max_tokens", "outputTokenLimit"} & entry.keys()
    assert (entry["context_length"], entry["max_output_tokens"]) == (100_000, 8_000)
    assert entry["top_provider"] == {"context_length": 100_000, "max_completion_tokens": 8_000}
    entry = encode_model("chat", "b", OFFERS["b"])
    assert "context_length" not in entry
    assert (entry["max_output_tokens"], entry["top_provider"]) == (200, {"max_completion_tokens": 200})
    entry = encode_model("chat", "c", Offer(frozenset()))
    assert not {"context_length", "max_output_tokens", "top_provider"} & entry.keys()


@cases("uses", "methods")
def test_gemini_entry_names_the_methods_that_work(uses: set[Use], methods: list[str]) -> None:
    assert encode_model("generate", "a", Offer(frozenset(uses)))["supportedGenerationMethods"] == methods


def test_entry_has_the_members_of_openrouter() -> None:
    features = frozenset({"vision", "tools", "json_schema"})
    parameters = frozenset({"temperature", "strict_tools", "x"})
    offer = Offer(frozenset({"chat", "rerank", "moderations"}), features=features, parameters=parameters)
    entry = encode_model("chat", "a", offer)
    assert entry["architecture"] == {"input_modalities": ["text", "image"], "output_modalities": ["text", "rerank"]}
    assert entry["supported_parameters"] == ["response_format", "structured_outputs", "temperature", "tools"]
    embeds = encode_model("chat", "a", Offer(frozenset({"embeddings"})))
    assert embeds["architecture"] == {"input_modalities": ["text"], "output_modalities": ["embeddings"]}
    voice = encode_model("chat", "a", Offer(frozenset({"chat", "transcription", "speech"}), features=features))
    assert voice["architecture"] == {
        "input_modalities": ["text", "image", "audio"],
        "output_modalities": ["text", "audio"],
    }


@pytest.mark.parametrize(
    ("path", "headers", "form"),
    [
        ("/v1/models", {}, "chat"),
        ("/v1/models", {b"anthropic-version": b"2023-06-01"}, "messages"),
        ("/v1/models", {b"x-goog-api-key": b"k"}, "generate"),
        ("/v1/models/a", {b"x-goog-api-key": b"k"}, "generate"),
        ("/v1beta/models", {}, "generate"),
        ("/v1beta/models", {b"anthropic-version": b"2023-06-01"}, "generate"),
    ],
)
def test_form_is_that_of_the_asking_api(path: str, headers: dict[bytes, bytes], form: str) -> None:
    assert form_of(path, headers) == form


@cases("query", "ids", "has_more")
def test_anthropics_list_has_pages(query: dict[str, str], ids: list[str], has_more: bool) -> None:
    page = encode_list("messages", OFFERS, query)
    assert page["data"] == [encode_model("messages", name, OFFERS[name]) for name in ids]
    assert page["has_more"] is has_more
    assert (page["first_id"], page["last_id"]) == ((ids[0], ids[-1]) if ids else (None, None))


def test_geminis_list_has_pages() -> None:
    first = encode_list("generate", OFFERS, {"pageSize": "3"})
    assert first["models"] == [encode_model("generate", name, OFFERS[name]) for name in NAMES[:3]]
    second = encode_list("generate", OFFERS, {"pageSize": "3", "pageToken": str(first["nextPageToken"])})
    assert second == {"models": [encode_model("generate", "d", OFFERS["d"])]}


@cases("form", "query")
def test_page_that_does_not_exist_is_refused(form: str, query: dict[str, str]) -> None:
    with pytest.raises(ApiError):
        encode_list(form, OFFERS, query)  # type: ignore[arg-type]


@pytest.fixture
async def client() -> httpx.AsyncClient:
    aliases = "assistants: {assistant: {aliases: [claude-assistant, claude-*]}}"
    gateway = Gateway(table_of(BASE.without("clients").merge("location: {unknown: us}", aliases)))
    transport = httpx.ASGITransport(gateway, client=("127.0.0.1", 1))
    return httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1")


async def test_lists_and_errors_have_one_form(client: httpx.AsyncClient) -> None:
    anthropic = {"anthropic-version": "2023-06-01"}
    listed = (await client.get("/v1/models?limit=1000", headers=anthropic)).json()
    assert [model["id"] for model in listed["data"]] == ["assistant", "claude-assistant"]
    assert (await client.get("/v1/models")).json()["object"] == "list"
    assert (await client.get("/v1beta/models")).json()["models"][0]["name"] == "models/assistant"
    one = await client.get("/v1/models/claude-sonnet-5", headers=anthropic)
    assert one.json()["id"] == "claude-sonnet-5"
    assert (await client.get("/v1/models/nothing", headers=anthropic)).json()["error"]["type"] == "not_found_error"
    assert (await client.get("/v1/models/nothing")).json()["error"]["code"] == "model_not_found"
    missing = await client.get("/v1beta/models/nothing")
    assert (missing.status_code, missing.json()["error"]["status"]) == (404, "NOT_FOUND")


async def test_head_of_the_root_is_answered_and_get_is_not(client: httpx.AsyncClient) -> None:
    head = await client.head("/")
    assert (head.status_code, head.content) == (200, b"")
    assert (await client.get("/")).status_code == 404


@pytest.mark.parametrize(
    ("method", "path", "status"), [("GET", "/v1/messages", 405), ("POST", "/v1/messages/batches", 404)]
)
async def test_errors_under_messages_have_anthropics_form(
    client: httpx.AsyncClient, method: str, path: str, status: int
) -> None:
    answer = await client.request(method, path, json={})
    assert answer.status_code == status
    assert answer.json()["type"] == "error"


TWO_STEPS = Config.parse("""
version: 1
assistants: {assistant: {routes: {default: [first, second]}}}
regions: {default: {territories: ["*"], boundary: ["*"]}}
deployments:
  first: {provider: openai, model: gpt-5.6, endpoint: "https://first.example/v1", stores: any, processes: any, api_key: k}
  # It may have ended, and keeps its limits.
  second: {provider: openai, endpoint: "https://second.example/v1", stores: any, processes: any, api_key: k, accept_ended: true}
location: {unknown: default}
""")


@pytest.mark.parametrize(("second", "limits"), [
    ("gpt-4o-mini", (128_000, 16_384)), ("gpt-5.6", (922_000, 128_000)), ("unknown-model", None),
])  # fmt: skip
async def test_limits_are_the_smallest_of_the_route_of_the_region(second: str, limits: tuple[int, int] | None) -> None:
    """A limit that one deployment does not state is left out: it may be any."""
    config = TWO_STEPS.merge({"deployments": {"second": {"model": second}}})
    transport = httpx.ASGITransport(Gateway(table_of(config, {})), client=("127.0.0.1", 1))
    async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1") as caller:
        entry = (await caller.get("/v1/models/assistant")).json()
        other = (await caller.get("/v1/models/assistant", headers={"anthropic-version": "2023-06-01"})).json()
    shown = (entry.get("context_length"), entry.get("max_output_tokens"))
    assert shown == (limits or (None, None))
    assert (other.get("max_input_tokens"), other.get("max_tokens")) == shown
    assert entry.get("top_provider") == (
        {"context_length": limits[0], "max_completion_tokens": limits[1]} if limits else None
    )
