"""Settings: command line first, then BETA9_* environment variables, then a file of such variables, then defaults.

Bad values are refused before anything runs. All of it can be read again while the agent runs.
"""

from __future__ import annotations

import argparse
import dataclasses
import os
import re
import socket
from typing import Mapping, Sequence

from . import __version__, credentials, events, protocol

ENV_FILE = "/etc/beta9/agent.env"
RUNTIME_DIRECTORY = "/run/beta9-agent"
STATE_NAME = "state.json"
SCHEMES, LOG_FORMATS = ("http", "https"), ("text", "json")


@dataclasses.dataclass
class Config:
    """Everything the agent was told. Tokens are read from their files when needed, so that a new one is found."""

    machine_id: str
    pool_name: str
    provider_name: str
    gateway_url: str
    hostname: str
    private_ip: str
    ca_path: str | None
    client_cert: str | None
    client_key: str | None
    keepalive_interval: float
    max_cpu: str | None
    max_memory: str | None
    gpu_ids: tuple[str, ...] | None
    image_store: str | None
    token: str | None = dataclasses.field(repr=False)
    token_file: str | None
    k3s_token: str | None = dataclasses.field(repr=False)
    k3s_token_file: str | None
    k3s_url: str
    k3s_ca_path: str | None
    state_file: str | None
    registration_file: str | None
    metrics_file: str | None
    log_format: str
    debug: bool
    once: bool
    dry_run: bool

    def machine_token(self) -> str:
        """Return the token that authorises this machine, or raise InvalidField."""
        if self.token:
            return self.token
        if not self.token_file:
            raise protocol.InvalidField(
                "token", "--token-file FILE, BETA9_TOKEN_FILE, or a systemd credential machine_token", "nothing"
            )
        return credentials.read(self.token_file, "token")

    def cluster_token(self) -> str | None:
        """Return the service-account token of the local k3s, or None when there is none."""
        if self.k3s_token or not self.k3s_token_file:
            return self.k3s_token
        return credentials.read_optional(self.k3s_token_file, "k3s_token")

    def credential_files(self) -> list[str]:
        """Return the files that hold credentials, to see when one changes."""
        paths = (
            self.token_file,
            self.k3s_token_file,
            self.k3s_ca_path,
            self.ca_path,
            self.client_cert,
            self.client_key,
        )
        return [path for path in paths if path]

    def certificate(self) -> tuple[str, str | None] | None:
        """Return the files (certificate, key) to show to a gateway that demands one, or None."""
        return (self.client_cert, self.client_key) if self.client_cert else None

    def names(self) -> dict[str, str]:
        """Return which machine this is, and of which gateway, as the journal tells it."""
        return {"machine_id": self.machine_id, "pool": self.pool_name, "gateway": self.gateway_url}


def _in(directory_variable: str, name: str) -> str | None:
    directory = os.environ.get(directory_variable, "").split(":")[0]
    return os.path.join(directory, name) if directory else None


def own_address(peer: str) -> str:
    """Return the address this host uses towards peer. No packet is sent."""
    for target in (peer, "192.0.2.1"):
        try:
            with socket.socket(socket.AF_INET6 if ":" in target else socket.AF_INET, socket.SOCK_DGRAM) as probe:
                probe.connect((target, 9))
                address = probe.getsockname()[0]
        except OSError:
            continue
        if not address.startswith("127.") and address != "::1":
            return address
    return "127.0.0.1"


def read_env_file(path: str) -> dict[str, str]:
    """Return the variables of a file of lines NAME=value, as systemd's EnvironmentFile= has them."""
    try:
        with open(path, encoding="utf-8") as stream:
            lines = [
                line.strip().partition("=")
                for line in stream
                if line.strip() and not line.lstrip().startswith(("#", ";"))
            ]
    except (OSError, UnicodeDecodeError) as error:
        found = f"{path}: {getattr(error, 'strerror', 'not text')}"
        raise protocol.InvalidField("env_file", "a readable file", found) from None
    return {name.strip(): re.sub(r"\A(['\"])(.*)\1\Z", r"\2", value.strip()) for name, _equals, value in lines}


