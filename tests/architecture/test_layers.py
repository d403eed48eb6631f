"""The layers of the three packages, and which layer may import which.
`providers` is a library: it imports no other package. `evaluation` is above `gateway`, in which only the command knows
it. Inside each package there are layers, lowest first. A module may import its own layer and any layer on an earlier
line. Layers on the same line do not import each other.

Known violations are listed in `exceptions/`, one file for each test. The lists may only get shorter.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache

import pytest

from providers.conformance.purity import forbidden_imports, impurities
from tests.architecture.known_exceptions import shrinking
from tests.architecture.source_tree import circles, modules, our_imports
from tests.kit.case_files import cases

GATEWAY = """
files settings                      leaves: opening an operator's files; process settings
operator_errors                     errors that an operator reads, with their exit status
child_process                       the command and the environment of child processes
free_space                          the free space of the state directory, and who may use it
clock_skew                          how much the clock differs from that of a server
occasional_count                               the count of frequent events, for a log that names them once in a while
tasks                               the end of a background task
undo                                the undo of a step whose follow-up fails
release                             the version and the commit of this gateway
public_names                        names that clients and operators read, with their meanings
compact_jws                         a signed text, as it is read before it is verified
signing                             Ed25519 keys and signatures
model                               immutable values that the layers share
geoip                               a MaxMind database in memory
policy                              pure decisions: location, routing, fence, approvals, consent, labels
config telemetry state              the config file and its compiler; logs, metrics and traces; storage
usage                               limits and budgets of clients
cell                                the shared stores of a cell: Valkey and PostgreSQL
installation                        the parts of an installation, in its state directory or in the shared stores
execution                           all I/O to providers: permits, attempts, retries, failover, streams
features                            the optional features, a folder each
service                             one request, from its values to its answer, in reading order
identity                            who called by a signed token, and tokens in place of keys
inputs                              requests that are not chats, from their values to their answer
api                                 HTTP in and out
changes                             live configuration, plan and history
assembly                            wiring: a config version becomes an application
app                                 the public face of assembly
server                              HTTP/1.1, supervisor and workers
litellm                             the converter of LiteLLM's configuration
console                             the web console
cli                                 the command line
__main__                            `python -m gateway`
"""
PROVIDERS = """
value                               the base of immutable values
json_values failures                JSON in and out; failure kinds
territories evidence chat           ISO territories; sources of facts; canonical requests, answers and events
sites wire                          where a provider stores and processes; bytes to send and bytes received
signing                             signatures that need a library
auth                                credential schemes
catalogue                           facts from TOML files: sites, models, prices
sign_in                             exchanges with issuers of tokens
adapter                             the contract of an adapter
registry                            adapters from entry points
reading matching                    bytes to events; what a request requires and a deployment can do
formats                             what several wire formats share
openai_json                         canonical values and OpenAI's JSON
served                              requests that are not chats, whatever their use
moderations                         canonical verdicts, and how a model is asked for one
inputs                              embeddings, rerank, decisions, transcriptions and speech: values, facts and formats
stated_uses                         the base of an adapter whose other uses only facts decide
testkit                             simulated providers
compatible                          vendors that speak OpenAI's dialect
vendors                             one folder for each vendor
client conformance contract         a client without the gateway; the conformance kit; the face for plug-ins
"""
EVALUATION = """
statistics suite texts              intervals and tests; the keys of a suite file; texts of others
checks                              what is wrong with an answer
questions refusals                  items and a loaded suite; the wording of refusals
asking simulation                   questions to a deployment; simulated candidates in a child process
store                               the stored results of a run
judge load work                     the judge; a load test; questions in parallel within a budget
measuring                           one run
figures verdicts                    marks, figures and requirements; those of judges
decision sheets                     the recommended route; marks of people
report                              the report as JSON, HTML and Markdown
drift run                           two reports compared; the steps of the command
recorded                            the same for shadow answers
"""
# The only module that imports `evaluation`, inside functions. `evaluation` imports no layer of `gateway` above `api`.
COMMAND = "gateway.cli.evaluate"
HIGHEST_EVALUATED = "api"
# This module imports none of the layers, and only layers with I/O import it.
TRANSPORT = "transport"
TRANSPORT_USERS = ("client", "conformance", "testkit")


def lines_of(table: str) -> dict[str, int]:
    """Return the line number of each layer. A layer's name ends where two spaces begin."""
    lines = [line.partition("  ")[0].split() for line in table.strip().splitlines()]
    return {layer: number for number, layers in enumerate(lines) for layer in layers}


