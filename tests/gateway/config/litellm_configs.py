"""Configurations of LiteLLM: the shapes of its documentation and of public repositories, written anew; and random ones."""

from __future__ import annotations

import re
from typing import Any

from hypothesis import strategies as st

CONFIGS = {
    # LiteLLM's documentation.
    "overview": """
model_list:
  - model_name: chat ### the name that clients send
    litellm_params:
      model: azure/chat-eu
      api_base: https://acme-eu.openai.azure.com/
      api_key: "os.environ/AZURE_KEY_EU"
      rpm: 6
  - model_name: chat
    litellm_params: {model: azure/chat-ca, api_base: https://acme-ca.openai.azure.com/, api_key: os.environ/AZURE_KEY_CA, rpm: 12}
  - model_name: claude
    litellm_params: {model: bedrock/anthropic.claude-sonnet-5, aws_region_name: us-east-1}
  - model_name: own
    litellm_params: {model: openai/facebook/opt-125m, api_base: http://0.0.0.0:4000/v1, api_key: none, rpm: 1440}
    model_info: {version: 2}
  - model_name: "*"
    litellm_params: {model: "*"}
litellm_settings: {drop_params: True, success_callback: [langfuse]}
general_settings: {master_key: sk-tiny-4711, alerting: [slack]}
""",
    "parameters of models": """
model_list:
  - model_name: team1
    litellm_params: {model: azure/gpt, api_base: https://acme.openai.azure.com/, api_version: "2023-05-15", azure_ad_token: eyJsecret, seed: 12, max_tokens: 20}
  - model_name: team 2
    litellm_params: {model: openai/gpt-4o, extra_headers: {"AI-Resource Group": "acme"}, api_key: sk-clear-9911, organization: org-1, temperature: 0.2}
  - model_name: mistral-7b
    litellm_params: {model: ollama/mistral, api_base: your_ollama_api_base}
""",
    "embeddings": """
model_list:
  - {model_name: titan, litellm_params: {model: bedrock/amazon.titan-embed-text-v1}}
  - {model_name: ada, litellm_params: {model: text-embedding-ada-002, api_key: sk-clear-1}}
  - {model_name: ada, litellm_params: {model: text-embedding-ada-002, api_key: sk-clear-2}}
  - {model_name: azure-emb, litellm_params: {model: azure/my-embedding-model, api_base: os.environ/AZURE_API_BASE, api_key: os.environ/AZURE_API_KEY}}
  - {model_name: xinf, litellm_params: {model: xinference/bge-base-en, api_base: "http://127.0.0.1:9997/v1"}, model_info: {mode: embedding}}
  - {model_name: gpt-j, litellm_params: {model: sagemaker/gpt-j}}
""",
    "load balancing": """
model_list:
  - {model_name: zephyr, litellm_params: {model: huggingface/zephyr-7b, api_base: "http://127.0.0.1:8001", rpm: 60, tpm: 1000}}
  - {model_name: zephyr, litellm_params: {model: huggingface/zephyr-7b, api_base: "http://127.0.0.1:8002", rpm: 600}}
  - {model_name: zephyr, litellm_params: {model: huggingface/zephyr-7b, api_base: "http://127.0.0.1:8003", rpm: 60000}}
  - {model_name: gpt-4o, litellm_params: {model: gpt-4o, api_key: <my-openai-key>, rpm: 200}}
  - {model_name: long, litellm_params: {model: gpt-4.1, api_key: <my-openai-key>, rpm: 100}}
litellm_settings:
  num_retries: 3
  request_timeout: 10
  fallbacks: [{"zephyr": ["gpt-4o"]}]
  context_window_fallbacks: [{"zephyr": ["long"]}, {"gpt-4o": ["long"]}]
  allowed_fails: 3
router_settings:
  routing_strategy: simple-shuffle
  model_group_alias: {"gpt-4": "gpt-4o", "hidden": {"model": "gpt-4o", "hidden": true}}
  num_retries: 2
  timeout: 30
  redis_host: redis.internal
  redis_password: hunter2-redis
  redis_port: 1992
""",
    "credentials": """
model_list:
  - {model_name: gpt-4o, litellm_params: {model: azure/gpt-4o, litellm_credential_name: default}}
credential_list:
  - credential_name: default
    credential_values: {api_key: os.environ/AZURE_API_KEY, api_base: https://acme.openai.azure.com, api_version: "2023-05-15"}
    credential_info: {description: Production}
""",
    "provider budgets": """
model_list:
  - {model_name: mini, litellm_params: {model: openai/gpt-4o-mini, api_key: os.environ/OPENAI_API_KEY, max_budget: 100, budget_duration: 30d}}
router_settings:
  provider_budget_config:
    openai: {budget_limit: 0.000000000001, time_period: 1d}
    azure: {budget_limit: 100, time_period: 10d}
general_settings: {master_key: os.environ/LITELLM_MASTER_KEY}
""",
    "global budget": """
model_list:
  - {model_name: own, litellm_params: {model: hosted_vllm/qwen3, api_base: "http://127.0.0.1:8000/v1", input_cost_per_token: 0.000001, output_cost_per_token: 0.000002}}
general_settings: {master_key: sk-tiny-4711, global_max_parallel_requests: 10}
litellm_settings: {max_budget: 5.5, budget_duration: 10d, max_end_user_budget: 0.002, timezone: Europe/Berlin}
""",
    "only the database": """
general_settings: {master_key: os.environ/MASTER, store_model_in_db: true}
litellm_settings: {default_team_settings: [{team_id: t1, success_callback: [langfuse]}], cache: true, cache_params: {type: local, ttl: 300}}
""",
    # Public repositories: structure only.
    "failover between vendors": """
model_list:
  - {model_name: tier, litellm_params: {model: groq/llama-3.3-70b-versatile, api_key: os.environ/GROQ_API_KEY}}
  - {model_name: tier, litellm_params: {model: gemini/gemini-2.5-flash, api_key: os.environ/GEMINI_API_KEY}}
  - {model_name: tier, litellm_params: {model: "openrouter/deepseek/deepseek-chat:free", api_key: os.environ/OPENROUTER_API_KEY}}
router_settings: {fallbacks: [{tier: [tier]}]}
""",
    "local first": """
model_list:
  - {model_name: fast, litellm_params: {model: "ollama/qwen3:8b", api_base: "http://localhost:11434", rpm: 30, timeout: 120}}
  - {model_name: smart, litellm_params: {model: "ollama_chat/qwen3:32b", api_base: "http://ollama:11434/"}}
  - {model_name: cloud, litellm_params: {model: openai/gpt-5.4-mini, api_key: os.environ/OPENAI_API_KEY}}
litellm_settings:
  fallbacks: [{fast: [smart, cloud]}, {smart: [cloud]}]
  default_fallbacks: [cloud]
router_settings: {routing_strategy: usage-based-routing, allowed_fails: 3, cooldown_time: 60}
""",
    "china": """
model_list:
  - {model_name: sf, litellm_params: {model: siliconflow/deepseek-ai/DeepSeek-R1, api_key: os.environ/SF, api_base: "https://api.siliconflow.cn/v1"}}
  - {model_name: glm, litellm_params: {model: zhipu/glm-4-flash, api_key: os.environ/ZP, api_base: "https://open.bigmodel.cn/api/paas/v4"}}
  - {model_name: qwen, litellm_params: {model: openai/qwen-max, api_key: os.environ/DS, api_base: "https://dashscope.aliyuncs.com/compatible-mode/v1"}}
  - {model_name: qwen2, litellm_params: {model: dashscope/qwen-max, api_key: os.environ/DS}}
router_settings: {num_retries: 3, timeout: 60, fallbacks: [{sf: [glm, qwen]}, {glm: [sf]}]}
general_settings: {port: 4000, host: 127.0.0.1, master_key: sk-tiny-4711}
litellm_settings: {max_budget: 100, budget_duration: 1mo}
""",
    "merge keys": """
x-defaults: &defaults {api_key: os.environ/ANTHROPIC_API_KEY, max_retries: 2}
model_list:
  - {model_name: sonnet, litellm_params: {<<: *defaults, model: anthropic/claude-sonnet-5}}
  - {model_name: opus, litellm_params: {<<: *defaults, model: claude-opus-5, max_retries: 0}}
""",
    "wildcards": """
model_list:
  - {model_name: "*", litellm_params: {model: openai/*, api_key: os.environ/OPENAI_API_KEY}}
  - {model_name: "anthropic/*", litellm_params: {model: "anthropic/*", api_key: os.environ/ANTHROPIC_API_KEY}}
  - {model_name: "groq/*", litellm_params: {model: "groq/*", api_key: os.environ/GROQ_API_KEY}}
  - {model_name: batch, litellm_params: {model: bedrock/us.anthropic.claude-haiku-4-5, s3_secret_access_key: os.environ/AWS}, model_info: {mode: batch}}
finetune_settings: [{custom_llm_provider: azure, api_key: os.environ/AZURE_API_KEY}]
""",
    "guardrails and other uses": """
model_list:
  - {model_name: fake, litellm_params: {model: openai/fake, api_key: fake-key, api_base: "https://example.test/", tags: [teamA]}, model_info: {id: a}}
  - {model_name: fake, litellm_params: {model: openai/fake, api_key: fake-key, api_base: "https://example.test/", tags: [teamB]}, model_info: {id: b}}
  - {model_name: rerank, litellm_params: {model: cohere/rerank-english-v3.0, api_key: os.environ/COHERE_API_KEY}}
  - {model_name: judge, litellm_params: {model: openai/omni-moderation-latest, api_key: os.environ/OPENAI_API_KEY}, model_info: {mode: moderation}}
  - {model_name: picture, litellm_params: {model: dall-e-3}, model_info: {mode: image_generation}}
guardrails: [{guardrail_name: pre, litellm_params: {guardrail: aporia, mode: pre_call, api_key: sk-clear-guard}}]
""",
    "vertex and aws keys": """
model_list:
  - {model_name: gem, litellm_params: {model: vertex_ai/gemini-3-pro, vertex_project: acme-1, vertex_location: us-central1, vertex_credentials: os.environ/VERTEX_FILE}}
  - {model_name: gem2, litellm_params: {model: gemini-2.5-pro}}
  - {model_name: nova, litellm_params: {model: bedrock/converse/amazon.nova-pro-v1, aws_access_key_id: AKIACLEAR, aws_secret_access_key: clear-aws-secret, aws_region_name: eu-central-1}}
""",
    "sign-ins": """
model_list:
  - {model_name: aks, litellm_params: {model: azure/gpt, api_base: "https://a.openai.azure.com", azure_ad_token: oidc/azure/}}
  - {model_name: aks, litellm_params: {model: azure/gpt, api_base: "https://b.openai.azure.com", azure_ad_token: oidc/azure/}}
  - {model_name: app, litellm_params: {model: azure/gpt, api_base: "https://a.openai.azure.com", tenant_id: os.environ/TENANT, client_id: 6b1c-app, client_secret: sk-clear-entra, azure_scope: "https://ai.azure.com/.default"}}
  - {model_name: run, litellm_params: {model: azure/gpt, api_base: "https://a.openai.azure.com", azure_ad_token: "oidc/google/https://example.com"}}
  - {model_name: built, litellm_params: {model: azure/gpt, api_base: "https://a.openai.azure.com", tenant_id: t-1, client_id: c-1, azure_ad_token: oidc/circleci_v2/}}
  - {model_name: static, litellm_params: {model: azure/gpt, api_base: "https://a.openai.azure.com", azure_ad_token: os.environ/AZURE_AD_TOKEN}}
  - {model_name: irsa, litellm_params: {model: bedrock/anthropic.claude-sonnet-5, aws_region_name: eu-central-1, aws_role_name: "arn:aws:iam::123456789012:role/gateway", aws_session_name: litellm, aws_web_identity_token: oidc/env_path/AWS_WEB_IDENTITY_TOKEN_FILE}}
  - {model_name: mounted, litellm_params: {model: bedrock/anthropic.claude-sonnet-5, aws_region_name: os.environ/AWS_REGION, aws_role_name: os.environ/ROLE, aws_web_identity_token: oidc/file/var/run/secrets/token}}
  - {model_name: entra, litellm_params: {model: bedrock/anthropic.claude-sonnet-5, aws_region_name: eu-central-1, aws_role_name: "arn:aws:iam::123456789012:role/gateway", aws_web_identity_token: "oidc/azure/api://123"}}
  - {model_name: role, litellm_params: {model: bedrock/anthropic.claude-sonnet-5, aws_region_name: eu-central-1, aws_role_name: "arn:aws:iam::123456789012:role/other", aws_external_id: tenant-7}}
  - {model_name: keys, litellm_params: {model: bedrock/anthropic.claude-sonnet-5, aws_region_name: eu-central-1, aws_role_name: "arn:aws:iam::123456789012:role/other", aws_access_key_id: AKIACLEAR, aws_secret_access_key: clear-aws-secret}}
  - {model_name: env, litellm_params: {model: bedrock/anthropic.claude-sonnet-5, aws_region_name: eu-central-1, aws_role_name: "arn:aws:iam::123456789012:role/other", aws_web_identity_token: os.environ/TOKEN}}
  - {model_name: file, litellm_params: {model: vertex_ai/gemini-3-pro, vertex_project: acme-1, vertex_location: europe-west3, vertex_credentials: /etc/google/key.json}}
  - model_name: pool
    litellm_params:
      model: vertex_ai/gemini-3-pro
      vertex_project: acme-1
      vertex_location: europe-west3
      vertex_credentials:
        type: external_account
        audience: //iam.googleapis.com/projects/1/locations/global/workloadIdentityPools/p/providers/k8s
        subject_token_type: "urn:ietf:params:oauth:token-type:jwt"
        token_url: https://sts.googleapis.com/v1/token
        credential_source: {file: /var/run/service-account/token}
        service_account_impersonation_url: "https://iamcredentials.googleapis.com/v1/projects/-/serviceAccounts/gw@acme-1.iam.gserviceaccount.com:generateAccessToken"
  - {model_name: text, litellm_params: {model: vertex_ai/gemini-3-pro, vertex_project: acme-1, vertex_credentials: '{"type": "external_account", "audience": "//iam.googleapis.com/x", "credential_source": {"file": "/token"}}'}}
  - {model_name: half, litellm_params: {model: azure/gpt, api_base: "https://c.openai.azure.com", tenant_id: t-1}}
  - {model_name: other, litellm_params: {model: vertex_ai/gemini-3-pro, vertex_project: acme-1, vertex_credentials: {type: external_account, audience: //iam.googleapis.com/x, credential_source: {environment_id: aws1}}}}
  - {model_name: account, litellm_params: {model: vertex_ai/gemini-3-pro, vertex_project: acme-1, vertex_credentials: {type: service_account, private_key: sk-clear-google}}}
general_settings:
  master_key: os.environ/LITELLM_MASTER_KEY
  enable_jwt_auth: true
  litellm_jwtauth:
    admin_jwt_scope: litellm_proxy_admin
    user_id_upsert: true
    issuers:
      - {issuer: "https://keycloak.example.com/realms/r", audience: litellm-proxy, user_id_jwt_field: sub, user_email_jwt_field: email, team_ids_jwt_field: realm_access.roles}
      - {issuer: "https://workloads.example.com", jwks_url: "https://workloads.example.com/.well-known/jwks.json", audience: litellm-proxy, team_id_jwt_field: sub}
""",
    "tokens by the environment": """
model_list:
  - {model_name: gpt-4o, litellm_params: {model: openai/gpt-4o, api_key: os.environ/OPENAI_API_KEY}}
general_settings: {master_key: os.environ/LITELLM_MASTER_KEY, enable_jwt_auth: true, litellm_jwtauth: {team_ids_jwt_field: groups, user_id_jwt_field: oid, user_allowed_email_domain: example.com}}
environment_variables: {JWT_PUBLIC_KEY_URL: "https://id.example.com/jwks", JWT_AUDIENCE: os.environ/AUDIENCE}
""",
    "order and weights": """
model_list:
  - {model_name: m, litellm_params: {model: azure/primary, api_base: "https://a.openai.azure.com", api_key: os.environ/A, order: 1, weight: 0.7}}
  - {model_name: m, litellm_params: {model: azure/second, api_base: "https://a.openai.azure.com", api_key: os.environ/A, order: 1, weight: 0.3}}
  - {model_name: m, litellm_params: {model: azure/last, api_base: "https://a.openai.azure.com", api_key: os.environ/A, order: 2}}
""",
    "keys of the database": """
model_list:
  - {model_name: gpt-4o, litellm_params: {model: openai/gpt-4o, api_key: os.environ/OPENAI_API_KEY}}
  - {model_name: claude, litellm_params: {model: anthropic/claude-sonnet-5, api_key: os.environ/ANTHROPIC_API_KEY}}
general_settings: {master_key: sk-tiny-4711, database_url: "postgresql://u:pw-clear@db/litellm"}
keys:
  - {token: "1111111111111111111111111111111111111111111111111111111111111111", key_alias: shop app, models: [gpt-4o], max_budget: 20.0, budget_duration: 24h, rpm_limit: 60, tpm_limit: 90000, team_id: t1, spend: 1.5, user_id: null}
  - {token: "2222222222222222222222222222222222222222222222222222222222222222", key_alias: crawler, models: [], max_parallel_requests: 3, team_id: t1, expires: null}
  - {token: "3333333333333333333333333333333333333333333333333333333333333333", blocked: true}
teams: [{team_id: t1, team_alias: Shop, max_budget: 500, budget_duration: 30d}]
""",
}
"""By name. Secrets in clear contain `clear`, `secret`, `tiny` or `hunter2`."""

