"""Anthropic's Messages API: wire format, errors, simulator and facts.

`adapter` names the source and its date. The tests are `tests/providers/test_anthropic_*.py`;
recorded traffic is in `tests/wire/anthropic`.
"""