# The packages, lowest first.
LINES = {"providers": lines_of(PROVIDERS), "gateway": lines_of(GATEWAY), "evaluation": lines_of(EVALUATION)}


@cache
def layer_of(name: str) -> str:
    """Return the layer of a module; "" for the package itself, which has only a docstring and the version."""
    return name.split(".")[1] if "." in name else ""


def test_every_module_is_in_a_layer() -> None:
    unknown = []
    for name in modules():
        package, layer = name.partition(".")[0], layer_of(name)
        if layer and layer not in LINES[package] and layer != TRANSPORT:
            unknown.append(name)
    assert unknown == []


def is_allowed(importer: str, imported: str) -> bool:
    """Return whether a module may import another by the tables above."""
    ours, theirs = importer.partition(".")[0], imported.partition(".")[0]
    here, there = layer_of(importer), layer_of(imported)
    if (ours, theirs) == ("evaluation", "gateway"):
        return LINES[theirs].get(there, -1) <= LINES[theirs][HIGHEST_EVALUATED]
    if ours != theirs:
        packages = list(LINES)
        return packages.index(theirs) < packages.index(ours) or (importer == COMMAND and theirs == "evaluation")
    if here == there or not there:
        return True
    if TRANSPORT in (here, there):
        return here in TRANSPORT_USERS
    lines = LINES[ours]
    return lines.get(there, len(lines)) < lines.get(here, -1)


@cases("importer", "imported", "allowed")
def test_tables_are_read_as_intended(importer: str, imported: str, allowed: bool) -> None:
    assert is_allowed(importer, imported) is allowed


def pairs() -> Iterator[tuple[str, str]]:
    """Yield every import between two modules of the packages, of any kind."""
    for importer, imported, _ in our_imports():
        yield importer.name, imported.name


@shrinking
def test_imports_flow_downwards() -> Iterator[str]:
    return (f"{here} -> {there}" for here, there in pairs() if not is_allowed(here, there))


def test_providers_import_neither_other_package() -> None:
    assert [pair for pair in pairs() if pair[0].startswith("providers") and not pair[1].startswith("providers")] == []


def test_only_the_command_imports_the_evaluation_and_only_when_it_runs() -> None:
    """So `serve` and every other command load none of it, and need none of its libraries."""
    importers = [
        (here.name, kind)
        for kind in ("eager", "lazy", "types")
        for here, there, _ in our_imports([kind])
        if there.name.startswith("evaluation") and not here.name.startswith("evaluation")
    ]
    assert {name for name, _ in importers} == {COMMAND}
    assert "eager" not in {kind for _, kind in importers}


def test_only_plugins_import_the_public_face() -> None:
    assert [here for here, there in pairs() if there == "providers.contract"] == []


# --- vendors --------------------------------------------------------------------------------------


def vendor_of(name: str) -> str | None:
    """Return the vendor that a module belongs to. `compatible` is one engine for many vendors and counts as one here."""
    layer = layer_of(name)
    if layer == "compatible":
        return "compatible"
    if layer != "vendors" or name.count(".") < 2:
        return None
    parts = name.split(".")
    if parts[1] == "vendors":
        return parts[2]
    return parts[-1].lstrip("_").partition("_")[0]


