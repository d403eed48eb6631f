"""Every error that a config can have: its position, its message and its fix.

`▸` in the text of a case marks the expected position. The problems of a case are in the order of their marks.
"""

from __future__ import annotations

import pytest

from gateway.config.problems import dotted
from tests.kit.config_cases import compiled, marked, more, rejected, sections
from tests.kit.config_mistakes import SHAPES, Case, deployment, one, region, route, scheduled


def shadowed(text: str, *errors: str, **others: str) -> Case:
    lines = ["assistants:", "  a:", "    routes: {cn: [qwen-cn]}", "    shadow:", f"      {text}"]
    return one("assistants", "\n".join(lines), *errors, **others)


OWN = "stores: DE, processes: DE"
SERVER = "provider: openai-compatible, model: m, endpoint: 'https://llm.example'"
HASH = "sha256:" + "ab" * 32
FITTING = "use one that stays inside"


ROUTES = {
    "unknown deployment": route(
        "cn: [▸qwen-cm]", "assistants.a.routes.cn[0]: unknown deployment 'qwen-cm'; did you mean 'qwen-cn'?"
    ),
    "unknown region": route("▸cnn: [qwen-cn]", "assistants.a.routes.cnn: unknown region 'cnn'; did you mean 'cn'?"),
    "step twice": route(
        "cn: [qwen-cn, ▸qwen-cn]", "assistants.a.routes.cn[1]: 'qwen-cn' is already in this route; remove one"
    ),
    "schedule of an unknown route": scheduled(
        "▸us: {candidate: qwen-cn, steps: 100%}",
        "assistants.a.schedules.us: the assistant has no route for 'us'; there are: cn",
    ),
    "schedule without a weighted step": scheduled(
        "cn: {candidate: ▸qwen-cn, steps: 100%}",
        "assistants.a.schedules.cn.candidate: the route does not begin with a weighted step; "
        "begin it with {one: 100, qwen-cn: 0}",
        route="[qwen-cn]",
    ),
    "schedule of a stranger": scheduled(
        "cn: {candidate: ▸qwen-cm, steps: 100%}",
        "assistants.a.schedules.cn.candidate: 'qwen-cm' is not in the weighted step that the route begins with; "
        "did you mean 'qwen-cn'?",
    ),
    "schedule of an unknown provider's": scheduled(
        "cn: {candidate: x, steps: 100%}",
        "deployments.x.provider: unknown provider 'dashscop'; did you mean 'dashscope'?",
        route="[{qwen-cn: 90, x: 10}]",
        deployments=more("deployments", "x: {provider: ▸dashscop, model: qwen3-max, endpoint: cn-beijing}"),
    ),
    "schedule of one at an unknown site": scheduled(
        "cn: {candidate: x, steps: 100%}",
        "deployments.x.endpoint: unknown site 'cn-bejing' of dashscope; did you mean 'cn-beijing'?",
        route="[{qwen-cn: 90, x: 10}]",
        deployments=more("deployments", "x: {provider: dashscope, model: qwen3-max, endpoint: ▸cn-bejing}"),
    ),
    "schedule of one alone": scheduled(
        "cn: {candidate: ▸qwen-cn, steps: 100%}",
        "assistants.a.schedules.cn.candidate: 'qwen-cn' is the only member of its weighted step; add the deployment that gets the other users",
    ),
    "shadow of an unknown route": shadowed(
        "▸us: {deployment: qwen-cn}", "assistants.a.shadow.us: the assistant has no route for 'us'; there are: cn"
    ),
    "unknown shadow": shadowed(
        "cn: {deployment: ▸qwen-cm}",
        "assistants.a.shadow.cn.deployment: unknown deployment 'qwen-cm'; did you mean 'qwen-cn'?",
    ),
    "shadow outside": shadowed(
        "cn: {deployment: ▸chatgpt-us}",
        "assistants.a.shadow.cn.deployment: 'chatgpt-us' stores and processes in US, outside the boundary of region "
        f"'cn' (CN); {FITTING}: qwen-cn",
    ),
    "text kept outside": shadowed(
        "cn: {deployment: qwen-cn, keep_text: ▸true}",
        "assistants.a.shadow.cn.keep_text: the gateway stores the text where it runs, which is not known to be inside "
        "the boundary (CN); set `cell: {territory: …}`, or remove this key",
    ),
    "text kept nobody knows where": shadowed(
        "cn: {deployment: qwen-cn, keep_text: ▸true}",
        "assistants.a.shadow.cn.keep_text: the gateway stores the text where it runs, which is not known to be inside "
        "the boundary (CN); set `cell: {territory: …}`, or remove this key",
        cell="",
    ),
    "share of nothing": shadowed(
        "cn: {deployment: qwen-cn, share: ▸0%}",
        "assistants.a.shadow.cn.share: must be a share from 1% to 100%, in whole percent; such as 20%",
    ),
    "step twice, then weighted": route(
        "cn: [qwen-cn, {▸qwen-cn: 5}]",
        "assistants.a.routes.cn[1].qwen-cn: 'qwen-cn' is already in this route; remove one",
    ),
    "unknown member": route(
        "cn: [{qwen-cn: 95, ▸qwen-cm: 5}]",
        "assistants.a.routes.cn[0].qwen-cm: unknown deployment 'qwen-cm'; did you mean 'qwen-cn'?",
    ),
    "member outside": route(
        "cn: [{qwen-cn: 95, ▸chatgpt-us: 5}]",
        "assistants.a.routes.cn[0].chatgpt-us: 'chatgpt-us' stores and processes in US, outside the boundary of region "
        f"'cn' (CN); {FITTING}: qwen-cn",
    ),
    "member of weight 0 outside": route(
        "cn: [{qwen-cn: 95, ▸chatgpt-us: 0}]",
        "assistants.a.routes.cn[0].chatgpt-us: 'chatgpt-us' stores and processes in US, outside the boundary of region "
        f"'cn' (CN); {FITTING}: qwen-cn",
    ),
    "no step": route(
        "▸cn: []",
        "assistants.a.routes.cn: the route has no step; name a deployment, or remove the region, so that its requests are refused",
    ),
    "no route": one(
        "assistants",
        "assistants: {a: {▸routes: {}}}",
        "assistants.a.routes: the assistant has no route; give it one: region: [deployment]",
    ),
    "stores and processes outside": route(
        "cn: [▸chatgpt-us]",
        "assistants.a.routes.cn[0]: 'chatgpt-us' stores and processes in US, outside the boundary of region 'cn' (CN); "
        f"{FITTING}: qwen-cn",
    ),
    "processes outside": deployment(
        "jp: {provider: openai, model: gpt-6-luna, endpoint: jp, attests: [zdr]}",
        "assistants.a.routes.jp[0]: 'jp' processes in any, outside the boundary of region 'jp' (JP); "
        "use a site inside the boundary, or widen `regions.jp.boundary`",
        regions="regions:\n  jp: {territories: [JP], boundary: [JP]}",
        cell="",
        assistants="assistants: {a: {routes: {jp: [▸jp]}}}",
    ),
    "stores outside": route(
        "cn: [▸house]",
        "assistants.a.routes.cn[0]: 'house' stores in DE, outside the boundary of region 'cn' (CN); "
        "use a site inside the boundary, or widen `regions.cn.boundary`",
        deployments=f"deployments:\n  house: {{{SERVER}, stores: DE, processes: CN}}",
    ),
    "stores and processes outside, differently": route(
        "cn: [▸intl]",
        "assistants.a.routes.cn[0]: 'intl' stores and processes in SG and any but CN, outside the boundary of region "
        "'cn' (CN); use a site inside the boundary, or widen `regions.cn.boundary`",
        deployments="deployments:\n  intl: {provider: dashscope, model: qwen-plus, endpoint: intl}",
    ),
    "anywhere is outside of everywhere but one": Case(
        {
            "assistants": "assistants: {a: {routes: {world: [▸gemini]}}}",
            "regions": 'regions:\n  world: {territories: ["*"], boundary: ["*", "!CN"]}',
            "deployments": "deployments:\n  gemini: {provider: gemini, model: gemini-3.8-flash}",
            "cell": "",
        },
        (
            "assistants.a.routes.world[0]: 'gemini' stores and processes in any, outside the boundary of region 'world' "
            "(any but CN); use a site inside the boundary, or widen `regions.world.boundary`",
        ),
    ),
    "a model's own scope": Case(
        {
            "assistants": "assistants: {a: {routes: {us: [qwen-plus-us, ▸qwen-plus]}}}",
            "deployments": """\
                deployments:
                  qwen-plus-us: {provider: dashscope, model: qwen-plus-us, endpoint: us}
                  qwen-plus: {provider: dashscope, model: qwen-plus, endpoint: us}
                """,
        },
        (
            "assistants.a.routes.us[1]: 'qwen-plus' processes in any, outside the boundary of region 'us' (US); "
            f"{FITTING}: qwen-plus-us",
        ),
    ),
    "alias of another": one(
        "assistants",
        """\
        assistants:
          a: {aliases: [gpt-4o, ▸b], routes: {cn: [qwen-cn]}}
          b: {aliases: [▸gpt-4o, ▸b, c, ▸c], routes: {us: [chatgpt-us]}}
        """,
        "assistants.a.aliases[1]: 'b' is already a name of the assistant 'b'; use each name for one assistant only",
        "assistants.b.aliases[0]: 'gpt-4o' is already a name of the assistant 'a'; use each name for one assistant only",
        "assistants.b.aliases[1]: 'b' is already a name of the assistant 'b'; use each name for one assistant only",
        "assistants.b.aliases[3]: 'c' is already a name of the assistant 'b'; use each name for one assistant only",
    ),
}

