"""The argument parsers of the command `gateway`, and `run_command`."""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

from gateway import __version__
from gateway.cli import check as config_commands
from gateway.cli import database as database_commands
from gateway.cli import evaluate as evaluate_command
from gateway.cli import history as history_commands
from gateway.cli import keys
from gateway.cli import plan as plan_command
from gateway.cli import providers as provider_commands
from gateway.cli import serve as serve_commands
from gateway.cli import usage as usage_command
from gateway.cli.client_arguments import add_client_commands
from gateway.cli.terminal import closed_output_status, prepare_streams
from gateway.config.examples import example_names
from gateway.operator_errors import CommandError

_UNKNOWN_COMMAND = re.compile(
    r"argument COMMAND: invalid choice: (['\"])(?P<word>.*)\1 \(choose from (?P<names>[^()]*)\)$", re.DOTALL
)
_USES = ("chat", "embeddings", "moderations")
"""The same as `gateway.model.config_version.USES`, whose import takes too long for `--help`."""
DEFAULT_CONFIG = "default: GATEWAY_CONFIG, or config/gateway.yaml"

Group = argparse._SubParsersAction  # typeshed has no public name for this class


def add_change_commands(group: Group[argparse.ArgumentParser]) -> None:
    """Add the commands that change the active config, and that read history, usage, the audit trail and receipts."""
    _add_plan(group)
    _add_history(group)
    _add_rollback(group)
    _add_usage(group)
    _add_database(group)
    _add_audit(group)
    _add_receipt(group)


def add_config(parser: argparse.ArgumentParser) -> None:
    """Add `--config FILE`."""
    parser.add_argument("--config", type=Path, metavar="FILE", help=f"the config ({DEFAULT_CONFIG})")


def add_no_secrets(parser: argparse.ArgumentParser) -> None:
    """Add `--no-secrets`."""
    text = "treat every ${…} as set without reading it; for CI"
    parser.add_argument("--no-secrets", action="store_true", help=text)


def _add_state(parser: argparse._ActionsContainer) -> None:
    text = "the state directory (default: GATEWAY_STATE_DIR)"
    parser.add_argument("--state", dest="state_dir", type=Path, metavar="DIR", help=text)


def _add_plan(group: Group[argparse.ArgumentParser]) -> None:
    text = (
        "Show what a config would change compared with the active one, and which checks fail. The active config is the "
        "last version in the state directory or, without a state directory, the config file. Exit status: 0 the config "
        "may be applied, 1 a check fails, 2 there is nothing to compare; with --exit-code 3 if something changes."
    )
    plan = group.add_parser("plan", help="show what a config would change", description=text)
    plan.add_argument("file", nargs="?", type=Path, metavar="FILE", help=f"the new config ({DEFAULT_CONFIG})")
    add_config(plan)
    _add_state(plan)
    plan.add_argument("--from", dest="since", metavar="WHAT", help="compare with this version or file")
    form = plan.add_mutually_exclusive_group()
    form.add_argument("--json", action="store_true", help="print JSON")
    form.add_argument("--markdown", action="store_true", help="print Markdown, for a pull request")
    plan.add_argument("--exit-code", action="store_true", help="exit status 3 if something changes")
    plan.add_argument("--strict", action="store_true", help="treat warnings as errors")
    text = "territories whose users may lose their answer, also @EEA or '*' for all; may be repeated"
    plan.add_argument("--accept-loss", action="append", default=[], metavar="HK,MO", help=text)
    add_no_secrets(plan)
    plan.add_argument(
        "--admin", metavar="URL", help="the running gateway that reports the share of traffic that changes"
    )
    plan.add_argument(
        "--sign", type=Path, metavar="KEYFILE", help="sign the plan, for protected regions; writes FILE.sig"
    )
    plan.set_defaults(run=plan_command.plan)


