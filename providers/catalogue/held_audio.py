"""The amounts of a call for audio, held and charged: seconds of a file, characters of a text, or tokens. Pure.

Quotas of seconds read `HeldAudio.usual_ms` before a call, and `UsageRow.audio_ms` after it.
"""

from __future__ import annotations

from providers.catalogue.prices import Price
from providers.chat import Usage
from providers.value import Value

_MOST_COUNT = 10**12


class HeldAudio(Value, frozen=True):
    """The audio of a call before it is sent."""

    most_ms: int = 0
    """The length that is held."""
    usual_ms: int = 0
    """The length that is expected."""
    own_ms: int = 0
    """The length that counts if the vendor states none that can be true."""
    least_ms: int = 0
    """The least length that the vendor charges, which some report as the length."""
    characters: int = 0
    """The characters of the text, as the price counts them."""
    utf8_bytes: int = 0
    """The length of the text in UTF-8, which no count of characters exceeds."""
    input: int = 0
    """The most tokens of input, and `output` of output. 0 where the price is not in tokens."""
    output: int = 0
    price: Price | None = None

    @property
    def own(self) -> Usage:
        """The gateway's own count, for a call about which the vendor states nothing that can be true."""
        share = self.own_ms / self.most_ms if self.most_ms else 1
        tokens = int(self.input * share), int(self.output * share)
        return Usage(*tokens, audio_ms=self.own_ms, characters=self.characters)

    def most_fee(self) -> int:
        """Return the most that its audio costs in addition to tokens at the usual rates, in 1e-12 units."""
        price = self.price
        if price is None or price.audio is None:
            return 0
        exact = price.audio.fee(Usage(audio_ms=self.most_ms, characters=self.characters), price.rates)
        dearer = (price.audio.input or 0) - price.rates.input, (price.audio.output or 0) - price.rates.output
        return exact + self.input * max(0, dearer[0]) + self.output * max(0, dearer[1])

    def counted(self, reported: Usage | None) -> tuple[Usage, bool]:
        """Return what is charged, and whether the vendor has counted it.

        Each count of the vendor that can be true is charged, and else the own one.
        """
        own, price = self.own, self.price
        if reported is None:
            return own, False
        if reported == Usage():  # of audio without a text
            return reported, True
        has_length = 0 < reported.audio_ms <= max(self.most_ms, self.least_ms) * 1.05 + 1000
        has_characters = 0 < reported.characters <= max(self.utf8_bytes, self.characters)
        tokens = reported.prompt_tokens, reported.completion_tokens
        has_tokens = any(tokens) and all(0 <= count <= _MOST_COUNT for count in tokens)
        if price is not None and price.is_by_tokens:
            has_tokens = has_tokens and tokens[0] <= 2 * self.input + 1024 and tokens[1] <= 2 * self.output + 1024
        counted = Usage(
            *(tokens if has_tokens else (own.prompt_tokens, own.completion_tokens)),
            audio_tokens=min(reported.audio_tokens, tokens[0]) if has_tokens else own.prompt_tokens,
            audio_ms=reported.audio_ms if has_length and self.most_ms else own.audio_ms,
            characters=reported.characters if has_characters else own.characters,
        )
        audio = price.audio if price is not None else None
        if audio is not None and audio.minute is not None:
            return counted, has_length
        if audio is not None and audio.characters is not None:
            return counted, has_characters
        if price is not None and price.is_by_tokens:
            return counted, has_tokens
        return counted, has_length or has_characters or has_tokens
