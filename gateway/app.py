"""The public interface for programs that embed the gateway."""

from gateway.assembly.application import Gateway

__all__ = ["Gateway"]
