"""The text of other files and the commands that go with an outbuilding where the core opens it.

`tests/architecture/removal.py` takes an outbuilding out of a copy by this table: its rooms, and the text at its doors.
"""

from __future__ import annotations

import ast
import json
import re
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from tests.architecture.outbuildings import OUTBUILDINGS
from tests.architecture.source_tree import PACKAGES

Edits = Mapping[str, tuple[tuple[str, str], ...]]
"""By file, each pattern of a text and what is there without the outbuilding. In a pattern, `.` is any character."""


@dataclass(frozen=True)
class Takeout:
    """The text that goes with an outbuilding, the commands that go, and the outbuildings that have to go first."""

    edits: Edits
    commands: tuple[str, ...] = ()
    after: tuple[str, ...] = ()


def _gone(*patterns: str) -> tuple[tuple[str, str], ...]:
    return tuple((pattern, "") for pattern in patterns)


def _import(name: str) -> str:
    """Return the pattern of the lines that import from a module."""
    return rf"^ *from {re.escape(name)} import [^\n]*\n"


_NO_CELL = (
    (_import("gateway.cli.cell"), "from contextlib import nullcontext\n"),
    (_import("gateway.cell.cell_record"), ""),
    (r"opened_cell\(settings\)", "nullcontext()"),
)
"""A command reads the state directory alone."""

_INPUTS_IMPORT = r"^from providers\.(inputs\.[\w.]+|testkit\.simulated_(rerank|decisions|audio)) import [^\n]*\n"
"""An import from a room of the inputs."""