REGIONS = {
    "territory in two regions": region(
        "tw: {territories: [TW, ▸US], boundary: ['*']}",
        "regions.tw.territories[1]: US is already in region 'us' (line 12); "
        "a territory is in one region; remove it from one of them",
        cell="",
    ),
    "group in two regions": region(
        "x: {territories: [▸'@EU'], boundary: ['*']}",
        "regions.x.territories[0]: AT, BE, BG, CY, CZ, DE and 21 more is already in region 'eu' (line 11); "
        "a territory is in one region; remove it from one of them",
        cell="",
    ),
    "blocked and in a region": region(
        "x: {territories: [VN, ▸KP], boundary: ['*']}",
        "regions.x.territories[1]: KP is blocked (line 14); remove it there or here",
        cell="",
    ),
    "part of a blocked country in a region": region(
        "x: {territories: [▸KP-01], boundary: ['*']}",
        "regions.x.territories[0]: KP-01 is blocked (line 14); remove it there or here",
        cell="",
    ),
    "two for the rest": region(
        "x: {territories: ['*'], boundary: ['*']}\n  y: {▸territories: ['*'], boundary: ['*']}",
        "regions.y.territories: \"*\" is allowed in one region only; region 'x' (line 14) already has it; "
        "name the territories of this one",
    ),
    "everywhere, and more": region(
        "x: {▸territories: ['*', DE], boundary: ['*']}",
        'regions.x.territories: "*" means every territory that no other region names, and must be the only entry; '
        "to leave some out, give them a region of their own or list them in `blocked`",
    ),
    "a part left out": region(
        "x: {▸territories: [CA, '!CA-QC'], boundary: ['*']}",
        "regions.x.territories: CA-QC can't be excluded: a part belongs to its country's region; "
        "list it in another region or in `blocked` instead",
    ),
    "no territory": region("x: {▸territories: [], boundary: ['*']}", "regions.x.territories: must not be empty"),
    "nothing left": region(
        "x: {▸territories: ['!DE'], boundary: ['*']}",
        'regions.x.territories: names no territory; name one, a group such as "@EEA", or "*"',
    ),
    "unknown territory": region(
        "x: {territories: [▸UK, ▸fr, ▸Germany, ▸EU, ▸Nowhere], boundary: ['*']}",
        "regions.x.territories[0]: 'UK' is not a territory (ISO 3166); did you mean GB?",
        "regions.x.territories[1]: 'fr' is not a territory (ISO 3166); did you mean FR? Codes are upper case",
        "regions.x.territories[2]: 'Germany' is not a territory (ISO 3166); did you mean DE (Germany)?",
        "regions.x.territories[3]: 'EU' is not a territory (ISO 3166); did you mean the group @EU?",
        "regions.x.territories[4]: 'Nowhere' is not a territory (ISO 3166); write a code, such as DE, or US-CA for a subdivision",
    ),
    "unknown group": region(
        "x: {territories: [GB], boundary: [▸'@EAA']}",
        "regions.x.boundary[0]: '@EAA' is not a group of territories; expected one of @EEA, @EU",
    ),
    "a part let in again": region(
        "x: {territories: [GB], ▸boundary: ['*', '!CN', CN-BJ]}",
        "regions.x.boundary: 'CN-BJ' is in '!CN': with '*', a part of an excluded country can't be included",
        cell="",
    ),
    "territory in two regions, each over some lines": one(
        "regions",
        "regions:\n  us:\n    boundary: [US]\n    transit: [DE]\n    territories: [US]\n"
        "  x: {territories: [▸US], boundary: ['*']}",
        "regions.x.territories[0]: US is already in region 'us' (line 7); "
        "a territory is in one region; remove it from one of them",
        cell="",
        assistants="assistants: {a: {routes: {us: [chatgpt-us]}}}",
    ),
    "reserved name": region(
        "▸refuse: {territories: [GB], boundary: ['*']}",
        "regions.refuse: `refuse` can't be the name of a region; it is a value of `location.unknown`",
    ),
    "everybody blocked": one("blocked", '▸blocked: ["*"]', 'blocked: "*" blocks every territory; name the territories'),
    "blocked nowhere": one(
        "blocked",
        "blocked: [CU, ▸Koba]",
        "blocked[1]: 'Koba' is not a territory (ISO 3166); write a code, such as DE, or US-CA for a subdivision",
    ),
    "the gateway's own place": region(
        "▸gb: {territories: [GB], boundary: [GB]}",
        "regions.gb: the gateway itself runs in DE, outside this region's boundary (GB); "
        "accept it with `transit: [DE]`, or leave the region out of `cell.serves`",
        cell="cell: {territory: DE, serves: [eu, us, gb]}",
    ),
    "the gateway's own place, excluded": region(
        "▸gb: {territories: [GB], boundary: ['*', '!DE']}",
        "regions.gb: the gateway itself runs in DE, outside this region's boundary (any but DE); "
        "accept it with `transit: [DE]`, or leave the region out of `cell.serves`",
        cell="cell: {territory: DE, serves: [eu, us, gb]}",
    ),
    "prompts logged outside, where transit is accepted": region(
        "gb: {territories: [GB], boundary: [GB], transit: [DE], log_prompts: ▸true}",
        "regions.gb.log_prompts: the log is written where the gateway runs, which is not known to be inside the boundary "
        "(GB); set `cell: {territory: …}`, or remove this key",
        cell="cell: {territory: DE, serves: [eu, us, gb]}",
    ),
    "prompts logged nobody knows where": region(
        "gb: {territories: [GB], boundary: [GB], log_prompts: ▸true}",
        "regions.gb.log_prompts: the log is written where the gateway runs, which is not known to be inside the boundary "
        "(GB); set `cell: {territory: …}`, or remove this key",
        cell="",
    ),
    "transit is no territory": region(
        "gb: {territories: [GB], boundary: [GB], transit: [▸Germany]}",
        "regions.gb.transit[0]: 'Germany' is not a territory (ISO 3166); did you mean DE (Germany)?",
        cell="cell: {territory: DE, serves: [eu, us, gb]}",
    ),
    "cell": one(
        "cell",
        "cell: {territory: ▸EU, serves: [▸eur, us], homes: {▸cnn: 'https://a.example', eu: ▸'http://a.example', "
        "us: ▸'https://u:p@a.example'}}",
        "cell.territory: 'EU' is not a territory (ISO 3166); did you mean the group @EU?",
        "cell.serves[0]: unknown region 'eur'; did you mean 'eu'?",
        "cell.homes.cnn: unknown region 'cnn'; did you mean 'cn'?",
        "cell.homes.eu: the URL must start with https://, because clients send their keys there",
        "cell.homes.us: the URL must not carry a user name or password; use api_key",
    ),
}

