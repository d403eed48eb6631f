"""Convert the models of a configuration of LiteLLM into deployments."""

from __future__ import annotations

import re
import tomllib
from contextlib import suppress
from dataclasses import dataclass, field
from decimal import Decimal
from fnmatch import fnmatchcase
from functools import cache
from pathlib import Path
from typing import Any

from gateway.config.operator_catalogue import is_name_of, meant_provider, provider_of_model
from gateway.config.problems import KeyPath
from gateway.config.service_permits import is_this_machine
from gateway.litellm.files import LOGIN, Gap, SourceReading, Unique
from gateway.litellm.sign_ins import SignInReader
from gateway.model.section import UnitError
from gateway.model.served import INPUTS, USES, Use
from gateway.model.units import parse_day
from providers.adapter import Adapter, KnowsOffers, answers_chats
from providers.auth import NoAuth
from providers.catalogue.prices import NO_CURRENCY
from providers.registry import Registry
from providers.sites import PROJECT, OriginError, Site, parse_origin

NOWHERE: KeyPath = ("?",)
WEIGHTS = ("weight", "rpm", "tpm")
_COMPATIBLE = "openai-compatible"
_CREDENTIALS = ("api_key", "azure_ad_token", "vertex_credentials", "aws_access_key_id")
_FILE = re.compile(r"/[A-Za-z0-9._/-]{1,255}")
_URLS = ("api_base", "base_url")
_STATED = "a territory code, a list of them, or any if unknown"
_UNKNOWN_PLACES = {
    "stores": Gap(f"where it stores content: {_STATED}"),
    "processes": Gap(f"where it computes: {_STATED}"),
}
_OF_OTHER_UNITS = ("minute", "characters", "search")


@dataclass(slots=True)
class Model:
    """One entry of `model_list`, as a deployment: its rank by `order`, and its `weight` within that rank."""

    index: int
    name: str
    group: str
    use: Use
    deployment: dict[str, Any]
    weight: Decimal | None
    order: Decimal


@cache
def facts() -> dict[str, Any]:
    return tomllib.loads(Path(__file__).with_name("models.toml").read_text("utf-8"))


