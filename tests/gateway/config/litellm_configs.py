"""Configurations of LiteLLM: the shapes of its documentation and of public repositories, written anew; and random ones."""

import re
from pathlib import Path
from typing import Any

from hypothesis import strategies as st

FOLDER = Path(__file__).with_name("litellm")
CONFIGS = {file.stem: file.read_text("utf-8") for file in sorted(FOLDER.glob("*.yaml"))}
"""By name. Secrets in clear contain `clear`, `secret`, `tiny` or `hunter2`."""

SECRETS = re.compile(
    r"sk-clear-\w+|eyJsecret|sk-tiny-\d+|hunter2-redis|AKIACLEAR|clear-aws-secret|pw-clear|my-openai-key"
)

_WORDS = st.sampled_from(
    [
        "gpt-4o", "a", "b", "*", "openai/*", "openai/gpt-4o", "azure/x", "ollama/llama3", "bedrock/m", "vertex_ai/gemini-3",
        "https://api.openai.com/v1", "http://10.0.0.1:8000", "https://u:sk-clear-1@h/v1", "os.environ/KEY", "sk-clear-2",
        "${HOME}", "x y", "日本", "1d", "30d", "10d", "us-east-1", "US", "", "text-embedding-3-small", "embedding",
    ]
)  # fmt: skip
_NAMES = _WORDS.filter(lambda word: word != "sk-clear-2")
"""The names of models and clients are public."""

_SCALARS = st.one_of(_NAMES, st.integers(-2, 10**12), st.floats(0, 2), st.booleans(), st.none())
_KEYS = "model model_name api_base api_key rpm weight order mode id max_budget a b gpt-4o".split()
_ANY = st.recursive(
    _SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(_KEYS), inner, max_size=3)
)


def _mapping(**values: st.SearchStrategy[Any]) -> st.SearchStrategy[dict[str, Any]]:
    return st.fixed_dictionaries({}, optional={key: value | _ANY for key, value in values.items()})


_PARAMS = _mapping(
    **dict.fromkeys(("model", "api_base", "api_key", "rpm", "weight", "order", "aws_region_name", "vertex_project"), _WORDS),
    input_cost_per_token=st.floats(0, 0.01), output_cost_per_token=st.floats(0, 0.01), temperature=st.just(1),
)  # fmt: skip
_MODEL = _mapping(model_name=_NAMES, litellm_params=_PARAMS, model_info=_mapping(mode=_WORDS, id=_WORDS))
_TARGETS = st.lists(st.dictionaries(_NAMES, st.lists(_WORDS, max_size=3), max_size=2), max_size=2)
_NUMBERS = st.integers(0, 100)
_KEY = _mapping(
    token=st.just("1" * 64), key=_WORDS, key_alias=_NAMES, models=st.lists(_NAMES, max_size=2), team_id=_NAMES,
    max_budget=_NUMBERS, budget_duration=_WORDS, rpm_limit=_NUMBERS,
)  # fmt: skip
RANDOM = _mapping(
    model_list=st.lists(_MODEL | _ANY, max_size=4),
    litellm_settings=_mapping(
        fallbacks=_TARGETS, context_window_fallbacks=_TARGETS, default_fallbacks=st.lists(_WORDS, max_size=2),
        max_budget=_NUMBERS, budget_duration=_WORDS, max_end_user_budget=_NUMBERS, num_retries=_NUMBERS, cache=st.booleans(),
    ),
    router_settings=_mapping(model_group_alias=st.dictionaries(_NAMES, _WORDS, max_size=2), fallbacks=_TARGETS),
    general_settings=_mapping(master_key=_WORDS, global_max_parallel_requests=_NUMBERS),
    keys=st.lists(_KEY, max_size=2),
    teams=st.lists(_mapping(team_id=_NAMES, team_alias=_NAMES, max_budget=_NUMBERS), max_size=2),
)  # fmt: skip
"""Configurations with most keys that are converted, and with any value at each place."""
