"""The version has its new and its former names until 0.3."""

from __future__ import annotations

from gateway.model.version_names import version_fields, version_headers


def test_the_version_is_shown_under_its_name_and_until_0_3_under_the_former_one() -> None:
    assert version_headers("abc") == {"x-gateway-config": "abc", "x-gateway-table": "abc"}
    assert version_fields("abc") == {"config_version": "abc", "table": "abc"}
