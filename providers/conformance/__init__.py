"""The kit that every adapter must pass, ours and a stranger's: `pytest --pyargs providers.conformance`.

    pytest --pyargs providers.conformance --adapter my_package:ADAPTER --dialect my_package:DIALECT

The adapter is held against its dialect, which is the provider's side of the same wire format: what the one sends the
other must understand, and the other way round. A capability that is claimed is tested. Needs `pip install
"assistant-gateway[conformance]"`. `wire` says how recorded fixtures are written.
"""
