"""The command `gateway redact`."""

from __future__ import annotations

import argparse
import sys

from gateway.cli.terminal import compile_document, print_pinned_version, settings_of
from gateway.operator_errors import CommandError

_OK = 0


def redact(options: argparse.Namespace) -> int:
    """Print a text as a deployment with this redaction would get it (`gateway redact`)."""
    from gateway.config.problems import choice_hint
    from gateway.features.redaction.policy.finding import Clock
    from gateway.features.redaction.policy.placeholders import Placeholders
    from gateway.features.redaction.wrapper import Redaction
    from gateway.model.wrapper import TooMuchToSearch

    settings = settings_of(options)
    print_pinned_version(settings)
    document, compiled = compile_document(settings.config)
    for content in document.term_files.values():
        if content.problem:
            raise CommandError(content.problem)
    wrapper = compiled.wrappers.get(options.redaction)
    if not isinstance(wrapper, Redaction):
        hint = choice_hint(options.redaction, compiled.wrappers, none="the config has no `redactions`")
        raise CommandError(f"there is no redaction {options.redaction!r}: {hint}")
    try:
        data = sys.stdin.buffer.read() if options.file is None else options.file.read_bytes()
        text = data.decode("utf-8")
    except OSError as error:
        raise CommandError(f"the file {options.file} can't be read ({error.strerror})") from None
    except UnicodeDecodeError:
        raise CommandError("the text is not UTF-8") from None
    try:
        print(Placeholders(wrapper.rules, Clock())(text), end="")
    except TooMuchToSearch:
        raise CommandError("the text is too long, or has too many values, for one request") from None
    return _OK
