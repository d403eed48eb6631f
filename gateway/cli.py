"""The `gateway` command line: what may be typed, in words. What each command does is in `gateway.commands`.

Nothing heavy is imported before a command runs, so that `--help` is quick.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from gateway import __version__, commands, provider_commands

__all__ = ["main"]

_USAGE = 2
_INTERRUPTED = 130
_START = """\
to begin:
  gateway demo                 three answers from three places: no key, no network
  gateway init my-gateway      a config to start from
  gateway check my-gateway/gateway.yaml
  gateway serve --config my-gateway/gateway.yaml

GATEWAY_CONFIG, GATEWAY_HOST, GATEWAY_PORT and GATEWAY_WORKERS in the environment
are read where an option isn't given; so are GATEWAY_ADMIN_HOST, GATEWAY_ADMIN_PORT,
GATEWAY_ADMIN_TOKEN, GATEWAY_LOG_FORMAT, GATEWAY_LOG_LEVEL, GATEWAY_GRACE_S and
GATEWAY_TRANSPORT (docs/operators.md)."""
_DEFAULT_CONFIG = "default: GATEWAY_CONFIG, or config/gateway.yaml"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; the value is the process's exit status: 0 done, 1 found wrong, 2 can't be run like that."""
    parser = _parser()
    options = parser.parse_args(arguments)
    if not hasattr(options, "run"):
        options.parser.print_help(sys.stderr)
        return _USAGE
    try:
        status: int = options.run(options)
        sys.stdout.flush()
    except commands.CommandError as error:
        print(error.shown, file=sys.stderr)
        return error.status
    except KeyboardInterrupt:
        return _INTERRUPTED
    except BrokenPipeError:
        # Who reads has seen enough (`| head`). Nothing more can be written, not even by the interpreter at its end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    return status


class _Formatter(argparse.RawDescriptionHelpFormatter):
    """Leaves room for the longest command: argparse itself forgets that commands are indented."""

    def __init__(self, prog: str) -> None:
        super().__init__(prog, max_help_position=18)
        self._action_max_length = 16


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="gateway",
        description="One chat endpoint for AI assistants, answered by region, inside its boundary.",
        epilog=_START,
        formatter_class=_Formatter,
    )
    parser.set_defaults(parser=parser)
    parser.add_argument("--version", action="version", version=f"%(prog)s {__version__}")
    group = parser.add_subparsers(title="commands", metavar="COMMAND")
    _add_serve(group)
    _add_demo(group)
    _add_init(group)
    _add_check(group)
    _add_explain(group)
    _add_schema(group)
    _add_key(group)
    _add_providers(group)
    return parser


_Group = argparse._SubParsersAction  # typeshed knows this class by no public name


def _add_serve(group: _Group[argparse.ArgumentParser]) -> None:
    text = "Serve a config until SIGTERM or Ctrl-C; what is running then is finished first."
    serve = group.add_parser("serve", help="serve a config", description=text)
    _add_config(serve)
    _add_listener(serve)
    serve.add_argument(
        "--workers", type=int, metavar="N", help="processes on the one socket (default: GATEWAY_WORKERS, or 1)"
    )
    serve.set_defaults(run=commands.serve)


def _add_demo(group: _Group[argparse.ArgumentParser]) -> None:
    text = (
        "Serve simulated providers, after asking them from three places. The header `cf-ipcountry` says where you are."
    )
    demo = group.add_parser("demo", help="serve simulated providers: no key, no network", description=text)
    demo.add_argument("--config", type=Path, metavar="FILE", help="a demo config of your own (default: the built-in)")
    _add_listener(demo)
    demo.set_defaults(run=commands.demo)


def _add_init(group: _Group[argparse.ArgumentParser]) -> None:
    text = "Write gateway.yaml, its JSON Schema for editors, and env.example, the list of keys. Overwrites nothing."
    init = group.add_parser("init", help="write an annotated config to start from", description=text)
    init.add_argument("directory", nargs="?", type=Path, default=Path("."), metavar="DIR", help="where (default: here)")
    init.add_argument("--example", metavar="NAME", help="start from a common set-up instead; a wrong name lists them")
    init.set_defaults(run=commands.init)


def _add_check(group: _Group[argparse.ArgumentParser]) -> None:
    text = (
        "Say everything that is wrong with a config; if nothing is, who answers where. "
        "Exit status: 0 it can be served, 1 it can't, 2 there is no such file."
    )
    check = group.add_parser("check", help="say what is wrong with a config, and what it does", description=text)
    check.add_argument("file", nargs="?", type=Path, metavar="FILE", help=f"the config ({_DEFAULT_CONFIG})")
    check.add_argument("--strict", action="store_true", help="warnings count as errors")
    _add_no_secrets(check)
    check.set_defaults(run=commands.check)


