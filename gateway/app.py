"""The public interface for programs that embed the gateway."""

from gateway.assembly.application import Gateway, transport_named

__all__ = ["Gateway", "transport_named"]