DEPLOYMENTS = {
    "header that nobody knows": deployment(
        "x: {provider: mistral, model: m, endpoint: global, headers: {▸X-Region: us}}",
        "deployments.x.headers.X-Region: is not a header that mistral accepts; a header can change where prompts "
        "go, so only known headers are allowed: none",
    ),
    "unknown provider": deployment(
        "x: {provider: ▸dashscop, model: qwen3-max}",
        "deployments.x.provider: unknown provider 'dashscop'; did you mean 'dashscope'?",
    ),
    "a provider by its name elsewhere": deployment(
        "x: {provider: ▸azure_openai, model: m}",
        "deployments.x.provider: unknown provider 'azure_openai'; did you mean 'azure'?",
    ),
    "unknown site": deployment(
        "x: {provider: dashscope, model: qwen3-max, endpoint: ▸cn-bejing}",
        "deployments.x.endpoint: unknown site 'cn-bejing' of dashscope; did you mean 'cn-beijing'?",
    ),
    "a host for a site": deployment(
        "x: {provider: dashscope, model: qwen3-max, endpoint: ▸dashscope.aliyuncs.com}",
        "deployments.x.endpoint: unknown site 'dashscope.aliyuncs.com' of dashscope; a URL begins with https://",
    ),
    "a path for a site": deployment(
        "x: {provider: dashscope, model: qwen3-max, endpoint: ▸llm/v1}",
        "deployments.x.endpoint: unknown site 'llm/v1' of dashscope; a URL begins with https://",
    ),
    "a site of a provider without": deployment(
        "x: {provider: openai-compatible, model: m, endpoint: ▸us}",
        "deployments.x.endpoint: unknown site 'us' of openai-compatible; "
        "write the server's URL, beginning with https://",
    ),
    "which site": deployment(
        "▸x: {provider: dashscope, model: qwen3-max}",
        "deployments.x.endpoint: is missing; there are cn-beijing, finance, frankfurt, hongkong, intl, tokyo, us",
    ),
    "which server": deployment(
        "▸x: {provider: openai-compatible, model: m}",
        "deployments.x.endpoint: is missing: openai-compatible has no site of its own; "
        "write the URL of the server, and the territories where it `stores` and `processes`",
    ),
    "a URL without facts": deployment(
        "▸▸x: {provider: openai-compatible, model: m, endpoint: 'https://llm.example/v1'}",
        "deployments.x.processes: is missing: there are no known facts about this URL; state the territories: processes: DE, or any if unknown",
        "deployments.x.stores: is missing: there are no known facts about this URL; state the territories: stores: DE, or any if unknown",
    ),
    "no URL": deployment(
        f"x: {{provider: openai-compatible, model: m, {OWN}, endpoint: ▸'llm.example:8000'}}",
        "deployments.x.endpoint: the URL must start with https:// (or http:// for a server on this machine)",
    ),
    "a URL with a password": deployment(
        f"x: {{provider: openai-compatible, model: m, {OWN}, endpoint: ▸'https://me:hush@llm.example'}}",
        "deployments.x.endpoint: the URL must not carry a user name or password; use api_key",
    ),
    "clear text": deployment(
        f"x: {{provider: openai-compatible, model: m, {OWN}, endpoint: ▸'http://10.0.0.1:8000'}}",
        "deployments.x.endpoint: http:// sends prompts and keys in clear text; "
        "use https://, or allow it with `insecure: true`",
    ),
    "a loopback that is none": deployment(
        f"x: {{provider: openai-compatible, model: m, {OWN}, endpoint: ▸'http://localhost.example'}}",
        "deployments.x.endpoint: http:// sends prompts and keys in clear text; "
        "use https://, or allow it with `insecure: true`",
    ),
    "a provider's host in clear text": deployment(
        "x: {provider: openai-compatible, model: m, insecure: true, endpoint: ▸'http://api.openai.com'}",
        "deployments.x.endpoint: api.openai.com is a provider's host: it must be https with the default port; "
        "write https://api.openai.com",
    ),
    "a provider's host at another port": deployment(
        f"x: {{provider: openai-compatible, model: m, {OWN}, endpoint: ▸'https://us.api.openai.com:8443/v1'}}",
        "deployments.x.endpoint: us.api.openai.com is a provider's host: it must be https with the default port; "
        "write https://us.api.openai.com",
    ),
    "facts against a site's": deployment(
        "x: {provider: dashscope, model: qwen3-max, endpoint: cn-beijing, stores: CN, processes: ▸DE}",
        "deployments.x.processes: contradicts the known facts of the site cn-beijing (dashscope.aliyuncs.com): "
        "it processes in CN; remove it; the facts of the site are used",
    ),
    "facts against a known host's": deployment(
        "x: {provider: openai-compatible, model: m, endpoint: 'https://DASHSCOPE.aliyuncs.com./v1', "
        "stores: ▸DE, processes: ▸DE}",
        "deployments.x.stores: contradicts the known facts of the site cn-beijing (dashscope.aliyuncs.com): "
        "it stores in CN; remove it; the facts of the site are used",
        "deployments.x.processes: contradicts the known facts of the site cn-beijing (dashscope.aliyuncs.com): "
        "it processes in CN; remove it; the facts of the site are used",
    ),
    "facts against a workspace's host": deployment(
        "x: {provider: openai-compatible, model: m, endpoint: 'https://ws.cn-beijing.maas.aliyuncs.com', "
        "stores: ▸US, processes: CN}",
        "deployments.x.stores: contradicts the known facts of the site cn-beijing (dashscope.aliyuncs.com): "
        "it stores in CN; remove it; the facts of the site are used",
    ),
    "facts against those of a model's scope": deployment(
        "x: {provider: dashscope, model: qwen-plus-us, endpoint: us, processes: ▸any}",
        "deployments.x.processes: contradicts the known facts of the site us (dashscope-us.aliyuncs.com): "
        "it processes in US; remove it; the facts of the site are used",
    ),
    "one server, two places": deployment(
        f"x: {{provider: openai-compatible, model: m, endpoint: 'https://llm.example/v1', {OWN}}}\n"
        "  y: {provider: openai-compatible, model: n, endpoint: ▸'https://LLM.example:443/v2', "
        "stores: DE, processes: any}",
        "deployments.y.endpoint: https://llm.example has different facts (stores, processes) in deployment 'x' (line 19); "
        "one server has one set of facts; state the same in both",
    ),
    "one server of this machine, under its three names": deployment(
        f"x: {{provider: openai-compatible, model: m, endpoint: 'http://localhost:8000', {OWN}}}\n"
        "  y: {provider: openai-compatible, model: n, endpoint: ▸'http://127.0.0.1:8000', stores: FR, processes: FR}\n"
        "  z: {provider: openai-compatible, model: n, endpoint: ▸'http://[::1]:8000/v2', stores: FR, processes: FR}\n"
        "  other: {provider: openai-compatible, model: n, endpoint: 'http://127.0.0.1:8001', stores: FR, processes: FR}",
        "deployments.y.endpoint: http://127.0.0.1:8000 has different facts (stores, processes) in deployment 'x' (line 19); "
        "one server has one set of facts; state the same in both",
        "deployments.z.endpoint: http://[::1]:8000 has different facts (stores, processes) in deployment 'x' (line 19); "
        "one server has one set of facts; state the same in both",
    ),
    "one server of this machine, by the address of no interface": deployment(
        f"x: {{provider: openai-compatible, model: m, endpoint: 'https://localhost', {OWN}}}\n"
        "  y: {provider: openai-compatible, model: n, endpoint: ▸'https://0.0.0.0/v2', stores: FR, processes: FR}\n"
        "  z: {provider: openai-compatible, model: n, endpoint: ▸'https://[::]', stores: FR, processes: FR}",
        "deployments.y.endpoint: https://0.0.0.0 has different facts (stores, processes) in deployment 'x' (line 19); "
        "one server has one set of facts; state the same in both",
        "deployments.z.endpoint: https://[::] has different facts (stores, processes) in deployment 'x' (line 19); "
        "one server has one set of facts; state the same in both",
    ),
    "one server, its address dressed as IPv6": deployment(
        f"x: {{provider: openai-compatible, model: m, endpoint: 'https://192.0.2.1', {OWN}}}\n"
        "  y: {provider: openai-compatible, model: n, endpoint: ▸'https://[::ffff:c000:201]/v1', stores: FR, processes: FR}",
        "deployments.y.endpoint: https://192.0.2.1 has different facts (stores, processes) in deployment 'x' (line 19); "
        "one server has one set of facts; state the same in both",
    ),
    "a part that is a territory of its own": deployment(
        "x: {provider: openai-compatible, model: m, endpoint: 'https://llm.example', stores: ▸CN-HK, processes: CN}",
        "deployments.x.stores: 'CN-HK' is not a territory (ISO 3166); did you mean HK?",
    ),
    "a place that is none": deployment(
        "x: {provider: openai-compatible, model: m, endpoint: 'https://llm.example', stores: ▸Berlin, processes: DE}",
        "deployments.x.stores: 'Berlin' is not a territory (ISO 3166); write a code, such as DE, or US-CA for a subdivision",
    ),
    "a place that is none, at a known site": deployment(
        "x: {provider: openai, model: gpt-6-luna, endpoint: us, stores: ▸Berlin}",
        "deployments.x.stores: 'Berlin' is not a territory (ISO 3166); write a code, such as DE, or US-CA for a subdivision",
    ),
    "no place": deployment(
        f"x: {{{SERVER}, ▸stores: [], processes: DE}}\n  y: {{{SERVER}, stores: DE, processes: ▸'!CN'}}",
        "deployments.x.stores: must not be empty",
        'deployments.y.processes: names no territory; name one, a group such as "@EEA", or "*"',
    ),
    "beyond a published list": deployment(
        "x: {provider: gemini, model: gemini-3.8-flash, ▸available: [DE, HK, CN]}",
        "deployments.x.available: the vendor publishes which territories it serves, and it does not serve CN, HK; "
        "the list may only be narrowed",
    ),
    "beyond a published list that leaves out parts": deployment(
        "x: {provider: openai, model: gpt-6-luna, endpoint: us, available: ▸CN}",
        "deployments.x.available: the vendor publishes which territories it serves, and it does not serve CN; "
        "the list may only be narrowed",
    ),
    "beyond a published list by a star": deployment(
        "x: {provider: gemini, model: gemini-3.8-flash, available: ▸'*'}",
        "deployments.x.available: the vendor publishes which territories it serves, and it does not serve every territory; "
        "the list may only be narrowed",
    ),
    "beyond a published list by a part": deployment(
        "x: {provider: openai, model: gpt-6-luna, endpoint: us, available: ▸UA}",
        "deployments.x.available: the vendor publishes which territories it serves, and it does not serve UA-09, UA-14, UA-40, UA-43; "
        "the list may only be narrowed",
    ),
    "where a site must not answer": deployment(
        "x: {provider: dashscope, model: qwen-plus, endpoint: intl, ▸available: ['*']}",
        'deployments.x.available: the site intl must not answer users in CN; exclude it: "!CN"',
    ),
    "a part of where a site must not answer": deployment(
        "x: {provider: dashscope, model: qwen-plus, endpoint: intl, ▸available: [SG, CN-BJ]}",
        'deployments.x.available: the site intl must not answer users in CN-BJ; exclude it: "!CN-BJ"',
    ),
    "attests what nobody asks": deployment(
        "x: {provider: openai, model: gpt-6-luna, endpoint: eu, attests: [▸zrd, ▸gdpr]}",
        "deployments.x.attests[0]: eu does not require 'zrd'; did you mean 'zdr'?",
        "deployments.x.attests[1]: eu does not require 'gdpr'; there are mam, zdr",
    ),
    "unknown capability": deployment(
        "x: {provider: openai, model: gpt-6-luna, endpoint: us, capabilities: [tools, ▸vison]}",
        "deployments.x.capabilities[1]: unknown capability 'vison'; did you mean 'vision'?",
    ),
    "passthrough of what moves data": deployment(
        "x: {provider: openai, model: gpt-6-luna, endpoint: us, passthrough: [top_k, ▸store]}",
        "deployments.x.passthrough[1]: `store` moves or keeps data, which the known facts of us do not allow; remove it",
    ),
    "passthrough to a server of one's own": deployment(
        f"x: {{provider: openai-compatible, model: m, endpoint: 'https://h.example', {OWN}, passthrough: [▸models]}}",
        "deployments.x.passthrough[0]: `models` moves or keeps data, which the known facts of https://h.example do not allow; "
        "remove it",
    ),
    "simulator": deployment(
        "x: {provider: openai, model: gpt-6-luna, endpoint: ▸simulator, simulates: us}",
        "deployments.x.endpoint: a simulator is available in demo mode only; "
        "write `demo: true` or use `gateway demo`; for a real provider, name a site or a URL",
    ),
    "simulates without simulator": deployment(
        "x: {provider: openai, model: gpt-6-luna, endpoint: us, simulates: ▸us}",
        "deployments.x.simulates: is only valid for a simulator; write `endpoint: simulator`",
    ),
}

