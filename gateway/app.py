"""The public face of the application: what a program that embeds the gateway imports."""

from gateway.assembly.application import Gateway, transport_named

__all__ = ["Gateway", "transport_named"]
