"""Settings: command line first, then BETA9_* environment variables, then defaults. Bad values are refused before anything runs."""

from __future__ import annotations

import argparse
import dataclasses
import os
import pathlib
import socket

from . import __version__, protocol


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
    keepalive_interval: float
    max_cpu: str | None
    max_memory: str | None
    token: str | None = dataclasses.field(repr=False)
    token_file: str | None
    k3s_token: str | None = dataclasses.field(repr=False)
    k3s_token_file: str | None
    state_file: str | None
    registration_file: str | None
    debug: bool
    once: bool
    dry_run: bool

    def machine_token(self):
        """Return the token that authorises this machine, or raise InvalidField."""
        return self.token or _read(self.token_file, "token")

    def cluster_token(self):
        """Return the service-account token of the local k3s, or None when there is none."""
        if self.k3s_token:
            return self.k3s_token
        if self.k3s_token_file and os.path.exists(self.k3s_token_file):
            return _read(self.k3s_token_file, "k3s_token")
        return None


def _read(path, field):
    if not path:
        raise protocol.InvalidField(field, "--token-file FILE, BETA9_TOKEN_FILE, or a systemd credential machine_token", "nothing")
    try:
        return protocol.token(pathlib.Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise protocol.InvalidField(field, "a readable file", "%s: %s" % (path, error.strerror)) from None


def _credential(name):
    directory = os.environ.get("CREDENTIALS_DIRECTORY")
    path = os.path.join(directory, name) if directory else ""
    return path if path and os.path.exists(path) else None


def _in(directory_variable, name):
    directory = os.environ.get(directory_variable, "").split(":")[0]
    return os.path.join(directory, name) if directory else None


def own_address(peer):
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


def parser():
    """Return the command line's parser."""
    env = os.environ.get
    options = argparse.ArgumentParser(
        prog="beta9-agent",
        description="Keep one external worker registered with a beta9 gateway and ready.",
        epilog="Each option may be given as environment variable BETA9_<OPTION>, for example BETA9_POOL_NAME. A token in a command line can be "
        "read by every user of the host: use --token-file, or systemd's LoadCredential=machine_token:FILE.",
    )
    add = options.add_argument
    add("--token", default=env("BETA9_TOKEN"), help="the machine's token (rather use --token-file)")
    add("--token-file", default=env("BETA9_TOKEN_FILE") or _credential("machine_token"), metavar="FILE", help="file that holds the machine's token")
    add("--machine-id", default=env("BETA9_MACHINE_ID"), help="id that the gateway gave, like 1165a9b6")
    add("--pool-name", default=env("BETA9_POOL_NAME"), help="pool of the machine")
    add("--provider-name", default=env("BETA9_PROVIDER_NAME") or protocol.PROVIDER_DEFAULT, help="default: %(default)s")
    add("--gateway-scheme", default=env("BETA9_GATEWAY_SCHEME") or "http", choices=["http", "https"], help="default: %(default)s")
    add("--gateway-host", default=env("BETA9_GATEWAY_HOST") or "localhost", help="default: %(default)s")
    add("--gateway-port", default=env("BETA9_GATEWAY_PORT") or "1994", help="default: %(default)s")
    add("--ca-path", default=env("BETA9_CA_PATH"), metavar="FILE", help="CA certificates to trust, for https")
    add("--hostname", default=env("BETA9_HOSTNAME") or socket.gethostname(), help="how the gateway reaches this host's k3s (default: the host's name)")
    add("--private-ip", default=env("BETA9_PRIVATE_IP"), help="this host's address (default: the one used towards the gateway)")
    add("--k3s-token", default=env("BETA9_K3S_TOKEN"), help="service-account token for the gateway (rather use --k3s-token-file)")
    add("--k3s-token-file", default=env("BETA9_K3S_TOKEN_FILE") or _credential("k3s_token"), metavar="FILE")
    add("--max-cpu", default=env("BETA9_MAX_CPU"), metavar="8000m", help="offer no more than this, in millicores (default: all)")
    add("--max-memory", default=env("BETA9_MAX_MEMORY"), metavar="16Gi", help="offer no more than this (default: all)")
    add(
        "--keepalive-interval",
        default=env("BETA9_KEEPALIVE_INTERVAL") or str(protocol.KEEPALIVE_INTERVAL_SECONDS),
        metavar="SECONDS",
        help="default: %(default)s; the gateway forgets a machine after 300 s",
    )
    add("--state-file", default=env("BETA9_STATE_FILE") or _in("RUNTIME_DIRECTORY", "state.json"), metavar="FILE", help="where to say how things are")
    add(
        "--registration-file",
        default=env("BETA9_REGISTRATION_FILE") or _in("STATE_DIRECTORY", "registration"),
        metavar="FILE",
        help="where to remember what was registered, so that a restart does not register again",
    )
    add("--debug", action="store_true", default=env("BETA9_DEBUG", "") in ("1", "true", "yes"), help="log more")
    add("--once", action="store_true", help="register, send one keepalive, and end")
    add("--dry-run", action="store_true", help="check the settings, show what would be sent, send nothing")
    add("--version", action="version", version="beta9-agent " + __version__)
    return options


def from_arguments(argv=None):
    """Return the Config, or raise protocol.InvalidField."""
    given = parser().parse_args(argv)
    try:
        interval = float(given.keepalive_interval)
        if not 0.05 <= interval <= protocol.KEEPALIVE_MAX_INTERVAL_SECONDS:
            raise ValueError
    except ValueError:
        raise protocol.InvalidField("keepalive_interval", "at most %d seconds" % protocol.KEEPALIVE_MAX_INTERVAL_SECONDS, given.keepalive_interval) from None
    if not (given.gateway_port.isdigit() and 0 < int(given.gateway_port) < 65536):
        raise protocol.InvalidField("gateway_port", "a port number", given.gateway_port)
    host = protocol.hostname(given.gateway_host)
    config = Config(
        machine_id=protocol.machine_id(given.machine_id),
        pool_name=protocol.pool_name(given.pool_name),
        provider_name=protocol.provider_name(given.provider_name),
        gateway_url="%s://%s:%s" % (given.gateway_scheme, "[%s]" % host if ":" in host else host, given.gateway_port),
        hostname=protocol.hostname(given.hostname),
        private_ip=protocol.ip_address(given.private_ip or own_address(host)),
        ca_path=given.ca_path,
        keepalive_interval=interval,
        max_cpu=protocol.cpu(given.max_cpu) if given.max_cpu else None,
        max_memory=protocol.memory(given.max_memory) if given.max_memory else None,
        token=protocol.token(given.token) if given.token else None,
        token_file=given.token_file,
        k3s_token=protocol.token(given.k3s_token) if given.k3s_token else None,
        k3s_token_file=given.k3s_token_file,
        state_file=given.state_file,
        registration_file=given.registration_file,
        debug=given.debug,
        once=given.once,
        dry_run=given.dry_run,
    )
    config.machine_token()
    return config
