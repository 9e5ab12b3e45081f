"""API keys: kept as digests, compared in constant time, with a name for logs and an end."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from anymodal.errors import ConfigError

SHORTEST = 16  # characters: what is shorter can be tried out


@dataclass(frozen=True, slots=True)
class Key:
    """`digest`: SHA-256 of the key. `ends_s`: Unix time from which it is no longer taken."""

    name: str
    digest: bytes
    ends_s: float | None = None

    @classmethod
    def of(cls, secret: str, *, name: str = "", ends_s: float | None = None) -> Key:
        """Raises ConfigError for a key that is too short, or that no header could carry."""
        if len(secret) < SHORTEST or not secret.isascii() or not secret.isprintable() or " " in secret:
            raise ConfigError(f"API key {name!r} has to be {SHORTEST} or more ASCII characters without spaces, "
                              f"found {len(secret)}", fix="python -c 'import secrets; print(secrets.token_urlsafe(32))'")
        digest = _digest(secret)
        return cls(name or digest.hex()[:8], digest, ends_s)


def find_key(given: str, keys: Iterable[Key]) -> Key | None:
    """The key that a client gave. Every one is compared, so the time taken tells nothing."""
    found, digest = None, _digest(given)
    for key in keys:
        if hmac.compare_digest(digest, key.digest):
            found = key
    return found


def read_keys(path: Path) -> tuple[Key, ...]:
    """A file with a key a line, then its name and the day it ends, if any: `secret alice 2027-01-31`."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} cannot be read: {error}", fix="check --api-keys") from error
    keys = []
    for number, line in enumerate(lines, 1):
        words = line.partition("#")[0].split()
        if not words:
            continue
        try:
            ends = datetime.fromisoformat(words[2]) if len(words) > 2 else None
        except ValueError as error:
            raise ConfigError(f"{path}, line {number}: {words[2]!r} is no day", fix="YYYY-MM-DD") from error
        ends_s = ends and ends.replace(tzinfo=ends.tzinfo or UTC).timestamp()
        keys.append(Key.of(words[0], name=words[1] if len(words) > 1 else "", ends_s=ends_s))
    if not keys:
        raise ConfigError(f"{path} has no key", fix="a key a line: secret, name, last day")
    return tuple(keys)


def _digest(secret: str) -> bytes:
    return hashlib.sha256(secret.encode("utf-8", "surrogatepass")).digest()
