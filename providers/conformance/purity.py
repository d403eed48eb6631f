"""The rule that an adapter is pure, as functions of a module's source: no I/O, no clock, no state shared by requests.

The kit applies the rule to the modules of an adapter. This repository's own tests apply it to everything that adapters
import from it.
"""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Collection, Iterator
from importlib.util import find_spec
from pathlib import Path

_FORBIDDEN_NAMES = (
    "aiohttp anyio asyncio boto3 ctypes fastapi gateway glob google.auth httpcore http.client httpx io logging "
    "multiprocessing os pathlib random requests secrets select selectors shutil signal socket sqlite3 ssl starlette "
    "subprocess tempfile threading time trio urllib.request urllib3 uvicorn"
)
_CLOCK_OR_FILE = re.compile(r"(.*\.)?(now|utcnow|today|uuid[14])|open|print|input")
_CHANGES = frozenset("add append clear discard extend insert pop popitem remove setdefault update".split())
_CHANGEABLE = frozenset("list dict set bytearray defaultdict deque Counter OrderedDict count".split())
_MAKING = frozenset({"__init__", "__new__", "__post_init__"})
_SHARED = "{module}, line {line}: `{name}` is every request's; what is kept there changes another one"
_FORBIDDEN = frozenset(_FORBIDDEN_NAMES.split())


def modules_within_package(start: str) -> list[str]:
    """Return the module and all that it imports, directly or not, within the package that it lies in."""
    within = start.rpartition(".")[0] + "."
    found: list[str] = []
    waiting = [start]
    while waiting:
        module = waiting.pop()
        if module not in found:
            found.append(module)
            waiting += [name for name in _imports(module) if name.startswith(within) and _exists(name)]
    return found


def forbidden_imports(module: str) -> list[str]:
    """Return the modules that this one imports although they do I/O, or read a clock or the environment."""
    return sorted({name for name in _imports(module) if _is_forbidden(name)})


def impurities(module: str, shared_classes: Collection[str] = ()) -> Iterator[str]:
    """Yield a sentence for each line of a module that reads a clock or a file, or changes what requests share.

    Args:
        module: The dotted name of the module.
        shared_classes: The names of its classes that have one instance for all requests, such as the adapter. Their
            methods may not change the instance.
    """
    tree = ast.parse(Path(_source_of(module)).read_text("utf-8"))
    shared = {name for statement in tree.body for name in _bound_by(statement)}
    for node in ast.walk(tree):
        where = f"{module}, line {getattr(node, 'lineno', 0)}"
        if isinstance(node, ast.Global):
            yield f"{where}: `global` makes one request change another"
        if isinstance(node, ast.Call) and _CLOCK_OR_FILE.fullmatch(name := ast.unparse(node.func)):
            yield f"{where}: {name}() is no pure function"
    for function in ast.walk(tree):
        if isinstance(function, ast.FunctionDef):
            kept = {argument.arg for argument in _kept_arguments(function)}
            for name, line in _changed_in(function, kept):
                if name in shared | kept:
                    yield _SHARED.format(module=module, line=line, name=name)
    for method in _methods(tree, shared_classes):
        this = method.args.args[0].arg if method.args.args else ""
        for name, line in _changed_in(method, {this}):
            if name == this:
                yield _SHARED.format(module=module, line=line, name=this)


def _bound_by(statement: ast.stmt) -> Iterator[str]:
    """The names that a statement of the module gives a value."""
    if isinstance(statement, ast.ClassDef):
        yield statement.name
    targets = statement.targets if isinstance(statement, ast.Assign) else [getattr(statement, "target", None)]
    yield from (target.id for target in targets if isinstance(target, ast.Name))


def _kept_arguments(function: ast.FunctionDef) -> Iterator[ast.arg]:
    """Those whose default can be changed: it is made once, and is there again in the next call."""
    arguments = [*function.args.posonlyargs, *function.args.args]
    pairs = [*zip(reversed(arguments), reversed(function.args.defaults), strict=False)]
    pairs += [
        (one, default)
        for one, default in zip(function.args.kwonlyargs, function.args.kw_defaults, strict=True)
        if default
    ]
    for argument, default in pairs:
        called = ast.unparse(default.func).rpartition(".")[2] if isinstance(default, ast.Call) else ""
        if isinstance(default, ast.List | ast.Dict | ast.Set) or called in _CHANGEABLE:
            yield argument


def _methods(tree: ast.Module, classes: Collection[str]) -> Iterator[ast.FunctionDef]:
    """The functions of these classes of the module, but those that make an instance."""
    for node in tree.body:
        if isinstance(node, ast.ClassDef) and node.name in classes:
            yield from (
                one
                for one in node.body
                if isinstance(one, ast.FunctionDef) and one.name not in _MAKING and not _is_static(one)
            )


def _is_static(method: ast.FunctionDef) -> bool:
    return any(ast.unparse(decorator) == "staticmethod" for decorator in method.decorator_list)


def _changed_in(function: ast.FunctionDef, not_own: set[str]) -> Iterator[tuple[str, int]]:
    """What the function changes by a name that isn't its own, and on which line: `X[k] = v`, `del X[k]`, `X.a = v`,
    `X.a.add(v)`, `next(X)`."""
    # Of an argument that is given another value, such as a copy, that one is changed.
    own = {node.arg for node in ast.walk(function) if isinstance(node, ast.arg)} - not_own
    own |= {node.id for node in ast.walk(function) if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)}
    for node in _walk(function, not_own):
        changed: ast.expr | None = None
        if isinstance(node, ast.Subscript | ast.Attribute) and not isinstance(node.ctx, ast.Load):
            changed = node.value
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in _CHANGES:
            changed = node.func.value
        elif isinstance(node, ast.Call) and ast.unparse(node.func) == "next" and node.args:
            changed = node.args[0]
        while isinstance(changed, ast.Attribute | ast.Subscript):
            changed = changed.value
        if isinstance(changed, ast.Name) and changed.id not in own:
            yield changed.id, changed.lineno


def _walk(function: ast.FunctionDef, names: set[str]) -> Iterator[ast.AST]:
    """All of it but the functions in it to which one of these names is an argument of their own."""
    waiting: list[ast.AST] = [*function.body]
    while waiting:
        node = waiting.pop()
        if isinstance(node, ast.FunctionDef) and not names.isdisjoint(
            one.arg for one in ast.walk(node.args) if isinstance(one, ast.arg)
        ):
            continue
        yield node
        waiting += ast.iter_child_nodes(node)


def _imports(module: str) -> Iterator[str]:
    """The full name of everything that the module's source imports, at whatever depth of the code."""
    source = Path(_source_of(module)).read_text("utf-8")
    package = module.rpartition(".")[0]
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = package.rsplit(".", node.level - 1)[0] + "." if node.level else ""
            origin = f"{above}{node.module or ''}".rstrip(".")
            yield origin
            yield from (f"{origin}.{alias.name}" for alias in node.names)


def _source_of(module: str) -> str:
    loaded = sys.modules.get(module)
    spec = loaded.__spec__ if loaded is not None else find_spec(module)
    assert spec is not None, f"{module} is no module"
    assert spec.origin is not None, f"{module} has no source"
    return spec.origin


def _exists(name: str) -> bool:
    try:
        spec = find_spec(name)
    except (ImportError, ValueError):
        return False
    return spec is not None and spec.origin is not None


def _is_forbidden(name: str) -> bool:
    return any(name == word or name.startswith(word + ".") for word in _FORBIDDEN)