CREDENTIALS = {
    "no reference": deployment(
        'x: {provider: openai, model: gpt-6-luna, endpoint: us, api_key: [▸"${US-KEY}", ▸"Bearer ${US_KEY}", '
        '▸"${file:relative}"]}',
        *(
            f"deployments.x.api_key[{index}]: the key is not a reference that can be resolved; "
            "write ${NAME}, or ${file:/path} with the absolute path, and nothing else in the value"
            for index in range(3)
        ),
    ),
    "a reference in another program's words": deployment(
        "x: {provider: openai, model: gpt-6-luna, endpoint: us, api_key: [▸os.environ/OPENAI_API_KEY, ▸env.OPENAI_API_KEY]}",
        *(
            f"deployments.x.api_key[{index}]: the key is a reference in the syntax of another program; "
            "write ${NAME} for a variable of the environment, or ${file:/path} for a file"
            for index in range(2)
        ),
    ),
    "a key that can't be sent": deployment(
        'x: {provider: openai, model: gpt-6-luna, endpoint: us, api_key: ▸"sk-1\\r\\nx-evil: 1"}',
        "deployments.x.api_key: the key can't be sent in a header; "
        "it must be one line of visible ASCII, without spaces at the start or end",
    ),
    "a plain client key": one(
        "clients",
        f"clients: {{a: {{keys: [▸gk-secret, ▸sha256:abc, ▸{'ab' * 32}, {HASH}]}}}}",
        "clients.a.keys[0]: is not the hash of a key; the key itself must not be in the file; "
        "`gateway key new` makes a key and shows its hash",
        "clients.a.keys[1]: 64 hexadecimal digits must follow `sha256:`, but there are 3 characters; "
        "`gateway key new` makes a key and shows its hash",
        "clients.a.keys[2]: the algorithm is missing; put `sha256:` before it",
    ),
    "a client without key": one("clients", "clients: {a: {▸keys: []}}", "clients.a.keys: must not be empty"),
    "a client's key that is no text": one(
        "clients", "clients: {a: {keys: [▸5]}}", "clients.a.keys[0]: must be a string, not a number; put it in quotes"
    ),
    "a key of two clients": one(
        "clients",
        f"clients:\n  a: {{keys: ['{HASH}']}}\n  b: {{keys: [▸'sha256:{'AB' * 32}']}}",
        "clients.b.keys[0]: this key belongs to the client 'a' already; a key belongs to one client; remove one",
    ),
    "a key twice": one(
        "clients",
        f"clients:\n  a: {{keys: ['{HASH}', ▸'{HASH}']}}",
        "clients.a.keys[1]: this key belongs to the client 'a' already; a key belongs to one client; remove one",
    ),
    "limits that limit nothing": one(
        "clients",
        f"clients: {{a: {{keys: ['{HASH}'], ▸limits: {{}}}}}}",
        "clients.a.limits: sets no limit; give it `rpm`, `concurrent` or `body_bytes`, or remove it",
    ),
    "pages that don't exist": one(
        "cors",
        "cors: {origins: [▸app.example, ▸'https://app.example/', ▸'HTTPS://App.Example:443/x', ▸'null', "
        "▸'https://*.app.example', ▸'http://a:80', 'http://a:8080', 'https://[::1]:8443', 'tauri://localhost']}",
        "cors.origins[0]: must be an origin as a browser writes it; such as https://app.example or "
        "http://localhost:5173",
        "cors.origins[1]: must be an origin as a browser writes it; write https://app.example",
        "cors.origins[2]: must be an origin as a browser writes it; write https://app.example",
        "cors.origins[3]: `null` is the origin of every sandboxed page and local file; write the origin of your page",
        "cors.origins[4]: must be one origin, or `*` alone for every page; list each origin separately",
        "cors.origins[5]: must be an origin as a browser writes it; write http://a",
    ),
    "what a client names": one(
        "clients",
        f"clients: {{a: {{keys: ['{HASH}'], assistants: [▸assistent, ▸gpt-4o], region: ▸chn, may_assert: [▸usr]}}}}",
        "clients.a.assistants[0]: unknown assistant 'assistent'; did you mean 'assistant'?",
        "clients.a.assistants[1]: unknown assistant 'gpt-4o'; write 'assistant', the assistant that has this alias",
        "clients.a.region: unknown region 'chn'; did you mean 'cn'?",
        "clients.a.may_assert[0]: unknown value 'usr'; did you mean 'user'?",
    ),
}