@dataclass(slots=True)
class ModelReader:
    """Converts the entries of `model_list`. `today` is the day of the prices that the file has.

    It collects the variables that the deployments refer to, and the models of the operator's own catalogue by provider.
    """

    reading: SourceReading
    registry: Registry
    today: str
    variables: dict[str, None] = field(default_factory=dict)
    prices: dict[str, dict[str, Any]] = field(default_factory=dict)
    names: Unique = field(default_factory=Unique)
    _variables: Unique = field(default_factory=lambda: Unique(mark="_"))
    _secrets: dict[str, str] = field(default_factory=dict)
    sign_ins: SignInReader = field(init=False)

    def __post_init__(self) -> None:
        self.sign_ins = SignInReader(self.reading, self._reference)
        # A secret in clear gets a variable that the source does not use for another one.
        self._variables.taken |= self.reading.variables()

    def read(self, index: int) -> Model | None:
        """Return an entry of `model_list`, or None if nothing here does what it does."""
        read = self.reading
        entry: KeyPath = ("model_list", index)
        group = read.at(*entry, "model_name")
        params = read.at(*entry, "litellm_params")
        if not isinstance(group, str) or not isinstance(params, dict):
            read.note(*entry, note="not converted: it needs `model_name` and `litellm_params`")
            return None
        if LOGIN.search(group):
            read.note(*entry, note="not converted: `model_name` has a login, and clients would see it")
            return None
        paths = self._parameters(index)
        prefix, model = self._vendor(paths)
        use = self._use(index, model or "")
        if use is None:
            read.note(*entry, note=f"not converted: a model is here for {', '.join(USES[:-1])} or {USES[-1]}")
            return None
        provider = self._provider(prefix, model, paths)
        adapter = self.registry.adapters.get(provider or "")
        plain = re.sub(r"[^A-Za-z0-9._-]+", "-", group).strip("-._")[:48] or "model"
        named = self.names.unique("model" if plain in ("hand_off", "simulator") else plain)
        deployment: dict[str, Any] = {
            "provider": provider
            or Gap(f"the gateway has no adapter of this name; {_COMPATIBLE} if it has OpenAI's API"),
            "model": model
            or Gap("LiteLLM passes on the name that a client sends, or reads it elsewhere; name one model"),
            **self._endpoint(provider, adapter, paths),
            **self._credential(provider, adapter, paths),
        }
        if adapter is not None and not _offers(adapter, use, model or ""):
            read.note(*entry, note=f"not converted: {provider} has no {use} here")
            return None
        if all(isinstance(value, Gap) for value in deployment.values()):
            deployment["enabled"] = True
        read.use(*entry, "model_name")
        limit = read.number(*paths.get("max_parallel_requests", NOWHERE))
        if limit is not None and 1 <= limit <= 1_000_000 and limit == int(limit):
            deployment["concurrency"] = int(limit)
            read.use(*paths["max_parallel_requests"])
        self._price(index, provider, model, paths)
        weight = next((path for key in WEIGHTS if read.number(*(path := paths.get(key, NOWHERE)))), NOWHERE)
        order = read.number(*paths.get("order", NOWHERE))
        if order is not None:
            read.use(*paths["order"])
        return Model(
            index, named, group, use, deployment, read.number(*weight), Decimal(10**6) if order is None else order
        )

    def has_foreign_prices(self, models: list[Model]) -> bool:
        """Return whether a price of the catalogue may be in another currency than USD."""
        providers = {model.deployment["provider"] for model in models} & self.registry.adapters.keys()
        adapters = [self.registry.adapters[name] for name in providers]
        offers = [adapter.offers for adapter in adapters if isinstance(adapter, KnowsOffers)]
        return any(row.price.currency not in ("USD", NO_CURRENCY) for each in offers for row in each.prices)

    def add_missing_prices(self, models: list[Model]) -> None:
        """Add a gap for the price of each model that neither the source nor the catalogue has."""
        text = "{input: …, output: …, currency: USD, as_of: …}, for a million tokens; or 0 if it costs nothing"
        for model in models:
            provider, name = model.deployment["provider"], model.deployment["model"]
            if isinstance(provider, Gap) or isinstance(name, Gap):
                continue
            adapter = self.registry.adapters[provider]
            endpoint = model.deployment.get("endpoint")
            # Where the site is a gap, too, a price at one of them is enough: `check` knows the one that is written.
            sites = [site for site, known in adapter.sites.items() if _may_be_at(known, site, endpoint)]
            is_known = isinstance(adapter, KnowsOffers) and any(adapter.offers.price(name, site) for site in sites)
            if not is_known and "price" not in self.prices.get(provider, {}).get(name, {}):
                self.prices.setdefault(provider, {}).setdefault(name, {})["price"] = Gap(text)

    def _parameters(self, index: int) -> dict[str, KeyPath]:
        """Return the path of each parameter of an entry, also of those in the credential that it names."""
        read = self.reading
        own: KeyPath = ("model_list", index, "litellm_params")
        paths: dict[str, KeyPath] = {key: (*own, key) for key in read.keys(*own)}
        name = read.at(*own, "litellm_credential_name")
        for number in read.entries("credential_list") if name is not None else ():
            if read.at("credential_list", number, "credential_name") == name:
                values: KeyPath = ("credential_list", number, "credential_values")
                paths = {key: (*values, key) for key in read.keys(*values)} | paths
                read.use(*own, "litellm_credential_name")
                read.use("credential_list", number, "credential_name")
        return paths

    def _vendor(self, paths: dict[str, KeyPath]) -> tuple[str, str | None]:
        """Return LiteLLM's provider and the vendor's name of the model, or None for a name that is not in the file."""
        read = self.reading
        path = paths.get("model", NOWHERE)
        text = read.text(*path)
        if text is None or read.variable(*path) is not None:
            read.note(*path, note="not converted: the name of a model is one text, and no variable")
            return "", None
        stated = read.text(*paths.get("custom_llm_provider", NOWHERE))
        prefix, slash, model = text.partition("/")
        if stated is not None:
            prefix, model = stated, text.removeprefix(f"{stated}/")
            read.use(*paths["custom_llm_provider"])
        elif not slash or (not self._known(prefix) and any(fnmatchcase(text, each) for each in facts()["models"])):
            known = (name for pattern, name in facts()["models"].items() if fnmatchcase(text, pattern))
            prefix, model = next(known, ""), text
        api, slash, rest = model.partition("/")
        model = rest if slash and api in facts()["apis"]["names"] else model
        if "*" in model:
            read.note(*path, note="a pattern; the gateway calls the models that it names")
            return prefix, None
        read.use(*path)
        return prefix, model

    def _known(self, prefix: str) -> str | None:
        meant = meant_provider(prefix, self.registry) if prefix else None
        known = meant is not None and is_name_of(prefix, meant, self.registry) and meant in self.registry.adapters
        return meant if known else None

    def _provider(self, prefix: str, model: str | None, paths: dict[str, KeyPath]) -> str | None:
        """Return the provider of the gateway. A server of one's own speaks OpenAI's API if LiteLLM uses it so."""
        provider = self._known(prefix)
        if provider is not None and model is not None:
            provider = provider_of_model(provider, model, self.registry)
        url = next((self.reading.at(*paths[key]) for key in _URLS if key in paths), None)
        if not isinstance(url, str):
            return provider
        if provider == facts()["providers"]["of_compatible_servers"]:
            try:
                origin = parse_origin(url)[0]
            except OriginError:
                return _COMPATIBLE
            return provider if any(site.owns(origin) for site in self._sites(provider)) else _COMPATIBLE
        return f"{provider}-compatible" if f"{provider}-compatible" in self.registry.adapters else provider

    def _sites(self, provider: str | None = None) -> list[Site]:
        adapters = self.registry.adapters
        chosen = [adapters[provider]] if provider is not None else adapters.values()
        return [site for adapter in chosen for site in adapter.sites.values()]

    def _use(self, index: int, model: str) -> Use | None:
        """Return what a model is for, or None if the gateway has no such requests."""
        mode = self.reading.at("model_list", index, "model_info", "mode")
        for use in facts()["uses"]:
            known = facts()["uses"][use]
            if isinstance(mode, str):
                self.reading.use("model_list", index, "model_info", "mode")
                matches = mode in known["modes"]
            else:
                matches = any(fnmatchcase(model.lower(), pattern) for pattern in known["names"])
            if matches:
                return next((one for one in USES if one == use), None)
        return None

    def _endpoint(self, provider: str | None, adapter: Adapter | None, paths: dict[str, KeyPath]) -> dict[str, Any]:
        """Return the endpoint and what belongs to it. A site is taken from the source or left out, never chosen."""
        if (key := next((key for key in _URLS if key in paths), None)) is not None:
            return self._at_url(provider, paths[key])
        if adapter is None or not adapter.sites:
            return {"endpoint": Gap("the URL of the server"), **_UNKNOWN_PLACES}
        return self._at_site(provider, adapter, paths)

    def _at_url(self, provider: str | None, at: KeyPath) -> dict[str, Any]:
        """Return the endpoint at the URL of the source, which is a known host or a server of one's own."""
        read = self.reading
        url = read.text(*at) if read.variable(*at) is None else None
        if url is None:
            read.note(*at, note="a URL in a variable; write the URL as `endpoint`")
            return {"endpoint": Gap("the URL of the server, which the source has in a variable"), **_UNKNOWN_PLACES}
        try:
            origin, path = parse_origin(url)
        except OriginError as error:
            read.note(*at, note=f"not converted: the URL {error}")
            return {"endpoint": Gap("the URL of the server, or a known site"), **_UNKNOWN_PLACES}
        read.use(*at)
        if any(site.owns(origin) for site in self._sites()):
            return {"endpoint": origin + (path or "")}
        # The client of LiteLLM adds no path to such a URL.
        root = "/" if not path and provider in (_COMPATIBLE, "vllm", "llamacpp", "lmstudio") else ""
        clear = origin.startswith("http://") and not is_this_machine(origin)
        risk = Gap("http:// sends prompts and keys in clear text: use https://, or accept it with true")
        return {"endpoint": f"{origin}{path or root}", **_UNKNOWN_PLACES, **({"insecure": risk} if clear else {})}

    def _at_site(self, provider: str | None, adapter: Adapter, paths: dict[str, KeyPath]) -> dict[str, Any]:
        """Return the site that the source states, and the project of a cloud. Either may be a gap."""
        read = self.reading
        stated = {key: read.text(*path) for key, path in paths.items() if key in ("aws_region_name", "vertex_location")}
        site = next((name for name in stated.values() if name in adapter.sites), None)
        result: dict[str, Any] = {}
        if site is not None:
            result["endpoint"] = site
            for name in stated:
                read.use(*paths[name])
        elif len(adapter.sites) > 1:
            result["endpoint"] = Gap(f"the site of {provider} that your key belongs to: {', '.join(adapter.sites)}")
        if any(PROJECT in one.base_path for one in adapter.sites.values()):
            project = read.text(*paths.get("vertex_project", NOWHERE))
            usable = project is not None and re.fullmatch(r"[a-z0-9][a-z0-9.:-]{0,62}", project)
            result["project"] = project if usable else Gap("the id of your cloud project")
            if usable:
                read.use(*paths["vertex_project"])
        return result

    def _credential(self, provider: str | None, adapter: Adapter | None, paths: dict[str, KeyPath]) -> dict[str, Any]:
        sign_in = self.sign_ins.read(provider, paths)
        return {"sign_in": sign_in} if sign_in is not None else self._key(provider, adapter, paths)

    def _key(self, provider: str | None, adapter: Adapter | None, paths: dict[str, KeyPath]) -> dict[str, str]:
        """Return the reference to the key. A key in clear is replaced by one."""
        read = self.reading
        needed = adapter is not None and not isinstance(adapter.auth, NoAuth)
        found = next((key for key in _CREDENTIALS if key in paths and read.at(*paths[key]) not in (None, "")), None)
        usual = f"{(provider or 'provider').upper().replace('-', '_')}_API_KEY"
        if found is None:
            own = {"": next((site.api_key_env for site in adapter.sites.values()), "")} if adapter is not None else {}
            name = usual if provider in facts()["providers"]["with_a_key_for_each_site"] else own.get("", "") or usual
            return {"api_key": self._reference(name)} if needed else {}
        path = paths[found]
        value = read.at(*path)
        if isinstance(value, list) or (isinstance(value, dict) and found != "vertex_credentials"):
            return {}
        variable = read.variable(*path)
        if found == "aws_access_key_id":
            note = f"write ID:SECRET into {usual}; the gateway reads both from one variable"
            for name in ("aws_access_key_id", "aws_secret_access_key", "aws_session_token"):
                if name in paths:
                    read.use(*paths[name], note=note)
            return {"api_key": self._reference(usual)}
        if variable is not None:
            read.use(*path)
            return {"api_key": self._reference(variable)}
        if found == "vertex_credentials" and isinstance(value, str) and _FILE.fullmatch(value):
            read.use(*path)
            return {"api_key": f"${{file:{value}}}"}
        plain = re.sub(r"[^a-z0-9/]", "", str(value).lower())
        if not needed and plain in facts()["keys"]["placeholders"]:
            read.use(*path, note="left out: the server needs no key")
            return {}
        if str(value) not in self._secrets:
            self._secrets[str(value)] = self._variables.unique(f"LITELLM_{usual}")
        name = self._secrets[str(value)]
        read.use(*path, note=f"a secret in clear, which is not copied: write it into the variable {name}")
        return {"api_key": self._reference(name)}

    def _reference(self, variable: str) -> str:
        self.variables[variable] = None
        return f"${{{variable}}}"

    def _price(self, index: int, provider: str | None, model: str | None, paths: dict[str, KeyPath]) -> None:
        """Add the model's own price and limits of tokens to the catalogue."""
        if provider is None or model is None or model in self.prices.get(provider, ()):
            return
        read, rates = self.reading, facts()["rates"]
        info: KeyPath = ("model_list", index, "model_info")
        stated = {key: (*info, key) for key in read.keys(*info)} | paths
        price = {
            ours: _amount(read.number(*stated[theirs]), count)
            for ours, (theirs, count) in rates.items()
            if theirs in stated
        }
        price = {key: value for key, value in price.items() if value is not None}
        entry: dict[str, Any] = {}
        without_tokens = {"input": 0.0, "output": 0.0} if not price.keys().isdisjoint(_OF_OTHER_UNITS) else {}
        if {"input", "output"} <= price.keys() | without_tokens:
            entry["price"] = {
                **without_tokens,
                **price,
                "currency": "USD",
                "as_of": self.today,
                "source": "configuration of LiteLLM",
            }
            for ours in price:
                read.use(*stated[rates[ours][0]])
        for ours, theirs in (("context_tokens", "max_input_tokens"), ("output_tokens", "max_output_tokens")):
            tokens = read.number(*info, theirs)
            if tokens is not None and tokens == int(tokens) and 1 <= tokens <= 1_000_000_000:
                entry[ours] = int(tokens)
                read.use(*info, theirs)
        with suppress(UnitError):
            entry["retires_on"] = str(parse_day(read.at(*info, "deprecation_date")))
            read.use(*info, "deprecation_date")
        if entry:
            self.prices.setdefault(provider, {})[model] = entry


def _may_be_at(site: Site, name: str, endpoint: object) -> bool:
    return not isinstance(endpoint, str) or endpoint == name or ("://" in endpoint and site.owns(endpoint))


def _amount(cost: Decimal | None, count: int) -> float | None:
    """Return the price of so many units, or None if it cannot be written with six decimals."""
    price = cost * count if cost is not None else None
    if price is None or price > 1_000_000 or price != price.quantize(Decimal("1e-6")):
        return None
    return float(price)


def _offers(adapter: Adapter, use: Use, model: str) -> bool:
    return answers_chats(adapter) if use == "chat" else INPUTS[use].format_of(adapter, model) is not None
