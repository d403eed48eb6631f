"""`gateway doctor`: check an installation before it serves. Each finding has its remedy."""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import shlex
import socket
import ssl
import sys
import sysconfig
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from pathlib import Path

from gateway.cli.asked_capabilities import MOST_TOKENS, AskedCapability, ask_capabilities, questions_for
from gateway.cli.cell import checked_stores
from gateway.cli.check_result import CheckResult, Level
from gateway.cli.terminal import compile_file, confirmed, settings_of
from gateway.clock_skew import skew_problem
from gateway.config.destinations import service_permits
from gateway.execution.held_tokens import HeldTokens
from gateway.execution.service_client import ServiceResponse
from gateway.execution.transport import PoolTransport
from gateway.files import is_open_to_others
from gateway.free_space import free_space_of
from gateway.identity.token_refresher import tokens_for_command
from gateway.model.config_version import ConfigVersion
from gateway.model.deployment import Deployment
from gateway.model.sign_in import remedy_for
from gateway.operator_errors import CommandError
from gateway.policy.routing import config_exclusion
from gateway.settings import Settings
from providers.transport.errors import ConnectFailed
from providers.transport.tls import Link, tls_context
from providers.transport.tunnel import address_of, check_reply, connect_request

_OK, _ERRORS, _WARNINGS = 0, 1, 3
_MANY_FILES = 10_000
_NETWORK_FILE_SYSTEMS = frozenset({"nfs", "nfs4", "cifs", "smb3", "9p", "ceph", "glusterfs", "fuse.sshfs"})
_BUILT_AT = datetime(2026, 11, 1, tzinfo=UTC).timestamp()
"""No clock that is right is before this release."""

_NOT_STATED = "copy the line at the end; if the provider's servers have it in general, use `openai-compatible`"
_ANSWER_S = 10.0
_DAY_S = 86_400.0
_CERTIFICATE_DAYS = 14


def doctor(options: argparse.Namespace) -> int:
    """Check an installation before it serves (`gateway doctor`)."""
    if options.unit is not None:
        os.environ.update(environment_of_unit(options.unit))
        _continue_as_user_of(options.unit)
    levels: set[Level] = set()

    def report(finding: CheckResult, shown: str = "") -> None:
        print(shown or finding, flush=True)
        levels.add(finding.level)

    if options.ask is not None:
        _ask(options, report)
    elif options.models is not None:
        # This costs nothing, and changes nothing.
        from gateway.cli.doctor_models import check_models

        config = compile_file(settings_of(options).config).config
        asked = [_named(config, name) for name in dict.fromkeys(options.models or config.deployments)]
        for check in asyncio.run(check_models(config, asked)):
            report(check.finding(), json.dumps(check.document()) if options.json else "")
    elif options.installed is not None:
        from gateway.cli.installed_files import installed_problems

        release, problem = options.installed or None, None
        for problem in installed_problems(release):
            report(problem)
        if problem is None:
            report(CheckResult("ok", "files", f"as in {release or 'the lists of their packages'}"))
    else:
        for finding in _findings(options):
            report(finding)
    return _ERRORS if "error" in levels else _WARNINGS if "warning" in levels else _OK


def environment_of_unit(unit: Path) -> dict[str, str]:
    """Return the variables that systemd sets for a unit: of `Environment=` and `EnvironmentFile=`, and of its drop-ins.

    Raises CommandError if a file cannot be read.
    """
    variables: dict[str, str] = {}
    files: list[str] = []
    try:
        for name, value in _lines_of(unit):
            if name == "Environment":
                variables |= dict(word.partition("=")[::2] for word in shlex.split(value))
            elif name == "EnvironmentFile":
                files = [*files, value] if value else []
        for file in files:  # they take precedence
            if not file.startswith("-") or os.path.exists(file[1:]):
                lines = _assignments(Path(file.removeprefix("-")).read_text("utf-8"))
                variables |= {name: " ".join(shlex.split(value)) for name, value in lines}
    except (OSError, ValueError) as error:
        hint = "; run this command as root" if isinstance(error, PermissionError) else ""
        raise CommandError(f"the environment of {unit} can't be read: {error}{hint}") from None
    return variables


