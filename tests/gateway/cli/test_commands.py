"""The file that describes the commands names functions and words that exist."""

import argparse
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gateway.cli.arguments as parsers
from gateway.config.examples import example_names
from gateway.model.budget import Window
from gateway.model.served import USES
from gateway.model.stored_client import Role
from gateway.service.admin_operations import OPERATIONS

DESCRIBED = json.loads((Path(parsers.__file__).with_name("commands.json")).read_text("utf-8"))


def commands(parser: argparse.ArgumentParser) -> Iterator[argparse.ArgumentParser]:
    yield parser
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for each in action.choices.values():
                yield from commands(each)


def option(name: str) -> Any:
    found = (action for each in commands(parsers.command_parser()) for action in each._actions)
    return next(action for action in found if name in action.option_strings)


def test_every_command_has_a_function_with_a_sentence_or_further_commands() -> None:
    names = DESCRIBED["commands"]
    for name, command in names.items():
        if "run" in command:
            assert parsers._function(command["run"]).__doc__, name
        else:
            further = (*names, *(operation.command for operation in OPERATIONS))
            assert name == "" or any(other.startswith(f"{name} ") for other in further), name


def test_functions_are_in_modules_of_commands_only() -> None:
    """The module of the parsers is the only one that imports by a computed name (`tests/architecture/test_imports.py`)."""
    functions = [command["run"] for command in DESCRIBED["commands"].values() if "run" in command]
    modules = {path.stem for path in Path(parsers.__file__).parent.glob("*.py")}
    assert functions
    for function in functions:
        module, dot, name = function.partition(".")
        assert module in modules, function
        assert dot, function
        assert name.isidentifier(), function
    assert Path(parsers.__file__).read_text("utf-8").count("import_module(") == 1


def test_every_shared_list_of_arguments_is_used() -> None:
    used = {
        item
        for command in DESCRIBED["commands"].values()
        for item in command.get("arguments", ())
        if isinstance(item, str)
    }
    assert used | {"client", "project", "unset"} == set(DESCRIBED["shared"]), "OPERATIONS use these three"


def test_choices_are_those_of_the_model() -> None:
    assert tuple(option("--use").choices) == USES
    assert tuple(option("--per").choices) == tuple(Window)
    assert tuple(option("--role").choices) == tuple(Role)


def test_help_of_init_names_every_example() -> None:
    assert option("--example").help.endswith(": " + ", ".join(example_names()))
