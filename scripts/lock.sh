#!/bin/sh
# Writes requirements.lock, requirements-dev.lock and requirements-sdks.lock anew from pyproject.toml: for every supported Python
# and system at once, with hashes, naming no index. Versions already locked stay; `--upgrade` takes the newest.
set -eu
cd "$(dirname "$0")/.."

[ -x .venv/uv/bin/uv ] || {
    .venv/bin/python -m venv .venv/uv
    .venv/uv/bin/python -m pip --disable-pip-version-check -qq install 'uv>=0.9,<1'
}

compile() {
    .venv/uv/bin/uv pip compile pyproject.toml --quiet --no-config --universal --python-version 3.11 \
        --generate-hashes --no-annotate --no-emit-index-url --no-emit-find-links \
        --custom-compile-command 'make lock' --group editable "$@" > /dev/null
}

compile --output-file requirements.lock "$@"
compile --output-file requirements-dev.lock --extra dev --constraint requirements.lock "$@"
# Without a constraint: an official client may want an older version of a library than ours is locked to.
compile --output-file requirements-sdks.lock --extra dev --extra sdks "$@"
