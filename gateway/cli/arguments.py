"""The command line of `gateway`: every parser."""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Sequence
from pathlib import Path

from gateway import __version__
from gateway.cli import check as configs
from gateway.cli import evaluate as evaluation
from gateway.cli import history as switches
from gateway.cli import history as trail
from gateway.cli import keys
from gateway.cli import plan as planning
from gateway.cli import providers as provider_commands
from gateway.cli import serve as serving
from gateway.cli.terminal import open_streams, told_no_more
from gateway.config.examples import example_names
from gateway.operator_errors import CommandError

DEFAULT_CONFIG = "default: GATEWAY_CONFIG, or config/gateway.yaml"


Group = argparse._SubParsersAction  # typeshed knows this class by no public name


def add_switching(group: Group[argparse.ArgumentParser]) -> None:
    """The commands of switching from one table to another, and of what is kept of that and of requests."""
    _add_plan(group)
    _add_history(group)
    _add_rollback(group)
    _add_audit(group)
    _add_receipt(group)


def add_config(parser: argparse.ArgumentParser) -> None:
    """`--config FILE`."""
    parser.add_argument("--config", type=Path, metavar="FILE", help=f"the config ({DEFAULT_CONFIG})")


def add_no_secrets(parser: argparse.ArgumentParser) -> None:
    """`--no-secrets`."""
    text = "take every ${…} as set, without reading it; for CI"
    parser.add_argument("--no-secrets", action="store_true", help=text)


def _add_state(parser: argparse.ArgumentParser) -> None:
    text = "the state directory (default: GATEWAY_STATE_DIR)"
    parser.add_argument("--state", dest="state_dir", type=Path, metavar="DIR", help=text)


def _add_plan(group: Group[argparse.ArgumentParser]) -> None:
    text = (
        "Say what a config would change against the one that is active, and which checks fail. What is active is the "
        "last version in the state directory, or without one the config. Exit status: 0 it may be applied, "
        "1 a check fails, "
        "2 there is nothing to compare; with --exit-code 3 if something changes."
    )
    plan = group.add_parser("plan", help="say what a config would change", description=text)
    plan.add_argument("file", nargs="?", type=Path, metavar="FILE", help=f"the new config ({DEFAULT_CONFIG})")
    add_config(plan)
    _add_state(plan)
    plan.add_argument("--from", dest="since", metavar="WHAT", help="compare with this version, or this file")
    form = plan.add_mutually_exclusive_group()
    form.add_argument("--json", action="store_true", help="for programs")
    form.add_argument("--markdown", action="store_true", help="for a pull request")
    plan.add_argument("--exit-code", action="store_true", help="exit status 3 if something changes")
    plan.add_argument("--strict", action="store_true", help="warnings count as errors")
    add_no_secrets(plan)
    plan.add_argument("--admin", metavar="URL", help="the gateway to ask for the share of traffic that is touched")
    plan.add_argument("--sign", type=Path, metavar="KEYFILE", help="sign it, for protected regions: writes FILE.sig")
    plan.set_defaults(run=planning.plan)


def _add_history(group: Group[argparse.ArgumentParser]) -> None:
    text = (
        "List the tables that were active, the newest first: when, why, by whom, and what changed. The star is what "
        "is active now. With VERSION, its first four characters or more, show that one with its plan, as JSON. Exit "
        "status: 0, or 2 if there is no such history or version."
    )
    history = group.add_parser("history", help="list the tables that were active", description=text)
    history.add_argument("version", nargs="?", metavar="VERSION", help="show this one, with the plan that led to it")
    _add_state(history)
    history.add_argument("-n", dest="number", type=_count, default=20, metavar="N", help="how many (default: 20)")
    form = history.add_mutually_exclusive_group()
    form.add_argument("--json", action="store_true", help="for programs")
    form.add_argument("--text", action="store_true", help="print the config that VERSION was, and nothing else")
    history.set_defaults(run=switches.history)
    text = (
        "Say how one table differs from another. Each is a version of the history (its first four characters will do) "
        "or a file."
    )
    diff = group.add_parser("diff", help="say what differs between two tables", description=text)
    diff.add_argument("before", metavar="A", help="a version or a file")
    diff.add_argument("after", metavar="B", help="the other version or file")
    _add_state(diff)
    form = diff.add_mutually_exclusive_group()
    form.add_argument("--json", action="store_true", help="for programs")
    form.add_argument("--text", action="store_true", help="show the lines of the files that differ instead")
    diff.set_defaults(run=switches.diff)