def _add_history(group: Group[argparse.ArgumentParser]) -> None:
    text = (
        "List the versions that were active, newest first: time, cause, operator and changes. A star marks the active "
        "version. With VERSION (at least its first four characters), print that version and its plan as JSON. Exit "
        "status: 0, or 2 if there is no such history or version."
    )
    history = group.add_parser("history", help="list the versions that were active", description=text)
    history.add_argument("version", nargs="?", metavar="VERSION", help="show this version and the plan that led to it")
    _add_state(history)
    history.add_argument(
        "-n", dest="number", type=_count, default=20, metavar="N", help="how many to list (default: 20)"
    )
    form = history.add_mutually_exclusive_group()
    form.add_argument("--json", action="store_true", help="print JSON")
    form.add_argument("--text", action="store_true", help="print only the config text of VERSION")
    history.set_defaults(run=history_commands.history)
    text = (
        "Show the differences between two configs. Each is a version of the history (at least its first four "
        "characters) or a file."
    )
    diff = group.add_parser("diff", help="show the differences between two configs", description=text)
    diff.add_argument("before", metavar="A", help="a version or a file")
    diff.add_argument("after", metavar="B", help="the other version or file")
    _add_state(diff)
    form = diff.add_mutually_exclusive_group()
    form.add_argument("--json", action="store_true", help="print JSON")
    form.add_argument("--text", action="store_true", help="show the changed lines of the texts instead")
    diff.set_defaults(run=history_commands.diff)