LOCATION = {
    "signals": one(
        "location",
        "location: {signals: [edge_header, ▸edge_headr]}",
        "location.signals[1]: unknown signal 'edge_headr'; did you mean 'edge_header'?",
    ),
    "signal twice": one(
        "location",
        "location: {▸signals: [assertion, assertion]}",
        "location.signals: a signal is listed twice; remove one",
    ),
    "unknown": one(
        "location",
        "location: {unknown: ▸eur}",
        "location.unknown: must be `refuse` or a region, not 'eur'; did you mean 'eu'?",
    ),
    "networks": one(
        "location",
        "location: {edges: [{from: [▸10.0.0.1/8, ▸everywhere, 2001:db8::1], country: CF-IPCountry}]}",
        "location.edges[0].from[0]: '10.0.0.1/8' is not a network; did you mean 10.0.0.0/8?",
        "location.edges[0].from[1]: 'everywhere' is not a network; such as 10.0.0.0/8, 2001:db8::/32, or one address",
    ),
    "a network that is none, beside others": one(
        "location",
        "location: {edges: [{from: ['2001:db8::/32'], country: C}, {from: [▸everywhere], country: C}]}",
        "location.edges[1].from[0]: 'everywhere' is not a network; such as 10.0.0.0/8, 2001:db8::/32, or one address",
    ),
    "edges that overlap": one(
        "location",
        "location:\n  edges:\n    - {from: [10.0.0.0/8, '::/0'], country: A, secret: {header: s, value: '${EDGE}'}}\n"
        "    - {▸from: [10.1.0.0/16], country: B}\n    - {from: [192.168.0.0/16], country: B}\n"
        "    - {▸from: ['2001:db8::/32'], country: B}\n",
        *(
            f"location.edges[{index}].from: shares addresses with edge 0; one peer has one country header; "
            "make the networks disjoint"
            for index in (1, 3)
        ),
    ),
    "headers": one(
        "location",
        "location: {edges: [{from: [10.0.0.0/8], country: ▸'CF IPCountry'}]}",
        "location.edges[0].country: must be the name of a header",
    ),
    "one header for two things": one(
        "location",
        "location:\n  edges:\n    - ▸{from: [10.0.0.0/8], country: X-Edge, client_ip: x-edge}\n"
        "    - ▸{from: [11.0.0.0/8], country: X-Edge, subdivision: X-EDGE}\n"
        "    - ▸{from: [12.0.0.0/8], country: X-Edge, secret: {header: X-EDGE, value: '${EDGE}'}}",
        "location.edges[0]: country, subdivision, client_ip and secret must be different headers",
        "location.edges[1]: country, subdivision, client_ip and secret must be different headers",
        "location.edges[2]: country, subdivision, client_ip and secret must be different headers",
    ),
    "a claim without keys": one(
        "location",
        "location:\n  ▸claim: {issuer: i, audience: a, algorithms: [ES256]}",
        "location.claim: needs `jwks` or a `secret`, and not both; public keys (`jwks`) are the better choice",
    ),
    "a claim with two sorts of keys": one(
        "location",
        "location:\n  ▸claim:\n    {issuer: i, audience: a, ▸algorithms: [ES256], jwks: /keys, secret: '${EDGE}'}",
        "location.claim: needs `jwks` or a `secret`, and not both; public keys (`jwks`) are the better choice",
        "location.claim.algorithms: with a `secret` only HS256, HS384 and HS512 can be used",
    ),
    "a public key for a secret": one(
        "location",
        "location:\n  claim:\n    {issuer: i, audience: a, ▸algorithms: [ES256, HS256], jwks: /etc/keys.json}",
        "location.claim.algorithms: HS256 would use a public key as a shared secret; "
        "leave it out, or configure a `secret` instead of `jwks`",
    ),
    "no algorithm": one(
        "location",
        "location: {claim: {issuer: i, audience: a, ▸algorithms: [], jwks: /keys}}",
        "location.claim.algorithms: must not be empty",
    ),
    "the algorithm none": one(
        "location",
        "location: {claim: {issuer: i, audience: a, algorithms: [▸none, ES256, ▸es256], jwks: /keys}}",
        "location.claim.algorithms[0]: unknown value 'none'; there are ES256, ES384, ES512, EdDSA, HS256, HS384, HS512, "
        "PS256, PS384, PS512, RS256, RS384 and 1 more",
        "location.claim.algorithms[2]: unknown value 'es256'; did you mean 'ES256'?",
    ),
    "keys of no place": one(
        "location",
        "location: {claim: {issuer: i, audience: a, algorithms: [ES256], jwks: ▸keys.json}}",
        "location.claim.jwks: is neither a URL nor the absolute path of a file; such as https://issuer.example/jwks",
    ),
    "keys over the open net": one(
        "location",
        "location: {claim: {issuer: i, audience: a, algorithms: [ES256], jwks: ▸'http://issuer.example/jwks'}}",
        "location.claim.jwks: http:// to another machine can be read and changed on the way; use https://",
    ),
    "keys at no path": one(
        "location",
        "location: {claim: {issuer: i, audience: a, algorithms: [ES256], jwks: ▸'https://issuer.example'}}",
        "location.claim.jwks: the URL has no path; write the whole URL",
    ),
    "a URL with a password": one(
        "location",
        "location: {claim: {issuer: i, audience: a, algorithms: [ES256], jwks: ▸'https://u:p@issuer.example/jwks'}}",
        "location.claim.jwks: the URL must not carry a user name or password; use api_key",
    ),
    "a short secret": one(
        "location",
        "location: {claim: {issuer: i, audience: a, algorithms: [HS256, HS512], secret: ▸'${EDGE}'}}",
        "location.claim.secret: is shorter than 64 characters; create one with: openssl rand -base64 64",
    ),
    "a secret for an algorithm that takes none": one(
        "location",
        "location: {claim: {issuer: i, audience: a, ▸algorithms: [ES256], secret: ▸'${EDGE}'}}",
        "location.claim.algorithms: with a `secret` only HS256, HS384 and HS512 can be used",
        "location.claim.secret: is shorter than 32 characters; create one with: openssl rand -base64 32",
    ),
    "a secret that is no reference": one(
        "location",
        "location: {claim: {issuer: i, audience: a, algorithms: [HS256], secret: ▸'${A}${B}'}}",
        "location.claim.secret: the secret is not a reference that can be resolved; "
        "write ${NAME}, or ${file:/path} with the absolute path, and nothing else in the value",
    ),
    "a secret that isn't set": one(
        "location",
        "location: {claim: {issuer: i, audience: a, algorithms: [HS256], secret: ▸'${NOT_SET}'}}",
        "location.claim.secret: NOT_SET is not set; set it, or remove `claim`",
    ),
    "a database of no place": one(
        "location",
        "location: {geoip: {path: ▸''}}",
        "location.geoip.path: must be the path of a file; such as /var/lib/GeoIP/GeoLite2-Country.mmdb",
    ),
    "an age without its unit": one(
        "location",
        "location: {geoip: {path: /x.mmdb, max_age: ▸'30'}}",
        "location.geoip.max_age: must be an age in hours or days, such as 12h or 30d",
    ),
    "no country": one(
        "location",
        "location: {accept_country_only: [▸Ukraine]}",
        "location.accept_country_only[0]: 'Ukraine' is not a territory (ISO 3166); did you mean UA (Ukraine)?",
    ),
    "a language": one(
        "location",
        "location: {edges: [{from: [10.0.0.0/8], country: ▸Accept-Language}]}",
        "location.edges[0].country: a language is not a country; Accept-Language never decides a region",
    ),
    "an edge's secret": one(
        "location",
        "location:\n  edges:\n"
        "    - {from: [10.0.0.0/8], country: C, secret: {header: S, value: ▸'${NOT_SET}'}}\n"
        "    - {from: [11.0.0.0/8], country: C, secret: {header: S, value: ▸'${file:/not/there}'}}\n"
        "    - {from: [12.0.0.0/8], country: C, secret: {header: S, value: ▸'${EDGE} '}}\n"
        "    - {from: [13.0.0.0/8], country: C, secret: {header: S, value: ▸''}}\n",
        "location.edges[0].secret.value: NOT_SET is not set; "
        "without it the edge cannot be verified; set it, or remove `secret`",
        "location.edges[1].secret.value: /not/there can't be read (No such file or directory); "
        "without it the edge cannot be verified; set it, or remove `secret`",
        "location.edges[2].secret.value: the secret is not a reference that can be resolved; "
        "write ${NAME}, or ${file:/path} with the absolute path, and nothing else in the value",
        "location.edges[3].secret.value: the secret is empty; "
        "without it the edge cannot be verified; set it, or remove `secret`",
    ),
}


