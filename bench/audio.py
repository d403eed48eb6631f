"""Measure audio: uploads next to those of nginx, the chats during them, and the delay of the first byte of speech.

    .venv/bin/python -m bench.audio

A provider in Python reads each form and answers with a short text, and another one answers chats. Each size is sent
eight at once. The gateway and nginx run one after the other, each with one worker and the body in memory.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from bench.processes import Cores, Process, free_port

SIZES_MB = (1, 8, 25)
AT_ONCE = 8
ROUNDS = 3
BOUNDARY = "-" * 24 + "k3Wz9TqLr7VhX2mNc8JpYd"  # as long as curl's
KEY = "gk-bench"
SPEECH = b"\xff\xfb\x90\xc4" + bytes(4096)
ANSWER = json.dumps({"text": "Hello.", "segments": [], "usage": {"type": "duration", "seconds": 1}})
CHAT = {
    "id": "a", "object": "chat.completion", "created": 1, "model": "m",
    "choices": [{"index": 0, "message": {"role": "assistant", "content": "hi"}, "finish_reason": "stop"}],
    "usage": {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2},
}  # fmt: skip
_NGINX = """daemon off; worker_processes 1; pid {folder}/nginx.pid; error_log {folder}/nginx.log;
events {{ worker_connections 1024; }}
http {{
  access_log off; client_max_body_size 64m; client_body_buffer_size 32m; client_body_temp_path {folder}/body;
  proxy_temp_path {folder}/proxy; fastcgi_temp_path {folder}/f; uwsgi_temp_path {folder}/u; scgi_temp_path {folder}/s;
  server {{ listen 127.0.0.1:{port}; location = /healthz {{ return 200; }}
    location / {{ proxy_pass http://127.0.0.1:{provider}; proxy_http_version 1.1; }}
    location /v1/chat/ {{ proxy_pass http://127.0.0.1:{chats}; proxy_http_version 1.1; }} }}
}}
"""
_CONFIG = """
version: 1
assistants: {{assistant: {{routes: {{all: [mouth]}}, transcription: {{all: [ears]}}, speech: {{all: [mouth]}}}}}}
regions: {{all: {{territories: ["*"], boundary: ["*"]}}}}
deployments:
  ears:
    provider: openai-compatible
    model: m
    endpoint: "http://127.0.0.1:{provider}/v1"
    stores: any
    processes: any
    audio_bytes: 32000000
  mouth: {{provider: openai-compatible, model: m, endpoint: "http://127.0.0.1:{chats}/v1", stores: any, processes: any}}
clients: {{app: {{keys: ["{key}"], region: all}}}}
"""


def form_of(size: int) -> bytes:
    """Return a form with a `wav` of this many bytes."""
    head = b"RIFF\0\0\0\0WAVEfmt " + bytes([16, 0, 0, 0, 1, 0, 1, 0, 0x80, 0x3E, 0, 0, 0, 0x7D, 0, 0, 2, 0, 16, 0])
    file = head + b"data\0\0\0\0" + bytes(range(256)) * (size // 256)
    part = f'--{BOUNDARY}\r\ncontent-disposition: form-data; name="{{}}"{{}}\r\n\r\n'
    return (
        part.format("model", "").encode() + b"assistant\r\n" + part.format("file", '; filename="a.wav"').encode()
        + file + f"\r\n--{BOUNDARY}--\r\n".encode()
    )  # fmt: skip


async def provide(port: int) -> None:
    """Answer every request, after its body."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while head := await reader.readuntil(b"\r\n\r\n"):
                left = next(int(one[15:]) for one in head.lower().split(b"\r\n") if one.startswith(b"content-length:"))
                while left:
                    left -= len(piece := await reader.read(min(left, 1 << 20)))
                    if not piece:
                        raise ConnectionError
                body = SPEECH if b"/speech" in head else (json.dumps(CHAT) if b"/chat/" in head else ANSWER).encode()
                kind = "audio/mpeg" if body is SPEECH else "application/json"
                answer = f"HTTP/1.1 200 OK\r\ncontent-type: {kind}\r\ncontent-length: {len(body)}\r\n\r\n"
                writer.write(answer.encode() + body)
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", port, limit=1 << 21)
    async with server:
        await server.serve_forever()


async def ask(port: int, path: str, media: str, body: bytes) -> float:
    """Send one request on a new connection, and return its seconds."""
    began = time.perf_counter()
    reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=1 << 21)
    head = f"POST {path} HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {KEY}\r\ncontent-type: {media}\r\n"
    writer.write(f"{head}content-length: {len(body)}\r\nconnection: close\r\n\r\n".encode())
    writer.write(body)
    await writer.drain()
    answer = await reader.read()
    writer.close()
    if b" 200 " not in answer[:20]:
        raise SystemExit(f"bench: {answer[:300]!r}")
    return time.perf_counter() - began


async def speech(port: int) -> float:
    """Return the median of the milliseconds until the first byte of speech."""
    body = json.dumps({"model": "assistant", "voice": "v", "input": "Hello."}).encode()
    times = []
    for _ in range(300):
        began = time.perf_counter()
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        head = f"POST /v1/audio/speech HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {KEY}\r\n"
        writer.write(f"{head}content-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n".encode() + body)
        while SPEECH[:4] not in await reader.read(1 << 16):
            pass
        times.append((time.perf_counter() - began) * 1000)
        writer.close()
    return sorted(times)[len(times) // 2]


async def uploads(port: int, body: bytes, rounds: int) -> None:
    """Send eight uploads at once, some times."""
    media = f"multipart/form-data; boundary={BOUNDARY}"
    for _ in range(rounds):
        await asyncio.gather(*(ask(port, "/v1/audio/transcriptions", media, body) for _ in range(AT_ONCE)))


async def chats(port: int, seconds: float) -> float:
    """Return the 99th percentile of chats that follow each other, in milliseconds."""
    body = json.dumps({"model": "assistant", "messages": [{"role": "user", "content": "hi"}]}).encode()
    times, until = [], time.perf_counter() + seconds
    while time.perf_counter() < until:
        times.append(await ask(port, "/v1/chat/completions", "application/json", body))
    return sorted(times)[len(times) * 99 // 100] * 1000


def chats_beside(port: int, size: int) -> float:
    """Return the same while another process, with less of a right to the core, sends eight uploads at once."""
    command = ["nice", "-n", "19", sys.executable, "-m", "bench.audio", "--upload", str(port), str(size)]
    process = subprocess.Popen(command)  # noqa: S603  # the command is the bench's own
    try:
        time.sleep(2)
        return asyncio.run(chats(port, 6))
    finally:
        process.kill()
        process.wait()


def cpu_of(process: Process) -> float:
    """Return the CPU seconds of a process and of its children so far."""
    ticks = 0
    for pid in process.pids:
        with suppress(OSError):
            fields = Path(f"/proc/{pid}/stat").read_text("utf-8").rpartition(")")[2].split()
            ticks += int(fields[11]) + int(fields[12])
    return ticks / os.sysconf("SC_CLK_TCK")


def peak_mb(process: Process) -> float:
    """Return the most memory that the largest of these processes had, in MB."""
    peaks = [0.0]
    for pid in process.pids:
        with suppress(OSError):
            lines = Path(f"/proc/{pid}/status").read_text("utf-8").splitlines()
            peaks += [int(line.split()[1]) / 1024 for line in lines if line.startswith("VmHWM:")]
    return max(peaks)


@contextmanager
def provider(cores: Cores) -> Iterator[int]:
    """Run the provider, and yield its port."""
    port = free_port()
    with Cores.on(cores.others):
        command = [sys.executable, "-m", "bench.audio", "--provide", str(port)]
        process = subprocess.Popen(command)  # noqa: S603  # the command is the bench's own
    try:
        yield port
    finally:
        process.kill()
        process.wait()


def main() -> None:
    """Print a table."""
    if sys.argv[1:2] == ["--provide"]:
        asyncio.run(provide(int(sys.argv[2])))
        return
    if sys.argv[1:2] == ["--upload"]:
        asyncio.run(uploads(int(sys.argv[2]), form_of(int(sys.argv[3])), 100_000))
        return
    cores = Cores.divided()
    with (
        tempfile.TemporaryDirectory() as folder,
        provider(cores) as port,
        provider(cores) as chats_port,
        Cores.on(cores.others),
    ):
        costs: dict[str, list[float]] = {}
        for name, process, own in subjects(Path(folder), port, chats_port, cores):
            with process:
                process.wait_until_healthy(own, "/healthz")
                asyncio.run(uploads(own, form_of(1 << 20), 1))
                costs[name] = []
                for size in SIZES_MB:
                    body, before, rounds = form_of(size << 20), cpu_of(process), ROUNDS * SIZES_MB[-1] // size
                    asyncio.run(uploads(own, body, rounds))
                    costs[name].append((cpu_of(process) - before) * 1000 / (size * AT_ONCE * rounds))
                print(f"{name}: " + ", ".join(f"{s} MB {c:.2f} ms" for s, c in zip(SIZES_MB, costs[name], strict=True))
                      + f" of CPU for a MB; at most {peak_mb(process):.0f} MB of memory")  # fmt: skip
                if name == "gateway":
                    later = asyncio.run(speech(own)) - asyncio.run(speech(chats_port))
                    print(f"gateway: first byte of speech {later:.1f} ms after the provider's (at most 5)")
                alone, size = asyncio.run(chats(own, 3)), SIZES_MB[-1]
                beside = chats_beside(own, size << 20)
                print(f"{name}: p99 of chats {alone:.1f} ms alone, {beside:.1f} ms during eight uploads of {size} MB")
        if "nginx" in costs:
            print(f"ratio: {max(a / b for a, b in zip(costs['gateway'], costs['nginx'], strict=True)):.1f} (at most 3)")


def subjects(folder: Path, port: int, chats_port: int, cores: Cores) -> Iterator[tuple[str, Process, int]]:
    """Yield each program with its process and its port."""
    own, config = free_port(), folder / "gateway.yaml"
    key = f"sha256:{hashlib.sha256(KEY.encode()).hexdigest()}"
    config.write_text(_CONFIG.format(provider=port, chats=chats_port, key=key), "utf-8")
    command = [
        sys.executable,
        "-m",
        "gateway",
        "serve",
        "--config",
        str(config),
        "--port",
        str(own),
        "--workers",
        "1",
        "--admin-port",
        str(free_port()),
    ]
    yield "gateway", Process(command, cores.subject, folder / "gateway.out"), own
    binary = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin:/usr/local/sbin")
    if binary is not None:
        own, nginx = free_port(), folder / "nginx.conf"
        nginx.write_text(_NGINX.format(folder=folder, port=own, provider=port, chats=chats_port), "utf-8")
        command = [binary, "-p", str(folder), "-e", str(folder / "nginx.log"), "-c", str(nginx)]
        yield "nginx", Process(command, cores.subject, folder / "nginx.out"), own


if __name__ == "__main__":
    main()
