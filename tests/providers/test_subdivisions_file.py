"""The script that writes `providers/subdivisions.toml`, and the file."""

from __future__ import annotations

import tomllib

from scripts.subdivisions import PATH, VERSION, subdivisions_text

_CONTAINMENT = {
    "supplemental": {
        "subdivisionContainment": {
            "GB": {"_contains": ["gbsct", "gbeng"]},
            "gbeng": {"_contains": ["gblnd"]},
            "NO": {"_contains": ["no23", "no50"]},
        }
    }
}
_ALIASES = {
    "supplemental": {
        "metadata": {
            "alias": {
                "subdivisionAlias": {
                    "no23": {"_reason": "deprecated", "_replacement": "no50"},
                    "gbsct": {"_reason": "overlong", "_replacement": "XS"},
                }
            }
        }
    }
}


def test_file_has_the_parts_of_each_level_without_replaced_codes() -> None:
    text = subdivisions_text("1.2.3", _CONTAINMENT, _ALIASES, "LICENCE\n\nof the data\n")
    assert tomllib.loads(text) == {
        "cldr": "1.2.3",
        "parts": {"GB": "ENG SCT", "NO": "50"},
        "parts_of_parts": {"GB-ENG": "LND"},
    }
    assert "# LICENCE\n#\n# of the data\n" in text


def test_file_of_the_project_is_from_the_version_of_the_script_and_has_its_licence() -> None:
    text = PATH.read_text("utf-8")
    assert tomllib.loads(text)["cldr"] == VERSION
    assert "UNICODE LICENSE V3" in text
    assert "SPDX-License-Identifier: Unicode-3.0" in text