def judged(text: str, *errors: str) -> Case:
    return region(f"jp: {{territories: [JP], boundary: [CN, JP], moderation: {{{text}}}}}", *errors, deployments=JUDGES)


JUDGES = more(
    "deployments", "guard: {provider: dashscope, model: simulated-qwen3guard, endpoint: cn-beijing, api_key: k}"
)
JUDGING = {
    "judge that does not exist": judged(
        "input: [guard, ▸gard], on_failure: open",
        "regions.jp.moderation.input[1]: unknown deployment 'gard'; did you mean 'guard'?",
    ),
    "judge that classifies nothing": judged(
        "output: [▸qwen-cn], on_failure: open",
        "regions.jp.moderation.output[0]: 'qwen-cn' classifies no content; "
        "use OpenAI's moderation model, a server of your own with /moderations, or a guard model",
    ),
    "no answer for a judge that fails": region(
        "jp: {territories: [JP], boundary: [CN, JP], ▸moderation: {input: [guard]}}",
        "regions.jp.moderation.on_failure: is missing; "
        "add it: Without a verdict: `closed` gives an error, `open` lets the request go on.",
        deployments=JUDGES,
    ),
    "moderation by nobody": region(
        "jp: {territories: [JP], boundary: [CN, JP], ▸moderation: {on_failure: open}}",
        "regions.jp.moderation: names no deployment; add `input`, `output` or both, or remove it",
    ),
    "text is held shorter than it is collected": judged(
        "input: [guard], on_failure: open, window_chars: 90, hold_chars: ▸80",
        "regions.jp.moderation.hold_chars: must not be below `window_chars` (90); use a larger number",
    ),
    "judge outside the boundary": region(
        "jp: {territories: [JP], boundary: [JP], moderation: {output: [▸guard], on_failure: open}}",
        "regions.jp.moderation.output[0]: 'guard' stores and processes in CN, outside the boundary of region 'jp' (JP); "
        "use a site inside the boundary, or widen `regions.jp.boundary`",
        deployments=JUDGES,
    ),
}


