"""Every limit of the gateway, in one place. Sizes in bytes, times in seconds."""

from __future__ import annotations

import ipaddress
import os
from dataclasses import dataclass, field, fields
from pathlib import Path

from actors.gateway.keys import Key
from anymodal.errors import ConfigError

MIB = 2**20
LOOPBACK_NAMES = ("localhost", "ip6-localhost")


def default_state() -> Path:
    """Where uploads and sessions are kept unless told otherwise."""
    home = os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state"
    return Path(home) / "anymodal" / "gateway"


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Checked on construction: raises ConfigError."""

    host: str = "127.0.0.1"
    """The address to listen on. Off loopback there must be an API key."""
    port: int = 8000
    """0 takes a free one."""
    state: Path = field(default_factory=default_state)
    """A folder for uploads and the logs of sessions; a restarted gateway finds them there."""
    web: Path | None = None
    """Pages to serve at `/`; None is those that came with the package."""

    # -- who may call
    api_keys: tuple[Key, ...] = ()
    """None: everyone who reaches it, which is this machine alone."""
    allowed_origins: tuple[str, ...] = ()
    """Pages of other sites that may call, such as "https://example.org"; "*" is any. The server's own always may."""
    allowed_hosts: tuple[str, ...] = ()
    """Names by which the server is called, beside loopback's; empty and with keys: any."""

    # -- how much
    requests_per_min: float = 600.0
    """Per client, and as many at once after a rest of a minute."""
    messages_per_s: float = 400.0
    """Of one WebSocket; twice as many at once after a rest."""
    most_bytes_per_s: float = 32.0 * MIB
    """Of one WebSocket, in."""
    most_answers: int = 4
    """Clips and questions over HTTP that are worked on at once."""
    most_waiting: int = 16
    """Requests that wait for that; more are told to come back."""
    most_sessions: int = 32
    """Live sessions, connected or not."""
    most_sessions_per_client: int = 16
    most_sockets: int = 64
    message_bytes: int = 8 * MIB
    """Of one WebSocket message."""
    request_bytes: int = 64 * MIB
    """Of one HTTP request's body; uploads aside."""
    file_bytes: int = 512 * MIB
    """Of one upload."""
    files_bytes: int = 4096 * MIB
    """Of one client's uploads together."""
    most_files: int = 1000
    """Of one client."""
    file_age_s: float = 7 * 24 * 3600.0
    """Uploads are deleted after so long."""
    most_parts: int = 64
    """Images, clips and sounds in one request."""
    most_pixels: int = 7680 * 4320
    """Of one frame."""
    most_media_s: float = 3600.0
    """Of one clip."""
    decoder_bytes: int = 4096 * MIB
    """Of memory, for each process that decodes a clip; actors that decode have no such limit."""
    queue: int = 256
    """Events that wait for a client to read them; past it the client is too slow and is let go."""
    kept_events: int = 4096
    """Of a session, for a client that comes back."""

    # -- fetching
    fetch: bool = True
    """May http and https addresses be fetched at all?"""
    allow_private_urls: bool = False
    """Also loopback, private and link-local ones."""
    fetch_bytes: int = 256 * MIB
    fetch_timeout_s: float = 60.0
    most_redirects: int = 5

    # -- how long
    answer_timeout_s: float = 600.0
    """A request over HTTP, its media included."""
    read_timeout_s: float = 30.0
    """Without a byte of a request's body, or a client that takes none of its answer."""
    sniff_timeout_s: float = 20.0
    resumable_s: float = 120.0
    """A live session lives on for so long with nobody connected."""
    idle_timeout_s: float = 2.0
    """A stream of a live session that is silent for so long is not waited for."""
    stale_s: float = 4.0
    """A live session that cannot keep up gives up media that are more than so much behind."""
    ping_s: float = 20.0
    """Between pings of a WebSocket; one that does not answer for as long is gone."""
    drain_s: float = 20.0
    """At SIGTERM, for what is under way."""

    trace: bool = False
    """OpenTelemetry spans, by its own environment variables."""

    def __post_init__(self) -> None:
        for each in fields(self):
            value = getattr(self, each.name)
            if isinstance(value, (int, float)) and not isinstance(value, bool) and not value > 0 and each.name != "port":
                raise ConfigError(f"{each.name} must be positive, found {value!r}", fix=f"set {each.name}")
        if not 0 <= self.port <= 65535:
            raise ConfigError(f"no port {self.port}", fix="0 to 65535")
        if not self.on_loopback and not self.api_keys:
            raise ConfigError(f"{self.host} can be reached from other machines, and there is no API key",
                              fix="set ANYMODAL_API_KEY or --api-keys FILE, or listen on 127.0.0.1")

    @property
    def on_loopback(self) -> bool:
        return is_loopback(self.host)

    @property
    def uploads(self) -> Path:
        return self.state / "files"

    @property
    def sessions(self) -> Path:
        return self.state / "sessions"

    @property
    def scratch(self) -> Path:
        """What requests bring along, for as long as they last."""
        return self.state / "scratch"


def is_loopback(host: str) -> bool:
    """Whether a name or an address, brackets or not, is this machine itself."""
    name = host.strip("[]").lower()
    if name in LOOPBACK_NAMES or name.endswith(".localhost"):
        return True
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False
