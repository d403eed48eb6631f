#!/bin/sh
# Prepare .venv: `bootstrap.sh runtime` to run the gateway, `bootstrap.sh dev` to develop it,
# `bootstrap.sh sdks` for the tests with official clients.
# Does nothing if .venv is ready. PYTHON=... selects the interpreter.
# The stamp files record what was installed and where, so that an edited lock, a moved checkout or a
# missing interpreter is detected independently of file dates.
set -eu

die() {
    printf '%s\n' "$*" >&2
    exit 1
}

# ok: usable; old: below 3.11; bare: without venv or ensurepip; none: does not run.
judge() {
    "$1" -c '
import sys
if sys.version_info < (3, 11):
    sys.stdout.write("old"); sys.exit()
try:
    import ensurepip, venv
except ImportError:
    sys.stdout.write("bare"); sys.exit()
sys.stdout.write("ok")
' 2>/dev/null || printf none
}

# Print the first usable interpreter, or an error with the fix.
find_python() {
    old='' bare=''
    if [ -n "${PYTHON:-}" ]; then set -- "$PYTHON"; else set -- python3.14 python3.13 python3.12 python3.11 python3; fi
    for candidate in "$@"; do
        case $(judge "$candidate") in
            ok) printf '%s\n' "$candidate"; return ;;
            old) old=$candidate ;;
            bare) bare=${bare:-$candidate} ;;
        esac
    done
    if [ -n "$bare" ]; then
        minor=$("$bare" -c 'import sys; print("python%d.%d" % sys.version_info[:2])')
        die "$bare has no venv module: install it (Debian, Ubuntu: apt install $minor-venv), then run make again."
    elif [ -n "$old" ]; then
        version=$("$old" -c 'import sys; sys.stdout.write(".".join(str(part) for part in sys.version_info[:3]))')
        die "$old is $version, and Python 3.11 or newer is needed: install a newer one, or set it: make PYTHON=/path/to/python3.11 ..."
    elif [ -n "${PYTHON:-}" ]; then
        die "PYTHON=$PYTHON is not a working Python: set a path to Python 3.11 or newer, or omit PYTHON."
    fi
    die "No Python found: install Python 3.11 or newer (Debian, Ubuntu: apt install python3 python3-venv; macOS: brew install python)."
}

# uv installs the packages of a lock in a tenth of the time of pip. It does not read the configuration of pip, except the
# index here; if that is not enough (a certificate, a folder of wheels), pip installs the same packages. Of the official
# clients' 47,000 files few are ever imported: to compile all of them takes two minutes of a core.
install_with_uv() (
    of_pip=$(.venv/bin/python -m pip config list | sed -n "s/^[^=:]*\.index-url='\(.*\)'$/\1/p" | tail -n 1)
    index=${UV_DEFAULT_INDEX:-${PIP_INDEX_URL:-$of_pip}}
    [ -z "$index" ] || export UV_DEFAULT_INDEX="$index"
    {
        $pip install --only-binary=:all: --require-hashes -r locks/installer.lock &&
            .venv/bin/uv pip install $compile --quiet --python .venv/bin/python --only-binary=:all: --require-hashes -r "$1"
    } > .venv/uv.log 2>&1 || {
        printf '      uv could not install them (.venv/uv.log), so pip does: this takes some minutes ...\n' >&2
        return 1
    }
)

main() {
    case ${1:-} in
        runtime) lock=locks/runtime.lock what='the locked dependencies' ;;
        dev) lock=locks/dev.lock what='the locked dependencies and the development tools' ;;
        sdks) lock=locks/sdks.lock what='the locked dependencies, the development tools and the official clients' ;;
        *) die "usage: $0 runtime|dev|sdks" ;;
    esac
    cd "$(dirname "$0")/.."
    state="$(pwd -P) $(cat pyproject.toml locks/installer.lock locks/runtime.lock locks/dev.lock locks/sdks.lock | cksum)"
    stamp=.venv/.ready-$1

    works=no
    if .venv/bin/python -c 'import pip, sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
        works=yes
        [ "$(cat "$stamp" 2>/dev/null)" != "$state" ] || return 0
    fi

    if [ $works = no ] || [ "$(cat .venv/.root 2>/dev/null)" != "$(pwd -P)" ]; then
        python=$(find_python)
        "$python" -m venv --clear .venv || die "$python could not make .venv (see above)."
        pwd -P > .venv/.root
    fi
    printf 'Installing %s into .venv ...\n' "$what" >&2
    rm -f .venv/.ready-*
    compile=--compile-bytecode
    [ "$1" != sdks ] || compile=''
    pip='.venv/bin/python -m pip --disable-pip-version-check -qq'
    printf '  1/2 %s packages ...\n' "$(grep -c '==' "$lock")" >&2
    install_with_uv "$lock" || $pip install --only-binary=:all: --require-hashes -r "$lock" ||
        die "The dependencies could not be installed (see above): the first time needs the network, or a package index that pip knows."
    printf '  2/2 the gateway ...\n' >&2
    $pip install --no-deps --no-build-isolation --editable . || die "The checkout could not be installed into .venv (see above)."
    printf '%s\n' "$state" > .venv/.ready-runtime
    [ "$1" = runtime ] || printf '%s\n' "$state" > .venv/.ready-dev
    [ "$1" != sdks ] || printf '%s\n' "$state" > .venv/.ready-sdks
}

main "$@"