def _count(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number of 1 or more")
    return int(text)


def _add_rollback(group: Group[argparse.ArgumentParser]) -> None:
    text = (
        "Activate an earlier version again, in the running gateway or for the next one that starts, and pin it. The "
        "config file is not changed, and its edits are reported but not activated until --release. Exit status: 0 "
        "done, 1 the version can't be used (all reasons are printed), 2 there is no such version, or no gateway "
        "answers."
    )
    rollback = group.add_parser("rollback", help="activate an earlier version again", description=text)
    rollback.add_argument(
        "version",
        nargs="?",
        metavar="VERSION",
        help="a version of `gateway history` (default: the one before the active one)",
    )
    rollback.add_argument("--release", action="store_true", help="activate the config file and its edits again")
    add_config(rollback)
    _add_state(rollback)
    text = "the running gateway's admin listener (default: from the state directory); its token: GATEWAY_ADMIN_TOKEN"
    rollback.add_argument("--admin", metavar="URL", help=text)
    text = "your name for the history and the audit trail (default: the name of the system user)"
    rollback.add_argument("--as", dest="operator", metavar="NAME", help=text)
    text = "an admin's signature, needed if a protected region changes; `gateway plan --sign` writes it"
    rollback.add_argument("--signature", type=Path, metavar="FILE", help=text)
    rollback.set_defaults(run=history_commands.rollback)


def _add_usage(group: Group[argparse.ArgumentParser]) -> None:
    text = (
        "Report what the calls to providers used and cost in a month: calls, tokens and amounts, with the estimated "
        "part apart. It reads the ledger of the state directory or, with --config, the shared database of the config "
        "(`stores.database`), also while a gateway runs. With --admin, a running gateway reports. Exit status: 0, or 2 "
        "if there is no readable ledger."
    )
    usage = group.add_parser("usage", help="report tokens and costs", description=text)
    _add_state(usage)
    usage.add_argument("--config", type=Path, metavar="FILE", help="the config that names the shared database")
    text = "the admin listener of a running gateway, which makes the report; its token: GATEWAY_ADMIN_TOKEN"
    usage.add_argument("--admin", metavar="URL", help=text)
    text = (
        "how to group, one or several of: client, project, user, model, region, provider, site, deployment, day, hour "
        "(default: client)"
    )
    usage.add_argument("--by", type=usage_command.dimensions, metavar="NAMES", help=text)
    text = "the month, such as 2026-11 (default: the current one)"
    usage.add_argument("--month", type=usage_command.month, metavar="MONTH", help=text)
    usage.add_argument("--client", metavar="NAME", help="only the calls of this client")
    form = usage.add_mutually_exclusive_group()
    form.add_argument("--json", action="store_true", help="print JSON")
    form.add_argument("--csv", action="store_true", help="print CSV, a line for each group")
    usage.add_argument("--rows", action="store_true", help="with --json: print a JSON line for each call instead")
    usage.set_defaults(run=usage_command.usage)


def _add_database(group: Group[argparse.ArgumentParser]) -> None:
    text = "Prepare and check the shared database of a cell (`stores.database`). Exit status: 0, 1 refused, 2 an error."
    database = group.add_parser("db", help="prepare and check the shared database", description=text)
    database.set_defaults(parser=database)
    commands = database.add_subparsers(title="commands", metavar="COMMAND")
    for name, run, text in (
        ("upgrade", database_commands.upgrade, "apply the missing migrations; run it before a new release is started"),
        ("check", database_commands.check, "report whether this release can work with the database"),
        ("rebuild", database_commands.rebuild, "compute the totals of the ledger again from its rows"),
    ):
        command = commands.add_parser(name, help=text, description=f"{text[0].upper()}{text[1:]}.")
        add_config(command)
        command.set_defaults(run=run)


def _add_audit(group: Group[argparse.ArgumentParser]) -> None:
    text = "Verify the audit trail: one line for each start, change, rejection and rollback, chained by hashes."
    audit = group.add_parser("audit", help="verify the audit trail", description=text)
    audit.set_defaults(parser=audit)
    verify = audit.add_subparsers(title="commands", metavar="COMMAND").add_parser(
        "verify",
        help="check that no line was changed, moved or removed",
        description=(
            "Verify the whole audit trail. Exit status: 0 no line was changed, 1 a line was changed (the first one is "
            "printed), 2 there is no readable trail."
        ),
    )
    _add_state(verify)
    text = 'a hash from the gateway\'s log (`"event":"audit"`), to detect lines that are missing at the end'
    verify.add_argument("--head", type=_hash, metavar="HASH", help=text)
    verify.set_defaults(run=history_commands.verify_audit)


def _hash(text: str) -> str:
    if re.fullmatch("[0-9a-fA-F]{64}", text) is None:
        raise argparse.ArgumentTypeError("a hash has 64 hexadecimal digits")
    return text.lower()


def _add_receipt(group: Group[argparse.ArgumentParser]) -> None:
    text = "Verify receipts of requests, as GET /v1/receipts/{id} returns them."
    receipt = group.add_parser("receipt", help="verify the receipt of a request", description=text)
    receipt.set_defaults(parser=receipt)
    verify = receipt.add_subparsers(title="commands", metavar="COMMAND").add_parser(
        "verify",
        help="verify the signature of a receipt",
        description="Verify a receipt. Exit status: 0 the signature is valid, 1 it isn't, 2 the receipt can't be read.",
    )
    verify.add_argument("file", type=Path, metavar="FILE", help="the answer of GET /v1/receipts/{id}, or its JWS alone")
    verify.add_argument("--key", required=True, metavar="PUB", help="the public key, or a file that holds it")
    verify.set_defaults(run=keys.verify)


_USAGE = 2
_INTERRUPTED = 130

_START = """\
to begin:
  gateway demo                 three answers from three regions, without a key
  gateway init my-gateway      a config to start from
  gateway check my-gateway/gateway.yaml
  gateway serve --config my-gateway/gateway.yaml

The environment variables GATEWAY_CONFIG, GATEWAY_HOST, GATEWAY_PORT and
GATEWAY_WORKERS set what no option sets. There are also GATEWAY_ADMIN_HOST,
GATEWAY_ADMIN_PORT, GATEWAY_ADMIN_TOKEN, GATEWAY_MAX_REQUESTS,
GATEWAY_LOG_FORMAT, GATEWAY_LOG_LEVEL, GATEWAY_GRACE_S, GATEWAY_STATE_DIR,
GATEWAY_RECEIPT_KEY and GATEWAY_TRANSPORT (docs/operate/running.md)."""

_MAX_DELAY_S = 3600
_DEMO_TERRITORY = "DE"
_DEMO_REAL = (
    "add a real deployment, which is called over the network and is paid for: openai (key: OPENAI_API_KEY), "
    "qwen (DASHSCOPE_API_KEY) or gemini (GEMINI_API_KEY); qwen:intl selects another site"
)
_DEMO_CONFIG = "a demo config of your own (default: GATEWAY_CONFIG, or the built-in one)"


def run_command(arguments: Sequence[str] | None = None) -> int:
    """Run one command. Return the exit status: 0 done, 1 a check failed, 2 the command can't run with these options."""
    prepare_streams()
    parser = _parser()
    options = parser.parse_args(arguments)
    if not hasattr(options, "run"):
        options.parser.print_help(sys.stderr)
        return _USAGE
    try:
        status: int = options.run(options)
        sys.stdout.flush()
    except CommandError as error:
        print(error.shown, file=sys.stderr)
        return error.status
    except KeyboardInterrupt:
        return _INTERRUPTED
    except OSError as error:
        return closed_output_status(error)
    return status


class _Formatter(argparse.RawDescriptionHelpFormatter):
    """A formatter that leaves room for the longest command. argparse does not count the indentation of commands."""

    def __init__(self, prog: str) -> None:
        super().__init__(prog, max_help_position=18)
        self._action_max_length = 16


class _Parser(argparse.ArgumentParser):
    """A parser that suggests a command for a misspelt one. The parsers of its commands are such parsers too."""

    def error(self, message: str) -> NoReturn:
        """Print the error and exit."""
        if (match := _UNKNOWN_COMMAND.match(message)) is not None:
            from gateway.config.problems import nearest  # imported late, because few commands are misspelt

            near = nearest(match["word"], re.findall(r"[\w-]+", match["names"]))
            message = f"there is no command '{match['word']}'; did you mean {near}?" if near is not None else message
        super().error(message)


def _parser() -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = _Parser(
        prog="gateway",
        description="One address for AI assistants, with routes and boundaries by region.",
        epilog=_START,
        formatter_class=_Formatter,
    )
    parser.set_defaults(parser=parser)
    parser.add_argument("--version", action="version", version=f"%(prog)s {__version__}")
    group = parser.add_subparsers(title="commands", metavar="COMMAND")
    _add_serve(group)
    _add_demo(group)
    _add_simulate(group)
    _add_init(group)
    _add_check(group)
    _add_explain(group)
    add_change_commands(group)
    _add_schema(group)
    _add_key(group)
    add_client_commands(group)
    _add_providers(group)
    _add_evaluate(group)
    return parser


def _add_serve(group: Group[argparse.ArgumentParser]) -> None:
    text = "Serve a config until SIGTERM or Ctrl-C. Running requests are finished first."
    serve = group.add_parser("serve", help="serve a config", description=text)
    add_config(serve)
    _add_listener(serve)
    serve.add_argument(
        "--workers",
        type=int,
        metavar="N",
        help="worker processes that share the socket (default: GATEWAY_WORKERS, or 1)",
    )
    serve.set_defaults(run=serve_commands.serve)


def _add_demo(group: Group[argparse.ArgumentParser]) -> None:
    text = (
        "Send a request from each of three territories to simulated providers, and serve them. The header "
        "`cf-ipcountry` sets your territory; without it, `--territory` does."
    )
    demo = group.add_parser("demo", help="serve simulated providers, without a key or network", description=text)
    demo.add_argument("--config", type=Path, metavar="FILE", help=_DEMO_CONFIG)
    demo.add_argument("--with", dest="real", metavar="PROVIDER", help=_DEMO_REAL)
    _add_territory(demo)
    _add_listener(demo)
    demo.set_defaults(run=serve_commands.demo)


def _add_simulate(group: Group[argparse.ArgumentParser]) -> None:
    text = (
        "Test failures: serve the demo with providers that fail as the options state, and print its log. A FAULT is "
        "written WHAT[=VALUE][:SHARE]. WHAT is an HTTP status or a word (reset, silent, stall, slow, html, garbage, "
        "content-filter, …). VALUE is a number of seconds for a status (its retry-after) and for `slow`, and a number "
        "of events for `reset`, `cut` and `stall`. SHARE is the share of affected requests. Examples: 429, "
        "503=7:0.1, stall=3:0.05."
    )
    simulate = group.add_parser("simulate", help="serve simulated providers with faults", description=text)
    simulate.add_argument(
        "--fault", action="append", default=[], metavar="FAULT", help="a fault of every provider; repeatable"
    )
    simulate.add_argument(
        "--fault-at",
        action="append",
        default=[],
        nargs=2,
        metavar=("DEPLOYMENT", "FAULT"),
        help="a fault of one deployment's site only, such as qwen-cn silent; repeatable",
    )
    simulate.add_argument(
        "--first-token", type=_seconds, default=0.0, metavar="S", help="seconds before an answer begins (default: 0)"
    )
    simulate.add_argument(
        "--between-events", type=_seconds, default=0.0, metavar="S", help="seconds between its events (default: 0)"
    )
    simulate.add_argument("--seed", type=int, default=0, metavar="N", help="decides which requests fail (default: 0)")
    simulate.add_argument("--config", type=Path, metavar="FILE", help=_DEMO_CONFIG)
    _add_territory(simulate)
    _add_listener(simulate)
    simulate.set_defaults(run=serve_commands.simulate, real=None)


def _add_territory(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--territory",
        type=_territory,
        default=_DEMO_TERRITORY,
        metavar="CODE",
        help=f"the territory of callers that send no `cf-ipcountry` (default: {_DEMO_TERRITORY}, Germany)",
    )


def _territory(text: str) -> str:
    from providers.territories import TerritoryError, parse_territory

    try:
        return parse_territory(text.upper())
    except TerritoryError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def _seconds(text: str) -> float:
    seconds = float(text)
    if not 0 <= seconds <= _MAX_DELAY_S:
        raise argparse.ArgumentTypeError(f"{text} is not between 0 and {_MAX_DELAY_S}")
    return seconds


def _add_init(group: Group[argparse.ArgumentParser]) -> None:
    text = "Write gateway.yaml, its JSON Schema for editors, and env.example with the keys to set. Overwrites no file."
    init = group.add_parser("init", help="write an annotated config to start from", description=text)
    init.add_argument(
        "directory", nargs="?", type=Path, default=Path("."), metavar="DIR", help="where to write (default: here)"
    )
    init.add_argument(
        "--example", metavar="NAME", help=f"start from one of these examples instead: {', '.join(example_names())}"
    )
    init.set_defaults(run=config_commands.init)


def _add_check(group: Group[argparse.ArgumentParser]) -> None:
    text = (
        "List every problem of a config or, if there is none, which deployments answer in each region. "
        "Exit status: 0 the config can be served, 1 it can't, 2 there is no such file."
    )
    check = group.add_parser("check", help="list the problems of a config, or its routes", description=text)
    check.add_argument("file", nargs="?", type=Path, metavar="FILE", help=f"the config ({DEFAULT_CONFIG})")
    add_config(check)
    _add_state(check)
    check.add_argument("--strict", action="store_true", help="treat warnings as errors")
    check.add_argument("--all", action="store_true", help="print each warning and each territory, also of many")
    add_no_secrets(check)
    check.set_defaults(run=config_commands.check)


def _add_explain(group: Group[argparse.ArgumentParser]) -> None:
    text = (
        "Show which deployments would answer a caller, and why. The same code decides for real requests. With "
        "--request, show the attempts of a request that has ended, each with the decision after it, its reason and its "
        "bound, from the receipts of the state directory or from a log."
    )
    explain = group.add_parser(
        "explain", help="show which deployments would answer a caller, and why", description=text
    )
    add_config(explain)
    explain.add_argument("--assistant", metavar="NAME", help="the assistant, by name or alias (default: the only one)")
    explain.add_argument(
        "--from", dest="territory", metavar="CN", help="the caller's country, as an edge would report it"
    )
    explain.add_argument("--client", metavar="NAME", help="a client of the config (default: a caller without a key)")
    explain.add_argument("--user", metavar="NAME", help="the end user, who decides the deployment of a weighted step")
    explain.add_argument(
        "--use", choices=_USES, metavar="KIND", help=f"the kind of the request: {', '.join(_USES)} (default: chat)"
    )
    explain.add_argument("--json", action="store_true", help="print JSON, in the form of GET /v1/explain")
    add_no_secrets(explain)
    text = "explain a request that has ended; ID is the `x-request-id` of its answer. The config is not read"
    explain.add_argument("--request", metavar="ID", help=text)
    text = "with --request: read this log (JSON lines; - for standard input) instead of the receipts"
    explain.add_argument("--log", metavar="FILE", help=text)
    text = (
        "the state directory, with the receipts for --request; without it, a version that a rollback pinned is named "
        "(default: GATEWAY_STATE_DIR)"
    )
    explain.add_argument("--state", dest="state_dir", type=Path, metavar="DIR", help=text)
    explain.set_defaults(run=config_commands.explain)


def _add_schema(group: Group[argparse.ArgumentParser]) -> None:
    text = "Print the JSON Schema of the config. `gateway init` writes it next to the config, where editors find it."
    schema = group.add_parser("schema", help="print the config's JSON Schema, for editors", description=text)
    form = schema.add_mutually_exclusive_group()
    form.add_argument("--markdown", action="store_true", help="print a Markdown page of all keys with their meaning")
    form.add_argument(
        "--catalogue", action="store_true", help="print the schema of an operator's catalogue file instead"
    )
    schema.set_defaults(run=config_commands.schema)


def _add_key(group: Group[argparse.ArgumentParser]) -> None:
    text = (
        "Make keys: a client's key, of which the config has only the hash, or a key pair that signs plans and receipts."
    )
    key = group.add_parser("key", help="make a client's key, or a signing key pair", description=text)
    key.set_defaults(parser=key)
    new = key.add_subparsers(title="commands", metavar="COMMAND").add_parser(
        "new",
        help="make a key and its hash for the config",
        description="Make a client's key and print it with its hash. The key is not stored and can't be shown again.",
    )
    new.add_argument(
        "--ed25519",
        type=Path,
        metavar="FILE",
        help="make a signing key pair instead: private key in FILE, public key in FILE.pub",
    )
    new.set_defaults(run=keys.new)


def _add_providers(group: Group[argparse.ArgumentParser]) -> None:
    text = "List the installed providers: their features, their sites with facts, and which API keys are set."
    providers = group.add_parser("providers", help="list or check providers, or start an adapter", description=text)
    providers.set_defaults(run=provider_commands.listing, names=[], json=False, markdown=False)
    subcommands = providers.add_subparsers(title="commands", metavar="COMMAND")
    listed = subcommands.add_parser("list", help="list all or some providers, also as JSON", description=text)
    listed.add_argument("names", nargs="*", metavar="NAME", help="a provider (default: all)")
    form = listed.add_mutually_exclusive_group()
    form.add_argument("--json", action="store_true", help="print JSON")
    form.add_argument("--markdown", action="store_true", help="print a Markdown page of features, parameters and sites")
    listed.set_defaults(run=provider_commands.listing)
    text = (
        "List the known models: limits, features, prices and retirement dates. With --config, list the config's "
        "deployments with the same facts, including your own catalogue files."
    )
    models = subcommands.add_parser("models", help="list models with prices and retirement dates", description=text)
    models.add_argument("names", nargs="*", metavar="NAME", help="a provider (default: all)")
    models.add_argument("--markdown", action="store_true", help="print a Markdown page")
    models.add_argument("--config", type=Path, metavar="FILE", help="list this config's deployments")
    models.set_defaults(run=provider_commands.models)
    text = (
        "Send one small real request to a deployment as the gateway would, print the exchange with the key masked, "
        "and compare the answer with the facts of the adapter and the catalogue. It may cost a fraction of a cent. "
        "Exit status: 0 the deployment answered, 1 it didn't."
    )
    check = subcommands.add_parser("check", help="send one small real request", description=text)
    check.add_argument("name", metavar="NAME", help="a deployment of the config, or a provider for all its deployments")
    add_config(check)
    text = "the state directory in which usage is recorded (default: GATEWAY_STATE_DIR)"
    check.add_argument("--state", dest="state_dir", type=Path, metavar="DIR", help=text)
    check.set_defaults(run=provider_commands.check)
    text = (
        "Write an adapter with its simulator, test and page from a template. "
        "docs/extend/adapters.md describes the next steps."
    )
    new = subcommands.add_parser("new", help="start an adapter of your own", description=text)
    new.add_argument("name", metavar="NAME", help="the provider's name in configs, such as acme")
    new.add_argument(
        "directory", nargs="?", type=Path, metavar="DIR", help="where to write (default: a directory of that name)"
    )
    new.add_argument("--compatible", action="store_true", help="a TOML file for a vendor that speaks OpenAI's dialect")
    new.add_argument("--package", metavar="MODULE", help="the name of the Python module (default: NAME)")
    new.set_defaults(run=provider_commands.new)


def _add_evaluate(group: Group[argparse.ArgumentParser]) -> None:
    text = (
        "Measure candidates for a region by performance, compliance and scalability,\n"
        "and recommend a route. Exit status: 0 a route is recommended, 1 none is, or the\n"
        "spending limit was reached; with --compare: 0 nothing got worse, 1 something\n"
        "did; 2 the command can't run with these options."
    )
    example = (
        "example:\n  gateway evaluate --region cn --candidates qwen-cn,ernie-cn \\\n    --out reports/cn --dry-run\n\n"
        "All answers are stored in --out. After an interruption, the same command\ncontinues the run."
    )
    evaluate = group.add_parser(
        "evaluate", help="measure candidates for a region", description=text, epilog=example, formatter_class=_Formatter
    )
    add_config(evaluate)
    evaluate.add_argument("--region", metavar="NAME", help="the region to evaluate the candidates for")
    evaluate.add_argument("--assistant", metavar="NAME", help="the assistant they would serve (default: the only one)")
    evaluate.add_argument(
        "--candidates", metavar="A,B", help="the deployments to evaluate, by their names in the config"
    )
    evaluate.add_argument(
        "--suite", metavar="FILE", help="the suite of questions (default: the built-in one of the region)"
    )
    evaluate.add_argument("--out", type=Path, metavar="DIR", help="the directory of the run and its report")
    evaluate.add_argument("--seed", type=int, metavar="N", help="the seed of all random choices (default: the suite's)")
    evaluate.add_argument("--dry-run", action="store_true", help="only estimate questions, tokens, cost and time")
    evaluate.add_argument("--fresh", action="store_true", help="start again: discard the run in --out")
    text = "the state directory in which usage is recorded (default: GATEWAY_STATE_DIR)"
    evaluate.add_argument("--state", dest="state_dir", type=Path, metavar="DIR", help=text)
    evaluate_command.add_other_modes(evaluate)
    evaluate.set_defaults(run=evaluate_command.evaluate)


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
