"""Amazon Bedrock: Converse and ConverseStream: wire format, errors, simulator and facts.

`adapter` names the source and its date. The tests are `tests/providers/test_bedrock.py`;
recorded traffic is in `tests/wire/bedrock`.
"""
