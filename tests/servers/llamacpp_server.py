"""llama.cpp's real server with a model of half a megabyte. Its weights are random, or made so that it recites.

Answers of random weights are ASCII. A model that recites has texts: the chat template ends a prompt with the token of the
text whose number is that of the results of tools so far, and the weights let each token follow one other. So llama.cpp's
own template and parser make real tool calls of a text. A model that reranks is a BERT with random weights.

Run as a module with the path of a model, this file is the server: it prints its address and serves until it is killed.
"""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

__all__ = ["CONTEXT_TOKENS", "TEMPLATE", "running_llamacpp"]

CONTEXT_TOKENS = 1024
_WIDTH, _FEED_FORWARD, _LAYERS = 64, 128, 2
_ASCII = range(0x20, 0x7F)
TEMPLATE = """\
{% for m in messages %}{% if m.role == 'system' and not loop.first %}\
{{ raise_exception('System message must be at the beginning.') }}{% endif %}\
<|im_start|>{{ m.role }}
{{ m.content }}<|im_end|>
{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant
{% endif %}"""
"""Like those of Qwen, Mistral and Gemma, it refuses a system message that is not the first message."""


_TEMPLATE_OF_TOOLS = """\
{% if tools %}<|im_start|>system
{% if messages[0].role == 'system' %}{{ messages[0].content }}

{% endif %}You are provided with function signatures within <tools></tools> XML tags:
<tools>{% for tool in tools %}
{{ tool | tojson }}{% endfor %}
</tools>
For each function call, return a json object within <tool_call></tool_call> XML tags:
<tool_call>
{"name": <function-name>, "arguments": <args-json-object>}
</tool_call><|im_end|>
{% endif %}{% set all = namespace(results=0) %}{% for m in messages %}{% if m.role == 'tool' %}\
{% set all.results = all.results + 1 %}<|im_start|>user
<tool_response>
{{ m.content }}
</tool_response><|im_end|>
{% elif m.role != 'system' or not tools %}<|im_start|>{{ m.role }}
{{ m.content or '' }}{% for call in m.tool_calls or [] %}
<tool_call>
{"name": "{{ call.function.name }}", "arguments": {{ call.function.arguments | tojson }}}
</tool_call>{% endfor %}<|im_end|>
{% endif %}{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant
{{ '<|text' ~ all.results ~ '|>' }}{% endif %}"""
"""That of Qwen and Hermes, shortened."""


@contextmanager
def running_llamacpp(folder: Path, texts: Sequence[str] = (), *, reranks: bool = False) -> Iterator[str]:
    """Start the server and yield its URL. Skips the test if llama.cpp is not installed.

    Args:
        folder: Gets the model.
        texts: The model recites the one whose number is that of the results of tools in the conversation.
        reranks: The server scores documents, as with `--reranking`, and does nothing else.
    """
    for name in ("xllamacpp", "gguf"):
        pytest.importorskip(name, reason="llama.cpp is not installed: make install-sdks")
    path = folder / "tiny.gguf"
    if reranks:
        _write_reranker(path)
    else:
        _write_model(path, texts)
    command = [sys.executable, "-m", "tests.servers.llamacpp_server", str(path), *["rerank"] * reranks]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
        assert process.stdout is not None
        try:
            yield process.stdout.readline().strip()
        finally:
            process.kill()


def _write_model(path: Path, texts: Sequence[str]) -> None:
    import gguf
    import numpy

    control, byte = gguf.TokenType.CONTROL, gguf.TokenType.BYTE
    tokens = ["<unk>", "<s>", *(f"<0x{code:02X}>" for code in range(256)), "<|im_start|>", "<|im_end|>"]
    types = [gguf.TokenType.UNKNOWN, control, *[byte] * 256, control, control]
    end = len(tokens) - 1
    follows = _add_texts(texts, tokens, types, end)
    width = 4 * _WIDTH if texts else _WIDTH
    file = gguf.GGUFWriter(path, "llama")
    file.add_context_length(4 * CONTEXT_TOKENS)
    file.add_embedding_length(width)
    file.add_block_count(_LAYERS)
    file.add_feed_forward_length(_FEED_FORWARD)
    file.add_head_count(4)
    file.add_layer_norm_rms_eps(1e-5)
    file.add_tokenizer_model("llama")
    file.add_token_list(tokens)
    file.add_token_scores([0.0] * len(tokens))
    file.add_token_types(types)
    file.add_bos_token_id(1)
    file.add_eos_token_id(end)
    file.add_add_bos_token(False)
    file.add_add_space_prefix(False)
    file.add_chat_template(_TEMPLATE_OF_TOOLS if texts else TEMPLATE)
    random = numpy.random.default_rng(1)

    def weights(rows: int, columns: int) -> Any:
        return (random.standard_normal((rows, columns)) * (0 if texts else 0.4)).astype(numpy.float32)

    embeddings, output = weights(len(tokens), width), weights(len(tokens), width)
    if texts:
        # Tokens with the same follower have the same embedding, and all others are almost at right angles.
        embeddings = random.standard_normal(embeddings.shape).astype(numpy.float32)
        leaders: dict[int, int] = {}
        for token, follower in follows.items():
            embeddings[token] = embeddings[leaders.setdefault(follower, token)]
            output[follower] = embeddings[token]
    else:
        silent = set(range(len(tokens))) - {2 + code for code in _ASCII} - {end}
        output[sorted(silent)] = 0
    square, wide = (width, width), (_FEED_FORWARD, width)
    shapes = {"attn_q": square, "attn_k": square, "attn_v": square, "attn_output": square}
    shapes |= {"ffn_gate": wide, "ffn_up": wide, "ffn_down": wide[::-1]}
    one = numpy.ones(width, numpy.float32)
    file.add_tensor("token_embd.weight", embeddings)
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


