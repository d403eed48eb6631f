"""Google's Gemini: the Developer API and Vertex AI: wire format, errors, simulator and facts.

`adapter` names the source and its date. The tests are `tests/providers/test_gemini_*.py`;
recorded traffic is in `tests/wire/gemini` and `tests/wire/vertex`.
"""
