"""Kinds of mistakes in a config."""

from __future__ import annotations

from dataclasses import dataclass

from tests.kit.config_cases import more


@dataclass(frozen=True)
class Case:
    """Sections that replace sections of the sound config, and the errors that follow."""

    sections: dict[str, str]
    errors: tuple[str, ...]


def one(section: str, text: str, *errors: str, **others: str) -> Case:
    return Case({section: text, **others}, errors)


def deployment(text: str, *errors: str, **others: str) -> Case:
    return one("deployments", more("deployments", text), *errors, **others)


def region(text: str, *errors: str, **others: str) -> Case:
    return one("regions", more("regions", text), *errors, **others)


def route(text: str, *errors: str, **others: str) -> Case:
    return one("assistants", f"assistants:\n  a:\n    routes:\n      {text}", *errors, **others)


OTHER = more("deployments", "other: {provider: dashscope, model: qwen-plus, endpoint: cn-beijing, api_key: k-1}")


def scheduled(text: str, *errors: str, route: str = "[{qwen-cn: 100}]", **others: str) -> Case:
    lines = ["assistants:", "  a:", f"    routes: {{cn: {route}}}", "    schedules:", f"      {text}"]
    return one("assistants", "\n".join(lines), *errors, **others)


def stages(text: str, message: str) -> Case:
    hint = 'such as "5% for 10m, 25% for 30m, 100%"'
    path = "assistants.a.schedules.cn.steps"
    return scheduled(f'cn: {{candidate: qwen-cn, steps: ▸"{text}"}}', f"{path}: {message}; {hint}")