TABLES = {
    "moderation": JUDGING,
    "shape": SHAPES,
    "route": ROUTES,
    "region": REGIONS,
    "deployment": DEPLOYMENTS,
    "credential": CREDENTIALS,
    "location": LOCATION,
}
CASES = {f"{table}: {name}": case for table, cases in TABLES.items() for name, case in cases.items()}


def test_base_config_of_the_cases_is_valid() -> None:
    assert compiled(sections()).warnings == ()


@pytest.mark.parametrize("name", CASES)
def test_mistake_is_reported_at_its_position_with_its_fix(name: str) -> None:
    case = CASES[name]
    text, places = marked(sections(**case.sections))
    found = [problem for problem in rejected(text) if problem.severity == "error"]
    reported = [
        f"{dotted(problem.path)}: {problem.message}{f'; {problem.hint}' if problem.hint else ''}" for problem in found
    ]
    assert reported == list(case.errors)
    at = [(problem.line, problem.column) for problem in found]
    assert at == places


REFERRING = sections(
    assistants="""\
        assistants:
          a:
            routes: {cn: [{qwen-cn: 95, chatgpt-eu: 5}], us: [chatgpt-us]}
            schedules: {cn: {candidate: chatgpt-eu, steps: "5% for 10m, 100%"}}
            shadow: {us: {deployment: chatgpt-us}}
        """,
    deployments=more(
        "deployments",
        "x: {provider: openai, model: gpt-6-luna, endpoint: us, api_key: '${US_KEY}', approvals: "
        "[{region: cn, authority: A, kind: registration, number: N, model_name: M}]}",
    ),
    clients=f"clients: {{a: {{keys: ['{HASH}'], region: cn, assistants: [a]}}}}",
    location="location: {unknown: us}",
    exporters=f"exporters: {{t: {{endpoint: 'https://otel.example', {OWN}, regions: [eu]}}}}",
)


