#!/bin/sh
# Write locks/runtime.lock, and those of the image, of developers, of `make ci` and of uv, from pyproject.toml: for all
# supported Pythons and systems, with hashes, without an index. Locked versions are kept; `--upgrade` takes the newest. Extras
# are named, because pip takes the newest release for an extra whose package alone is pinned, and then refuses its hash.
set -eu
cd "$(dirname "$0")/.."

[ -x .venv/bin/uv ] || .venv/bin/python -m pip --disable-pip-version-check -qq install --only-binary=:all: --require-hashes -r locks/installer.lock

lock() {
    .venv/bin/uv pip compile --quiet --no-config --universal --python-version 3.11 \
        --generate-hashes --no-annotate --no-strip-extras --no-emit-index-url --no-emit-find-links \
        --custom-compile-command 'make lock' "$@" > /dev/null
}

compile() {
    lock pyproject.toml --group editable "$@"
}

lock --output-file locks/installer.lock --group installer "$@"
compile --output-file locks/runtime.lock "$@"
# The image of the Dockerfile: with the extras that a production needs.
compile --output-file locks/image.lock --extra google --extra otel --extra redaction --extra stores --extra zstd --constraint locks/runtime.lock "$@"
compile --output-file locks/dev.lock --extra dev --constraint locks/runtime.lock "$@"
# Without a constraint: an official client may need an older version of a library than the locked one.
compile --output-file locks/sdks.lock --extra dev --extra sdks "$@"