def _add_explain(group: _Group[argparse.ArgumentParser]) -> None:
    text = "Say who would answer a caller, and why: by the function that decides for traffic."
    explain = group.add_parser("explain", help="say who would answer a caller, and why", description=text)
    _add_config(explain)
    explain.add_argument("--assistant", metavar="NAME", help="its name or alias (default: the only one there is)")
    explain.add_argument("--from", dest="place", metavar="CN", help="the country that an edge would tell")
    explain.add_argument("--client", metavar="NAME", help="a client of the config (default: a caller without a key)")
    explain.add_argument("--json", action="store_true", help="as GET /v1/explain answers")
    _add_no_secrets(explain)
    explain.set_defaults(run=commands.explain)


def _add_schema(group: _Group[argparse.ArgumentParser]) -> None:
    text = "Print the JSON Schema of the config. `gateway init` writes it beside the config, where editors find it."
    schema = group.add_parser("schema", help="print the config's JSON Schema, for editors", description=text)
    schema.add_argument("--markdown", action="store_true", help="as a page for people: every key with its meaning")
    schema.set_defaults(run=commands.schema)


def _add_key(group: _Group[argparse.ArgumentParser]) -> None:
    text = "Keys by which clients show who they are. The config holds only their hashes."
    key = group.add_parser("key", help="make client keys", description=text)
    key.set_defaults(parser=key)
    new = key.add_subparsers(title="commands", metavar="COMMAND").add_parser(
        "new",
        help="make a key, and the hash of it that goes into the config",
        description="Make a random key and print it with its hash. Nothing is stored: the key is shown only now.",
    )
    new.set_defaults(run=commands.key_new)


def _add_providers(group: _Group[argparse.ArgumentParser]) -> None:
    text = "The providers that are installed here: what they can, their sites with their facts, and whose key is set."
    providers = group.add_parser("providers", help="list providers; check one, begin a new one", description=text)
    providers.set_defaults(run=provider_commands.listing, names=[], json=False, markdown=False)
    subcommands = providers.add_subparsers(title="commands", metavar="COMMAND")
    listed = subcommands.add_parser("list", help="the same, of some providers only, or as JSON", description=text)
    listed.add_argument("names", nargs="*", metavar="NAME", help="a provider (default: all)")
    form = listed.add_mutually_exclusive_group()
    form.add_argument("--json", action="store_true", help="for programs")
    form.add_argument("--markdown", action="store_true", help="as a page for people: who can do what, and where")
    listed.set_defaults(run=provider_commands.listing)
    text = (
        "Send one small real request to a deployment, the way traffic goes, and show the exchange with its key masked. "
        "It may cost a fraction of a cent. Exit status: 0 it answered, 1 it didn't."
    )
    check = subcommands.add_parser("check", help="send one small real request", description=text)
    check.add_argument("name", metavar="NAME", help="a deployment of the config, or a provider: all its deployments")
    _add_config(check)
    check.set_defaults(run=provider_commands.check)
    text = (
        "Write an adapter, its simulator, its test and its page from a template; docs/adapters.md takes it from there."
    )
    new = subcommands.add_parser("new", help="begin an adapter of your own", description=text)
    new.add_argument("name", metavar="NAME", help="the provider's name in configs, such as acme")
    new.add_argument("directory", nargs="?", type=Path, metavar="DIR", help="where (default: a directory of its name)")
    new.set_defaults(run=provider_commands.new)


def _add_config(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--config", type=Path, metavar="FILE", help=f"the config ({_DEFAULT_CONFIG})")


def _add_no_secrets(parser: argparse.ArgumentParser) -> None:
    text = "take every ${…} as set without looking it up; for CI"
    parser.add_argument("--no-secrets", action="store_true", help=text)


def _add_listener(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--host", metavar="ADDRESS", help="the address to bind (default: GATEWAY_HOST, or 127.0.0.1)")
    parser.add_argument(
        "--port", type=int, metavar="N", help="the port, 0 for a free one (default: GATEWAY_PORT, or 8080)"
    )
    parser.add_argument(
        "--admin-port",
        type=int,
        metavar="N",
        help="the admin listener's port, 0 for a free one (default: GATEWAY_ADMIN_PORT, or 8081)",
    )


if __name__ == "__main__":
    raise SystemExit(main())