def _continue_as_user_of(unit: Path) -> None:
    """Let root continue as the user of a unit, so that the checks may read and write what the gateway may."""
    user = dict(_lines_of(unit)).get("User")
    if not user or not hasattr(os, "geteuid") or os.geteuid() != 0:
        return
    import pwd

    try:
        entry = pwd.getpwnam(user)
    except KeyError:
        raise CommandError(f"the user {user} of {unit} does not exist: create it") from None
    os.initgroups(user, entry.pw_gid)
    os.setgid(entry.pw_gid)
    os.setuid(entry.pw_uid)


def _lines_of(unit: Path) -> Iterator[tuple[str, str]]:
    for path in (unit, *sorted(Path(f"{unit}.d").glob("*.conf"))):
        yield from _assignments(path.read_text("utf-8"))


def _assignments(text: str) -> Iterator[tuple[str, str]]:
    for line in text.splitlines():
        name, sign, value = line.strip().partition("=")
        if sign and not name.startswith(("#", ";")):
            yield name.strip(), value.strip()


def _findings(options: argparse.Namespace) -> Iterator[CheckResult]:
    yield from _of_process()
    try:
        settings = settings_of(options)
    except CommandError as error:
        for line in str(error).splitlines():
            yield CheckResult("error", "settings", line, "correct it where the gateway is started")
        return
    yield from _of_state_dir(settings.state_dir)
    yield from _of_config(settings, uses_network=options.network)


def _ask(options: argparse.Namespace, report: Callable[[CheckResult], None]) -> None:
    """Ask a deployment for each capability, and compare the answers with the configuration. It costs tokens."""
    settings = settings_of(options)
    config, name = compile_file(settings.config).config, str(options.ask)
    deployment = _named(config, name)
    count = len(questions_for(deployment))
    about = f"{count} requests, with answers of at most {MOST_TOKENS} tokens, go to {name} and cost tokens"
    if not options.yes and not confirmed(about):
        raise CommandError(f"nothing was sent: {about}; with --yes the command does not ask")
    able: list[str] = []

    def found(one: AskedCapability) -> None:
        report(_of_capability(deployment, one))
        if one.result == "can" or (one.result == "not asked" and one.is_stated):
            able.append(one.name)

    asyncio.run(ask_capabilities(config, deployment, settings.state_dir, found))
    if able:
        words = ", ".join(word for word in able if word not in ("text", "stream"))
        report(CheckResult("ok", name, f"the line to copy: `capabilities: [{words}]`"))


def _named(config: ConfigVersion, name: str) -> Deployment:
    """Return a deployment by its name. Raises CommandError."""
    if name not in config.deployments:
        known = ", ".join(sorted(config.deployments))
        raise CommandError(f"there is no deployment {name!r}; the deployments are: {known}")
    return config.deployments[name]


def _of_capability(deployment: Deployment, one: AskedCapability) -> CheckResult:
    subject = f"{deployment.name}, {one.name}"
    if one.result == "not asked":
        return CheckResult("ok", subject, f"configured, and not asked: {one.detail}")
    if one.ends:
        return CheckResult("error", subject, one.detail, f"gateway providers check {deployment.name}")
    if one.result == "can" and not one.is_stated:
        return CheckResult("warning", subject, "it can, and the configuration does not state it", "add it to the list")
    if one.result == "cannot" and one.is_stated:
        level: Level = "warning" if one.name in ("stream", "reasoning") else "error"
        return CheckResult(level, subject, f"configured, but {one.detail}", _NOT_STATED if level == "error" else "")
    message = "it can" if one.result == "can" else f"not configured, and it cannot: {one.detail}"
    return CheckResult("ok", subject, message)


