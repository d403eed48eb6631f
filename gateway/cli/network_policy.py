"""The command `gateway network-policy`, and the comparison of `gateway check --against`."""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Sequence
from pathlib import Path

from gateway.cli.terminal import compile_file, print_pinned_version, settings_of
from gateway.config.check_report import rejected_config
from gateway.config.destinations import destinations_of
from gateway.config.network_policy import Cluster, write_policy
from gateway.config.policy_comparison import UnreadablePolicy, compare_policy
from gateway.config.problems import ConfigRejected
from gateway.config.source_text import MAX_BYTES
from gateway.config.yaml_document import parse_documents
from gateway.files import read_file_or_pipe
from gateway.model.config_version import ConfigVersion
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
        print("gateway: short names are taken as Services of the namespace `default`: add --namespace", file=sys.stderr)
    print(write_policy(config, destinations, options.format, cluster), end="")
    return _OK


def _labels(selector: Sequence[str]) -> dict[str, str]:
    labels: dict[str, str] = {}
    for text in selector:
        if (label := _LABEL.fullmatch(text)) is None:
            raise CommandError(f"--selector: {text!r} is not a label; write KEY=VALUE")
        labels[label[1]] = text.partition("=")[2]
    return labels


def print_differences(path: Path, config: ConfigVersion) -> bool:
    """Print what the policies of a file allow too much or too little. Return whether they do."""
    try:
        documents = parse_documents(read_file_or_pipe(path, MAX_BYTES + 1), str(path))
        findings = compare_policy(documents, destinations_of(config))
    except OSError as error:
        raise CommandError(f"{path} can't be read: {error.strerror}") from None
    except ConfigRejected as error:
        raise CommandError(str(rejected_config(error.problems, every_warning=False))) from None
    except UnreadablePolicy as error:
        raise CommandError(f"{path}: {error}") from None
    for finding in findings:
        print(f"{path}: {finding}")
    if not findings:
        print(f"{path} allows what config {config.version} may call, and nothing else")
    return bool(findings)