SHAPES = {
    "unknown key": one(
        "version", "version: 1\n▸regoins: {}", "regoins: unknown key 'regoins'; did you mean 'regions'?"
    ),
    "unknown key, nothing near": one(
        "resilience",
        "resilience: {▸speed: 5s}",
        "resilience.speed: unknown key 'speed'; "
        "there are attempts, breaker, commit, connect, failover_after, first_token, idle, keep_alive, retry_budget, total",
    ),
    "unknown key in a deployment": deployment(
        "x: {provider: openai, model: gpt-6-luna, ▸endpont: us}",
        "deployments.x.endpont: unknown key 'endpont'; did you mean 'endpoint'?",
    ),
    "a deployment without a model, of no provider": deployment(
        "▸x: {provider: ▸opnai, endpoint: us, stores: [▸XQ]}",
        "deployments.x.model: is missing; add it: The name of the model at the provider.",
        "deployments.x.provider: unknown provider 'opnai'; did you mean 'openai'?",
        "deployments.x.stores[0]: 'XQ' is not a territory (ISO 3166); write a code, such as DE, or US-CA for a subdivision",
    ),
    "a region without a boundary, of no territory": region(
        "▸x: {territories: [JP, ▸XQ]}",
        "regions.x.boundary: is missing; add it: The territories where its prompts may be stored and processed: "
        'codes, groups, "*", and exclusions such as "!CN".',
        "regions.x.territories[1]: 'XQ' is not a territory (ISO 3166); write a code, such as DE, or US-CA for a subdivision",
    ),
    "a client without keys, of no region": one(
        "clients",
        "clients:\n  ▸x: {region: ▸nc, assistants: [▸q]}",
        "clients.x.keys: is missing; add it: The SHA-256 hash of each of its keys (sha256:…). "
        "`gateway key new` creates a key and its hash.",
        "clients.x.region: unknown region 'nc'; there are cn, eu, us",
        "clients.x.assistants[0]: unknown assistant 'q'; there is assistant",
    ),
    "required key misspelt": deployment(
        "x: {provider: openai, ▸modle: gpt-6-luna, endpoint: us}",
        "deployments.x.modle: unknown key 'modle'; did you mean 'model'?",
    ),
    "required key misspelt, and its value wrong": deployment(
        "▸x: {▸provder: opnai, model: gpt-6-luna, endpoint: us}",
        "deployments.x.provider: unknown provider 'opnai'; did you mean 'openai'?",
        "deployments.x.provder: unknown key 'provder'; did you mean 'provider'?",
    ),
    "misspelt key of a wrong kind": deployment(
        "x: {provider: openai, model: gpt-6-luna, ▸endpont: [us]}",
        "deployments.x.endpont: unknown key 'endpont'; did you mean 'endpoint'?",
    ),
    "missing key": deployment(
        "▸x: {provider: openai, endpoint: us}",
        "deployments.x.model: is missing; add it: The name of the model at the provider.",
    ),
    "missing section": Case(
        {"version": "▸▸cell: {territory: DE, serves: [eu, us]}\nblocked: []", "cell": "", "regions": "", "blocked": ""},
        (
            "regions: is missing; add it: Groups of territories under one policy, by name.",
            "version: is missing; add it: The version of this format: 1.",
        ),
    ),
    "no deployment": Case(
        {"assistants": "assistants: {a: {routes: {cn: [▸qwen-cn]}}}", "deployments": "▸deployments: {}"},
        (
            "assistants.a.routes.cn[0]: unknown deployment 'qwen-cn'; there is none",
            "deployments: must not be empty; define at least one of the deployments",
        ),
    ),
    "version": one("version", "version: ▸2", "version: must be 1; this is version 1 of the format; write `version: 1`"),
    "version as a flag": one(
        "version", "version: ▸true", "version: must be 1; this is version 1 of the format; write `version: 1`"
    ),
    "version with decimals": one(
        "version", "version: ▸1.0", "version: must be 1; this is version 1 of the format; write `version: 1`"
    ),
    "version in quotes": one(
        "version", 'version: ▸"1"', "version: must be 1; this is version 1 of the format; write `version: 1`"
    ),
    "empty section": one("clients", "▸clients:", "clients: is empty; give it a value, or remove it"),
    "empty key": deployment(
        "x: {provider: openai, model: gpt-6-luna, endpoint: us, ▸api_key: }",
        "deployments.x.api_key: is empty; give it a value, or remove it",
    ),
    "section of a wrong kind": one("regions", "▸regions: [cn]", "regions: must be a mapping, not a list"),
    "entry of a wrong kind": one(
        "assistants", "assistants: {a: ▸qwen-cn}", "assistants.a: must be a mapping, not a string"
    ),
    "list of a wrong kind": region(
        "x: {territories: ▸FR, boundary: [FR]}",
        "regions.x.territories: must be a list, not a string; put it in brackets: [ ]",
    ),
    "number for a name": route(
        "cn: [▸5]", "assistants.a.routes.cn[0]: must be a string, not a number; put it in quotes"
    ),
    "stages in other words": stages("5%, then all", "must be shares with durations, separated by commas"),
    "stages of nothing": stages("", "must be shares with durations, separated by commas"),
    "stage without its time": stages(
        "5%, 100%", "every stage except the last needs a duration, and the last must not have one"
    ),
    "last stage with a time": stages(
        "5% for 1h", "every stage except the last needs a duration, and the last must not have one"
    ),
    "stage of no time": stages("5% for 0m, 100%", "must be shares with durations, separated by commas"),
    "stages that fall": stages("25% for 1h, 5%", "the shares must rise from stage to stage"),
    "rise without its sign": scheduled(
        "cn: {candidate: qwen-cn, steps: 100%, stop_on: {latency_p95: ▸50%}}",
        "assistants.a.schedules.cn.stop_on.latency_p95: must be a rise in whole percent, or the word off; such as +50%",
        route="[{qwen-cn: 90, other: 10}]",
        deployments=OTHER,
    ),
    "too few requests": scheduled(
        "cn: {candidate: qwen-cn, steps: 100%, stop_on: {min_requests: ▸1}}",
        "assistants.a.schedules.cn.stop_on.min_requests: must be at least 10",
        route="[{qwen-cn: 90, other: 10}]",
        deployments=OTHER,
    ),
    "weight of a wrong kind": route(
        "cn: [▸{qwen-cn: 0.5}]",
        "assistants.a.routes.cn[0]: the weight of 'qwen-cn' must be a whole number from 0 to 10000; "
        "such as {qwen-cn: 95, other: 5}",
    ),
    "weight below nothing": route(
        "cn: [▸{qwen-cn: -1}]",
        "assistants.a.routes.cn[0]: the weight of 'qwen-cn' must be a whole number from 0 to 10000; "
        "such as {qwen-cn: 95, other: 5}",
    ),
    "no weight": route(
        "cn: [▸{qwen-cn: 0}]",
        "assistants.a.routes.cn[0]: a weighted step needs a weight above 0; such as {one: 95, other: 5}",
    ),
    "no member": route(
        "cn: [▸{}]",
        "assistants.a.routes.cn[0]: a weighted step needs a weight above 0; such as {one: 95, other: 5}",
    ),
    "number for a word": deployment(
        "x: {provider: openai-compatible, model: m, endpoint: 'https://h.example', stores: DE, processes: ▸5}",
        "deployments.x.processes: must be a string, or a list of strings; put it in quotes",
    ),
    "yes for true": deployment(
        "x: {provider: openai, model: gpt-6-luna, endpoint: us, enabled: ▸yes}",
        "deployments.x.enabled: must be true or false, not a string; write true or false",
    ),
    "true in quotes": deployment(
        "x: {provider: openai, model: gpt-6-luna, endpoint: us, enabled: ▸'true'}",
        "deployments.x.enabled: must be true or false, not a string; write it without quotes",
    ),
    "word for a number": one(
        "resilience",
        "resilience: {attempts: {total: ▸many}}",
        "resilience.attempts.total: must be a whole number, not a string",
    ),
    "number in quotes": one(
        "resilience",
        "resilience: {attempts: {total: ▸'4'}}",
        "resilience.attempts.total: must be a whole number, not a string; write it without quotes",
    ),
    "number too small": one(
        "resilience", "resilience: {attempts: {total: ▸0}}", "resilience.attempts.total: must be at least 1"
    ),
    "number too large": one(
        "resilience",
        "resilience: {attempts: {per_deployment: ▸11}}",
        "resilience.attempts.per_deployment: must be at most 10",
    ),
    "time without unit": one(
        "resilience",
        "resilience: {connect: ▸5, idle: ▸0.5}",
        "resilience.connect: a time needs a unit; write 5s, 5ms or 5m",
        "resilience.idle: a time needs a unit; write 0.5s, 0.5ms or 0.5m",
    ),
    "no time": one(
        "resilience",
        "resilience: {connect: ▸5 s, first_token: ▸.nan, total: ▸1h, idle: ▸0s, commit: ▸9999m}",
        "resilience.connect: must be a time with its unit; such as 500ms, 5s or 2m",
        "resilience.first_token: must be a time with its unit; such as 500ms, 5s or 2m",
        "resilience.total: must be a time with its unit; such as 500ms, 5s or 2m",
        "resilience.idle: a time must be longer than nothing",
        "resilience.commit: a time must not be longer than a day",
    ),
    "a breaker's keys": one(
        "resilience",
        "resilience: {breaker: {▸failurs: 3, rate: ▸0.5, open: ▸10, samples: ▸0}}",
        "resilience.breaker.failurs: unknown key 'failurs'; did you mean 'failures'?",
        "resilience.breaker.rate: must be a share from 1% to 100%, in whole percent; such as 20%",
        "resilience.breaker.open: a time needs a unit; write 10s, 10ms or 10m",
        "resilience.breaker.samples: must be at least 1",
    ),
    "no breaker": one(
        "resilience",
        "resilience: {breaker: ▸none}",
        "resilience.breaker: must be a mapping of its keys, or the word off; write `off`, or {failures: 5}",
    ),
    "a breaker of no rate": one(
        "resilience",
        "resilience: {breaker: {rate: ▸0%}}",
        "resilience.breaker.rate: must be a share from 1% to 100%, in whole percent; such as 20%",
    ),
    "no share": one(
        "resilience",
        "resilience: {retry_budget: ▸0.2}",
        "resilience.retry_budget: must be a share from 0% to 100%, in whole percent, or the word off; such as 20%",
    ),
    "unknown word": deployment(
        "x: {provider: openai, model: gpt-6-luna, endpoint: us, unsupported: ▸dropp}",
        "deployments.x.unsupported: unknown value 'dropp'; did you mean 'drop'?",
    ),
    "number for a fixed word": deployment(
        "x: {provider: openai, model: gpt-6-luna, endpoint: us, unsupported: ▸5}",
        "deployments.x.unsupported: must be one of drop, refuse, not a number",
    ),
    "name with a space": region(
        '▸"f r": {territories: [FR], boundary: [FR]}',
        "regions.f r: the name must be 1 to 64 letters, digits, `.`, `_` and `-`, and begin with a letter or digit",
    ),
    "name too long": deployment(
        f"▸{'x' * 65}: {{provider: openai, model: gpt-6-luna, endpoint: us}}",
        f"deployments.{'x' * 59}…: the name must be 1 to 64 letters, digits, `.`, `_` and `-`, "
        "and begin with a letter or digit",
    ),
    "assistant's name": one(
        "assistants",
        "assistants: {▸helfer für alle: {routes: {cn: [qwen-cn]}}}",
        "assistants.helfer für alle: the name must be 1 to 256 characters of visible ASCII, without spaces",
    ),
    "alias": one(
        "assistants",
        'assistants: {a: {aliases: [▸"a\\r\\nb"], routes: {cn: [qwen-cn]}}}',
        "assistants.a.aliases[0]: must be 1 to 256 characters of visible ASCII, without spaces",
    ),
    "reference out of place": deployment(
        'x: {provider: openai, model: ▸"${MODEL}", endpoint: us}',
        "deployments.x.model: a reference `${…}` is resolved in `api_key`, `headers`, the `url` of a proxy, `password`, `secrets`, "
        "an edge's secret and a claim's keys only; write the value itself",
    ),
}