def _count(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is no whole number from 1 on")
    return int(text)


def _add_rollback(group: Group[argparse.ArgumentParser]) -> None:
    text = (
        "Make an earlier table active again: in the gateway that runs, or for the next one that starts. The config "
        "file stays as it is, and is not active until its next edit. Exit status: 0 done, 1 that version can't be used "
        "(every reason is told), 2 there is no such version, or nobody to ask."
    )
    rollback = group.add_parser("rollback", help="make an earlier table active", description=text)
    rollback.add_argument(
        "version", nargs="?", metavar="VERSION", help="of `gateway history` (default: the one before the active one)"
    )
    add_config(rollback)
    _add_state(rollback)
    text = "the running gateway's admin listener (default: as the state directory says); its token: GATEWAY_ADMIN_TOKEN"
    rollback.add_argument("--admin", metavar="URL", help=text)
    text = "who you are, for the history and the audit trail (default: the user's name)"
    rollback.add_argument("--as", dest="operator", metavar="NAME", help=text)
    text = "the signature of an admin, if a protected region changes: `gateway plan --sign` writes it"
    rollback.add_argument("--signature", type=Path, metavar="FILE", help=text)
    rollback.set_defaults(run=switches.rollback)


def _add_audit(group: Group[argparse.ArgumentParser]) -> None:
    text = "The audit trail: a line for each start, switch, rejection and rollback, chained by hashes."
    audit = group.add_parser("audit", help="verify the audit trail", description=text)
    audit.set_defaults(parser=audit)
    verify = audit.add_subparsers(title="commands", metavar="COMMAND").add_parser(
        "verify",
        help="say whether a line was changed, moved or taken out",
        description=(
            "Read the whole trail. Exit status: 0 it is as it was written, 1 it isn't: the first such line, 2 there "
            "is none that can be read."
        ),
    )
    _add_state(verify)
    text = 'a hash from the gateway\'s log (`"event":"audit"`): with it, lines that are missing at the end show too'
    verify.add_argument("--head", type=_hash, metavar="HASH", help=text)
    verify.set_defaults(run=trail.verify_audit)


def _hash(text: str) -> str:
    if re.fullmatch("[0-9a-fA-F]{64}", text) is None:
        raise argparse.ArgumentTypeError("a hash has 64 hexadecimal digits")
    return text.lower()


def _add_receipt(group: Group[argparse.ArgumentParser]) -> None:
    text = "Receipts of requests, as GET /v1/receipts/{id} gives them."
    receipt = group.add_parser("receipt", help="verify the receipt of a request", description=text)
    receipt.set_defaults(parser=receipt)
    verify = receipt.add_subparsers(title="commands", metavar="COMMAND").add_parser(
        "verify",
        help="say whether a gateway signed it",
        description="Say whether a receipt is what was signed. Exit status: 0 it is, 1 it isn't, 2 it can't be read.",
    )
    verify.add_argument("file", type=Path, metavar="FILE", help="the answer of GET /v1/receipts/{id}, or its JWS alone")
    verify.add_argument("--key", required=True, metavar="PUB", help="the public key, or a file that holds it")
    verify.set_defaults(run=keys.verify)


_USAGE = 2


_INTERRUPTED = 130


_START = """\
to begin:
  gateway demo                 three answers from three places, without a key
  gateway init my-gateway      a config to start from
  gateway check my-gateway/gateway.yaml
  gateway serve --config my-gateway/gateway.yaml

GATEWAY_CONFIG, GATEWAY_HOST, GATEWAY_PORT and GATEWAY_WORKERS in the
environment are read where an option isn't given; so are GATEWAY_ADMIN_HOST,
GATEWAY_ADMIN_PORT, GATEWAY_ADMIN_TOKEN, GATEWAY_MAX_REQUESTS,
GATEWAY_LOG_FORMAT, GATEWAY_LOG_LEVEL, GATEWAY_GRACE_S, GATEWAY_STATE_DIR,
GATEWAY_RECEIPT_KEY and GATEWAY_TRANSPORT (docs/operate/running.md)."""


_LONGEST_S = 3600


_DEMO_CONFIG = "a demo config of your own (default: GATEWAY_CONFIG, or the built-in)"


def run_command(arguments: Sequence[str] | None = None) -> int:
    """Run one command; the value is the process's exit status: 0 done, 1 found wrong, 2 can't be run like that."""
    open_streams()
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
        return told_no_more(error)
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
    _add_simulate(group)
    _add_init(group)
    _add_check(group)
    _add_explain(group)
    add_switching(group)
    _add_schema(group)
    _add_key(group)
    _add_providers(group)
    _add_evaluate(group)
    return parser


def _add_serve(group: Group[argparse.ArgumentParser]) -> None:
    text = "Serve a config until SIGTERM or Ctrl-C; what is running then is finished first."
    serve = group.add_parser("serve", help="serve a config", description=text)
    add_config(serve)
    _add_listener(serve)
    serve.add_argument(
        "--workers", type=int, metavar="N", help="processes on the one socket (default: GATEWAY_WORKERS, or 1)"
    )
    serve.set_defaults(run=serving.serve)


def _add_demo(group: Group[argparse.ArgumentParser]) -> None:
    text = (
        "Serve simulated providers, after asking them from three places. The header `cf-ipcountry` says where you are."
    )
    demo = group.add_parser("demo", help="serve simulated providers: no key, no network", description=text)
    demo.add_argument("--config", type=Path, metavar="FILE", help=_DEMO_CONFIG)
    _add_listener(demo)
    demo.set_defaults(run=serving.demo)


def _add_simulate(group: Group[argparse.ArgumentParser]) -> None:
    text = (
        "Rehearse a failure: the demo, whose providers fail as you say, and its log. A FAULT is written "
        "WHAT[=VALUE][:SHARE]. WHAT is an HTTP status or a word (reset, silent, stall, slow, html, garbage, "
        "content-filter, …). VALUE is a number of seconds for a status (its retry-after) and for `slow`, and a number "
        "of events for `reset`, `cut` and `stall`. SHARE is the share of requests that it happens to: 429, 503=7:0.1, "
        "stall=3:0.05."
    )
    simulate = group.add_parser("simulate", help="serve simulated providers that fail as you say", description=text)
    simulate.add_argument(
        "--fault", action="append", default=[], metavar="FAULT", help="a fault of every provider; repeatable"
    )
    simulate.add_argument(
        "--fault-at",
        action="append",
        default=[],
        nargs=2,
        metavar=("DEPLOYMENT", "FAULT"),
        help="a fault of the site of one deployment only, such as qwen-cn silent; repeatable",
    )
    simulate.add_argument(
        "--first-token", type=_seconds, default=0.0, metavar="S", help="seconds before an answer begins (default: 0)"
    )
    simulate.add_argument(
        "--between-events", type=_seconds, default=0.0, metavar="S", help="seconds between its events (default: 0)"
    )
    simulate.add_argument("--seed", type=int, default=0, metavar="N", help="decides which requests fail (default: 0)")
    simulate.add_argument("--config", type=Path, metavar="FILE", help=_DEMO_CONFIG)
    _add_listener(simulate)
    simulate.set_defaults(run=serving.simulate)


def _seconds(text: str) -> float:
    seconds = float(text)
    if not 0 <= seconds <= _LONGEST_S:
        raise argparse.ArgumentTypeError(f"{text} is not from 0 to {_LONGEST_S}")
    return seconds


def _add_init(group: Group[argparse.ArgumentParser]) -> None:
    text = "Write gateway.yaml, its JSON Schema for editors, and env.example, the list of keys. Overwrites nothing."
    init = group.add_parser("init", help="write an annotated config to start from", description=text)
    init.add_argument("directory", nargs="?", type=Path, default=Path("."), metavar="DIR", help="where (default: here)")
    init.add_argument(
        "--example", metavar="NAME", help=f"start from a common set-up instead: {', '.join(example_names())}"
    )
    init.set_defaults(run=configs.init)


def _add_check(group: Group[argparse.ArgumentParser]) -> None:
    text = (
        "Say everything that is wrong with a config or, if nothing is, who answers where. "
        "Exit status: 0 it can be served, 1 it can't, 2 there is no such file."
    )
    check = group.add_parser("check", help="say what is wrong with a config, and what it does", description=text)
    check.add_argument("file", nargs="?", type=Path, metavar="FILE", help=f"the config ({DEFAULT_CONFIG})")
    add_config(check)
    check.add_argument("--strict", action="store_true", help="warnings count as errors")
    add_no_secrets(check)
    check.set_defaults(run=configs.check)


def _add_explain(group: Group[argparse.ArgumentParser]) -> None:
    text = "Say who would answer a caller, and why. What decides here is the function that decides for real requests."
    explain = group.add_parser("explain", help="say who would answer a caller, and why", description=text)
    add_config(explain)
    explain.add_argument("--assistant", metavar="NAME", help="the assistant, by name or alias (default: the only one)")
    explain.add_argument("--from", dest="place", metavar="CN", help="the caller's country, as an edge would report it")
    explain.add_argument("--client", metavar="NAME", help="a client of the config (default: a caller without a key)")
    explain.add_argument("--user", metavar="NAME", help="who the person is: decides their side of a weighted step")
    explain.add_argument("--json", action="store_true", help="in the form of GET /v1/explain")
    add_no_secrets(explain)
    explain.set_defaults(run=configs.explain)


def _add_schema(group: Group[argparse.ArgumentParser]) -> None:
    text = "Print the JSON Schema of the config. `gateway init` writes it beside the config, where editors find it."
    schema = group.add_parser("schema", help="print the config's JSON Schema, for editors", description=text)
    form = schema.add_mutually_exclusive_group()
    form.add_argument("--markdown", action="store_true", help="as a page for people: every key with its meaning")
    form.add_argument("--catalogue", action="store_true", help="the schema of a catalogue file of your own instead")
    schema.set_defaults(run=configs.schema)


def _add_key(group: Group[argparse.ArgumentParser]) -> None:
    text = "Make keys: a client's, of which the config holds only the hash, or a pair that signs plans and receipts."
    key = group.add_parser("key", help="make a client's key, or a pair that signs", description=text)
    key.set_defaults(parser=key)
    new = key.add_subparsers(title="commands", metavar="COMMAND").add_parser(
        "new",
        help="make a key, and the hash of it that goes into the config",
        description="Make a client's key and print it with its hash. It isn't stored, and is shown only now.",
    )
    new.add_argument(
        "--ed25519",
        type=Path,
        metavar="FILE",
        help="make a pair that signs instead: the private key goes to FILE, the public one to FILE.pub",
    )
    new.set_defaults(run=keys.new)


def _add_providers(group: Group[argparse.ArgumentParser]) -> None:
    text = "The installed providers: what they can do, their sites with their facts, and whose key is set."
    providers = group.add_parser("providers", help="list providers; check one, begin a new one", description=text)
    providers.set_defaults(run=provider_commands.listing, names=[], json=False, markdown=False)
    subcommands = providers.add_subparsers(title="commands", metavar="COMMAND")
    listed = subcommands.add_parser("list", help="the same, for some providers only, or as JSON", description=text)
    listed.add_argument("names", nargs="*", metavar="NAME", help="a provider (default: all)")
    form = listed.add_mutually_exclusive_group()
    form.add_argument("--json", action="store_true", help="for programs")
    form.add_argument("--markdown", action="store_true", help="as a page for people: who can do what, and where")
    listed.set_defaults(run=provider_commands.listing)
    text = (
        "What is known of models: what each accepts and can do, what it costs, and when its vendor retires it. With "
        "--config, the same for the config's deployments, with your own catalogue files."
    )
    models = subcommands.add_parser("models", help="models with their prices and last days", description=text)
    models.add_argument("names", nargs="*", metavar="NAME", help="a provider (default: all)")
    models.add_argument("--markdown", action="store_true", help="as a page for people")
    models.add_argument("--config", type=Path, metavar="FILE", help="show the models of this config's deployments")
    models.set_defaults(run=provider_commands.models)
    text = (
        "Send one small real request to a deployment, the way traffic goes, and show the exchange with its key masked. "
        "It may cost a fraction of a cent. Exit status: 0 it answered, 1 it didn't."
    )
    check = subcommands.add_parser("check", help="send one small real request", description=text)
    check.add_argument("name", metavar="NAME", help="a deployment of the config, or a provider: all its deployments")
    add_config(check)
    check.set_defaults(run=provider_commands.check)
    text = (
        "Write an adapter, its simulator, its test and its page from a template. "
        "docs/extend/adapters.md describes the next steps."
    )
    new = subcommands.add_parser("new", help="begin an adapter of your own", description=text)
    new.add_argument("name", metavar="NAME", help="the provider's name in configs, such as acme")
    new.add_argument("directory", nargs="?", type=Path, metavar="DIR", help="where (default: a directory of its name)")
    new.set_defaults(run=provider_commands.new)


def _add_evaluate(group: Group[argparse.ArgumentParser]) -> None:
    text = (
        "Judge candidates for a region by performance, compliance and scalability, and\n"
        "report who should answer. Exit status: 0 somebody is recommended, 1 nobody is or\n"
        "the spending limit was reached; with --compare: 0 nothing got worse, 1 something\n"
        "did; 2 it can't be run like that."
    )
    example = (
        "example:\n  gateway evaluate --region cn --candidates qwen-cn,ernie-cn \\\n    --out reports/cn --dry-run\n\n"
        "Every answer is kept in --out, so the same command goes on where it was broken\noff."
    )
    evaluate = group.add_parser(
        "evaluate", help="judge candidates for a region", description=text, epilog=example, formatter_class=_Formatter
    )
    add_config(evaluate)
    evaluate.add_argument("--region", metavar="NAME", help="the region that the candidates are judged for")
    evaluate.add_argument("--assistant", metavar="NAME", help="the assistant they are to be (default: the only one)")
    evaluate.add_argument("--candidates", metavar="A,B", help="the deployments to judge, by their names in the config")
    evaluate.add_argument("--suite", metavar="FILE", help="what they are asked (default: what ships for the region)")
    evaluate.add_argument("--out", type=Path, metavar="DIR", help="where the run and its report are kept")
    evaluate.add_argument("--seed", type=int, metavar="N", help="of all that is drawn at random (default: the suite's)")
    evaluate.add_argument("--dry-run", action="store_true", help="estimate questions, tokens, cost and time, and stop")
    evaluate.add_argument("--fresh", action="store_true", help="start again: forget what --out holds")
    evaluation.add_forms(evaluate)
    evaluate.set_defaults(run=evaluation.evaluate)


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
