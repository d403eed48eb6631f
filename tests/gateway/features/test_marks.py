"""Signed marks: what they prove, where answers have them, and who may check them."""

import asyncio
import base64
import json
from pathlib import Path
from typing import Any

import httpx
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st

from gateway.api import feature_paths
from gateway.assembly.application import Gateway
from gateway.changes.plan import plan_of
from gateway.changes.plan_checks import protected_changes
from gateway.execution.exchange import AnswerStyle
from gateway.features.marks.feature import MARK_PATHS
from gateway.features.marks.policy import (
    MarkRules,
    MarkSigner,
    SignedMark,
    check_mark,
    key_of_x,
    key_set,
    signer_of_pem,
)
from gateway.model.record import Record
from gateway.model.region_text import Label, Locale
from gateway.policy.labels import labelling_of
from gateway.policy.text_hash import TextHash
from providers import chat
from providers.auth import Secret
from providers.failures import Failure, FailureKind
from tests.kit.chat_exchange import WHOLE
from tests.kit.configs import BASE, KEYS, Config, table_of
from tests.kit.dialect_clients import DIALECT_CLIENTS, DialectClient
from tests.kit.doc_pages import ROOT, blocks_of
from tests.kit.gateway_command import in_this_process
from tests.kit.httpx_transport import HttpxTransport

VECTORS = json.loads((ROOT / "tests/fixtures/marks/vectors.json").read_text("utf-8"))
KEYS_PATH, CHECK_PATH = (one.path for one in MARK_PATHS)
ISSUER, PEM = VECTORS["issuer"], VECTORS["private_key"]
KEY = signer_of_pem(PEM).public
RULES = MarkRules(ISSUER, KEY.text, (), Secret(PEM))
SIGNER = MarkSigner(RULES, lambda: 1_798_761_600.9)
LABEL = Label("eu-art50", "You are talking to an AI system.", "first_turn", proof=SignedMark("eu-art50"))
ASK = chat.ChatRequest("assistant", (chat.UserMessage("Hi"),))
SPACES = "\t\n\v\f\r \x85\xa0\u1680\u2000\u2001\u2002\u2003\u2004\u2005\u2006\u2007\u2008\u2009\u200a\u2028\u2029\u202f\u205f\u3000"
TEXTS = st.text(st.characters(codec="utf-8") | st.sampled_from(f"{SPACES}\x1c\x1d\x1e\x1f\u200be\u0301👩🏽‍🚀"))


def mark_of(*pieces: str, choice: int = 0) -> str:
    hashed = TextHash(folds=True)
    for piece in pieces:
        hashed.add(piece)
    return SIGNER.mark(choice, hashed)


def result(mark: str, text: str) -> tuple[str, str | None]:
    found = check_mark(mark, text, ISSUER, [KEY])
    return found.signature, found.text


# --- what a mark proves -----------------------------------------------------------------------------


def test_keys_and_signatures_are_those_of_rfc_8037() -> None:
    known = VECTORS["rfc8037"]
    raw = base64.urlsafe_b64decode(known["d"] + "=")
    assert (
        base64.urlsafe_b64encode(Ed25519PrivateKey.from_private_bytes(raw).sign(known["signing_input"].encode()))[:-2]
        == known["signature"].encode()
    )
    assert (KEY.x, key_of_x(known["x"])) == (known["x"], KEY)
    assert key_set([KEY.text]) == VECTORS["keys"]


@pytest.mark.parametrize("case", VECTORS["cases"], ids=lambda case: case["name"])
def test_vector_proves_what_it_states(case: Any) -> None:
    assert result(case["mark"], case["text"]) == (case["signature"], case["same"])


def test_mark_is_the_one_of_the_vectors() -> None:
    case = VECTORS["cases"][0]
    assert mark_of(case["text"]) == case["mark"]
    assert check_mark(case["mark"], case["text"], ISSUER, [KEY]).document() == {
        "object": "mark.verification",
        "signature": "valid",
        "text": "same",
        "issuer": ISSUER,
        "issued_at": "2027-01-01T00:00:00Z",
    }