def parser(variables: Mapping[str, str]) -> argparse.ArgumentParser:
    """Return the command line's parser. variables: BETA9_* by name."""
    env = variables.get
    options = argparse.ArgumentParser(
        prog="beta9-agent",
        description="Keep one external worker registered with a beta9 gateway and ready.",
        epilog="Other uses: 'beta9-agent status' tells how the running agent is, 'beta9-agent doctor' what it finds "
        "on this host; both take --help. "
        "Each option may be given as environment variable BETA9_<OPTION>, for example BETA9_POOL_NAME. A token in a "
        "command line can be "
        "read by every user of the host: use --token-file, or systemd's LoadCredential=machine_token:FILE.",
    )
    add = options.add_argument
    add(
        "--env-file",
        metavar="FILE",
        help="read BETA9_* variables from this file, and again on SIGHUP; the environment's own go before",
    )
    add("--token", default=env("BETA9_TOKEN"), help="the machine's token (rather use --token-file)")
    add(
        "--token-file",
        default=env("BETA9_TOKEN_FILE") or credentials.path_of("machine_token"),
        metavar="FILE",
        help="file that holds the machine's token",
    )
    add("--machine-id", default=env("BETA9_MACHINE_ID"), help="id that the gateway gave, like 1165a9b6")
    add("--pool-name", default=env("BETA9_POOL_NAME"), help="pool of the machine")
    add("--provider-name", default=env("BETA9_PROVIDER_NAME") or protocol.PROVIDER_DEFAULT, help="default: %(default)s")
    add("--gateway-scheme", default=env("BETA9_GATEWAY_SCHEME") or "http", choices=SCHEMES, help="default: %(default)s")
    add("--gateway-host", default=env("BETA9_GATEWAY_HOST") or "localhost", help="default: %(default)s")
    add("--gateway-port", default=env("BETA9_GATEWAY_PORT") or "1994", help="default: %(default)s")
    # The unit's copies go before the files that the settings name, which it may be that only root can read
    tls = (
        ("ca-path", "CA certificates to trust, for https"),
        ("client-cert", "certificate to show to a gateway that demands one"),
        ("client-key", "its key"),
    )
    for name, what in tls:
        variable = name.replace("-", "_")
        add(
            f"--{name}",
            default=credentials.path_of(variable) or env(f"BETA9_{variable.upper()}"),
            metavar="FILE",
            help=what,
        )
    add(
        "--hostname",
        default=env("BETA9_HOSTNAME") or socket.gethostname(),
        help="how the gateway reaches this host's k3s (default: the host's name)",
    )
    add(
        "--private-ip",
        default=env("BETA9_PRIVATE_IP"),
        help="this host's address (default: the one used towards the gateway)",
    )
    add(
        "--k3s-token",
        default=env("BETA9_K3S_TOKEN"),
        help="service-account token for the gateway (rather use --k3s-token-file)",
    )
    add("--k3s-token-file", default=env("BETA9_K3S_TOKEN_FILE") or credentials.path_of("k3s_token"), metavar="FILE")
    k3s_url = f"https://127.0.0.1:{protocol.K3S_API_PORT}"
    add(
        "--k3s-url",
        default=env("BETA9_K3S_URL") or k3s_url,
        help="the local k3s, to count workers (default: %(default)s)",
    )
    add(
        "--k3s-ca-path",
        default=env("BETA9_K3S_CA_PATH") or credentials.path_of("k3s_ca"),
        metavar="FILE",
        help="CA of the local k3s; without it, or without the k3s token, workers are not counted",
    )
    add(
        "--max-cpu",
        default=env("BETA9_MAX_CPU"),
        metavar="8000m",
        help="offer no more than this, in millicores (default: all)",
    )
    add("--max-memory", default=env("BETA9_MAX_MEMORY"), metavar="16Gi", help="offer no more than this (default: all)")
    add(
        "--gpu-ids",
        default=env("BETA9_GPU_IDS"),
        metavar="0,2",
        help="offer only these GPUs: indexes or UUIDs, or 'none' (default: all)",
    )
    add(
        "--image-store",
        default=env("BETA9_IMAGE_STORE"),
        metavar="DIR",
        help="directory of container images, whose disk is reported (default: k3s's)",
    )
    add(
        "--keepalive-interval",
        default=env("BETA9_KEEPALIVE_INTERVAL") or str(protocol.KEEPALIVE_INTERVAL_SECONDS),
        metavar="SECONDS",
        help="default: %(default)s; the gateway forgets a machine after 300 s",
    )
    add(
        "--state-file",
        default=env("BETA9_STATE_FILE") or _in("RUNTIME_DIRECTORY", STATE_NAME),
        metavar="FILE",
        help="where to say how things are",
    )
    add(
        "--registration-file",
        default=env("BETA9_REGISTRATION_FILE") or _in("STATE_DIRECTORY", "registration"),
        metavar="FILE",
        help="where to remember what was registered, so that a restart does not register again",
    )
    add(
        "--metrics-file",
        default=env("BETA9_METRICS_FILE"),
        metavar="FILE",
        help="where to write Prometheus metrics as text (default: nowhere)",
    )
    add("--log-format", default=env("BETA9_LOG_FORMAT") or "text", choices=LOG_FORMATS, help="default: %(default)s")
    add("--debug", action="store_true", default=(env("BETA9_DEBUG") or "") in ("1", "true", "yes"), help="log more")
    add("--once", action="store_true", help="register, send one keepalive, and end")
    add("--dry-run", action="store_true", help="check the settings, show what would be sent, send nothing")
    add("--version", action="version", version="beta9-agent " + __version__)
    return options