# Modules of a vendor that both sides may import: AWS's binary framing, and the TOML description of a compatible vendor.
BOTH_SIDES = (
    "providers.vendors.bedrock.event_stream",
    "providers.compatible.dialect",
    "providers.compatible.dialect",  # its previous location
)


def side_of(name: str) -> str | None:
    """Return `simulator` or `adapter` for a vendor's module. A vendor's `__init__.py` has only a docstring."""
    if vendor_of(name) is None or modules()[name].is_package or name in BOTH_SIDES:
        return None
    return "simulator" if "simulator" in name.removeprefix("providers.") else "adapter"


@shrinking
def test_no_vendor_imports_another() -> Iterator[str]:
    """Code that two vendors share is in `formats`, `openai_json` or `compatible`, below both."""
    for here, there in pairs():
        vendors = vendor_of(here), vendor_of(there)
        if None not in vendors and vendors[1] != "compatible" and vendors[0] != vendors[1]:
            yield f"{here} -> {there}"


@shrinking
def test_no_simulator_shares_code_with_an_adapter() -> Iterator[str]:
    """An error in code that both sides use would be in both, and no test of the kit would detect it."""
    for here, there in pairs():
        sides = side_of(here), side_of(there)
        if None not in sides and sides[0] != sides[1]:
            yield f"{here} -> {there}"


# --- circles --------------------------------------------------------------------------------------


def test_lower_rooms_and_the_api_know_no_feature() -> None:
    """A feature hangs on a value as a part, and is asked at a door."""
    rooms = "model policy config usage state telemetry execution api".split()
    found = [
        (here, there) for here, there in pairs() if there.startswith("gateway.features") and layer_of(here) in rooms
    ]
    assert found == []


def test_no_feature_imports_another() -> None:
    folders = [(_feature_of(here), _feature_of(there)) for here, there in pairs()]
    assert [pair for pair in folders if "" not in pair and pair[0] != pair[1]] == []


def _feature_of(name: str) -> str:
    """Return the feature in whose folder a module is, or an empty text."""
    parts = name.split(".")
    return parts[2] if parts[:2] == ["gateway", "features"] and len(parts) > 3 else ""


@shrinking
def test_modules_have_no_import_cycle() -> list[str]:
    """Return modules that need each other while they are being imported."""
    return [" ".join(group) for group in circles(["eager"])]


@shrinking
def test_modules_have_no_import_cycle_including_type_imports() -> list[str]:
    """Return modules that need each other through imports under `if TYPE_CHECKING`."""
    return [" ".join(group) for group in circles(["eager", "types"])]


@shrinking
def test_modules_have_no_import_cycle_including_imports_in_functions() -> list[str]:
    """Return modules that need each other through imports inside functions."""
    return [" ".join(group) for group in circles(["eager", "lazy"])]


# --- pure layers ----------------------------------------------------------------------------------

# The conformance kit has a rule for an adapter: no I/O, no clock, nothing that requests share. It follows imports
# inside the adapter's own package. The same rule is checked here for the layers below the vendors.
PURE = ("chat", "reading", "matching", "formats", "openai_json")


def modules_in(layer: str) -> list[str]:
    """Return the modules of a layer of `providers`, wherever they are at present."""
    return [name for name in modules() if name.startswith("providers.") and layer_of(name) == layer]


@pytest.mark.parametrize("layer", PURE)
def test_no_pure_layer_is_empty(layer: str) -> None:
    assert modules_in(layer)


@shrinking
def test_pure_layers_do_no_io() -> Iterator[str]:
    for name in (name for layer in PURE for name in modules_in(layer)):
        yield from (f"{name} imports {one}" for one in forbidden_imports(name))


@shrinking
def test_pure_layers_share_nothing_between_requests() -> Iterator[str]:
    for name in (name for layer in PURE for name in modules_in(layer)):
        # A line number would make the entry stale with every edit.
        for sentence in impurities(name):
            module, _, rest = sentence.partition(", line ")
            yield f"{module}: {rest.partition(': ')[2]}"
