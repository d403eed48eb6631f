"""Run the cases from the field, and print a line for each: `python -m tests.field.run [--wire] [PATTERN …]`.

With `--wire` they run over sockets, against `gateway serve`, in half a second each.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from fnmatch import fnmatch
from pathlib import Path

from tests.field.field_cases import field_cases, mistakes_of


def main() -> int:
    """Run the chosen cases. Return 1 if one fails that waits for nothing."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("patterns", nargs="*", default=["*"], help="patterns of names of cases")
    parser.add_argument("--wire", action="store_true", help="over sockets, against `gateway serve`")
    options = parser.parse_args()
    failed = 0
    for case in field_cases():
        if not any(fnmatch(case.name, pattern) for pattern in options.patterns):
            continue
        with tempfile.TemporaryDirectory() as folder:
            mistakes = mistakes_of(case, Path(folder), wire=options.wire)
        waits = case.data.get("waits_for")
        failed += bool(mistakes) != bool(waits)
        sys.stdout.write(f"{'waits' if waits else 'FAIL' if mistakes else 'ok'} {case}: {'; '.join(mistakes)[:400]}\n")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
