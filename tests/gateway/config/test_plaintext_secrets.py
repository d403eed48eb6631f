"""Find secrets that are written in the config itself."""

from gateway.config.sensitive_keys import secrets_in_clear
from gateway.config.yaml_document import parse_yaml
from tests.kit.case_files import cases


@cases("text", "found")
def test_each_plain_text_secret_is_found(text: str, found: list[str]) -> None:
    assert secrets_in_clear(parse_yaml(text.encode(), "test.yaml").values) == found