@given(st.lists(TEXTS, max_size=6), st.integers(0, 3))
def test_borders_of_pieces_change_nothing(pieces: list[str], choice: int) -> None:
    text = "".join(pieces)
    assert mark_of(*pieces, choice=choice) == mark_of(text, choice=choice)
    assert result(mark_of(*pieces, choice=choice), text) == ("valid", "same")


@given(st.lists(st.tuples(TEXTS, st.text(SPACES, max_size=2)), max_size=5))
def test_white_space_that_a_page_changes_is_folded(parts: list[tuple[str, str]]) -> None:
    before, after = "".join(text for text, _ in parts), "".join(text + space for text, space in parts)
    wanted = "same" if before == after else "same_folded"
    assert result(mark_of(before), after) == ("valid", wanted)


@given(TEXTS, TEXTS)
def test_another_text_is_different(one: str, other: str) -> None:
    def kept(text: str) -> str:
        return "".join(character for character in text if character not in SPACES)

    found = result(mark_of(one), other)
    assert (found[0], found[1] == "different") == ("valid", kept(one) != kept(other))


@given(st.integers(0, 400), st.sampled_from("AZ09_-.= {"))
def test_changed_mark_proves_nothing(at: int, character: str) -> None:
    mark = mark_of("Hello")
    changed = mark[: at % len(mark)] + character + mark[at % len(mark) + 1 :]
    found = check_mark(changed, "Hello", ISSUER, [KEY])
    assert changed == mark or (found.signature != "valid" and found.issuer is None and found.text is None)


def test_white_space_is_the_property_of_unicode() -> None:
    """`str.isspace` counts four control characters as space that are not of the property."""

    def folded(text: str) -> str:
        found = TextHash(folds=True)
        found.add(text)
        return found.folded

    nothing = folded("")
    assert {character for character in map(chr, range(0x3100)) if folded(character) == nothing} == {*SPACES}
    assert {it for it in map(chr, range(0x110000)) if it.isspace()} == {*SPACES, *"\x1c\x1d\x1e\x1f"}


def test_text_of_a_megabyte_has_a_mark() -> None:
    text = "Ein Wort, 一个词 👩🏽‍🚀 " * 40_000
    assert result(mark_of(*(text[at : at + 1000] for at in range(0, len(text), 1000))), text) == ("valid", "same")


def test_former_key_stays_valid_and_an_unknown_one_is_named() -> None:
    other = key_of_x("A" * 43)
    mark = mark_of("Hello")
    assert check_mark(mark, "Hello", ISSUER, [other, KEY]).is_proven
    assert check_mark(mark, "Hello", ISSUER, [other]).signature == "unknown_key"


# --- where answers have them ------------------------------------------------------------------------


def style(request: chat.ChatRequest = ASK, choices: int = 1) -> AnswerStyle:
    labelling = labelling_of(Locale("en", (LABEL,)), request, signer=SIGNER)
    return AnswerStyle(request.include_usage, choices, labelling)


def labels_in(data: bytes) -> list[list[dict[str, Any]]]:
    """Return the labels of each object of a body or a stream that has them, in order."""
    lines = data.decode().splitlines() if b"data: " in data else [data.decode()]
    objects = [json.loads(line.removeprefix("data: ")) for line in lines if line.startswith(("data: {", "{"))]
    own = [one.get("x_gateway") or one.get("message", {}).get("x_gateway") for one in objects]
    return [one["labels"] for one in own if one and "labels" in one]


def read(client: DialectClient, data: bytes, *, stream: bool) -> str:
    if not stream:
        return str(client.read_answer(data).choices[0].message.content)
    return "".join(event.text for event in client.read_stream(data) if isinstance(event, chat.TextDelta))


