"""Scores of a simulated model, and the vendors' formats of rerank as a server reads and writes them."""

from __future__ import annotations

from collections.abc import Callable

from providers.chat import Usage
from providers.inputs.rerank.facts import load_rerank_facts
from providers.inputs.rerank.values import RerankAnswer, RerankRequest
from providers.json_values import JsonError, as_list, as_map, dumps, loads, read_map
from providers.testkit.simulator import IncomingRequest
from providers.wire import WireResponse

_DOCUMENTS = {"tei": "texts"}
_JSON = {"content-type": "application/json"}


def score(request: RerankRequest) -> RerankAnswer:
    """Return the share of the query's words that each document has. Equal documents have equal scores."""
    words = set(request.query.lower().split()) or {""}
    scores = tuple(len(words & set(text.lower().split())) / len(words) for text in request.documents)
    tokens = sum(max(1, len(text.split())) for text in (request.query, *request.documents))
    return RerankAnswer(scores, Usage(prompt_tokens=tokens))


def read_sent_rerank(
    provider: str,
    incoming: IncomingRequest,
    check_head: Callable[[IncomingRequest], object],
    refused: Callable[[str], Exception],
) -> RerankRequest | None:
    """Return a request for scores as this vendor reads it, or None at another path.

    `check_head` raises the vendor's error if method, key or content type are wrong, and `refused` returns its error
    about a body.
    """
    vendor = load_rerank_facts(provider)
    if vendor is None or not incoming.path.endswith(tuple(one.path for one in (vendor.usual, *vendor.models.values()))):
        return None
    try:
        body = as_map(loads(incoming.body))
    except JsonError:
        body = {}
    how = vendor.of(str(body.get("model")))
    if not incoming.path.endswith(how.path):
        return None
    check_head(incoming)
    source = read_map(body, "input") if how.form == "native" else body
    documents = [one for one in as_list(source.get(_DOCUMENTS.get(how.form, "documents"))) if isinstance(one, str)]
    query = source.get("query")
    if not isinstance(query, str) or not documents:
        raise refused("query and documents are required")
    if len(documents) > how.most_documents:
        raise refused(f"too many documents: at most {how.most_documents}")
    cut = body.get("max_tokens_per_doc")
    if cut is not None and not how.cuts_documents:
        raise refused("unknown parameter: max_tokens_per_doc")
    most = cut if isinstance(cut, int) else None
    return RerankRequest(str(body.get("model")), query, tuple(documents), max_tokens_per_doc=most)


def write_sent_rerank(provider: str, answer: RerankAnswer, incoming: IncomingRequest) -> WireResponse:
    """Return scores as the vendor sends them, with the best first."""
    vendor = load_rerank_facts(provider)
    model = str(as_map(loads(incoming.body)).get("model"))
    results = [{"index": index, "relevance_score": answer.scores[index]} for index in answer.ranked(None)]
    tokens = answer.usage.prompt_tokens if answer.usage is not None else 0
    if vendor is not None and vendor.of(model).form == "native":
        native = {"output": {"results": results}, "usage": {"total_tokens": tokens}, "request_id": "simulated"}
        return WireResponse(200, _JSON, dumps(native), 0)
    if vendor is not None and vendor.of(model).form == "tei":
        ranks = [{"index": index, "score": answer.scores[index]} for index in answer.ranked(None)]
        return WireResponse(200, {**_JSON, "x-compute-tokens": str(tokens)}, dumps(ranks), 0)
    body: dict[str, object] = {"id": "simulated", "results": results}
    if provider == "cohere":
        body["meta"] = {"api_version": {"version": "2"}, "billed_units": {"search_units": -(-len(results) // 100)}}
    elif provider == "siliconflow":
        body["meta"] = {"tokens": {"input_tokens": tokens, "output_tokens": 0}}
    else:
        body |= {"model": model, "usage": {"prompt_tokens": tokens, "total_tokens": tokens}}
    return WireResponse(200, _JSON, dumps(body), 0)