def _of_process() -> Iterator[CheckResult]:
    """Check the interpreter, the limit of open files and the clock."""
    version = ".".join(map(str, sys.version_info[:3]))
    if is_optimised(sysconfig.get_config_var("CONFIG_ARGS") or "", sys.base_prefix):
        yield CheckResult("ok", "python", f"{version}, an optimised build")
    else:
        remedy = (
            "use /usr/bin/python3 of the distribution or the official image, or build with --enable-optimizations "
            "--with-lto (pyenv: PYTHON_CONFIGURE_OPTS)"
        )
        message = f"{version} was built without optimisation, so a request takes 8 to 9 % more instructions"
        yield CheckResult("warning", "python", message, remedy)
    yield _file_limit()
    if time.time() < _BUILT_AT:
        now = datetime.now(UTC).date().isoformat()
        yield CheckResult(
            "error", "clock", f"it says {now}, which is before this release", "set the clock, and run NTP"
        )
    else:
        yield CheckResult("ok", "clock", f"{datetime.now(UTC).isoformat(timespec='seconds')}")


def is_optimised(configured: str, prefix: str) -> bool:
    """Return whether an interpreter is optimised; distributions do it without an argument of `configure`."""
    return "--enable-optimizations" in configured or (prefix == "/usr" and sys.platform == "linux")


def _file_limit() -> CheckResult:
    try:
        import resource
    except ImportError:  # Windows
        return CheckResult("ok", "open files", "this system has no limit")
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard == resource.RLIM_INFINITY or hard >= _MANY_FILES:
        return CheckResult("ok", "open files", "no limit" if hard == resource.RLIM_INFINITY else f"at most {hard}")
    remedy = f"raise the hard limit to {_MANY_FILES} or more (ulimit -Hn, LimitNOFILE=)"
    return CheckResult("warning", "open files", f"at most {hard}, and each request takes two", remedy)


def _of_state_dir(directory: Path | None) -> Iterator[CheckResult]:
    """Check the owner, the permissions, the file system and the free space of the state directory."""
    name = "state directory"
    if directory is None:
        yield CheckResult("ok", name, "none: history, receipts, budgets and the ledger are off (GATEWAY_STATE_DIR)")
        return
    try:
        nearest = next((one for one in (directory, *directory.absolute().parents) if one.exists()), Path("/"))
    except OSError as error:
        remedy = "name a directory that the user of the gateway can reach"
        yield CheckResult("error", name, f"{directory} can't be used ({error.strerror})", remedy)
        return
    if not directory.is_dir():
        if nearest == directory:
            yield CheckResult("error", name, f"{directory} is a file", "name a directory")
            return
        if not os.access(nearest, os.W_OK | os.X_OK):
            yield CheckResult(
                "error", name, f"{directory} can't be made", f"make it for the user of the gateway in {nearest}"
            )
            return
        yield CheckResult("ok", name, f"{directory} will be made at the first start")
    else:
        yield from _access_of(directory)
    kind = file_system_of(nearest.resolve())
    if kind in _NETWORK_FILE_SYSTEMS:
        remedy = "use a local disk: SQLite's locks do not work on every network file system"
        yield CheckResult("warning", name, f"it is on a network file system ({kind})", remedy)
    elif kind in ("tmpfs", "overlay"):
        yield CheckResult("warning", name, f"it is lost with the machine or container ({kind})", "mount a volume")
    if (space := free_space_of(nearest)) is None:
        return
    if space.is_reserved:
        yield CheckResult("error", name, str(space), "free some space: a call without space for its row is refused")
    elif space.is_little:
        yield CheckResult("warning", name, str(space), "free some space")
    else:
        yield CheckResult("ok", name, str(space))


def _access_of(directory: Path) -> Iterator[CheckResult]:
    found, name = directory.stat(), "state directory"
    user = os.geteuid() if hasattr(os, "geteuid") else found.st_uid
    # The volume of a pod belongs to root, and its group to the process.
    is_volume = found.st_uid == 0 != user and os.access(directory, os.W_OK)
    if found.st_uid != user and not is_volume:
        remedy = f"chown it to the user that runs the gateway (this is user {user})"
        yield CheckResult("error", name, f"{directory} belongs to user {found.st_uid}", remedy)
    elif not os.access(directory, os.R_OK | os.W_OK | os.X_OK):
        yield CheckResult("error", name, f"{directory} can't be written", f"chmod 700 {directory}")
    elif found.st_mode & 0o007 if is_volume else is_open_to_others(found):
        yield CheckResult("warning", name, f"{directory} can be read by other users", f"chmod 700 {directory}")
    else:
        yield CheckResult("ok", name, f"{directory} belongs to this user alone")


