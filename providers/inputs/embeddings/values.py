"""The canonical embedding request, its vectors, and the checks of an answer."""

from __future__ import annotations

import math
import sys
from array import array
from base64 import b64decode, b64encode
from binascii import Error as Base64Error
from collections.abc import Iterator, Mapping, Set
from typing import ClassVar, Self, TypeAlias

from providers.chat import Usage
from providers.failures import Failure, FailureKind, ProviderFailed
from providers.inputs.embeddings.facts import EmbeddingFacts
from providers.matching.requirements import Requirements, moving_fields
from providers.reading.errors import malformed
from providers.served import CostBound, InputAnswer, InputRequest
from providers.value import replace

Tokens: TypeAlias = "tuple[int, ...]"
"""One input as tokens of the model's own tokenizer."""
Vector: TypeAlias = "array[float]"
"""A vector: an array of the type `f` if the provider sent 32-bit floats, else of the type `d`."""
_FLOAT_BYTES = 4
MOST_DIMENSIONS = 65_536
"""No model has vectors of this length. A longer one is refused before it takes memory."""


class EmbeddingRequest(InputRequest, frozen=True):
    """A request for one vector for each input.

    Attributes:
        model: The model that the client asked for. The provider's model is in the `Target`.
        inputs: Texts, or tokens. All are of one kind.
        dimensions: The length of the vectors, or None for the model's own.
        user: An identifier of the user.
        extra: Unknown top-level fields as parsed JSON.
        unread: Names of fields that are not sent.

    Examples:
        >>> from providers.contract import EmbeddingRequest
        >>> EmbeddingRequest("assistant", ("one text", "another")).takes_tokens
        False
    """

    use: ClassVar[str] = "embeddings"

    model: str
    inputs: tuple[str, ...] | tuple[Tokens, ...]
    dimensions: int | None = None
    user: str | None = None
    extra: Mapping[str, object] = {}
    unread: frozenset[str] = frozenset()

    @property
    def takes_tokens(self) -> bool:
        """Whether the inputs are tokens."""
        return not isinstance(self.inputs[0], str)

    def texts(self) -> Iterator[str]:
        yield from (content for content in self.inputs if isinstance(content, str))

    def needs(self) -> Requirements:
        has = {"token_input": self.takes_tokens, "dimensions": self.dimensions is not None}
        features = frozenset(name for name, is_needed in has.items() if is_needed)
        parameters = frozenset({*self.extra, *(["user"] if self.user is not None else [])})
        return Requirements(features, parameters, moving_fields(self.extra), use=self.use, unread=self.unread)

    def bound(self) -> CostBound:
        """See `InputRequest`. A token is measured as one character."""
        tokens = sum(len(content) for content in self.inputs if not isinstance(content, str))
        return CostBound([*self.texts(), *(["0" * tokens] if tokens else [])])

    def fitted(self, dropped: Set[str], voices: Mapping[str, str], boundary: str) -> Self:
        request = super().fitted(dropped, voices, boundary)
        return replace(request, user=None) if "user" in dropped else request

    def checked(self, answer: EmbeddingAnswer, facts: EmbeddingFacts) -> EmbeddingAnswer:
        """See `InputRequest`. The length of the vectors is that of the request, or else that of the model if known."""
        if len(answer.vectors) != len(self.inputs):
            raise malformed(f"{len(answer.vectors)} embeddings for {len(self.inputs)} inputs")
        lengths = {len(vector) for vector in answer.vectors}
        expected = self.dimensions if self.dimensions is not None else facts.dimensions
        if len(lengths) == 1 and expected in (None, *lengths):
            return answer
        found = ", ".join(map(str, sorted(lengths)[:4]))
        wanted = "one length" if expected is None else f"{expected} dimensions"
        detail = f"embeddings with {found} dimensions instead of {wanted}"
        if self.dimensions is not None and len(lengths) == 1:
            # A server that ignores `dimensions` answers all other requests well.
            message = "the model of this deployment does not take `dimensions`"
            raise ProviderFailed(Failure(FailureKind.REFUSED_HERE, message, detail, param="dimensions"))
        raise malformed(detail)


class EmbeddingAnswer(InputAnswer, frozen=True):
    """The vectors of one request, in the order of its inputs.

    Attributes:
        vectors: One vector for each input.
        usage: Token counts, or None if the provider reported none.
    """

    vectors: tuple[Vector, ...]
    usage: Usage | None = None

    @property
    def dimensions(self) -> int:
        """The length of the vectors."""
        return len(self.vectors[0]) if self.vectors else 0

    @property
    def is_large(self) -> bool:
        """See `InputAnswer`. It may have millions of numbers."""
        return True


def vector_from_json(value: object) -> Vector:
    """Return the vector of a parsed list of numbers. Raises ProviderFailed if it is anything else."""
    if not isinstance(value, list) or not value or len(value) > MOST_DIMENSIONS:
        raise malformed("an embedding is not a list of numbers")
    if not set(map(type, value)) <= {float, int}:
        raise malformed("an embedding has a value that is not a number")
    try:
        vector = array("d", value)
    except OverflowError:
        raise malformed("an embedding has a number that is too large") from None
    # A number that is too large for 32 bits becomes infinite there. A sum shows any value that is not finite.
    if not math.isfinite(sum(array("f", vector))):
        raise malformed("an embedding has a number that is too large")
    return vector


def vector_from_base64(text: str) -> Vector:
    """Return the vector of little-endian 32-bit floats in base64. Raises ProviderFailed if it is anything else."""
    if len(text) > MOST_DIMENSIONS * _FLOAT_BYTES * 2:
        raise malformed("an embedding is too long")
    try:
        data = b64decode(text, validate=True)
    except (Base64Error, ValueError):
        raise malformed("an embedding is not valid base64") from None
    if not data or len(data) % _FLOAT_BYTES:
        raise malformed("an embedding is not a list of 32-bit floats")
    vector = array("f")
    vector.frombytes(data)
    if sys.byteorder == "big":
        vector.byteswap()
    if not math.isfinite(sum(vector)):
        raise malformed("an embedding has a value that is not a finite number")
    return vector


def vector_to_base64(vector: Vector) -> str:
    """Return a vector as little-endian 32-bit floats in base64."""
    floats = vector if vector.typecode == "f" else array("f", vector)
    if sys.byteorder == "big":
        floats = array("f", floats)
        floats.byteswap()
    return b64encode(floats.tobytes()).decode()
