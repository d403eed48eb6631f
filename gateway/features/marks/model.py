"""The compiled keys of signed marks."""

from __future__ import annotations

from dataclasses import dataclass, field

from providers.auth import Secret


@dataclass(frozen=True, slots=True)
class MarkRules:
    """The issuer and the keys of signed marks.

    Attributes:
        issuer: The URL that each mark names.
        public: The public key that belongs to `key`, as `ed25519:BASE64`. Empty if secrets are not read.
        former: Former public keys, in the same form. Their marks stay valid.
        key: The private key in PEM, on one line. None if secrets are not read.
    """

    issuer: str
    public: str
    former: tuple[str, ...] = ()
    key: Secret | None = field(default=None, compare=False, repr=False)

    @property
    def published(self) -> tuple[str, ...]:
        """All public keys whose marks are valid, the current one first."""
        return (self.public, *self.former) if self.public else self.former