def file_system_of(path: Path, mounts: Path = Path("/proc/mounts")) -> str:
    """Return the type of the file system of an absolute path. Empty if it is unknown."""
    try:
        lines = mounts.read_text("utf-8", "replace").splitlines()
    except OSError:
        return ""
    kinds = {fields[1].replace("\\040", " "): fields[2] for line in lines if len(fields := line.split()) > 2}
    return next((kinds[str(one)] for one in (path, *path.parents) if str(one) in kinds), "")


def _of_config(settings: Settings, *, uses_network: bool) -> Iterator[CheckResult]:
    name = "configuration"
    try:
        compiled = compile_file(settings.config)
    except CommandError as error:
        lines = str(error).splitlines()
        first = next((line for line in lines if ": warning: " not in line), lines[0])
        yield CheckResult("error", name, first, f"gateway check {settings.config} lists every error")
        return
    if (key := compiled.config.needs_state_dir) and settings.state_dir is None:
        yield CheckResult("error", name, f"{key} needs a state directory", "set GATEWAY_STATE_DIR")
    elif compiled.warnings:
        count = f"{len(compiled.warnings)} warning{'s' if len(compiled.warnings) > 1 else ''}"
        yield CheckResult("warning", name, f"valid, with {count}", f"read them: gateway check {settings.config}")
    else:
        yield CheckResult("ok", name, f"valid: {compiled.config.version}")
    config = compiled.config
    off = {item.name: reason for item in config.deployments.values() if (reason := config_exclusion(item, time.time()))}
    for deployment, reason in sorted(off.items()):
        remedy = "set it where the gateway runs" if "credential" in reason.detail else ""
        yield CheckResult("warning", f"deployment {deployment}", f"is not used: {reason.detail}", remedy)
    if used := len(config.deployments) - len(off):
        yield CheckResult("ok", "keys", f"{used} of {len(config.deployments)} deployments can be called")
    else:
        yield CheckResult("error", "keys", "no deployment can be called", "set the key of at least one")
    if config.stores is not None:
        yield from checked_stores(config.stores, config)
    if uses_network:
        yield from _of_sign_ins(config)
        for origin, link in origins_of(config):  # neither a prompt nor a key is sent: the request asks for `/`
            yield check_origin(origin, link.tls if link is not None else None, link)
    else:
        for sign_in, deployments in config.deployments_by_sign_in.items():
            words = (
                f"{config.sign_ins[sign_in].kind} for {', '.join(deployments)}, not tried: --network makes one exchange"
            )
            yield CheckResult("ok", f"sign_ins.{sign_in}", words)
        yield CheckResult("ok", "network", "not checked: --network resolves and calls each origin")


def origins_of(config: ConfigVersion) -> list[tuple[str, Link | None]]:
    """Return every origin that the configuration lets the gateway call, with each of its links once."""
    now_s = time.time()
    called = {(item.origin, item.link) for item in config.deployments.values() if config_exclusion(item, now_s) is None}
    return sorted({*called, *((permit.origin, None) for _, permit in service_permits(config))}, key=lambda one: one[0])