def encoded(client: DialectClient, request: chat.ChatRequest, *events: chat.StreamEvent) -> tuple[bytes, Record]:
    dialect, _ = client.decode(client.request(request))
    record = Record("req_1", 0.0, "t")
    encoder = dialect.encoder(style(request), record)
    return b"".join(encoder.encode((event,)) for event in events), record


@pytest.mark.parametrize("client", DIALECT_CLIENTS.values(), ids=str)
@pytest.mark.parametrize("reason", ["stop", "length", "content_filter"])
def test_whole_and_streamed_answers_have_the_mark_of_the_text_that_the_client_reads(
    client: DialectClient, reason: chat.FinishReason
) -> None:
    text, request = "e\u0301 👩🏽‍🚀 fertig.", chat.ChatRequest("assistant", (chat.UserMessage("Hi"),), stream=True)
    dialect, _ = client.decode(client.request(ASK))
    record = Record("req_1", 0.0, "t")
    answer = chat.ChatCompletion("id", "m", 7, (chat.Choice(chat.AssistantMessage(text), reason),), chat.Usage(1, 2))
    whole = dialect.encode_answer(answer, style(), record)
    streamed, of_stream = encoded(
        client,
        request,
        chat.Opened("id", "m", 7),
        chat.ReasoningDelta("Hm."),
        chat.TextDelta(text[:4]),
        chat.TextRun((text[4:].encode(),)),
        chat.ChoiceFinish(reason),
        chat.Finished(),
    )
    for data, stream, noted in ((whole, False, record), (streamed, True, of_stream)):
        *_, last = labels_in(data)
        (mark,) = last[0]["marks"]
        assert result(mark, read(client, data, stream=stream)) == ("valid", "same")
        assert result(mark, text) == ("valid", "different"), "the words of the label are not hashed"
        assert noted.shown.marked


@pytest.mark.parametrize("client", DIALECT_CLIENTS.values(), ids=str)
def test_answer_that_breaks_off_or_has_no_text_has_no_mark(client: DialectClient) -> None:
    request = chat.ChatRequest("assistant", (chat.UserMessage("Hi"),), stream=True)
    broken = chat.Failed(Failure(FailureKind.INTERRUPTED, "the provider broke off"))
    for events in (
        [chat.TextDelta("Hal"), broken],
        [chat.TextDelta(""), chat.RefusalDelta("No."), chat.ChoiceFinish("stop"), chat.Finished()],
    ):
        data, record = encoded(client, request, chat.Opened("id", "m", 7), *events)
        assert not record.shown.marked
        assert not any(label.get("marks") for labels in labels_in(data) for label in labels)


def test_each_choice_with_text_has_its_own_mark() -> None:
    texts = {0: "One.", 2: "Three."}
    events = [chat.Opened("id", "m", 7), *(chat.TextDelta(text, choice) for choice, text in texts.items())]
    client, record = DIALECT_CLIENTS["chat"], Record("req_1", 0.0, "t")
    dialect, _ = client.decode(client.request(ASK))
    encoder = dialect.encoder(style(choices=3), record)
    data = b"".join(
        encoder.encode((event,))
        for event in (*events, *map(chat.ChoiceFinish, ["stop"] * 3, range(3)), chat.Finished())
    )
    first, third = labels_in(data)[-1][0]["marks"]
    words = f"{LABEL.text}\n\n"
    assert [result(first, words + "One."), result(third, words + "Three.")] == [("valid", "same")] * 2
    assert result(first, words + "Three.") == ("valid", "different")


def test_structured_output_has_a_mark_of_its_text_without_words() -> None:
    asked = chat.ChatRequest("assistant", (chat.UserMessage("Hi"),), response_format=chat.JsonObjectFormat())
    client = DIALECT_CLIENTS["chat"]
    dialect, _ = client.decode(client.request(asked))
    answer = chat.ChatCompletion(
        "id", "m", 7, (chat.Choice(chat.AssistantMessage('{"a": 1}'), "stop"),), chat.Usage(1, 2)
    )
    ((label,),) = labels_in(dialect.encode_answer(answer, style(asked), Record("req_1", 0.0, "t")))
    assert (label["in_content"], result(label["marks"][0], '{"a": 1}')) == (False, ("valid", "same"))


