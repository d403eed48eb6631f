"""Audio files and forms for tests."""

import struct
from collections.abc import Callable, Sequence
from typing import Any

import httpx

from providers.testkit.simulated_audio import wav_of
from providers.testkit.simulator import IncomingRequest, load_simulators

Part = tuple[str, bytes, str | None]
"""The name of a part of a form, its content, and its file name or None for a text."""
BOUNDARY = "a-boundary"


def silent_wav(seconds: float = 1.0, rate: int = 16_000) -> bytes:
    """Return silence: 16 bit, mono."""
    return wav_of(bytes(2 * round(seconds * rate)), rate)


def claiming_wav(claimed: int, seconds: float = 1.0) -> bytes:
    """Return silence whose header claims another number of bytes."""
    wav = bytearray(silent_wav(seconds))
    wav[40:44] = struct.pack("<I", claimed & 0xFFFFFFFF)
    return bytes(wav)


def form_of(parts: Sequence[Part], boundary: str = BOUNDARY) -> bytes:
    """Return a form with these parts, as curl writes it."""
    written = b""
    for name, content, filename in parts:
        file = f'; filename="{filename}"\r\ncontent-type: application/octet-stream' if filename is not None else ""
        written += f'--{boundary}\r\nContent-Disposition: form-data; name="{name}"{file}\r\n\r\n'.encode()
        written += content + b"\r\n"
    return written + f"--{boundary}--\r\n".encode()


def transcription_form(file: bytes | None = None, **fields: str) -> bytes:
    """Return the form of a request for a transcription, with the file first."""
    texts: list[Part] = [(name, value.encode(), None) for name, value in {"model": "assistant", **fields}.items()]
    return form_of([("file", silent_wav() if file is None else file, "secret name.wav"), *texts])


def simulated_audio(provider: str) -> Callable[[httpx.Request], httpx.Response]:
    """Return the simulator of a vendor with transcription or speech, as a provider."""
    simulator: Any = load_simulators().simulators[provider]

    def answer(request: httpx.Request) -> httpx.Response:
        headers = {name.lower(): value for name, value in request.headers.items()}
        found = simulator.answer_audio(IncomingRequest("POST", request.url.path, "", headers, request.content))
        assert found is not None, f"the simulator does not know {request.url.path}"
        return httpx.Response(found.status, headers=dict(found.headers), content=found.body)

    return answer
