"""The web gateway: wearers who come with a browser. A page over HTTP, and the `Guide` stream over WebSocket.

`gateway.py` puts the parts together; docs/gateway.md has the protocol on the wire.
"""