# --- who may check them -----------------------------------------------------------------------------

MARKS = {"marks": {"issuer": ISSUER, "key": "${MARKS}"}}
SIGNED = BASE.merge(MARKS, {"regions": {"eu": {"labels": [{"name": "eu-art50", "mark": "signed"}]}}})
ENVIRON = {**KEYS, "MARKS": PEM}


async def _provider(_: httpx.Request) -> httpx.Response:
    return httpx.Response(200, json=WHOLE)


def client_of(config: Config, peer: str = "203.0.113.7") -> httpx.AsyncClient:
    app: Any = Gateway(table_of(config, ENVIRON), HttpxTransport(httpx.MockTransport(_provider)))
    transport = httpx.ASGITransport(app, client=(peer, 5))
    return httpx.AsyncClient(transport=transport, base_url="http://gateway")


@pytest.fixture
def anybody() -> httpx.AsyncClient:
    return client_of(SIGNED)


async def test_keys_are_published_without_a_key(anybody: httpx.AsyncClient) -> None:
    got = await anybody.get(KEYS_PATH)
    assert (got.status_code, got.json(), got.headers["cache-control"]) == (200, VECTORS["keys"], "max-age=3600")
    former = client_of(SIGNED.merge({"marks": {"former": ["ed25519:" + "A" * 43 + "="]}}))
    assert [key["x"] for key in (await former.get(KEYS_PATH)).json()["keys"]] == [KEY.x, "A" * 43]


async def test_paths_exist_only_with_marks_and_refuse_other_methods(anybody: httpx.AsyncClient) -> None:
    plain = client_of(BASE)
    for method, path in (("GET", KEYS_PATH), ("POST", CHECK_PATH), ("GET", CHECK_PATH), ("PUT", KEYS_PATH)):
        assert (await plain.request(method, path)).status_code == 404
    assert (await anybody.get(CHECK_PATH)).status_code == 405


async def test_gateway_without_clients_serves_its_own_machine_only() -> None:
    alone = SIGNED.without("clients")
    body = {"mark": mark_of("Hi"), "text": "Hi"}
    for path, method in ((KEYS_PATH, "GET"), (CHECK_PATH, "POST")):
        json_body = body if method == "POST" else None
        far = await client_of(alone).request(method, path, json=json_body)
        near = await client_of(alone, "127.0.0.1").request(method, path, json=json_body)
        assert (far.status_code, near.status_code) == (403, 200)


@pytest.mark.parametrize(
    ("content", "status"),
    [
        (b"", 400),
        (b"[]", 400),
        (b"{", 400),
        (b'{"mark": "a"}', 400),
        (b'{"mark": 1, "text": "a"}', 400),
        (b'{"mark": "a", "text": null}', 400),
        (b'{"mark": "a", "text": "a", "keys": []}', 400),
        (b'{"mark": "a", "text": "a", "text": "b"}', 400),
        (b'{"mark": "a", "text": "\\ud800"}', 400),
        (json.dumps({"mark": "a" * (64 * 1024 + 1), "text": ""}).encode(), 413),
        (json.dumps({"mark": "a", "text": "a" * 1024 * 1024}).encode(), 413),
        (json.dumps({"mark": "a" * 64 * 1024, "text": "a" * 900_000}).encode(), 200),
        (b'{"mark": "", "text": ""}', 200),
    ],
    ids=range(13),
)
async def test_body_that_is_no_mark_and_text_is_refused(
    anybody: httpx.AsyncClient, content: bytes, status: int
) -> None:
    got = await anybody.post(CHECK_PATH, content=content)
    assert got.status_code == status
    if status == 200:
        assert got.json() == {
            "object": "mark.verification",
            "signature": "invalid",
            "text": None,
            "issuer": None,
            "issued_at": None,
        }


