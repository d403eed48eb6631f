"""Words of audio and a file name are searched for everywhere: in files, logs, traces, metrics, receipts and reports."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Sequence
from pathlib import Path

import httpx
import pytest

from gateway.signing import new_key
from providers.testkit.simulated_audio import spoken_file
from tests.kit.audio import silent_wav
from tests.kit.configs import Config, key_hash
from tests.kit.gateway_command import in_this_process
from tests.kit.gateway_process import APP_KEY, running_gateway
from tests.kit.recipients import Recipient, receiving
from tests.kit.waiting import eventually

HEARD, TAG, NAME, PROMPT, SPOKEN, VOICE = "Nightjar", "Bittern", "Corncrake", "Dunnock", "Whinchat", "af_wryneck"
SECRETS = (HEARD, TAG, NAME, PROMPT, SPOKEN)
USER = "user-of-the-app"


class Vendor(Recipient):
    """Fails at the first path, and else transcribes `HEARD`, or speaks. It takes traces too."""

    has_arrived = threading.Event()

    def do_POST(self) -> None:
        body = self.body()
        self.received.append((self.path, body))
        if self.path.startswith("/slow"):  # until the gateway leaves
            self.connection.settimeout(20)
            self.received.append(("left", self.connection.recv(1)))
            self.close_connection = True
            return
        if self.path.startswith("/cut"):  # after the half of its answer, when that has arrived
            audio = spoken_file("mp3", 1)
            self.wfile.write(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % len(audio) + audio[: len(audio) // 2])
            assert self.has_arrived.wait(20)
            self.close_connection = True
            return
        status, kind, answer = 200, "application/json", b""
        if self.path.startswith("/first"):
            status, answer = 503, json.dumps({"error": {"message": f"no room for {body!r}"}}).encode()
        elif self.path.endswith("/speech"):
            kind, answer = "audio/wav", spoken_file("wav", 1)
        elif not self.path.startswith("/traces"):
            words = [{"word": HEARD, "start": 0, "end": 1}]
            answer = json.dumps({"text": HEARD, "duration": 1.0, "segments": [], "words": words}).encode()
        self.answer(status, answer, kind)


def config(origin: str, steps: Sequence[str] = ("first", "second")) -> Config:
    anywhere = {"provider": "openai-compatible", "model": "m", "stores": "DE", "processes": "DE"}
    return Config({
        "version": 1,
        "cell": {"territory": "DE"},
        "regions": {"eu": {"territories": ["DE"], "boundary": ["DE"], "labels": ["eu-art50"]}},
        "assistants": {"assistant": {"transcription": {"eu": [*steps]}, "speech": {"eu": [*steps]}}},
        "deployments": {name: {**anywhere, "endpoint": f"{origin}/{name}/v1", "voices": {"anna": VOICE}}
                        for name in steps},
        "clients": {"app": {"keys": [key_hash(APP_KEY)], "region": "eu", "may_assert": ["user"],
                            "user_budget": {"tokens": 1_000_000, "per": "total"}}},
        "receipts": {"keep": "30d"},
        "exporters": {"traces": {"endpoint": f"{origin}/traces", "stores": "DE", "processes": "DE", "regions": ["eu"]}},
        "resilience": {"breaker": "off", "retry_budget": "off"},
    })  # fmt: skip


@pytest.mark.slow("asks a gateway in a process of its own")
def test_no_word_and_no_file_name_is_found_and_an_erasure_takes_the_user_out(tmp_path: Path) -> None:
    pem, _ = new_key()
    key, state = tmp_path / "receipts.pem", tmp_path / "state"
    key.write_bytes(pem)
    key.chmod(0o600)
    environ = {"GATEWAY_STATE_DIR": str(state), "GATEWAY_RECEIPT_KEY": str(key)}
    written: list[str] = []

    def run(*words: str) -> str:
        done = in_this_process(*words, "--state", str(state))
        assert done.returncode == 0, done.stderr
        return done.stdout

    with receiving(Vendor) as (origin, received), running_gateway(config(origin).write(tmp_path), environ) as gateway:
        headers = {"authorization": f"Bearer {APP_KEY}", "x-gateway-user": USER}
        with httpx.Client(base_url=gateway.url, headers=headers, trust_env=False, timeout=30) as client:
            form = {"model": "assistant", "prompt": PROMPT, "response_format": "verbose_json"}
            file = {"file": (f"{NAME}.wav", silent_wav() + TAG.encode())}
            heard = client.post("/v1/audio/transcriptions", data=form, files=file)
            streamed = client.post(
                "/v1/audio/transcriptions", data={**form, "response_format": "json", "stream": "true"}, files=file
            )
            asked = {"model": "assistant", "voice": "anna", "input": SPOKEN, "response_format": "wav"}
            spoken = client.post("/v1/audio/speech", json=asked)
            broken = client.post("/v1/audio/transcriptions", data=form, files={"file": (NAME, TAG.encode())})
            for answer, status in ((heard, 200), (streamed, 200), (spoken, 200), (broken, 400)):
                assert answer.status_code == status, answer.text
                request_id = answer.headers["x-request-id"]
                if status == 200:
                    eventually(lambda: client.get(f"/v1/receipts/{request_id}").status_code == 200)  # noqa: B023
                    written.append(client.get(f"/v1/receipts/{request_id}").text)
                written.append(str(answer.headers))
        assert HEARD in heard.text
        assert HEARD in streamed.text
        eventually(lambda: any(path.startswith("/traces") for path, _ in received))
        written.append(httpx.get(f"{gateway.admin_url}/metrics", trust_env=False).text)
        assert gateway.stop() == 0
        written += map(str, gateway.lines)
    assert '"use":"transcription"' in written[0].replace(" ", "")
    report = run("usage", "--json", "--by", "use")
    sums = {group["use"]: group for group in json.loads(report)["groups"]}
    assert {name: group["calls"] for name, group in sums.items()} == {"transcription": 6, "speech": 3}
    assert (sums["transcription"]["audio_seconds"], sums["speech"]["characters"]) == ("2.000", len(SPOKEN))
    rows = run("usage", "--json", "--rows")
    assert {json.loads(line)["user"] is None for line in rows.splitlines()} == {False}
    erased = json.loads(run("subject", "erase", "--user", USER, "--yes", "--json"))["erased"]
    assert erased["usage_rows"] == 9
    assert {json.loads(line)["user"] for line in run("usage", "--json", "--rows").splitlines()} == {None}
    stored = {str(path): path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    traces = [(path, body) for path, body in received if path.startswith("/traces")]
    texts = [("written", text.encode()) for text in (*written, report, rows)]
    for secret in SECRETS:
        assert not [name for name, content in (*stored.items(), *traces, *texts) if secret.encode() in content], secret
    assert all(NAME.encode() not in body for _, body in received)
    assert any(TAG.encode() in body for _, body in received)


@pytest.mark.slow("asks a gateway in a process of its own")
def test_broken_file_has_no_end_in_either_version_of_http(tmp_path: Path) -> None:
    body = json.dumps({"model": "assistant", "voice": "anna", "input": SPOKEN}).encode()
    with (
        receiving(Vendor) as (origin, _),
        running_gateway(
            config(origin, ["cut"]).write(tmp_path), {"GATEWAY_STATE_DIR": str(tmp_path / "state")}
        ) as gateway,
    ):
        host, port = gateway.url.removeprefix("http://").split(":")
        for version in ("1.1", "1.0"):
            head = f"POST /v1/audio/speech HTTP/{version}\r\nhost: x\r\nauthorization: Bearer {APP_KEY}\r\n"
            head += f"x-gateway-user: {USER}\r\nconnection: close\r\ncontent-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n"
            with socket.create_connection((host, int(port)), timeout=20) as client:
                client.sendall(head.encode() + body)
                read, is_reset = b"", False
                try:
                    while piece := client.recv(65_536):
                        read += piece
                        if read.partition(b"\r\n\r\n")[2]:
                            Vendor.has_arrived.set()
                except ConnectionResetError:
                    is_reset = True
                Vendor.has_arrived.clear()
            assert (is_reset, read.endswith(b"0\r\n\r\n")) == (version == "1.0", False)
            assert is_reset or read.startswith(b"HTTP/1.1 200 ")


@pytest.mark.slow("asks a gateway in a process of its own")
def test_client_that_leaves_ends_the_call_which_is_charged_in_full(tmp_path: Path) -> None:
    environ, state = {"GATEWAY_STATE_DIR": str(tmp_path / "state")}, tmp_path / "state"
    headers = {"authorization": f"Bearer {APP_KEY}", "x-gateway-user": USER}
    with (
        receiving(Vendor) as (origin, received),
        running_gateway(config(origin, ["slow"]).write(tmp_path), environ) as gateway,
        httpx.Client(base_url=gateway.url, headers=headers, trust_env=False, timeout=1) as client,
    ):
        for path, request in (
            ("/v1/audio/transcriptions", {"data": {"model": "assistant"}, "files": {"file": ("a.wav", silent_wav(2))}}),
            ("/v1/audio/speech", {"json": {"model": "assistant", "voice": "anna", "input": SPOKEN}}),
        ):
            count = len(received)
            with pytest.raises(httpx.ReadTimeout):
                client.post(path, **request)
            eventually(lambda: ("left", b"") in received[count:])  # noqa: B023

        def rows() -> list[dict[str, object]]:
            done = in_this_process("usage", "--json", "--rows", "--state", str(state))
            return [json.loads(line) for line in done.stdout.splitlines()]

        eventually(lambda: len(rows()) == 2)
        heard, spoken = rows()
    assert (heard["outcome"], heard["usage_source"], heard["audio_seconds"]) == ("disconnected", "estimated", "2.000")
    assert (spoken["outcome"], spoken["usage_source"], spoken["characters"]) == (
        "disconnected",
        "estimated",
        len(SPOKEN),
    )
