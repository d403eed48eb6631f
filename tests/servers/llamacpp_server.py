"""llama.cpp's real server with a model of half a megabyte, whose weights are random and whose answers are ASCII.

Run as a module with the path of a model, this file is the server: it prints its address and serves until it is killed.
"""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

__all__ = ["CONTEXT_TOKENS", "running_llamacpp"]

CONTEXT_TOKENS = 1024
_WIDTH, _FEED_FORWARD, _LAYERS = 64, 128, 2
_ASCII = range(0x20, 0x7F)
_TEMPLATE = """\
{% for m in messages %}{% if m.role == 'system' and not loop.first %}\
{{ raise_exception('System message must be at the beginning.') }}{% endif %}\
<|im_start|>{{ m.role }}
{{ m.content }}<|im_end|>
{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant
{% endif %}"""
"""Like those of Qwen, Mistral and Gemma, it refuses a system message that is not the first message."""


@contextmanager
def running_llamacpp(folder: Path) -> Iterator[str]:
    """Start the server and yield its URL. Skips the test if llama.cpp is not installed."""
    for name in ("xllamacpp", "gguf"):
        pytest.importorskip(name, reason="llama.cpp is not installed: make install-sdks")
    path = folder / "tiny.gguf"
    _write_model(path)
    command = [sys.executable, "-m", "tests.servers.llamacpp_server", str(path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
        assert process.stdout is not None
        try:
            yield process.stdout.readline().strip()
        finally:
            process.kill()


def _write_model(path: Path) -> None:
    import gguf
    import numpy

    control, byte = gguf.TokenType.CONTROL, gguf.TokenType.BYTE
    tokens = ["<unk>", "<s>", *(f"<0x{code:02X}>" for code in range(256)), "<|im_start|>", "<|im_end|>"]
    end = len(tokens) - 1
    file = gguf.GGUFWriter(path, "llama")
    file.add_context_length(4 * CONTEXT_TOKENS)
    file.add_embedding_length(_WIDTH)
    file.add_block_count(_LAYERS)
    file.add_feed_forward_length(_FEED_FORWARD)
    file.add_head_count(4)
    file.add_layer_norm_rms_eps(1e-5)
    file.add_tokenizer_model("llama")
    file.add_token_list(tokens)
    file.add_token_scores([0.0] * len(tokens))
    file.add_token_types([gguf.TokenType.UNKNOWN, control, *[byte] * 256, control, control])
    file.add_bos_token_id(1)
    file.add_eos_token_id(end)
    file.add_add_bos_token(False)
    file.add_add_space_prefix(False)
    file.add_chat_template(_TEMPLATE)
    random = numpy.random.default_rng(1)

    def weights(rows: int, columns: int) -> numpy.ndarray:
        return (random.standard_normal((rows, columns)) * 0.4).astype(numpy.float32)

    output = weights(len(tokens), _WIDTH)
    silent = set(range(len(tokens))) - {2 + code for code in _ASCII} - {end}
    output[sorted(silent)] = 0
    square, wide = (_WIDTH, _WIDTH), (_FEED_FORWARD, _WIDTH)
    shapes = {"attn_q": square, "attn_k": square, "attn_v": square, "attn_output": square}
    shapes |= {"ffn_gate": wide, "ffn_up": wide, "ffn_down": wide[::-1]}
    one = numpy.ones(_WIDTH, numpy.float32)
    file.add_tensor("token_embd.weight", weights(len(tokens), _WIDTH))
    file.add_tensor("output_norm.weight", one)
    file.add_tensor("output.weight", output)
    for layer in range(_LAYERS):
        file.add_tensor(f"blk.{layer}.attn_norm.weight", one)
        file.add_tensor(f"blk.{layer}.ffn_norm.weight", one)
        for name, shape in shapes.items():
            file.add_tensor(f"blk.{layer}.{name}.weight", weights(*shape))
    file.write_header_to_file()
    file.write_kv_data_to_file()
    file.write_tensors_to_file()
    file.close()


def _serve(path: str) -> None:
    import xllamacpp

    parameters = xllamacpp.CommonParams()
    parameters.model.path = path
    parameters.port = 0
    parameters.n_ctx = CONTEXT_TOKENS
    parameters.n_parallel = 1
    parameters.cpuparams.n_threads = 1
    parameters.warmup = False
    server = xllamacpp.Server(parameters)
    print(server.listening_address, flush=True)
    threading.Event().wait()


if __name__ == "__main__":
    _serve(sys.argv[1])
