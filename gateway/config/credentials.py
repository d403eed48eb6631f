"""Compile provider keys and fixed headers, and the gateway's own keys."""

from __future__ import annotations

from gateway.config.endpoints import Endpoint
from gateway.config.problems import KeyPath, quoted
from gateway.config.schema.routing import DeploymentSection
from gateway.config.secret_references import read_literal
from gateway.config.secrets_file import LEAST_CHARACTERS
from gateway.config.sensitive_keys import secret_names
from gateway.config.validation import Draft
from gateway.model.config_version import Secrets
from gateway.model.held_token import TokenSource
from providers.adapter import Adapter, TakesHeaders
from providers.auth import NoAuth, Secret, secret_problem
from providers.value import Value, replace

_PLACEHOLDER = "unresolved"


def compile_secrets(draft: Draft) -> Secrets:
    """Return the gateway's own keys. Report each key that is needed and missing."""
    section = draft.config.secrets
    if section.file is not None:
        consent, identity, pepper = _of_file(draft)
    else:
        consent, identity, pepper = (
            draft.secret_versions(("secrets", name), getattr(section, name), "NAME", least=LEAST_CHARACTERS)
            for name in secret_names()
        )
    secrets = Secrets(consent, identity, pepper)
    deployments = draft.config.deployments
    if section.file is not None or draft.is_broken("secrets"):
        return secrets
    asking = next((name for name, item in deployments.items() if item.consent is not None), None)
    if asking is not None and section.consent is None and not draft.config.demo:
        effect = "a consent token is valid only until the process ends, and only at this gateway"
        hint = "write secrets: {consent: ${CONSENT_SECRET}}"
        draft.warn(("deployments", asking, "consent"), f"`secrets.consent` is not set: {effect}", hint)
    for name, item in deployments.items():
        if item.identity == "hash" and section.identity is None:
            hint = "write secrets: {identity: ${IDENTITY_SECRET}}"
            draft.error(("deployments", name, "identity"), "needs `secrets.identity`, which makes pseudonyms", hint)
    return secrets


def _of_file(draft: Draft) -> tuple[tuple[Secret, ...], ...]:
    """Return the keys of the secrets file. Without one, because secrets are not read, each key is a placeholder."""
    section, file = draft.config.secrets, draft.document.secrets_file
    for name in secret_names():
        if getattr(section, name) is not None:
            draft.error(("secrets", name), "is in the file `secrets.file` too", "remove it here")
    if file is None:
        return tuple((Secret(_PLACEHOLDER),) for _ in secret_names())
    if file.problem:
        draft.error(("secrets", "file"), file.problem, file.hint)
        return ((),) * len(secret_names())
    return tuple(file.keys[name] for name in secret_names())


SIMULATED_KEY = Secret("simulated")
"""The key of a simulated provider. AWS and Google take it for a token, so that no library for signatures is needed."""


class Credentials(Value, frozen=True):
    """The keys and headers of a deployment. `missing` names the variables and files of values that are not set."""

    keys: tuple[Secret, ...]
    headers: tuple[tuple[str, Secret], ...]
    missing: tuple[str, ...]
    are_needed: bool


def with_sign_in(credentials: Credentials, sign_in: TokenSource | None) -> Credentials:
    """Return the credentials of a deployment that signs in. Without a value of the sign-in, they are missing.

    With None the sign-in has an error, which is reported where it is: the deployment lacks no credential as well.
    """
    if sign_in is None:
        return replace(credentials, are_needed=bool(credentials.missing))
    if sign_in.missing:
        return Credentials((), credentials.headers, (*credentials.missing, *sign_in.missing), are_needed=True)
    keys = credentials.keys if sign_in.header == "proxy-authorization" else (sign_in.key,)
    return replace(credentials, keys=keys)


