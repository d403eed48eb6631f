"""OpenAI: chat completions (in `openai_json`) and the Responses API: wire format, errors, simulator and facts.

`adapter` names the source and its date. The tests are `tests/providers/test_openai_*.py`;
recorded traffic is in `tests/wire/openai`.
"""
