"""The argument parsers of the command `gateway`, which the file `commands.json` describes, and `run_command`.

The module of a command is imported when the command runs, so that each loads only what it needs.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from datetime import date
from functools import cache
from importlib import import_module
from pathlib import Path
from textwrap import fill
from typing import Any, NoReturn

from gateway.cli.terminal import closed_output_status, prepare_streams, tell
from gateway.operator_errors import CommandError, StateError
from gateway.release import release_name
from gateway.service.admin_operations import OPERATIONS

_FILE = Path(__file__).with_name("commands.json")
_UNKNOWN_COMMAND = re.compile(
    r"argument COMMAND: invalid choice: (['\"])(?P<word>.*)\1 \(choose from (?P<names>[^()]*)\)$", re.DOTALL
)
_SECTIONS = ("keys", "clients", "projects")
_USAGE = 2
_INTERRUPTED = 130
_MAX_DELAY_S = 3600


def run_command(arguments: Sequence[str] | None = None) -> int:
    """Run one command. Return the exit status: 0 done, 1 a check failed, 2 the command can't run with these options."""
    prepare_streams()
    options = command_parser().parse_args(arguments)
    if options.run is None:
        options.parser.print_help(sys.stderr)
        return _USAGE
    try:
        status: int = _function(options.run)(options)
        sys.stdout.flush()
    except CommandError as error:
        print(error.shown, file=sys.stderr)
        return error.status
    except StateError as error:
        tell(error)
        return _USAGE
    except KeyboardInterrupt:
        return _INTERRUPTED
    except OSError as error:
        return closed_output_status(error)
    return status


class _Parser(argparse.ArgumentParser):
    """A parser that suggests a command for a misspelt one. The parsers of its commands are such parsers too."""

    def error(self, message: str) -> NoReturn:
        if (match := _UNKNOWN_COMMAND.match(message)) is not None:
            from gateway.config.problems import nearest  # imported late, because few commands are misspelt

            near = nearest(match["word"], re.findall(r"[\w-]+", match["names"]))
            message = f"there is no command '{match['word']}'; did you mean {near}?" if near is not None else message
        super().error(message)

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> tuple[argparse.Namespace, list[str]]:  # type: ignore[override]  # an overload for each type of namespace
        """Parse, and report an unknown argument with the usage of its command, not with that of `gateway`."""
        parsed, unknown = super().parse_known_args(args, namespace)
        # argparse gives an optional argument up at the first option, as in `redact NAME --config F FILE`.
        late = [it for it in self._get_positional_actions() if it.nargs == "?" and getattr(parsed, it.dest) is None]
        if late and len(unknown) == 1 and not unknown[0].startswith("-"):
            setattr(parsed, late[0].dest, self._get_value(late[0], unknown.pop()))
        if unknown:
            self.error(f"unknown argument: {' '.join(unknown)}")
        return parsed, unknown


@cache
def command_parser() -> argparse.ArgumentParser:
    """Return the parser of `gateway`, with the parsers of its commands.

    In `commands.json`, `run` is the module below `gateway.cli` and the function of a command. In `arguments`, a name
    stands for a list of `shared`, and `one_of` lists options that exclude each other. The other members are
    arguments of `ArgumentParser.add_argument`. A text that is a list of lines is printed as it is.
    """
    described = json.loads(_FILE.read_text("utf-8"))
    front = {**described["commands"].pop(""), "epilog": _front(described["topics"])}
    parser: argparse.ArgumentParser = _Parser(prog="gateway", **_texts(front))
    parser.set_defaults(run=None, parser=parser)
    parser.add_argument("--version", action="version", version=f"%(prog)s {release_name()}")
    parsers = {"": parser}
    # The first screen names the commands by topic instead.
    groups = {"": parser.add_subparsers(prog="gateway", metavar="COMMAND", help=argparse.SUPPRESS)}
    parser.usage = "gateway [-h] [--version] COMMAND ..."
    for name, command in described["commands"].items():
        group, _, word = name.rpartition(" ")
        if group not in groups:
            groups[group] = parsers[group].add_subparsers(title="commands", metavar="COMMAND")
        parsers[name] = groups[group].add_parser(word, help=command["help"], **_texts(command))
        defaults = {"run": command.get("run"), "parser": parsers[name], "command": name, "about": command["help"]}
        parsers[name].set_defaults(**defaults, **command.get("defaults", {}))
        _add_arguments(parsers[name], command.get("arguments", ()), described["shared"])
    for operation in OPERATIONS:
        group, _, word = operation.command.rpartition(" ")
        groups[group] = groups.get(group) or parsers[group].add_subparsers(title="commands", metavar="COMMAND")
        text = f"{operation.about[0].upper()}{operation.about[1:]}."
        one = groups[group].add_parser(word, help=operation.about, description=text)
        section = {"section": group} if group in _SECTIONS else {}
        parsers[operation.command] = one
        one.set_defaults(
            run="stored_clients.run",
            parser=one,
            command=operation.command,
            about=operation.about,
            operation=operation,
            **section,
        )
        _add_arguments(one, ["admin"], described["shared"])
        for it in operation.fields:
            rules: dict[str, Any] = {"metavar": it.metavar or None, "help": it.about, "choices": it.choices or None}
            rules |= {"required": it.required, "default": it.default, "dest": it.name} if it.option else {}
            one.add_argument(it.option or it.name, **rules)
        if operation.confirmed:
            one.add_argument("--yes", action="store_true", help="do not ask")
        if operation.definition:
            unset = ["unset"] if operation.method == "PATCH" else []
            _add_arguments(one, [group.removesuffix("s"), *unset], described["shared"])
    parsers["help"].set_defaults(topics=described["topics"], parsers=parsers)
    return parser


