#!/bin/sh
# Install the tools that the tests of `make ci` need outside .venv: Debian packages with apt-get, and the packages of tests/node
# with npm. Does nothing if all are installed. Without root it installs no Debian package, but lists the missing ones and fails.
# `make test` does not need them. `ci_tools.sh check` installs nothing: it only fails if Debian packages are missing and cannot
# be installed.
set -eu
cd "$(dirname "$0")/.."

# A Debian package and its commands. One of the commands is enough: the tool may be installed in another way.
packages='gcc:cc,gcc libc6-dev:/usr/include/stdio.h chromium-headless-shell:chromium-headless-shell curl:curl haproxy:haproxy,/usr/sbin/haproxy nginx:nginx,/usr/sbin/nginx openssl:openssl prometheus:promtool valgrind:valgrind
  espeak-ng:espeak-ng ffmpeg:ffmpeg rsyslog:rsyslogd,/usr/sbin/rsyslogd rsyslog-openssl:/usr/lib/*/rsyslog/lmnsd_ossl.so systemd:systemd-analyze'

is_installed() {
    for command in $(printf '%s' "$1" | tr ',' ' '); do
        # A library is not a command: its file is enough.
        if command -v "$command" > /dev/null 2>&1 || [ -f "$command" ]; then return 0; fi
    done
    return 1
}

missing=''
for entry in $packages; do
    is_installed "${entry#*:}" || missing="$missing ${entry%%:*}"
done
if [ -n "$missing" ]; then
    if [ "$(id -u)" != 0 ] || ! command -v apt-get > /dev/null 2>&1; then
        printf 'make ci needs these Debian packages, which are not installed:%s\n' "$missing" >&2
        printf 'Install them as root: apt-get install%s (or run make ci-tools as root).\n' "$missing" >&2
        exit 1
    fi
    [ "${1:-}" != check ] || exit 0
    printf 'Installing Debian packages:%s ...\n' "$missing" >&2
    export DEBIAN_FRONTEND=noninteractive
    apt-get -qq update
    # shellcheck disable=SC2086  # a list of words
    apt-get -qq install --no-install-recommends $missing > /dev/null
fi

[ "${1:-}" = check ] || .venv/bin/python -m tests.kit.node_clients
