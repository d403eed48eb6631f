"""The command `gateway network-policy`."""

from __future__ import annotations

import argparse
import re
from collections.abc import Sequence

from gateway.cli.terminal import compile_file, print_pinned_version, settings_of, tell
from gateway.config.destinations import destinations_of
from gateway.config.network_policy import Cluster, write_policy
from gateway.operator_errors import CommandError

_OK = 0
_NAMESPACE = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")
_VALUE = r"[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?"
_LABEL = re.compile(rf"((?:[a-z0-9][-a-z0-9.]{{0,251}}[a-z0-9]/)?{_VALUE})=((?:{_VALUE})?)")


def network_policy(options: argparse.Namespace) -> int:
    """Print a network policy of what a config may call (`gateway network-policy`)."""
    if options.namespace and not _NAMESPACE.fullmatch(options.namespace):
        raise CommandError(f"--namespace: {options.namespace!r} is not a name of a namespace")
    cluster = Cluster(options.namespace, _labels(options.selector)) if options.selector else Cluster(options.namespace)
    settings = settings_of(options)
    print_pinned_version(settings)
    # Keys are read where the gateway runs. The policy is the same whether they are set here or not.
    config = compile_file(settings.config, resolve_secrets=False).config
    destinations = destinations_of(config)
    if not options.namespace and any(one.cluster_service == (one.host, "") for one in destinations):
        tell("short names are taken as Services of the namespace `default`: add --namespace")
    print(write_policy(config, destinations, options.format, cluster), end="")
    return _OK


def _labels(selector: Sequence[str]) -> dict[str, str]:
    labels: dict[str, str] = {}
    for text in selector:
        if (label := _LABEL.fullmatch(text)) is None:
            raise CommandError(f"--selector: {text!r} is not a label; write KEY=VALUE")
        labels[label[1]] = text.partition("=")[2]
    return labels