SECRETS = re.compile(
    r"sk-clear-\w+|eyJsecret|sk-tiny-\d+|hunter2-redis|AKIACLEAR|clear-aws-secret|pw-clear|my-openai-key"
)

_WORDS = st.sampled_from(
    [
        "gpt-4o",
        "a",
        "b",
        "*",
        "openai/*",
        "openai/gpt-4o",
        "azure/x",
        "ollama/llama3",
        "bedrock/m",
        "vertex_ai/gemini-3",
        "https://api.openai.com/v1",
        "http://10.0.0.1:8000",
        "https://u:sk-clear-1@h/v1",
        "os.environ/KEY",
        "sk-clear-2",
        "${HOME}",
        "x y",
        "日本",
        "1d",
        "30d",
        "10d",
        "us-east-1",
        "US",
        "",
        "text-embedding-3-small",
        "embedding",
    ]
)
_NAMES = _WORDS.filter(lambda word: word != "sk-clear-2")
"""The names of models and clients are public."""

_SCALARS = st.one_of(_NAMES, st.integers(-2, 10**12), st.floats(0, 2), st.booleans(), st.none())
_KEYS = [
    "model",
    "model_name",
    "api_base",
    "api_key",
    "rpm",
    "weight",
    "order",
    "mode",
    "id",
    "max_budget",
    "a",
    "b",
    "gpt-4o",
]
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
