"""One simple request of each dialect, by name."""

from tests.kit.input_gateway import EMBEDDINGS, MODERATIONS

ASKED = {"role": "user", "content": "hello"}
CHATS = {
    "chat": ("/v1/chat/completions", {"model": "assistant", "messages": [ASKED]}),
    "completions": ("/v1/completions", {"model": "assistant", "prompt": "hello"}),
    "responses": ("/v1/responses", {"model": "assistant", "input": "hello"}),
    "messages": ("/v1/messages", {"model": "assistant", "max_tokens": 9, "messages": [ASKED]}),
    "gemini": ("/v1beta/models/assistant:generateContent", {"contents": [{"role": "user", "parts": [{"text": "a"}]}]}),
}
INPUTS = {
    "embeddings": (EMBEDDINGS, {"model": "assistant", "input": "hello"}),
    "moderations": (MODERATIONS, {"model": "assistant", "input": "hello"}),
}


def streamed(path: str, body: dict[str, object]) -> tuple[str, dict[str, object]]:
    """Return the request as one for a stream."""
    if "generateContent" in path:
        return path.replace("generateContent", "streamGenerateContent") + "?alt=sse", body
    return path, {**body, "stream": True}
