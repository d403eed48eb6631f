"""Rules for the code of the packages that neither ruff nor mypy checks. Known violations are in `exceptions/`."""

from __future__ import annotations

import ast
from collections import defaultdict
from collections.abc import Iterator

from tests.architecture.known_exceptions import shrinking
from tests.architecture.source_tree import functions, modules, our_imports

MOST_PARAMETERS = 7
MOST_LINES, MOST_COMPLEXITY = 60, 25
_DECISIONS = (
    ast.If,
    ast.For,
    ast.AsyncFor,
    ast.While,
    ast.ExceptHandler,
    ast.IfExp,
    ast.comprehension,
    ast.Assert,
    ast.match_case,
)
SMALL_LINES = 50
# They name one module of each feature or view, which stays as it is however small it is.
FEATURE_LISTS = {"gateway.features.configuration", "gateway.features.running", "gateway.console.all_views"}
# On the path of a request, an attribute that is read by its name is an undeclared protocol.
HOT = ("gateway.api", "gateway.service", "gateway.execution", "gateway.server")

PUBLIC_FACES = ("providers.contract", "gateway.app")


def test_function_that_is_long_or_complex_has_a_reason() -> None:
    """A comment `# Long: …` in the function gives the reason why a shape would not serve its reader."""
    unexplained = []
    for module, name, node in functions():
        lines = module.path.read_text("utf-8").splitlines()[node.lineno - 1 : node.end_lineno]
        if (len(lines) > MOST_LINES or complexity(node) > MOST_COMPLEXITY) and "# Long: " not in "\n".join(lines):
            unexplained.append(f"{name}: {len(lines)} lines, complexity {complexity(node)}")
    assert unexplained == []


def complexity(function: ast.AST) -> int:
    """Return McCabe's number of a function: the decisions in it, and one."""
    return 1 + sum(
        len(node.values) - 1 if isinstance(node, ast.BoolOp) else isinstance(node, _DECISIONS)
        for node in ast.walk(function)
    )


@shrinking
def test_no_function_has_more_than_seven_parameters() -> Iterator[str]:
    """Parameters that always occur together should be one value."""
    for module, name, node in functions():
        arguments = [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]
        if arguments and arguments[0].arg in ("self", "cls"):
            arguments = arguments[1:]
        if len(arguments) > MOST_PARAMETERS and ".conformance." not in module.name:
            yield f"{name}: {len(arguments)}"


@shrinking
def test_no_two_classes_share_a_name() -> Iterator[str]:
    """A name has one meaning in the packages. Private classes are not checked."""
    places: dict[str, list[str]] = defaultdict(list)
    for module in modules().values():
        for node in module.tree.body:
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                places[node.name].append(module.name)
    for name, found in sorted(places.items()):
        if len(found) > 1:
            yield f"{name}: {', '.join(sorted(found))}"


@shrinking
def test_only_public_faces_list_their_names() -> Iterator[str]:
    """Elsewhere a name without an underscore is public, and a list of them would repeat the module by memory."""
    for module in modules().values():
        if module.path.name == "__init__.py" or module.name in PUBLIC_FACES:
            continue
        if any(isinstance(node, ast.Name) and node.id == "__all__" for node in module.nodes):
            yield module.name


@shrinking
def test_no_code_is_made_at_run_time() -> Iterator[str]:
    """The code has no `exec` and no `eval`, and no object changes its class."""
    for module in modules().values():
        for node in module.nodes:
            called = node.func.id if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) else ""
            if called in ("exec", "eval"):
                yield f"{module.name}: {called}()"
            if isinstance(node, ast.Attribute) and node.attr == "__class__" and isinstance(node.ctx, ast.Store):
                yield f"{module.name}: sets __class__"
            # `object.__setattr__(value, "__class__", other)` and `__class__ = other` in the body of a class.
            if isinstance(node, ast.Call) and any(getattr(one, "value", "") == "__class__" for one in node.args):
                yield f"{module.name}: sets __class__"
            if isinstance(node, ast.Name) and node.id == "__class__" and isinstance(node.ctx, ast.Store):
                yield f"{module.name}: sets __class__"


@shrinking
def test_no_attribute_is_found_by_name_on_the_path_of_a_request() -> Iterator[str]:
    """The packages of the path have no `getattr`. Declare a protocol, and check once which one a value has."""
    for module in modules().values():
        if not module.name.startswith(HOT):
            continue
        for node in module.nodes:
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "getattr":
                yield f"{module.name}: {ast.unparse(node)}"


@shrinking
def test_no_small_module_has_one_user() -> Iterator[str]:
    """A module below 50 lines that one module imports belongs to that module, or to the folder of its feature."""
    users: dict[str, set[str]] = defaultdict(set)
    for importer, imported, _ in our_imports():
        users[imported.name].add(importer.name)
    for name, module in modules().items():
        is_listed = users[name] <= FEATURE_LISTS
        if module.lines < SMALL_LINES and not module.is_package and len(users[name]) == 1 and not is_listed:
            yield f"{name} -> {min(users[name])}"
