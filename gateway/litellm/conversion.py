"""Convert a configuration of LiteLLM: models, aliases, fallbacks, keys and budgets.

LiteLLM knows no region and no boundary, and often no site. Such values become gaps, which `gateway check` reports.
Nothing is guessed, and no secret is copied. `SourceReading` lists what was not converted.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from decimal import Decimal
from fnmatch import fnmatchcase
from typing import Any

from gateway.config.examples import schema_file
from gateway.config.problems import ConfigRejected, KeyPath, dotted, visible
from gateway.config.yaml_document import parse_yaml
from gateway.litellm.clients import ClientReader, convert_quotas
from gateway.litellm.files import LOGIN, Gap, SourceReading, Unique, gaps_of, yaml_lines
from gateway.litellm.models import WEIGHTS, Model, ModelReader, facts
from gateway.litellm.sign_ins import token_issuers
from gateway.model.served import INPUTS, USES
from providers.registry import Registry
from providers.value import Value

_REGION = "main"
_MOST_STEPS = 50
_MOST_WEIGHT = 10_000
_UNKNOWN = "it may restrict something: look up what it closes there, and close it here, or remove it from the source"
_HEAD = """\
# yaml-language-server: $schema=gateway.schema.json
#
# Converted from a configuration of LiteLLM. Write the key and its value in place of each comment GAP.
# `gateway check` reports what is missing. The end of this file lists what was not converted.
"""


class Converted(Value, frozen=True):
    """The files that a configuration becomes, and what to know about them."""

    files: dict[str, str]
    gaps: list[str]
    """The path of each value that the source does not have."""
    opened: list[str]
    """A line for each restriction of the source that these files have not."""
    lost: list[str]
    """A line for each other value that was not converted."""
    different: list[str]
    """A line for each value that was converted with a difference."""

    @property
    def report(self) -> dict[str, list[str]]:
        """The lines of its three parts, by their titles."""
        return {"closed there, open here": self.opened, "lost": self.lost, "different": self.different}


def convert_litellm(data: bytes, file: str, registry: Registry, today: str) -> Converted:
    """Convert a configuration of LiteLLM, with prices of the day `today`. Raises ConfigRejected for invalid YAML."""
    source = parse_yaml(data, file, merges=True)
    if source.problems:
        raise ConfigRejected(source.problems)
    reading = SourceReading(source)
    reader = ModelReader(reading, registry, today)
    models = [model for index in reading.entries("model_list") if (model := reader.read(index)) is not None]
    quotas = convert_quotas(reading, models)
    conversion = _Assistants(reading)
    assistants = conversion.of(models)
    missing = "; the source has no model that can be converted"
    clients = ClientReader(reading, conversion.aliases, today).sections(reader.has_foreign_prices(models))
    if any("amount" in quota for quota in quotas.values()):
        clients.setdefault("usage", {"currency": "USD"})
    if "usage" in clients:
        reader.add_missing_prices(models)
    config: dict[str, Any] = {
        "version": 1,
        "cell": Gap("{territory: …}, the territory where this gateway runs"),
        "assistants": assistants or Gap(f"the names that clients send in `model`, with their routes{missing}"),
        "regions": {
            _REGION: {
                "territories": Gap("the territories of your callers, as a list of ISO 3166 codes"),
                "boundary": Gap("the territories where their prompts may be stored and processed, as a list"),
                "approvals": "none",
            }
        },
        **({"sign_ins": reader.sign_ins.sections} if reader.sign_ins.sections else {}),
        **({"quotas": quotas} if quotas else {}),
        "deployments": {model.name: model.deployment for model in models} or Gap(f"the models at their sites{missing}"),
        **clients,
        **({"token_issuers": issuers} if (issuers := token_issuers(reading)) else {}),
        **conversion.attempts(assistants),
        **({"catalogue": {"models": "models.yaml"}} if reader.prices else {}),
    }
    gaps = list(gaps_of(config))
    keys = "# The keys that gateway.yaml refers to. Set them in the environment of `gateway serve`.\n"
    environment = keys + "".join(f"{name}=\n" for name in reader.variables)
    files = {"gateway.yaml": "", **schema_file(), "env.example": environment}
    if reader.prices:
        catalogue = {"version": 1, "models": reader.prices}
        files["models.yaml"] = "".join(f"{line}\n" for line in yaml_lines(catalogue))
        gaps += [f"models.yaml: {gap}" for gap in gaps_of(catalogue)]
    converted = Converted(files, gaps, *_remarks(reading, file))
    lines = [_HEAD, *(f"{line}\n" for line in yaml_lines(config))]
    for title, remarks in converted.report.items():
        lines += [f"\n# {title.capitalize()}:\n", *(f"# {remark}\n" for remark in remarks)] if remarks else []
    files["gateway.yaml"] = "".join(lines)
    return converted


def _remarks(reading: SourceReading, file: str) -> tuple[list[str], list[str], list[str]]:
    """Return the lines of the report: restrictions that were lost, other values that were lost, and differences."""
    remarks: dict[str, dict[KeyPath, str]] = {"opened": {}, "lost": {}, "different": {}}
    for path, note in reading.unused():
        door = next((path[:end] for end in range(1, len(path) + 1) if _restricts(reading, path, end)), None)
        door = door or _unknown(reading, path)
        if path in reading.opened:
            remarks["opened"].setdefault(path, note)
        elif reading.is_used(path):
            remarks["different"].setdefault(path, note)
        elif door is not None and not note:
            remarks["opened"].setdefault(door, f"not converted: {_reason(door, _UNKNOWN)}")
        else:
            remarks["lost"].setdefault(path, note or f"not converted: {_reason(path, 'no equivalent')}")
    opened, lost, different = (
        [
            visible(f"{file}:{reading.line(path)}: {LOGIN.sub('://…@', dotted(path))}: {note}")
            for path, note in part.items()
        ]
        for part in remarks.values()
    )
    return opened, lost, different


def _restricts(reading: SourceReading, path: KeyPath, end: int) -> bool:
    """Return whether the part of a path up to `end` is a restriction of LiteLLM, and the value at the path sets it."""
    value = reading.at(*path)
    if value is None or value is False or value == "":
        return False
    doors = facts()["restrictions"]
    if end == len(path) and value in doors["guards"]:
        return True
    named = _named(path[:end])
    return _matches(named, doors["keys"]) and not _matches(named, doors["harmless"])


def _unknown(reading: SourceReading, path: KeyPath) -> KeyPath | None:
    """Return the part of a path that may be a restriction: a member that is not known to restrict no prompt, or None.

    This concerns keys, users, teams, organizations and settings. LiteLLM has new ones each week.
    """
    known, value = facts()["restrictions"], reading.at(*path)
    if value is None or value is False or value == "" or path[0] in known["other_sections"]:
        return None
    if _matches(_named(path), known["tags"]):
        is_known = reading.at("router_settings", "enable_tag_filtering") in (None, False)
    else:
        is_known = any(_matches(_named(path[:end]), known["harmless"]) for end in range(1, len(path) + 1))
    named_to = max(at for at, part in enumerate(path) if isinstance(part, str))
    return None if is_known else path[: named_to + 1]


def _matches(named: str, patterns: list[str]) -> bool:
    return any(fnmatchcase(named, pattern) for pattern in patterns)


def _reason(path: KeyPath, otherwise: str) -> str:
    named = _named(path)
    return next((text for pattern, text in facts()["reasons"].items() if fnmatchcase(named, pattern)), otherwise)


def _named(path: KeyPath) -> str:
    return dotted(tuple(part for part in path if isinstance(part, str)))


@dataclass(slots=True)
class _Assistants:
    """Converts names, fallbacks and aliases. `aliases` has the assistant of each name that clients send."""

    reading: SourceReading
    aliases: dict[str, str] = field(default_factory=dict)

    def of(self, models: list[Model]) -> dict[str, Any]:
        """Return an assistant for each `model_name`, with its route, its fallbacks and its aliases."""
        models[:] = self._with_shared_keys(models)
        groups: dict[str, list[Model]] = {}
        for model in models:
            members = groups.setdefault(model.group, [])
            first = next((one for one in members if one.use == model.use), model)
            if _may_follow(model, [first]):
                members.append(model)
            else:
                note = f"not converted: all deployments of `{model.use}` in a region have one model"
                self.reading.note("model_list", model.index, note=note)
        models[:] = [model for model in models if model in groups[model.group]]
        names = self._assistant_names(groups)
        fallbacks = self._fallbacks(groups, models)
        assistants: dict[str, Any] = {}
        for group, members in groups.items():
            name, alias = names[group]
            assistant: dict[str, Any] = assistants.setdefault(name, {})
            if alias:
                assistant["aliases"] = [alias]
            for use in USES:
                same = [model for model in members if model.use == use]
                steps = self._steps(same) if use == "chat" else [model.name for model in same][:_MOST_STEPS]
                for model in fallbacks.get(group, fallbacks.get("*", [])):
                    if _may_follow(model, same) and model.name not in steps and len(steps) < _MOST_STEPS:
                        steps.append(model.name)
                if steps:
                    assistant["routes" if use == "chat" else use] = {_REGION: steps}
        self._add_aliases(assistants, names)
        return assistants

    def _with_shared_keys(self, models: list[Model]) -> list[Model]:
        """Return the models. Entries that differ only in their key become one deployment with several keys."""
        kept: dict[str, Model] = {}
        for model in models:
            rest = {key: value for key, value in model.deployment.items() if key != "api_key"}
            like = kept.setdefault(repr((model.group, model.use, model.order, rest)), model)
            if like is model:
                continue
            keys = [like.deployment.get("api_key"), model.deployment.get("api_key")]
            known = [key for one in keys for key in (one if isinstance(one, list) else [one]) if key is not None]
            if known:
                unique = list(dict.fromkeys(known))
                like.deployment["api_key"] = unique if len(unique) > 1 else unique[0]
            if None not in (like.weight, model.weight):
                like.weight = (like.weight or Decimal(0)) + (model.weight or Decimal(0))
        return list(kept.values())

    def _steps(self, members: list[Model]) -> list[Any]:
        """Return the steps for the entries of one name: a weighted step, then its members for failover."""
        steps: list[Any] = []
        for order in sorted({model.order for model in members}):
            same = [model for model in members if model.order == order]
            if len(same) > 1:
                steps.append(self._weights(same))
            steps += [model.name for model in same][: _MOST_STEPS - len(steps)]
        return steps

    def _weights(self, members: list[Model]) -> dict[str, int]:
        given = [model.weight for model in members if model.weight is not None]
        largest = max(given, default=Decimal(0))
        if len(given) < len(members) or not largest:
            return {model.name: 1 for model in members}
        for model in members:
            for key in WEIGHTS:
                path: KeyPath = ("model_list", model.index, "litellm_params", key)
                if self.reading.number(*path):
                    self.reading.use(*path)
                    break
        whole = all(weight == int(weight) for weight in given) and largest <= _MOST_WEIGHT
        scale = Decimal(1) if whole else Decimal(1000) / largest
        return {model.name: max(1, int((model.weight or 0) * scale)) if model.weight else 0 for model in members}

    def _assistant_names(self, groups: dict[str, list[Model]]) -> dict[str, tuple[str, str]]:
        """Return the name and an alias of the assistant of each `model_name`. A pattern becomes an alias."""
        names: dict[str, tuple[str, str]] = {}
        unique = Unique(taken=set(groups))
        for group, members in groups.items():
            plain = re.sub(r"[^!-~]+|\*|\$\{", "-", group)[:200].strip("-/") or "assistant"
            name = group if plain == group else unique.unique(plain)
            is_pattern = group.endswith("*") and "*" not in group[:-1] and len(group) > 1
            alias = group if is_pattern and re.fullmatch(r"[!-~]{1,256}", group) and "${" not in group else ""
            names[group] = name, alias
            if name != group:
                note = f"it is the assistant {name}" + (f", with the alias {alias}" if alias else "")
                self.reading.note("model_list", members[0].index, "model_name", note=note)
        return names

    def _fallbacks(self, groups: dict[str, list[Model]], models: list[Model]) -> dict[str, list[Model]]:
        """Return the deployments that answer after the deployments of a `model_name`. `*` stands for all others."""
        read = self.reading
        ids = [(read.at("model_list", model.index, "model_info", "id"), model) for model in models]
        targets = {name: [model] for name, model in ids if isinstance(name, str)} | groups
        result: dict[str, list[Model]] = {}
        for key in ("fallbacks", "context_window_fallbacks"):
            note = "these answer after any failure, not only for long prompts" if key != "fallbacks" else ""
            for section in ("router_settings", "litellm_settings"):
                lists: list[KeyPath] = [(section, key, index) for index in read.entries(section, key)]
                for path in [*lists, (section, key)]:
                    for group in read.keys(*path):
                        if group in groups or group == "*":
                            before = groups.get(group, models)
                            self._add_targets(result.setdefault(group, []), (*path, group), targets, before, note)
        for section in ("router_settings", "litellm_settings"):
            if isinstance(read.at(section, "default_fallbacks"), list):
                self._add_targets(result.setdefault("*", []), (section, "default_fallbacks"), targets, models)
        return result

    def _add_targets(
        self, result: list[Model], path: KeyPath, targets: dict[str, list[Model]], before: list[Model], note: str = ""
    ) -> None:
        """Add the deployments that the value at a path names, if one of them may answer after one of those before."""
        value = self.reading.at(*path)
        for one in [(*path, index) for index in range(len(value))] if isinstance(value, list) else [path]:
            target = self.reading.at(*one)
            chosen = targets.get(target, []) if isinstance(target, str) else []
            if chosen and target == path[-1]:
                self.reading.note(*one, note="no effect: the entries of a name answer for each other anyway")
            elif any(_may_follow(model, before) for model in chosen):
                self.reading.use(*one, note=note)
                result += chosen[:_MOST_STEPS] if len(result) < _MOST_STEPS else []
            elif chosen:
                self.reading.note(*one, note="not converted: this model cannot answer the requests of the other")
            else:
                self.reading.note(*one, note="not converted: no model that was converted has this name")

    def _add_aliases(self, assistants: dict[str, Any], names: dict[str, tuple[str, str]]) -> None:
        read = self.reading
        taken = {*assistants, *(alias for _, alias in names.values())}
        for section, key in (("router_settings", "model_group_alias"), ("litellm_settings", "model_alias_map")):
            for alias in read.keys(section, key):
                path: KeyPath = (section, key, alias)
                at: KeyPath = (*path, "model") if isinstance(read.at(*path), dict) else path
                target = names.get(str(read.at(*at)), ("", ""))[0]
                usable = (
                    re.fullmatch(r"[!-~]{1,256}", alias)
                    and not re.search(r"\*|\$\{", alias)
                    and not LOGIN.search(alias)
                )
                if target and usable and alias not in taken:
                    assistants[target].setdefault("aliases", []).append(alias)
                    self.aliases[alias] = target
                    taken.add(alias)
                    read.use(*at)
                elif target and alias in taken:
                    read.note(*path, note="not converted: it is the name of an assistant, too")
        self.aliases |= {group: name for group, (name, _) in names.items()}

    def attempts(self, assistants: dict[str, Any]) -> dict[str, Any]:
        """Return how many attempts a request has."""
        attempts: dict[str, int] = {}
        longest = max((len(each.get("routes", {}).get(_REGION, ())) for each in assistants.values()), default=0)
        for section in ("router_settings", "litellm_settings"):
            retries = self.reading.number(section, "num_retries")
            if retries is not None and retries == int(retries) and "per_deployment" not in attempts:
                attempts["per_deployment"] = min(int(retries) + 1, 10)
                self.reading.use(section, "num_retries")
        total = min(attempts.get("per_deployment", 1) * longest, _MOST_STEPS)
        if total > 4:
            attempts["total"] = total
        return {"resilience": {"attempts": attempts}} if attempts else {}


def _may_follow(model: Model, before: list[Model]) -> bool:
    """Return whether a model may answer after one of these: for the same use, and with the same kind of numbers."""
    alike = [one for one in before if one.use == model.use]
    if model.use == "chat" or not INPUTS[model.use].number:
        return bool(alike)
    return any(one.deployment["model"] == model.deployment["model"] for one in alike)