def show_help(options: argparse.Namespace) -> int:
    """Print the commands of a topic, or the help of a command (`gateway help`)."""
    words = " ".join(options.words)
    named = ((it, (name, it["about"], it.get("also"))) for name, it in options.topics.items())
    topic = next((it for it, names in named if words in names), None)
    if topic is None and words not in options.parsers:
        raise CommandError(f"there is no topic or command {words!r}; the topics are: {', '.join(options.topics)}")
    if topic is None:
        options.parsers[words].print_help()
    elif "text" in topic:
        print("\n".join(topic["text"]))
    else:
        members = {name for row in topic["rows"] for name in row[0].split(", ")}
        shown = {name: parser for name, parser in options.parsers.items() if name.split(" ")[0] in members}
        width = max(map(len, shown)) + 4
        for name, parser in shown.items():
            about = fill(parser.get_default("about"), 80, initial_indent=" " * width, subsequent_indent=" " * width)
            print(f"  {name:{width - 2}}{about.lstrip()}")
        print("\ngateway COMMAND --help: the options of a command")
    return 0


def _front(topics: Mapping[str, Any]) -> list[str]:
    """Return the lines of the first screen: the commands by topic, with a text for each few."""
    lines: list[str] = []
    for topic in topics.values():
        rows = [f"  {names:<30}{about}" for names, about in topic.get("rows", ())]
        lines += [f"{topic['about']}:", *rows] if rows else []
    return [*lines, "", f"gateway help TOPIC: {', '.join(topics)}", "gateway COMMAND --help: the options of a command"]


def _texts(command: Mapping[str, Any]) -> dict[str, Any]:
    """Return the description and the epilog of a command, with the formatter that prints lists of lines."""
    texts = {name: command[name] for name in ("description", "epilog") if name in command}
    lines = {name: "\n".join(text) for name, text in texts.items() if isinstance(text, list)}
    return {**texts, **lines, **({"formatter_class": argparse.RawDescriptionHelpFormatter} if lines else {})}


def _add_arguments(
    parser: argparse._ActionsContainer, arguments: Iterable[Any], shared: Mapping[str, list[Any]]
) -> None:
    for argument in arguments:
        if isinstance(argument, str):
            _add_arguments(parser, shared[argument], shared)
        elif "one_of" in argument:
            _add_arguments(parser.add_mutually_exclusive_group(), argument["one_of"], shared)
        else:
            rules = {name: value for name, value in argument.items() if name != "name"}
            if "type" in rules:
                rules["type"] = _TYPES[rules["type"]]
            if isinstance(rules.get("metavar"), list):
                rules["metavar"] = tuple(rules["metavar"])
            parser.add_argument(argument["name"], **rules)


def _function(name: str) -> Callable[..., Any]:
    """Return the function that `commands.json` names, such as `check.explain`."""
    module, _, function = name.partition(".")
    return getattr(import_module(f"gateway.cli.{module}"), function)  # type: ignore[no-any-return]


def count(text: str) -> int:
    """Return a whole number above 0."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number of 1 or more")
    return int(text)


def sha256(text: str) -> str:
    """Return a hash in lower case."""
    if re.fullmatch("[0-9a-fA-F]{64}", text) is None:
        raise argparse.ArgumentTypeError("a hash has 64 hexadecimal digits")
    return text.lower()


def territory(text: str) -> str:
    from providers.territories import TerritoryError, parse_territory

    try:
        return parse_territory(text.upper())
    except TerritoryError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def day(text: str) -> date:
    """Return a day such as `2026-11-30`."""
    # `fromisoformat` alone also accepts weeks.
    if re.fullmatch(r"\d{4}-\d\d-\d\d", text, re.ASCII) is not None:
        with suppress(ValueError):
            return date.fromisoformat(text)
    raise argparse.ArgumentTypeError(f"{text!r} is not a day, such as 2026-11-30")


def seconds(text: str) -> float:
    """Return a number of seconds up to an hour."""
    number = float(text)
    if not 0 <= number <= _MAX_DELAY_S:
        raise argparse.ArgumentTypeError(f"{text} is not between 0 and {_MAX_DELAY_S}")
    return number


def duration(text: str) -> float:
    """Return the seconds of a duration such as `600s`, `10m` or `600`."""
    match = re.fullmatch(r"([0-9]+(?:\.[0-9]+)?)([smh]?)", text)
    if match is None:
        raise argparse.ArgumentTypeError(f"{text!r} is not a duration such as 600s or 10m")
    return float(match[1]) * {"": 1, "s": 1, "m": 60, "h": 3600}[match[2]]


_TYPES: Mapping[str, Callable[[str], Any]] = {
    "path": Path,
    "int": int,
    "count": count,
    "hash": sha256,
    "territory": territory,
    "day": day,
    "seconds": seconds,
    "duration": duration,
    "month": lambda text: _function("usage.month")(text),
    "dimensions": lambda text: _function("usage.dimensions")(text),
}
"""The functions that read an argument, by the name of `type` in `commands.json`."""
