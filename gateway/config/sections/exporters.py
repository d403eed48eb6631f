"""Where traces are sent: the shape of `exporters`."""

from __future__ import annotations

from pydantic import Field

from gateway.config.scalars import HeaderName, OneOrMore, Words
from gateway.config.sections.base import Section

__all__ = ["ExporterSection"]


class ExporterSection(Section):
    """A collector of traces, which is sent OTLP (protobuf over HTTP)."""

    endpoint: str = Field(description="Its URL for traces, such as https://otel.example.de/v1/traces.")
    headers: dict[HeaderName, str] = Field(
        {}, description="What it wants to see: a value each, or ${NAME} or ${file:/path} for all of one.", repr=False
    )
    stores: OneOrMore = Field(description="Where what it is told is kept, wherever it passes on to; `any` if unknown.")
    processes: OneOrMore = Field(description="Where it is read and computed on; `any` if unknown.")
    regions: Words | None = Field(None, description="Whose requests it is told of; those of all regions if left out.")
    sampling: float = Field(
        1.0, ge=0, le=1, description="The share of traces that it gets; where a caller's trace has a flag, that counts."
    )
    insecure: bool = Field(False, description="Allows http:// to another machine: traces and headers in clear text.")