async def test_an_address_may_check_sixty_marks_a_minute() -> None:
    gateway = client_of(SIGNED)
    body = {"mark": mark_of("Hi"), "text": "Hi"}
    answers = [await gateway.post(CHECK_PATH, json=body) for _ in range(60)]
    assert {one.json()["text"] for one in answers} == {"same"}
    refused = await gateway.post(CHECK_PATH, json=body)
    assert (refused.status_code, refused.json()["error"]["code"]) == (429, "rate_limited")
    assert 0 < int(refused.headers["retry-after"]) <= 60
    assert (await gateway.get(KEYS_PATH)).status_code == 200


async def test_so_many_marks_are_read_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    gateway, entered, released = client_of(SIGNED), asyncio.Semaphore(0), asyncio.Event()

    async def read(*_: object) -> dict[str, object]:
        entered.release()
        await released.wait()
        return {}

    monkeypatch.setattr(feature_paths, "_MOST_AT_ONCE", 3)
    monkeypatch.setattr(feature_paths, "read_object", read)
    waiting = [asyncio.create_task(gateway.post(CHECK_PATH)) for _ in range(3)]
    for _ in waiting:
        await entered.acquire()
    refused = await gateway.post(CHECK_PATH)
    released.set()
    assert (refused.status_code, refused.json()["error"]["code"]) == (503, "overloaded")
    assert {answer.status_code for answer in await asyncio.gather(*waiting)} == {400}


async def test_answer_of_a_region_has_a_mark_and_explain_states_it(capfd: pytest.CaptureFixture[str]) -> None:
    config = SIGNED.without("clients").merge({"location": {"unknown": "eu"}})
    near = client_of(config, "127.0.0.1")
    asked = {"model": "assistant", "messages": [{"role": "user", "content": "Hi"}]}
    got = (await near.post("/v1/chat/completions", json=asked)).json()
    (mark,) = got["x_gateway"]["labels"][0]["marks"]
    checked = await near.post(CHECK_PATH, json={"mark": mark, "text": got["choices"][0]["message"]["content"]})
    assert (checked.json()["signature"], checked.json()["text"]) == ("valid", "same")
    assert (await near.get("/v1/explain", params={"assistant": "assistant"})).json()["marked"] is True
    await asyncio.sleep(0)
    assert "talking" not in capfd.readouterr().out


# --- configuration, protection, commands, page -------------------------------------------------------


def test_protected_region_with_marks_needs_a_signature_for_them() -> None:
    protected = {"admin_keys": [KEY.text], "regions": {"eu": {"protected": True}, "us": {"protected": True}}}
    config = SIGNED.merge(protected)
    old = table_of(config, ENVIRON)
    new = table_of(config.merge({"marks": {"issuer": "https://other.example.com"}}), ENVIRON)
    assert protected_changes(old, new, plan_of(old, new)) == {"eu": "marks"}
    unsigned = table_of(config.merge({"regions": {"eu": {"labels": ["eu-art50"]}}}), ENVIRON)
    assert protected_changes(old, unsigned, plan_of(old, unsigned)) == {"eu": "speech"}


def test_key_may_be_in_several_lines_or_in_one() -> None:
    assert signer_of_pem(" ".join(PEM.split())).public == KEY
    assert PEM.split("\n")[1] not in repr(table_of(SIGNED, ENVIRON).parts)


@pytest.mark.parametrize(("mode", "warned"), [(0o600, False), (0o644, True)])
def test_check_warns_of_a_key_that_other_users_may_read(tmp_path: Path, mode: int, warned: bool) -> None:
    key = tmp_path / "marks.pem"
    key.write_text(PEM)
    key.chmod(mode)
    config = SIGNED.merge({"marks": {"key": f"${{file:{key}}}"}}).write(tmp_path)
    found = in_this_process("check", "--config", str(config), environ=ENVIRON)
    shown = " ".join((found.stdout + found.stderr).split())
    assert (f"{key} is readable by other users; run `chmod 600 {key}`" in shown) is warned
    assert found.returncode == 0


