"""The conformance kit: tests that every adapter must pass. Run it with `pytest --pyargs providers.conformance`.

    pytest --pyargs providers.conformance --adapter my_package:ADAPTER --simulator my_package:SIMULATOR

The adapter is tested against its simulator, the provider's side of the same wire format: each must
understand what the other sends. Every capability that the adapter claims is tested. The kit needs `pip install
hypothesis pytest`. `providers.conformance.recordings` describes the format of recorded fixtures.
"""
