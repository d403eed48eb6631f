"""Test how DashScope's errors are classified: by code, then by status, never by text."""

import json

import pytest

from providers.adapter import Target
from providers.catalogue.models import UNKNOWN_MODEL
from providers.chat import Failed
from providers.failures import Failure, FailureKind
from providers.vendors.dashscope.adapter import ADAPTER
from providers.wire import WireResponse
from tests.kit.case_files import cases

K = FailureKind


def classify(body: object, status: int, headers: dict[str, str] | None = None) -> Failure:
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    return ADAPTER.classify_error(WireResponse(status, headers or {}, data, 0))


def native(code: str, message: str = "m") -> dict[str, str]:
    return {"code": code, "message": message, "request_id": "r-1"}


@cases("status", "code", "kind")
def test_codes_are_classified(status: int, code: str, kind: FailureKind) -> None:
    """Includes case 64: `insufficient_quota` is a rate limit here."""
    failure = classify(native(code, "the words don't matter: quota, url error, 500"), status)
    assert (failure.kind, failure.status, failure.code, failure.request_id) == (kind, status, code, "r-1")


def test_status_500_is_a_server_error_for_any_text() -> None:
    """With status 500, even the sentence for a prompt that is too long does not count."""
    message = "<400> InternalError.Algo.InvalidParameter: Range of input length should be [1, 98304]"
    for code in ("InternalError.Algo", "InternalError.Algo.InvalidParameter"):
        assert classify(native(code, message), 500).kind is K.UNAVAILABLE
        event = f"event:error\n:HTTP_STATUS/500\ndata:{json.dumps(native(code, message))}\n\n"
        assert parse(event.encode()).status == 500


def test_detail_of_a_refused_key_has_the_provider_text_and_mentions_other_sites() -> None:
    """Only the log has it. The key is not tried at another site, and the client does not see it."""
    failure = classify(native("InvalidApiKey", "Incorrect key sk-1234"), 401)
    assert "has its own keys" in failure.detail
    assert failure.detail.endswith(": Incorrect key sk-1234")
    assert "sk-1234" not in failure.message
    assert "site" not in failure.message


def test_wrong_path_is_a_model_failure_and_its_detail_names_the_catalogue() -> None:
    """Case 54: there is no retry, the log names the file to check, and it is not a client error."""
    failure = classify(native("InvalidParameter", "url error, please check url！"), 400)
    assert failure.kind is K.MODEL_NOT_FOUND
    assert failure.detail.endswith("url error, please check url！")


def test_detail_of_an_invalid_request_is_only_the_provider_text() -> None:
    """The client sees this text, so it must not mention the catalogue."""
    for message in ("top_p should be in (0, 1]", "the prompt says: url error, please check url！"):
        failure = classify(native("InvalidParameter", message), 400)
        assert (failure.kind, failure.detail) == (K.INVALID_REQUEST, message)


def test_error_of_the_compatible_api_is_classified() -> None:
    error = {"code": "invalid_parameter_error", "param": None, "message": "m", "type": "invalid_request_error"}
    failure = classify({"error": error, "id": "x", "request_id": "r-1"}, 400)
    assert (failure.kind, failure.detail, failure.request_id) == (K.INVALID_REQUEST, "m", "r-1")
    assert classify({"error": "gone"}, 404).detail == "gone"


@pytest.mark.parametrize("body", [b"", b"<html>", b'{"code": "Thr', [], "text", None, {"code": 7}, {"error": [1]}])
@pytest.mark.parametrize(("status", "kind"), [(400, K.INVALID_REQUEST), (429, K.RATE_LIMITED), (502, K.UNAVAILABLE)])
def test_status_decides_if_the_body_has_no_code(body: object, status: int, kind: FailureKind) -> None:
    assert classify(body, status).kind is kind


def parse(*pieces: bytes) -> Failure:
    parser = ADAPTER.stream_parser(Target("m", "", UNKNOWN_MODEL))
    failed = [event for piece in pieces for event in parser.feed(piece) if isinstance(event, Failed)]
    return failed[0].failure


@cases("comment", "kind", "status")
def test_status_in_a_stream_is_read_from_a_comment(comment: str, kind: FailureKind, status: int) -> None:
    data = f"event:error\n{comment}data:" + json.dumps(native("SomethingNew")) + "\n\n"
    failure = parse(data.encode())
    assert (failure.kind, failure.status) == (kind, status)


def test_error_event_is_recognised_by_its_name_or_code() -> None:
    assert parse(b'event: error\ndata: {"message":"m"}\n\n').detail == "m"
    assert parse(b'data:{"code":"Throttling"}\n\n').kind is K.RATE_LIMITED
    assert parse(b'data:{"error":{"code":"invalid_api_key"}}\n\n').kind is K.CREDENTIALS