def test_command_checks_a_mark_without_a_gateway(tmp_path: Path) -> None:
    files = {"mark": mark_of("Hello, 你好") + "\n", "text": "Hello, 你好", "keys": json.dumps(VECTORS["keys"])}
    for name, content in files.items():
        (tmp_path / name).write_text(content, "utf-8")

    def checked(issuer: str = ISSUER, keys: str = "") -> tuple[int, str]:
        options = ["--keys", keys or str(tmp_path / "keys"), "--issuer", issuer]
        paths = ["--mark", str(tmp_path / "mark"), "--text", str(tmp_path / "text")]
        done = in_this_process("marks", "verify", *options, *paths)
        return done.returncode, done.stdout + done.stderr

    status, shown = checked()
    assert (status, json.loads(shown)["text"]) == (0, "same")
    assert checked("https://other.example.com")[0] == 1
    for url in ("http://keys.example.com/k", "ftp://keys.example.com/k", "http://127.0.0.1.example.com/k"):
        assert checked(keys=url) == (1, "gateway: --keys: the URL must be https, or http to this machine\n")
    for url in ("https://", "https://name:word@keys.example.com/k", "https://keys.example.com:x/k"):
        message = "--keys: the URL must have a host and no user name, such as https://assistant.example.com/"
        assert checked(keys=url) == (1, f"gateway: {message}.well-known/ai-marks.json\n")
    (tmp_path / "text").write_text("Hello,\n你好\n", "utf-8")
    assert checked()[0] == 0
    (tmp_path / "text").write_text("Hello, 你好!", "utf-8")
    assert checked()[0] == 1


def test_verifier_of_the_page_has_forty_lines_and_gives_the_same_results() -> None:
    (block,) = [one for one in blocks_of(ROOT / "docs/operate/marks.md") if one.title == "verify_mark.py"]
    assert len(block.text.splitlines()) <= 40
    names: dict[str, Any] = {"__name__": "verify_mark"}
    exec(compile(block.text, "verify_mark.py", "exec"), names)  # noqa: S102  # our own page
    for case in VECTORS["cases"]:
        found = names["check"](case["mark"], case["text"], ISSUER, VECTORS["keys"])
        assert found == (case["signature"], case["same"]), case["name"]


HASH = "a" * 64


@pytest.mark.parametrize(
    ("mark", "text", "sha256", "found"),
    [
        ("audio", None, HASH, (None, "same")),
        ("audio", None, "b" * 64, (None, "different")),
        ("audio", "Hello", None, (None, None)),
        ("text", None, HASH, (None, None)),
        ("text", "Hello", None, ("same", None)),
    ],
)
def test_mark_of_audio_proves_its_bytes_and_nothing_about_a_text(
    mark: str, text: str | None, sha256: str | None, found: tuple[str | None, str | None]
) -> None:
    signed = SIGNER.mark_audio("audio/mpeg", HASH) if mark == "audio" else mark_of("Hello")
    checked = RULES.check(signed, text, sha256)
    assert (checked["signature"], checked["text"], checked.get("content")) == ("valid", *found)
    assert ("content" in checked) == (mark == "audio" or sha256 is not None)


@pytest.mark.parametrize("payload", [{"media": "text/plain"}, {"sha256": "x"}, {"choice": 0}, {"ai_generated": False}])
def test_mark_of_audio_has_exactly_its_members(payload: dict[str, Any]) -> None:
    whole = {"iss": ISSUER, "iat": 1, "ai_generated": True, "media": "audio/wav", "sha256": HASH}
    signed = signer_of_pem(PEM).sign("ai-mark+jwt", {**whole, **payload})
    assert RULES.check(signed, None, HASH)["signature"] == "invalid"
    assert RULES.check(signer_of_pem(PEM).sign("ai-mark+jwt", whole), None, HASH)["content"] == "same"