def _of_sign_ins(config: ConfigVersion) -> Iterator[CheckResult]:
    """Make one exchange for each sign-in, and compare the clock of the issuer with ours."""
    skews_s: dict[str, float] = {}

    def note(name: str, answer: ServiceResponse) -> None:
        with suppress(ValueError):
            skews_s[name] = time.time() - parsedate_to_datetime(answer.headers.get("date", "")).timestamp()

    async def tried() -> HeldTokens:
        transport = PoolTransport()
        try:
            return await tokens_for_command(config, transport, note)
        finally:
            await transport.aclose()

    used = config.deployments_by_sign_in
    tokens = asyncio.run(tried()) if used else HeldTokens()
    for name, deployments in used.items():
        sign_in = config.sign_ins[name]
        label, names = f"sign_ins.{name}", ", ".join(deployments)
        if tokens.current(sign_in.id) is not None:
            yield CheckResult("ok", label, f"the issuer gives a token, for {names}")
        else:
            remedy = f"{remedy_for(tokens.error(sign_in.id))}; until then requests skip {names}"
            yield CheckResult("error", label, tokens.why(sign_in), remedy)
        if (words := skew_problem(skews_s.get(name, 0.0), f"the issuer of {label}")) is not None:
            yield CheckResult("error", "clock", f"it is {words}", "run NTP: the ends of tokens depend on the clock")


def check_origin(origin: str, context: ssl.SSLContext | None = None, link: Link | None = None) -> CheckResult:
    """Connect to an origin, with the proxy of the link, and compare its certificate and its clock with ours."""
    proxy = link.proxy if link is not None else ""
    host, port = address_of(proxy or origin)
    try:
        addresses = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except OSError as error:
        return CheckResult(
            "error", origin, f"its name can't be resolved ({error.strerror})", "check DNS on this machine"
        )
    message = f"{len({address[4][0] for address in addresses})} addresses{' of the proxy' if proxy else ''}"
    try:
        with socket.create_connection((host, port), _ANSWER_S) as connection:
            if link is not None and proxy:
                if link.proxy_tls is not None:
                    return CheckResult("ok", origin, f"{message}, which accepts connections; TLS is not checked")
                connection.sendall(connect_request(origin, link))
                received = b""
                while not check_reply(received):
                    if not (piece := connection.recv(4096)):
                        raise ConnectFailed("the proxy closed the connection without an answer")
                    received += piece
            if not origin.startswith("https:"):
                return CheckResult("ok", origin, f"{message}, and it accepts connections")
            context, name = context or tls_context(), address_of(origin)[0]
            with context.wrap_socket(connection, server_hostname=name) as secured:
                secured.sendall(f"HEAD / HTTP/1.1\r\nhost: {name}\r\nconnection: close\r\n\r\n".encode())
                return _of_answer(origin, message, secured)
    except ConnectFailed as error:
        return CheckResult("error", origin, str(error), "correct `proxy` of its deployments, or allow it at the proxy")
    except ssl.SSLCertVerificationError as error:
        remedy = "a proxy that inspects TLS, or a wrong host: no prompt is sent there"
        return CheckResult("error", origin, f"its certificate is not valid: {error.verify_message}", remedy)
    except OSError as error:
        reason = error.strerror or type(error).__name__
        return CheckResult("error", origin, f"no connection ({reason})", "allow it in the firewall, or correct the URL")


def _of_answer(origin: str, message: str, secured: ssl.SSLSocket) -> CheckResult:
    ends = str((secured.getpeercert() or {}).get("notAfter", ""))
    days = (ssl.cert_time_to_seconds(ends) - time.time()) / _DAY_S if ends else _CERTIFICATE_DAYS + 1
    if days < _CERTIFICATE_DAYS:
        return CheckResult("warning", origin, f"its certificate ends in {days:.0f} days", "its owner must renew it")
    data = b""
    while b"\r\n\r\n" not in data and len(data) < 65_536 and (piece := secured.recv(4096)):
        data += piece
    lines = data.decode("latin-1").split("\r\n")
    dates = [line.partition(":")[2].strip() for line in lines if line.lower().startswith("date:")]
    try:
        skew_s = time.time() - parsedate_to_datetime(dates[0]).timestamp() if dates else 0.0
    except ValueError:
        skew_s = 0.0
    if (words := skew_problem(skew_s, origin)) is not None:
        remedy = "run NTP: signatures and claims depend on the clock"
        return CheckResult("error", "clock", f"it is {words}", remedy)
    return CheckResult("ok", origin, f"{message}, TLS is valid for {days:.0f} days")
