"""Write the codes of ISO 3166-2 into `providers/subdivisions.toml`: `python -m scripts.subdivisions`. Needs npm.

The codes are the data of Unicode CLDR (`subdivisionContainment`), from the npm package `cldr-core`. To update them,
raise `VERSION`, run the script and review the difference.
"""

from __future__ import annotations

import json
import subprocess
import tarfile
import tempfile
from pathlib import Path
from typing import Any

VERSION = "48.2.0"
PATH = Path(__file__).parents[1] / "providers/subdivisions.toml"
_HEAD = """\
# The parts of countries in ISO 3166-2, at every level, without those that CLDR marks as replaced.
# Written by `python -m scripts.subdivisions`; do not edit.
# Source: Unicode CLDR, subdivisionContainment of https://www.npmjs.com/package/cldr-core/v/{version}
#
{licence}
"""


def subdivisions_text(version: str, containment: Any, aliases: Any, licence: str) -> str:
    """Return the file: each country with its parts, and each part with its own, after the licence of the data.

    Args:
        version: The version of the npm package.
        containment: The contents of `supplemental/subdivisionContainment.json`.
        aliases: The contents of `supplemental/aliases.json`.
        licence: The text of the licence.
    """
    replaced = {
        code
        for code, alias in aliases["supplemental"]["metadata"]["alias"]["subdivisionAlias"].items()
        if alias["_reason"] == "deprecated"
    }
    levels: dict[bool, list[str]] = {True: [], False: []}
    for whole, entry in sorted(containment["supplemental"]["subdivisionContainment"].items()):
        is_country = len(whole) == 2
        name = whole if is_country else f"{whole[:2]}-{whole[2:]}".upper()
        parts = " ".join(code[2:].upper() for code in sorted(entry["_contains"]) if code not in replaced)
        levels[is_country].append(f'{name} = "{parts}"')
    notice = "\n".join(f"# {line}".rstrip() for line in licence.strip().splitlines())
    sections = "\n".join(["[parts]", *levels[True], "", "[parts_of_parts]", *levels[False]])
    return f'{_HEAD.format(version=version, licence=notice)}\ncldr = "{version}"\n\n{sections}\n'


def main() -> None:
    """Fetch the package with npm, which verifies it, and write the file."""
    with tempfile.TemporaryDirectory() as folder:
        command = ["npm", "pack", "--silent", "--pack-destination", folder, f"cldr-core@{VERSION}"]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)  # noqa: S603  # a fixed command
        with tarfile.open(next(Path(folder).glob("*.tgz"))) as package:
            package.extractall(folder, filter="data")
        root = Path(folder, "package")
        containment, aliases = (
            json.loads((root / "supplemental" / name).read_text("utf-8"))
            for name in ("subdivisionContainment.json", "aliases.json")
        )
        text = subdivisions_text(VERSION, containment, aliases, (root / "LICENSE").read_text("utf-8"))
    PATH.write_text(text, "utf-8")
    print(f"wrote {PATH.name}: CLDR {VERSION}")


if __name__ == "__main__":
    main()
