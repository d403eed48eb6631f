"""The product and the vendor of each deployment, as people call them, and how the map shows them."""

from __future__ import annotations

import ipaddress
import re
import tomllib
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from gateway.console.texts import LANGUAGES, texts_in
from gateway.model.deployment import Deployment
from providers.value import Value

# source: RFC 6761, RFC 6762; ICANN reserves `internal` since 2024. `lan` and `corp` are usual, and never delegated.
_PRIVATE_ENDINGS = (".localhost", ".local", ".internal", ".test", ".lan", ".corp", ".home.arpa")
REFUSED = 0
"""The look of territories that get no answer."""


class Product(Value, frozen=True):
    """A product of a vendor, its names by language, and the number of its colour and its pattern, from 1."""

    look: int
    names: Mapping[str, tuple[str, str]]
    models: tuple[str, ...] = ()
    providers: tuple[str, ...] = ()

    def name(self, language: str) -> str:
        """Return the name of the product alone."""
        return self.names[language][0]

    def title(self, language: str) -> str:
        """Return the product with its vendor, such as `Qwen (Alibaba)`."""
        product, vendor = self.names[language]
        return texts_in(language).with_note(product, vendor) if product != vendor else product


@cache
def products() -> tuple[Product, ...]:
    """Return the contents of `vendors.toml`, whose last two stand for own servers and for all other providers."""
    data: Any = tomllib.loads((Path(__file__).parent / "vendors.toml").read_text("utf-8"))
    return tuple(
        Product(
            item["look"],
            {language: (item[language][0], item[language][1]) for language in LANGUAGES},
            tuple(item["models"]),
            tuple(item["providers"]),
        )
        for item in data["products"]
    )


def product_at(deployment: Deployment) -> Product:
    return product_of(deployment.provider, deployment.model, deployment.origin if deployment.simulates is None else "")


def product_of(provider: str, model: str, origin: str = "") -> Product:
    """Return the product of a model: that of an own server, else by the name of the model, then by its provider.

    An own server runs a program that only operators run, or it is of no vendor and in the own network.
    """
    own, other = products()[-2:]
    if provider in own.providers or (provider in other.providers and _is_private(urlsplit(origin).hostname or "")):
        return own
    parts = re.split(r"[/.:]", model.lower())
    for product in products():
        if product.models and any(part.startswith(product.models) for part in parts):
            return product
    return next((product for product in products() if provider in product.providers), products()[-1])


def _is_private(host: str) -> bool:
    """Return whether a host has a private address, or a name that no public name server knows."""
    try:
        return ipaddress.ip_address(host).is_private
    except ValueError:
        return bool(host) and ("." not in host or host.endswith(_PRIVATE_ENDINGS))