def environment(argv: Sequence[str] | None = None) -> dict[str, str]:
    """Return the environment's variables on top of those of --env-file."""
    early = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    early.add_argument("--env-file", default=os.environ.get("BETA9_ENV_FILE"))
    path = early.parse_known_args(argv)[0].env_file
    return dict(read_env_file(path) if path else {}, **os.environ)


def _interval(text: str) -> float:
    try:
        interval = float(text)
        if 0.05 <= interval <= protocol.KEEPALIVE_MAX_INTERVAL_SECONDS:
            return interval
    except ValueError:
        pass
    expected = f"at most {protocol.KEEPALIVE_MAX_INTERVAL_SECONDS} seconds"
    raise protocol.InvalidField("keepalive_interval", expected, text)


def _gpu_ids(text: str | None) -> tuple[str, ...] | None:
    if not text:
        return None
    words = tuple(word.strip() for word in text.split(",") if word.strip())
    if words == ("none",):
        return ()
    if not words or not all(re.match(r"([0-9]{1,2}|(GPU|MIG)-[0-9a-zA-Z/-]+)\Z", word) for word in words):
        raise protocol.InvalidField("gpu_ids", "indexes or UUIDs of GPUs like 0,2 or GPU-5ac…, or none", repr(text))
    return words


def from_arguments(argv: Sequence[str] | None = None) -> Config:
    """Return the Config, or raise protocol.InvalidField."""
    given = parser(environment(argv)).parse_args(argv)
    if not (given.gateway_port.isdigit() and 0 < int(given.gateway_port) < 65536):
        raise protocol.InvalidField("gateway_port", "a port number", given.gateway_port)
    for name, allowed in (
        ("gateway_scheme", SCHEMES),
        ("log_format", LOG_FORMATS),
    ):  # argparse does not look at what comes from the environment
        if getattr(given, name) not in allowed:
            raise protocol.InvalidField(name, " or ".join(allowed), getattr(given, name))
    host = protocol.hostname(given.gateway_host)
    config = Config(
        machine_id=protocol.machine_id(given.machine_id),
        pool_name=protocol.pool_name(given.pool_name),
        provider_name=protocol.provider_name(given.provider_name),
        gateway_url=f"{given.gateway_scheme}://{f'[{host}]' if ':' in host else host}:{given.gateway_port}",
        hostname=protocol.hostname(given.hostname),
        private_ip=protocol.ip_address(given.private_ip or own_address(host)),
        keepalive_interval=_interval(given.keepalive_interval),
        max_cpu=protocol.cpu(given.max_cpu) if given.max_cpu else None,
        max_memory=protocol.memory(given.max_memory) if given.max_memory else None,
        gpu_ids=_gpu_ids(given.gpu_ids),
        token=protocol.token(given.token) if given.token else None,
        k3s_token=protocol.token(given.k3s_token) if given.k3s_token else None,
        **{
            name: getattr(given, name)
            for name in (
                "ca_path",
                "client_cert",
                "client_key",
                "image_store",
                "token_file",
                "k3s_token_file",
                "k3s_url",
                "k3s_ca_path",
                "state_file",
                "registration_file",
                "metrics_file",
                "log_format",
                "debug",
                "once",
                "dry_run",
            )
        },
    )
    events.SECRETS.update(token for token in (config.token, config.k3s_token) if token)
    config.machine_token()
    return config
