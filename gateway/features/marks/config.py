"""Compile `marks`, and check the labels that ask for a signed mark."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from gateway.config.feature_compiler import FeatureCompiler
from gateway.config.field_types import AdminKey, DocumentUrl, Section
from gateway.config.schema.file import FeatureKey
from gateway.config.schema.location import LabelSection, RegionSection
from gateway.config.validation import Draft
from gateway.features.marks.policy import MarkRules, SignedMark, signer_of_pem
from gateway.model.config_version import ConfigVersion, Region
from gateway.model.region_text import Label
from gateway.model.section import Sensitive
from providers.value import replace


class MarksSection(Section):
    """The signed marks of answers. Labels with `mark: signed` have one for each text."""

    issuer: DocumentUrl = Field(
        description="The https URL by which marks name who gave out a text, such as https://assistant.example.com."
    )
    key: Annotated[str, Sensitive("`marks.key`")] = Field(
        description="The private Ed25519 key in PEM: ${file:/path}, the same for all instances of a cell. `gateway key "
        "new --ed25519 FILE` makes one.",
        repr=False,
    )
    former: list[AdminKey] = Field(
        [], max_length=16, description="Former public keys, which stay published so that their marks stay valid."
    )


MARKS_KEY = FeatureKey(
    "", "marks", MarksSection | None, Field(None, description="The signed marks of answers. Default: none.")
)
MARK_KEY = FeatureKey(
    "regions.labels",
    "mark",
    Literal["signed"] | None,
    Field(
        None,
        description="signed: each text of an answer has a mark in `x_gateway.labels[].marks` that anybody can check. "
        "Needs `marks`.",
    ),
)

_MAKE = "`gateway key new --ed25519 FILE` makes one"


def _marks(draft: Draft) -> MarkRules | None:
    """Return the keys of signed marks, or None if there are none or they are invalid."""
    section = draft.config.of(MarksSection)
    if section is None:
        return None
    path, former = ("marks", "key"), tuple(section.former)
    if len(set(former)) < len(former):
        draft.error(("marks", "former"), "lists a key twice", "remove one")
    resolved = draft.secret(path, section.key, "MARKS_KEY", term="private key")
    if problem := resolved.mistake or resolved.missing:
        draft.error(path, f"{resolved.source or 'the private key'} {problem}", resolved.hint or _MAKE)
        return None
    if resolved.is_open:
        draft.warn(path, f"{resolved.source} is readable by other users", f"run `chmod 600 {resolved.source}`")
    if resolved.secret is None or resolved.is_stand_in:
        return MarkRules(section.issuer, "", former)
    from gateway.signing import KeyUnusable  # loads a large library that is not needed without marks

    try:
        public = signer_of_pem(resolved.secret.reveal()).public.text
    except KeyUnusable as error:
        draft.error(path, f"{resolved.source or 'the private key'} {error}", _MAKE)
        return None
    if public in former:
        draft.error(("marks", "former"), "has the public key of `marks.key` itself", "remove it there")
    return MarkRules(section.issuer, public, former, resolved.secret)


def _signed(sections: list[LabelSection]) -> list[tuple[int, str]]:
    """Return the places and the names of the labels that ask for a signed mark."""
    return [(index, label.name) for index, label in enumerate(sections) if label.written("mark") is not None]


def _with_proof(_draft: Draft, section: RegionSection, region: Region) -> Region:
    texts, signed = region.texts, {name for _, name in _signed(section.labels)}
    if texts is None or not signed:
        return region

    def proven(label: Label) -> Label:
        return replace(label, proof=SignedMark(label.name)) if label.name in signed else label

    locales = {
        name: replace(locale, labels=tuple(map(proven, locale.labels))) for name, locale in texts.locales.items()
    }
    return replace(region, texts=replace(texts, locales=locales, default_locale=next(iter(locales.values()))))


def _check(draft: Draft, config: ConfigVersion) -> None:
    """Report labels whose mark no key can sign, a second one in a region, and keys that sign nothing."""
    is_used = False
    for region, section in draft.config.regions.items():
        signed = [index for index, _ in _signed(section.labels)]
        is_used = is_used or bool(signed)
        for index in signed[1:]:
            message = f"region {region!r} has a label with a signed mark already"
            draft.error(("regions", region, "labels", index, "mark"), message, "remove it here: one mark is enough")
        if signed and draft.config.of(MarksSection) is None and not draft.is_broken("marks"):
            path = ("regions", region, "labels", signed[0], "mark")
            draft.error(path, "needs `marks`, which names the issuer and the key", "write marks: {issuer: …, key: …}")
    if config.parts.of(MarkRules) is not None and not is_used and not draft.is_broken("regions"):
        draft.warn(("marks",), "signs nothing: no label has `mark: signed`", "add it to a label of a region")


MARKS_COMPILER = FeatureCompiler(
    name="marks",
    keys=(MARKS_KEY, MARK_KEY),
    of_draft=None,
    of_region=_with_proof,
    of_deployment=None,
    of_assistant=None,
    of_config=_marks,
    check=_check,
)