TAKEOUTS: Mapping[str, Takeout] = {
    "vendors": Takeout({"pyproject.toml": _gone(r"^[\w-]+ = \"providers\.vendors\.(?!openai)[^\n]*\n")}),
    "dialects": Takeout(
        {
            "gateway/api/dialects/paths.py": (
                *_gone(
                    r"^from gateway\.api\.dialects import gemini, messages\n",
                    _import("gateway.api.dialects.completions"),
                    _import("gateway.api.dialects.responses"),
                    r"^(COUNT_PATH|INPUT_TOKENS_PATH|COMPLETIONS_PATH) = [^\n]*\n",
                    r"^    (MESSAGES_PATH|RESPONSES_PATH|COMPLETIONS_PATH): [^\n]*\n",
                    r"^    match asked\.method:\n.*?(?=^    return)",
                    r"^    if path == (COUNT_PATH|INPUT_TOKENS_PATH):\n[^\n]*\n",
                    r"^    form: ListForm = \"chat\"\n.*?(?=^    return)",
                ),
                (r"^MESSAGES_PATH = [^\n]*", 'MESSAGES_PATH = "/v1/messages"'),
                (r"^RESPONSES_PATH = [^\n]*", 'RESPONSES_PATH = "/v1/responses"'),
                (r"^    asked = parse_path\(path\)\n    return gemini.GeminiCount[^\n]*\n", "    return None\n"),
            )
        },
        after=("websocket", "inputs"),
    ),
    "evaluation": Takeout({}, ("evaluate",)),
    "doctor": Takeout(
        {"gateway/cli/cell.py": _gone(_import("gateway.cli.check_result"), r"^def checked_stores\(.*?\n\n\n(?=@)")},
        ("doctor",),
    ),
    "litellm": Takeout(
        {
            "gateway/cli/check.py": (
                *_gone(
                    _import("gateway.litellm.conversion"), r"^    for title, lines in \{\"gaps to fill\".*?return _OK\n"
                ),
                (r"converted = convert_litellm[^\n]*", 'raise CommandError(f"{source} is no config of this gateway")'),
            )
        }
    ),
    "handover": Takeout(
        {
            "gateway/cli/serve.py": (
                *_gone(
                    _import("gateway.server.takeover"),
                    r"^    takeover = Takeover\.of_environment\(\)\n",
                    r"^    except BaseException as error:  # the running.*?raise\n(?=    finally)",
                    r"^def _reason_of\(.*?\n\n\n",
                    r"^    takeover: Takeover \| None = None,\n",
                    r"^    lock = takeover[^\n]*\n",
                    r", inherited_lock=lock",
                ),
                (r"child, takeover\)", "child)"),
                (r"initial, takeover, ", "initial, "),
            ),
            "gateway/server/start.py": (
                *_gone(
                    _import("gateway.server.handover"),
                    _import("gateway.server.takeover"),
                    r"^    takeover: Takeover \| None( = None)?,\n",
                    r"^    takeover: The connection[^\n]*\n",
                    r"takeover\.(sockets|service|consent_key) if takeover is not None else ",
                    r"^    handover = Handover\([^\n]*\n",
                    r"^        handover\.note_serving\(\)\n",
                    r"^    # The next process would have other simulators, and another state directory\.\n",
                ),
                (r"operators, takeover, simulation", "operators, simulation"),
                (r"handover\.is_done_before if faults is None else None", "None"),
            ),
        },
        ("restart",),
    ),
    "cell": Takeout(
        {
            "gateway/changes/change_review.py": (
                *_gone(_import("gateway.changes.cell")),
                (r"cell: CellMember \| None", "cell: None"),
            ),
            "gateway/changes/initial_config.py": (
                *_gone(
                    _import("gateway.changes.cell"),
                    r"^            initial = self\._in_cell\(initial\)\n",
                    r"^    def _in_cell\(.*?cell=member\)\n\n(?=    def )",
                ),
                (r"cell: CellMember \| None", "cell: None"),
            ),
            "gateway/cli/audit.py": (
                *_NO_CELL,
                (r"^            if database is None:\n *(return own\n).*? else _REFUSED\n", r"            \1"),
                (r"^    tell_chained\(verdict\)\n", ""),
            ),
            "gateway/cli/doctor.py": _gone(
                _import("gateway.cli.cell"), r"^    if config\.stores is not None:\n[^\n]*checked_stores[^\n]*\n"
            ),
            "gateway/cli/evidence_configs.py": (
                *_NO_CELL,
                (r"^            with nullcontext\(\) .*?(?=            return cls\._of_directory)", ""),
                (r"^    @classmethod\n    def _of_cell\(.*?\n\n(?=    @)", ""),
            ),
            "gateway/cli/history.py": (
                *_NO_CELL,
                (r"^    with nullcontext\(\) as database:\n.*?(?=    with opened_history)", ""),
                (r"^def _list_cell\(.*?\n\n\n", ""),
                (r"^            last = database\.[^\n]*\n", ""),
                (r"^            if database is not None and new is not None:\n.*?share_pin[^\n]*\n", ""),
                (r" \| CellRecord", ""),
            ),
            "gateway/cli/operations.py": (
                *_gone(_import("gateway.cli.cell")),
                (
                    r"document = status_of_cell\(settings\) if .*? else None",
                    "document: Mapping[str, Any] | None = None",
                ),
            ),
            "gateway/config/compile.py": _gone(
                _import("gateway.config.stores"), r"^        stores=compile_stores\([^\n]*\n"
            ),
            "gateway/features/duties/feature.py": (
                *_gone(
                    r"^if TYPE_CHECKING:\n    from gateway\.features\.duties\.shared_times[^\n]*\n",
                    r"^    if \(server := _valkey_of\(config\)\) is not None:\n[^\n]*\n[^\n]*\n",
                    r"^def _valkey_of\(.*?(?=^def _data\()",
                    r"^    if process\.gate is not None and _valkey_of.*?    else:\n    (?=    times)",
                ),
            ),
            "gateway/installation.py": (
                *_gone(
                    _import("gateway.cell.serving"),
                    _import("gateway.cell.postgres"),
                    r"^    with needs_packages\(\):\n    async with gate_for.*?yield gate\n",
                ),
                (r"SharedStores \| None", "Any"),
                (r"import TYPE_CHECKING", "import TYPE_CHECKING, Any"),
                (r"^(def (?:shared_database|serving_stores)\(.*?\"\"\"\n).*?\n\n\n", r"\1    return None\n\n\n"),
            ),
        },
        ("db", "db upgrade", "db check", "instances", "instances forget"),
    ),
    "identity": Takeout(
        {
            "evaluation/asking.py": _gone(
                _import("gateway.identity.token_refresher"),
                r"^        self\._refresher: .*?_refresher\.force\n",
                r"^        if self\._refresher is not None:\n(?:            [^\n]*\n)+",
            ),
            "gateway/assembly/application.py": (
                *_gone(
                    _import("gateway.identity.client_tokens"),
                    _import("gateway.identity.token_refresher"),
                    r"^        self\._(?:refresher|tokens) = [^\n]*\n",
                    r", self\._tokens(?=\))",
                    r"^ *self\.metrics\.live_rows\[\"gateway_sign_in\w+\"\][^\n]*\n",
                    r"^ *if self\.makes_exchanges:\n[^\n]*apply[^\n]*\n( *await self\._refresher\.first\(\)\n)?",
                    r"^ *(?:await )?self\._(?:tokens|refresher)\.(?:prepare|renew|aclose)[^\n]*\n",
                ),
                (r"tokens\.refused, self\.sign_ins = [^\n]*", "self.sign_ins: Callable[[], tuple[Any, ...]] = tuple"),
            ),
            "gateway/cli/asked_capabilities.py": (
                *_gone(_import("gateway.identity.token_refresher")),
                (r"await tokens_for_command\(.*?\) if signs_in else None", "None"),
            ),
            "gateway/cli/doctor.py": _gone(
                _import("gateway.identity.token_refresher"),
                _import("gateway.model.sign_in"),
                r"^        yield from _of_sign_ins\(config\)\n",
                r"^def _of_sign_ins\(.*?\n\n\n",
            ),
            "gateway/cli/doctor_models.py": _gone(
                _import("gateway.identity.token_refresher"),
                r"^            if sign_in is not None:\n(?:                [^\n]*\n)+",
            ),
            "gateway/cli/evidence_configs.py": (
                *_gone(_import("gateway.model.client_token")),
                (r"TokenIssuer(?=\))", "Any"),
                (r"import TYPE_CHECKING", "import TYPE_CHECKING, Any"),
            ),
            "gateway/config/compile.py": (
                *_gone(
                    _import("gateway.config.client_tokens"),
                    _import("gateway.config.sign_ins"),
                    _import("gateway.model.sign_in"),
                    r"^    sign_ins: Mapping\[str, SignIn\]\n",
                    r"^        (?:token_issuers|sign_ins)=[^\n]*\n",
                    r"^    sign_ins = compile_sign_ins\([^\n]*\n",
                    r"(?<=_Called\(deployments, )sign_ins, ",
                ),
                (r"partial\(sign_in_of, draft, sign_ins\)", "lambda *_: None"),
            ),
            "gateway/config/links.py": _gone(_import("gateway.config.schema.sign_in"), r" \| SignInSection"),
            "gateway/config/loading.py": _gone(
                _import("gateway.config.schema.sign_in"), r", \*environment_of\([\w.]+\)"
            ),
            "gateway/config/schema/file.py": (
                *_gone(_import("gateway.config.schema.sign_in"), _import("gateway.model.client_token")),
                (r"dict\[Name, (?:SignInSection|TokenIssuerRules)\]", "dict[Name, Any]"),
            ),
            "gateway/model/config_version.py": (
                *_gone(_import("gateway.model.client_token"), _import("gateway.model.sign_in")),
                (r"Mapping\[str, (?:SignIn|TokenIssuer)\]", "Mapping[str, Any]"),
            ),
            "gateway/server/host.py": _gone(
                _import("gateway.identity.operator_tokens"),
                r"^        transport = PoolTransport\(\)\n        self\._tokens = OperatorTokens\(.*?\n        \)\n",
                r"^ *(?:await )?self\._tokens\.(?:prepare|renew|aclose)\(\)\n",
                r"issued=self\._tokens, ",
            ),
            "gateway/server/workers.py": (
                *_gone(
                    _import("gateway.identity.token_refresher"),
                    r"^        self\._refresher = [^\n]*\n",
                    r"^ *(?:await )?self\._refresher\.(?:apply|first|aclose)\([^\n]*\n",
                    r"^ *\"gateway_sign_in_\w+\"[^\n]*\n",
                    r"^            \"note_refused_token\"[^\n]*\n",
                ),
                (r"self\.sign_ins = self\._refresher\.statuses", "self.sign_ins = tuple"),
                (r"self\._refresher\.notes\(\)", "{}"),
            ),
            "providers/testkit/__init__.py": _gone(
                _import("providers.testkit.issuers"),
                r"^    if name == \"SimulatedIssuers\":\n\n[^\n]*\n",
                r"^    \"SimulatedIssuers\",\n",
            ),
        },
        after=("litellm",),
    ),
    "inputs": Takeout(
        {
            "gateway/model/served.py": (
                (
                    _import("providers.inputs.uses"),
                    "from providers.served import InputUse\n\nINPUTS: dict[str, InputUse] = {}\n",
                ),
            ),
            "gateway/api/chat.py": (
                *_gone(_import("gateway.inputs.answers")),
                (
                    r"^                if not isinstance\(request, ChatRequest\):\n *answer = await answer_input.*?return\n",
                    "                assert isinstance(request, ChatRequest)\n",
                ),
            ),
            "gateway/api/dialects/paths.py": (
                *_gone(_import("gateway.api.inputs"), r"^    \*\*INPUT_DIALECTS,\n"),
                (r"return google_input_dialect\([^\n]*", "return None"),
            ),
            "gateway/config/routes.py": _gone(
                _import("gateway.config.input_routes"), r"^        else:\n            check_input_route\([^\n]*\n"
            ),
            "gateway/features/redaction/policy/requests.py": (
                *_gone(
                    _INPUTS_IMPORT,
                    r"^        case (Embedding|Rerank|Decision|Transcription)Request\([^\n]*\n            return [^\n]*\n",
                    r"^def _(embeddings|audio|rerank|decisions|question)\(.*?\n(?=\n\ndef |\Z)",
                    r"(?<=ChatRequest) \| DecisionRequest(?=\))",
                    r" and not isinstance\(part, JsonPart\)",
                ),
                (r"replace\(part, text=[^\n]*? if isinstance\(part, JsonPart\) else part", "part"),
            ),
            "providers/contract.py": _gone(_INPUTS_IMPORT),
            "providers/stated_uses.py": _gone(_INPUTS_IMPORT, r"\n    @property\n.*"),
            "providers/conformance/test_requests.py": _gone(
                _INPUTS_IMPORT, r"^        if \(embeddings := [^\n]*\n[^\n]*\n"
            ),
            "providers/testkit/__init__.py": _gone(r"^    \"?SimulatesRerank\"?,\n"),
            "providers/testkit/simulator.py": (
                *_gone(_INPUTS_IMPORT, r"EmbeddingRequest \| "),
                (r"^    def write_embeddings\(.*?(?=^@runtime_checkable)", "\n"),
                (r"^@runtime_checkable\nclass SimulatesRerank\(.*?(?=^@runtime_checkable)", ""),
            ),
            "providers/testkit/simulated_inputs.py": _gone(_INPUTS_IMPORT, r"^def embed\(.*?(?=^def moderate)"),
            "providers/testkit/app.py": _gone(
                _INPUTS_IMPORT,
                r"DIMENSIONS, embed, ",
                r"^    SimulatesRerank,\n",
                r"if isinstance\(content, EmbeddingRequest\):.*?el(?=if isinstance\(simulator, SimulatesModerations)",
                r"^            if isinstance\(simulator, SimulatesRerank\)[^\n]*\n[^\n]*\n",
                r"^def _dimensions\(.*?\n\n\n",
            ),
            **{
                f"providers/{vendor}/simulator.py": _gone(
                    _INPUTS_IMPORT,
                    r"^    def (read_input|write_(embeddings|moderations|rerank)|read_rerank|answer_decisions|answer_audio)\(.*?\n\n(?=    def )",
                )
                for vendor in ("vendors/openai", "vendors/gemini", "vendors/dashscope", "compatible")
            },
        }
    ),
    "console": Takeout(
        {
            "gateway/assembly/application.py": _gone(
                _import("gateway.api.front_page"),
                r"^            # Claude Code asks with HEAD.*?return FRONT_PAGE\(scope, receive, send\)\n",
            ),
            "gateway/cli/serve.py": (
                *_gone(
                    _import("gateway.server.demo"),
                    _import("gateway.config.real_deployment"),
                    _import("gateway.server.host"),
                    r"^def demo\(.*?\n\n\n(?=def )",
                    r"^    _serve_simulated\(options, settings, rehearsal\)\n    return _OK\n",
                    r"^    if not _is_demo\(settings\.config\):\n    (?=    return)",
                    r"^def _is_demo\(.*?\n\n\n(?=def )",
                    r"^    if settings\.console_port is not None:\n[^\n]*sign-in\"\)\n",
                    r"^def _serve_simulated\(.*?\n\n\n(?=def _exit_on)",
                ),
                (
                    r"            serve_demo\(settings, initial, build_console[^\n]*\n            return _OK\n",
                    '            raise CommandError("this gateway has no demo")\n',
                ),
                (r"^            if settings\.workers > 1:.*?\)\n(?=\n|            raise)", ""),
                (r"_operator_console\(settings\), simulate\)", "simulate=simulate)"),
            ),
        },
        ("demo",),
    ),
    "websocket": Takeout(
        {
            "gateway/assembly/application.py": _gone(
                _import("gateway.api.websocket.connections"),
                _import("gateway.api.websocket.handshake"),
                r", asks_for_websocket",
                r"^        websockets: The WebSocket[^\n]*\n",
                r"^        self\.websockets = [^\n]*\n",
                r"^        self\.metrics\.live\[\"gateway_websocket_\w+\"\][^\n]*\n",
                r"^            if asks_for_websocket\(scope\):\n[^\n]*\n",
            ),
            "gateway/config/schema/file.py": _gone(
                _import("gateway.model.websocket"), r"^    websocket: Annotated\[WebSocketRules.*?\n    \)\n"
            ),
            "gateway/config/compile.py": _gone(
                r" websocket(?= blocked_by)",
                r"^    if draft\.config\.websocket is not None and .*?unfit\[1\]\.hint\)\n",
            ),
            "gateway/model/config_version.py": (
                *_gone(_import("gateway.model.websocket"), r"^    websocket: WebSocketRules[^\n]*\n[^\n]*\n"),
                (r"return self\.websocket is not None and \(.*?\)\n", "return False\n"),
            ),
            "gateway/server/http_protocol.py": (
                *_gone(
                    r"^if TYPE_CHECKING:\n    from gateway\.server\.websocket_connection[^\n]*\n",
                    r"^    async def become_websocket\(.*?        return True\n\n",
                    r"^@cache\ndef _websocket_kind\(.*?    return WebSocketConnection\n",
                ),
                (r"set\[WebSocketConnection\]", "set[Any]"),
            ),
            "gateway/server/worker.py": _gone(r"^ *websocket=gateway\.websockets\.status\(\),\n"),
        }
    ),
}


