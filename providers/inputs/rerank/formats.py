"""The wire formats of scores: Cohere's and Jina's, which servers of one's own have too; DashScope's native one; TEI's.

Source: docs.cohere.com/reference/rerank (v2); jina.ai/reranker; docs.vllm.ai, "Re-rank API"; llama.cpp,
tools/server/README.md (`/rerank`); docs.siliconflow.cn, "create rerank"; alibabacloud.com/help/en/model-studio,
"text-rerank-api"; read 2026-11-27. huggingface/text-embeddings-inference, router/src/http/types.rs; read 2026-11-28.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping

from providers.adapter import Target
from providers.catalogue.models import ByModel
from providers.chat import Usage
from providers.failures import InvalidRequest
from providers.inputs.reading import JSON_HEADERS, counted, in_order
from providers.inputs.rerank.facts import RerankModel
from providers.inputs.rerank.values import MOST_DOCUMENTS, RerankAnswer, RerankRequest
from providers.json_values import JsonError, dumps, loads, read_map
from providers.openai_json.fields import boolean, describe, integer, items, mapping, text
from providers.reading.errors import error_object, malformed
from providers.value import Value
from providers.wire import WireRequest, WireResponse

_KNOWN = frozenset({"model", "query", "documents", "top_n", "return_documents", "max_tokens_per_doc"})
_MOST_TOKENS = 2**31 - 1
_COUNT = re.compile(r"[1-9][0-9]{0,14}")


class ShownRerank(Value, frozen=True):
    """How an answer is shown to its client: with the documents as the client wrote them, and at most `top_n` results.

    None stands for no documents, and for all results.
    """

    documents: tuple[object, ...] | None = None
    top_n: int | None = None


def decode_rerank_request(value: object) -> tuple[RerankRequest, ShownRerank]:
    """Read a client's request strictly, in the form of Cohere and Jina. Raises InvalidRequest."""
    body = mapping(value, "body")
    model, query = text(body, "model", "model"), text(body, "query", "query")
    if model is None:
        raise InvalidRequest("`model` is required: name an assistant", "model")
    if not query:
        raise InvalidRequest("`query` is required, and must not be empty", "query")
    given = items(body.get("documents"), "documents")
    if not given:
        raise InvalidRequest("`documents` must not be empty", "documents")
    if len(given) > MOST_DOCUMENTS:
        message = f"`documents` has {len(given)} entries; at most {MOST_DOCUMENTS} are accepted"
        raise InvalidRequest(message, "documents")
    texts = tuple(_text_of(entry, f"documents[{position}]") for position, entry in enumerate(given))
    top_n = integer(body, "top_n", "top_n", 1, _MOST_TOKENS)
    cut = integer(body, "max_tokens_per_doc", "max_tokens_per_doc", 1, _MOST_TOKENS)
    extra = {name: item for name, item in body.items() if name not in _KNOWN and item is not None}
    shown = None
    if boolean(body, "return_documents", "return_documents"):
        shown = tuple({"text": entry} if isinstance(entry, str) else entry for entry in given)
    request = RerankRequest(model, query, texts, max_tokens_per_doc=cut, extra=extra)
    return request, ShownRerank(shown, top_n)


def _text_of(entry: object, path: str) -> str:
    found = text(entry, "text", f"{path}.text") if isinstance(entry, dict) else entry
    if not isinstance(found, str):
        missing = "one without it" if isinstance(entry, dict) else describe(entry)
        raise InvalidRequest(f"`{path}` must be a string or an object with `text`, not {missing}", path)
    return found


def encode_rerank(answer: RerankAnswer, shown: ShownRerank, model: str, answer_id: str) -> bytes:
    """Return the body of an answer for a client: Cohere's members, and `usage` as Jina has it."""
    results: list[dict[str, object]] = []
    for index in answer.ranked(shown.top_n):
        result: dict[str, object] = {"index": index, "relevance_score": answer.scores[index]}
        if shown.documents is not None:
            result["document"] = shown.documents[index]
        results.append(result)
    meta: dict[str, object] = {"api_version": {"version": "2"}}
    body: dict[str, object] = {"id": answer_id, "model": model, "results": results, "meta": meta}
    if answer.search_units is not None:
        meta["billed_units"] = {"search_units": answer.search_units}
    if answer.usage is not None:
        tokens = answer.usage.prompt_tokens
        meta["tokens"] = {"input_tokens": tokens}
        body["usage"] = {"prompt_tokens": tokens, "total_tokens": tokens}
    return dumps(body)


class VendorRerankFormat(Value, frozen=True):
    """The format of a vendor, by its facts. See `RerankFormat`."""

    vendor: ByModel[RerankModel]

    def facts(self, model: str) -> RerankModel:
        return self.vendor.of(model)

    def build_request(self, request: RerankRequest, target: Target) -> WireRequest:
        """See `RerankFormat`. All scores are asked for: the caller joins and cuts them."""
        how, documents = self.vendor.of(target.model), list(request.documents)
        body: dict[str, object] = {"model": target.model}
        if how.form == "tei":
            body = {"query": request.query, "texts": documents, **request.extra}  # the server has one model
        elif how.form == "native":
            body |= {"input": {"query": request.query, "documents": documents}}
            body["parameters"] = {"return_documents": False, **request.extra}
        else:
            body |= {"query": request.query, "documents": documents, **request.extra}
            if request.max_tokens_per_doc is not None:
                body["max_tokens_per_doc"] = request.max_tokens_per_doc
        base = target.base_path.removesuffix(how.above) if how.above else target.base_path
        return WireRequest("POST", base + how.path, JSON_HEADERS, dumps(body))

    def parse_response(self, response: WireResponse, target: Target) -> RerankAnswer:
        """See `RerankFormat`. Results come in the order of their scores, or of the documents."""
        form = self.vendor.of(target.model).form
        if form == "tei":
            tokens = response.headers.get("x-compute-tokens", "")
            usage = Usage(prompt_tokens=int(tokens)) if _COUNT.fullmatch(tokens) else None
            try:
                return RerankAnswer(_scores(loads(response.body), "score"), usage)
            except JsonError:
                raise malformed("the answer is not JSON") from None
        body = error_object(response.body)
        source = read_map(body, "output") if form == "native" else body
        return RerankAnswer(_scores(source.get("results"), "relevance_score"), *_counts(body))


def _scores(value: object, name: str) -> tuple[float, ...]:
    scores: list[float] = []
    for entry in in_order(value, "results", "a result"):
        score = entry.get(name)
        if not isinstance(score, int | float) or isinstance(score, bool) or not abs(score) < math.inf:
            raise malformed("a result has no score that is a number")
        scores.append(float(score))
    return tuple(scores)


def _counts(body: Mapping[str, object]) -> tuple[Usage | None, int | None]:
    usage, meta = read_map(body, "usage"), read_map(body, "meta")
    billed, used = read_map(meta, "billed_units"), read_map(meta, "tokens")
    tokens = counted(usage, "prompt_tokens", "total_tokens") or counted(used, "input_tokens")
    return tokens or counted(billed, "input_tokens"), _units(billed.get("search_units"))


def _units(value: object) -> int | None:
    """Return a number of search units, which Cohere's schema has as a floating-point number."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < 2**53:
        return None
    return math.ceil(value)
