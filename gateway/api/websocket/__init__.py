"""The Responses API over WebSocket: `GET /v1/responses`. Each turn of a connection is answered as a POST is.

`handshake` decides whether a connection begins. `session` has its messages, its lanes and what they keep. `turn` makes
a turn look like a POST to the chat endpoint, which has every check, price and rule. `connections` has what all
connections of a worker share. The frames are those of `gateway.server.websocket_connection`.
"""
