"""Tencent's Hunyuan, the native API: wire format, errors, simulator and facts.

`adapter` names the source and its date. The tests are `tests/providers/test_hunyuan.py`;
recorded traffic is in `tests/wire/hunyuan`.
"""
