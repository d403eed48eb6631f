#!/bin/sh
# Run every target for SECONDS_EACH seconds: `make fuzz`. Stops at the first failing input, which is written to tests/fuzz/finds.
set -eu
cd "$(dirname "$0")/../.."
seconds=${SECONDS_EACH:-60}
mkdir -p tests/fuzz/finds
.venv/bin/python -c 'import atheris' 2>/dev/null || .venv/bin/pip install -q atheris
# One adapter reads all compatible vendors: the target `compatible` selects one by a byte of the input. TARGETS can also name a vendor.
native='from providers.compatible.adapter import CompatibleAdapter; from providers.registry import load_registry
print(*sorted(name for name, one in load_registry().adapters.items() if not isinstance(one, CompatibleAdapter)))'
targets=${TARGETS:-"sse event_stream converse headers requests redaction compatible $(.venv/bin/python -c "$native")"}
for target in $targets; do
    echo "== $target, $seconds s"
    .venv/bin/python tests/fuzz/fuzz.py "$target" -max_total_time="$seconds" -timeout=20 -rss_limit_mb=2048 \
        -max_len=4096 -print_final_stats=1 -verbosity=0 -artifact_prefix=tests/fuzz/finds/
done