class CredentialReader(Value, frozen=True):
    """Reads the keys and headers of one deployment."""

    draft: Draft
    path: KeyPath
    section: DeploymentSection
    adapter: Adapter
    endpoint: Endpoint

    def read(self) -> Credentials:
        """Return the keys and headers. A deployment with an unset header gets no keys, so that it is skipped."""
        keys, missing = self._keys()
        are_needed = self.section.api_key is not None or not isinstance(self.adapter.auth, NoAuth)
        headers, unset = self._headers()
        if unset:
            return Credentials((), (), (*missing, *unset), are_needed=True)
        return Credentials(keys, headers, missing, are_needed)

    def _headers(self) -> tuple[tuple[tuple[str, Secret], ...], tuple[str, ...]]:
        """Return the headers that are set, and the sources of the others."""
        if not self.section.headers:
            return (), ()
        if self.endpoint.simulates is not None:
            self.draft.warn((*self.path, "headers"), "headers are not sent to a simulator", "remove them")
            return (), ()
        rules = self.adapter.headers if isinstance(self.adapter, TakesHeaders) else {}
        by_name = {name.lower(): name for name in rules}
        headers: dict[str, Secret] = {}
        unset: list[str] = []
        for name, text in self.section.headers.items():
            header_path = (*self.path, "headers", name)
            known = by_name.get(name.lower())
            if known is None or known in headers:
                allowed = ", ".join(sorted(rules)) if rules else "none"
                message = (
                    "is listed twice" if known is not None else f"is not a header that {self.section.provider} accepts"
                )
                hint = f"a header can change where prompts go, so only known headers are allowed: {allowed}"
                self.draft.error(header_path, message, hint, key=True)
                continue
            resolved = self.draft.references[text] if "${" in text else read_literal(text)
            source, secret = resolved.source or "the value", resolved.secret
            if resolved.mistake:
                self.draft.error(header_path, f"{source} {resolved.mistake}", resolved.hint)
            elif resolved.missing:
                self.draft.warn(header_path, f"{source} {resolved.missing}: the deployment is skipped")
                unset.append(resolved.source or name)
            elif secret is not None and not resolved.is_stand_in and not rules[known].takes(secret.reveal()):
                self.draft.error(
                    header_path,
                    f"{source} is not a value that {quoted(known)} accepts",
                    f"it must have the form {rules[known].value}",
                )
            elif secret is not None:
                headers[known] = secret
        return tuple(headers.items()), tuple(unset)

    def _keys(self) -> tuple[tuple[Secret, ...], tuple[str, ...]]:
        if self.endpoint.simulates is not None:
            if self.section.api_key is not None:
                self.draft.warn((*self.path, "api_key"), "a key is not sent to a simulator", "remove it")
            return (SIMULATED_KEY,), ()
        variable = (self.endpoint.facts.api_key_env if self.endpoint.facts is not None else "") or "API_KEY"
        if self.section.api_key is None:
            if isinstance(self.adapter.auth, NoAuth) or self.section.sign_in is not None:
                return (), ()
            hint = f"write api_key: ${{{variable}}}"
            self.draft.warn((*self.path, "api_key"), "is missing: the deployment is skipped", hint)
            return (), ("api_key",)
        keys: list[Secret] = []
        missing: list[str] = []
        for index, text in enumerate(self.section.api_key):
            key_path = (*self.path, "api_key", index)
            resolved = self.draft.secret(key_path, text, variable, term="key")
            source = resolved.source or "the key"
            if resolved.mistake:
                self.draft.error(key_path, f"{source} {resolved.mistake}", resolved.hint)
            elif resolved.missing:
                effect = "the deployment is skipped" if len(self.section.api_key) == 1 else "this key is not used"
                self.draft.warn(key_path, f"{source} {resolved.missing}: {effect}")
                missing.append(resolved.source or "api_key")
            problem = secret_problem(self.adapter.auth, resolved.secret) if resolved.secret is not None else None
            if problem is not None and not resolved.is_stand_in:
                self.draft.error(key_path, f"{source} {problem}")
            elif resolved.secret is not None:
                keys.append(resolved.secret)
        return tuple(keys), tuple(missing)
