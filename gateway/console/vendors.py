"""The product and the vendor of each deployment, as people call them, and how the map shows them."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

from gateway.console.texts import LANGUAGES
from providers.value import Value

REFUSED = 0
"""The look of territories that get no answer."""


class Product(Value, frozen=True):
    """A product of a vendor.

    Attributes:
        look: The number of its colour and its pattern, from 1.
        names: The product and its vendor, by language.
    """

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
        return f"{product} ({vendor})" if product != vendor else product


@cache
def products() -> tuple[Product, ...]:
    """Return the contents of `vendors.toml`. The last product stands for every provider that none names."""
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


def product_of(provider: str, model: str) -> Product:
    """Return the product of a deployment: by the name of its model, then by its provider."""
    parts = re.split(r"[/.:]", model.lower())
    for product in products():
        if product.models and any(part.startswith(product.models) for part in parts):
            return product
    return next((product for product in products() if provider in product.providers), products()[-1])