def take_out(name: str, tree: Path) -> None:
    """Take an outbuilding out of a copy of the product, after those that open it."""
    takeout, rooms = TAKEOUTS[name], _rooms_of(name, tree)
    if not rooms:  # it went before one that it opens
        return
    for other in takeout.after:
        take_out(other, tree)
    for room in rooms:
        room.unlink()
        if not any(room.parent.rglob("*.py")):  # nor may its data stay: Python would take the folder for a package
            shutil.rmtree(room.parent)
    for place, edits in takeout.edits.items():
        if not (tree / place).exists():  # it went with another outbuilding
            continue
        text = (tree / place).read_text("utf-8")
        for pattern, instead in edits:
            text, count = re.subn(pattern, instead, text, flags=re.MULTILINE | re.DOTALL)
            assert count, f"{place} has no text that goes with {name}: {pattern}"
        (tree / place).write_text(text, "utf-8")
    listed = tree / "gateway/cli/commands.json"
    tables = json.loads(listed.read_text("utf-8"))
    for command in takeout.commands:
        del tables["commands"][command]
    listed.write_text(json.dumps(tables), "utf-8")


def _rooms_of(name: str, tree: Path) -> list[Path]:
    rooms = OUTBUILDINGS[name].rooms
    return [file for file in _python_of(tree) if re.match(rooms, str(file.relative_to(tree)))]


def dangling(tree: Path) -> list[str]:
    """Return the imports of modules that a copy has not. mypy would find these in the checkout."""
    files = {
        ".".join(it.relative_to(tree).with_suffix("").parts).removesuffix(".__init__"): it for it in _python_of(tree)
    }
    imports = [
        (name, target)
        for name, file in files.items()
        for node in ast.walk(ast.parse(file.read_text("utf-8")))
        for target in _targets(node)
    ]
    return [f"{name} imports {it}" for name, it in imports if it.partition(".")[0] in PACKAGES and it not in files]


def _targets(node: ast.AST) -> Iterator[str]:
    if isinstance(node, ast.ImportFrom) and node.module:
        yield node.module
    elif isinstance(node, ast.Import):
        yield from (alias.name for alias in node.names)


def _python_of(tree: Path) -> list[Path]:
    return [file for package in PACKAGES for file in sorted((tree / package).rglob("*.py"))]