@pytest.mark.parametrize("section", ["assistants", "deployments", "regions"])
def test_reference_to_a_broken_section_is_not_an_error(section: str) -> None:
    lines = REFERRING.splitlines()
    first = lines.index(f"{section}:")
    last = next(index for index in range(first + 1, len(lines)) if not lines[index].startswith(" "))
    text = "\n".join([*lines[:first], f"{section}: [a]", *lines[last:]]) + "\n"
    errors = [str(problem) for problem in rejected(text) if problem.severity == "error"]
    assert len(errors) == 1, errors
    assert f"{section}: must be a mapping, not a list" in errors[0]


NOT_YET = {
    "evaluations": ("regions.cn", "regions:\n  cn: {territories: [CN], boundary: [CN], ▸evaluations: {}}"),
}


@pytest.mark.parametrize("key", NOT_YET)
def test_planned_key_is_rejected_by_name(key: str) -> None:
    owner, section = NOT_YET[key]
    text, [(line, column)] = marked(sections(**{section.split(":")[0]: section}))
    expected = f"gateway.yaml:{line}:{column}: {owner}.{key}: `{key}` is not supported by this version yet; remove it"
    assert expected in map(str, rejected(text))


@pytest.mark.parametrize("key", NOT_YET)
def test_planned_key_is_rejected_in_any_section(key: str) -> None:
    expected = f"gateway.yaml:1:1: {key}: `{key}` is not supported by this version yet; remove it"
    assert [str(problem) for problem in rejected(f"{key}: true\n{sections()}")] == [expected]


def test_syntax_shape_and_meaning_errors_are_reported_together() -> None:
    text, places = marked(
        sections(
            version="version: ▸2",
            assistants="assistants: {a: {routes: {cn: [▸chatgpt-us], ▸fr: [qwen-cn, ▸nobody]}}}",
            blocked="▸blokced: [CU]\nblocked: [▸XY]\n▸blocked: []",
            clients="clients: {a: {keys: [▸plain]}}",
        )
    )
    errors = [problem for problem in rejected(text) if problem.severity == "error"]
    assert [(problem.line, problem.column) for problem in errors] == places
