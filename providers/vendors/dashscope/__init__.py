"""Alibaba Cloud's DashScope, the native API: wire format, errors, simulator and facts.

`adapter` names the source and its date. The tests are `tests/providers/test_dashscope_*.py`;
recorded traffic is in `tests/wire/dashscope`.
"""