def _write_reranker(path: Path) -> None:
    """Write a BERT whose tokens are characters, with a head for one score."""
    import gguf
    import numpy

    control, normal = gguf.TokenType.CONTROL, gguf.TokenType.NORMAL
    characters = "abcdefghijklmnopqrstuvwxyz0123456789"
    tokens = ["[PAD]", "[CLS]", "[SEP]", "[UNK]", *(f"\u2581{one}" for one in characters), *characters]
    file = gguf.GGUFWriter(path, "bert")
    file.add_context_length(CONTEXT_TOKENS)
    file.add_embedding_length(_WIDTH)
    file.add_block_count(1)
    file.add_feed_forward_length(_FEED_FORWARD)
    file.add_head_count(4)
    file.add_layer_norm_eps(1e-5)
    file.add_causal_attention(False)
    file.add_pooling_type(gguf.PoolingType.RANK)
    file.add_tokenizer_model("bert")
    file.add_token_list(tokens)
    file.add_token_scores([0.0] * len(tokens))
    file.add_token_types([control] * 4 + [normal] * (len(tokens) - 4))
    file.add_token_type_count(2)
    for place, name in enumerate(("pad", "bos", "eos", "unk")):
        getattr(file, f"add_{name}_token_id")(place)
    file.add_sep_token_id(2)
    random = numpy.random.default_rng(1)

    def add(name: str, rows: int, columns: int, *, has_bias: bool = True) -> None:
        weights = random.standard_normal((rows, columns)) * 0.4
        file.add_tensor(f"{name}.weight", weights.astype(numpy.float32))
        if has_bias:
            file.add_tensor(f"{name}.bias", numpy.zeros(rows, numpy.float32))

    add("token_embd", len(tokens), _WIDTH, has_bias=False)
    add("token_types", 2, _WIDTH, has_bias=False)
    add("position_embd", CONTEXT_TOKENS, _WIDTH, has_bias=False)
    for name in ("attn_q", "attn_k", "attn_v", "attn_output"):
        add(f"blk.0.{name}", _WIDTH, _WIDTH)
    add("blk.0.ffn_up", _FEED_FORWARD, _WIDTH)
    add("blk.0.ffn_down", _WIDTH, _FEED_FORWARD)
    add("cls", _WIDTH, _WIDTH)
    add("cls.output", 1, _WIDTH)
    for name in ("token_embd_norm", "blk.0.attn_output_norm", "blk.0.layer_output_norm"):
        file.add_tensor(f"{name}.weight", numpy.ones(_WIDTH, numpy.float32))
        file.add_tensor(f"{name}.bias", numpy.zeros(_WIDTH, numpy.float32))
    file.write_header_to_file()
    file.write_kv_data_to_file()
    file.write_tensors_to_file()
    file.close()


def _add_texts(texts: Sequence[str], tokens: list[str], types: list[Any], end: int) -> dict[int, int]:
    """Add a token for the begin of each text, and its pieces, and return the follower of each.

    No piece occurs twice, because it has one follower.
    """
    import gguf

    follows = {}
    known = {"<tool_call>", "<tool_call>\n"}  # llama.cpp refuses one token for these
    for number, text in enumerate(texts):
        pieces = [f"<|text{number}|>"]
        start = 0
        for stop in range(1, len(text) + 1):
            piece = text[start:stop]
            if len(piece) > 1 and piece not in known:
                known.add(piece)
                pieces.append(piece)
                start = stop
        while start < len(text):
            start -= len(pieces.pop())
            if text[start:] not in known:
                pieces.append(text[start:])
                known.add(pieces[-1])
                break
        places = [*range(len(tokens), len(tokens) + len(pieces)), end]
        follows.update(pairwise(places))
        tokens += pieces
        types += [gguf.TokenType.CONTROL, *[gguf.TokenType.USER_DEFINED] * (len(pieces) - 1)]
    return follows


def _serve(path: str, reranks: bool) -> None:
    import xllamacpp

    parameters = xllamacpp.CommonParams()
    parameters.model.path = path
    parameters.port = 0
    parameters.n_ctx = CONTEXT_TOKENS
    parameters.n_parallel = 1
    parameters.cpuparams.n_threads = 1
    parameters.warmup = False
    if reranks:
        parameters.embedding = True
        parameters.pooling_type = xllamacpp.llama_pooling_type.LLAMA_POOLING_TYPE_RANK
    server = xllamacpp.Server(parameters)
    print(server.listening_address, flush=True)
    threading.Event().wait()


if __name__ == "__main__":
    _serve(sys.argv[1], "rerank" in sys.argv[2:])
