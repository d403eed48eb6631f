"""Check a module's source for purity: no I/O, no clock, no state that requests share.

The kit checks the modules of an adapter. This repository's own tests check all modules that adapters import from it.
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
_SHARED = "{module}, line {line}: `{name}` is shared by all requests and must not be changed"
_FORBIDDEN = frozenset(_FORBIDDEN_NAMES.split())


def modules_within_package(start: str) -> list[str]:
    """Return the module and the modules of its package that it imports, directly or indirectly."""
    package_prefix = start.rpartition(".")[0] + "."
    modules: list[str] = []
    pending = [start]
    while pending:
        module = pending.pop()
        if module not in modules:
            modules.append(module)
            pending += [name for name in _imports(module) if name.startswith(package_prefix) and _exists(name)]
    return modules


def forbidden_imports(module: str) -> list[str]:
    """Return the imported modules that do I/O or read a clock or the environment."""
    return sorted({name for name in _imports(module) if _is_forbidden(name)})


def impurities(module: str, shared_classes: Collection[str] = ()) -> Iterator[str]:
    """Yield a message for each line of a module that reads a clock or a file, or changes state that requests share.

    Methods of the `shared_classes`, which have one instance for all requests, must not change the instance.
    """
    tree = ast.parse(Path(_source_of(module)).read_text("utf-8"))
    shared = {name for statement in tree.body for name in _bound_by(statement)}
    for node in ast.walk(tree):
        where = f"{module}, line {getattr(node, 'lineno', 0)}"
        if isinstance(node, ast.Global):
            yield f"{where}: `global` changes state that all requests share"
        if isinstance(node, ast.Call) and _CLOCK_OR_FILE.fullmatch(name := ast.unparse(node.func)):
            yield f"{where}: {name}() is not a pure function"
    for function in ast.walk(tree):
        if isinstance(function, ast.FunctionDef):
            persistent = {argument.arg for argument in _arguments_with_mutable_default(function)}
            for name, line in _changed_in(function, persistent):
                if name in shared | persistent:
                    yield _SHARED.format(module=module, line=line, name=name)
    for method in _methods(tree, shared_classes):
        instance = method.args.args[0].arg if method.args.args else ""
        for name, line in _changed_in(method, {instance}):
            if name == instance:
                yield _SHARED.format(module=module, line=line, name=instance)


def _bound_by(statement: ast.stmt) -> Iterator[str]:
    """Yield the names that a statement at module level binds."""
    if isinstance(statement, ast.ClassDef):
        yield statement.name
    targets = statement.targets if isinstance(statement, ast.Assign) else [getattr(statement, "target", None)]
    yield from (target.id for target in targets if isinstance(target, ast.Name))


def _arguments_with_mutable_default(function: ast.FunctionDef) -> Iterator[ast.arg]:
    """Yield the arguments whose default is mutable. Python creates a default once, so all calls share it."""
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
    """Yield the methods of the classes, except constructors and static methods."""
    for node in tree.body:
        if isinstance(node, ast.ClassDef) and node.name in classes:
            yield from (
                one
                for one in node.body
                if isinstance(one, ast.FunctionDef)
                and one.name not in _MAKING
                and "staticmethod" not in map(ast.unparse, one.decorator_list)
            )


def _changed_in(function: ast.FunctionDef, not_own: set[str]) -> Iterator[tuple[str, int]]:
    """Yield each name that is not local to the function and whose object it changes, with the line.

    A change is `X[k] = v`, `del X[k]`, `X.a = v`, `X.a.add(v)` or `next(X)`.
    """
    # An argument that is assigned again, for example to a copy, is local.
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
    """Yield the nodes of the function. Skip nested functions that have one of the names as an argument."""
    pending: list[ast.AST] = [*function.body]
    while pending:
        node = pending.pop()
        if isinstance(node, ast.FunctionDef) and not names.isdisjoint(
            one.arg for one in ast.walk(node.args) if isinstance(one, ast.arg)
        ):
            continue
        yield node
        pending += ast.iter_child_nodes(node)


def _imports(module: str) -> Iterator[str]:
    """Yield the full name of each import in the module's source, including imports inside functions."""
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
    assert spec is not None, f"{module} is not a module"
    assert spec.origin is not None, f"{module} has no source file"
    return spec.origin


def _exists(name: str) -> bool:
    try:
        spec = find_spec(name)
    except (ImportError, ValueError):
        return False
    return spec is not None and spec.origin is not None


def _is_forbidden(name: str) -> bool:
    return any(name == word or name.startswith(word + ".") for word in _FORBIDDEN)
