"""Errors as clients of OpenAI's API know them: {"error": {"message", "type", "code", "param"}}."""

from __future__ import annotations

import logging
import math
from typing import Any

from anymodal.errors import (
    AnymodalError,
    BusyError,
    ConfigError,
    DefectError,
    InputError,
    LogError,
    MediaError,
    MissingExtraError,
    PacketError,
    QuestionError,
    SessionError,
    SidecarError,
)

log = logging.getLogger("anymodal")

INVALID, SERVER, DENIED = "invalid_request_error", "server_error", "authentication_error"
LIMITED, FORBIDDEN = "rate_limit_error", "permission_error"


class Fault(AnymodalError):
    """An answer that is an error: `status` of HTTP, `code` one word to switch on, `param` what in the request."""

    def __init__(self, status: int, code: str, message: str, *, param: str | None = None, kind: str | None = None,
                 retry_after_s: float | None = None, fix: str = "") -> None:
        super().__init__(message, fix=fix)
        self.status, self.code, self.param, self.retry_after_s = status, code, param, retry_after_s
        self.kind = kind or _kind(status)

    def __reduce__(self):
        return _rebuilt, (self.status, self.code, self.message, self.param, self.kind, self.retry_after_s, self.fix)

    @property
    def body(self) -> dict[str, Any]:
        return {"error": {"message": str(self), "type": self.kind, "code": self.code, "param": self.param}}

    @property
    def headers(self) -> dict[str, str]:
        """What tells the client when to come back, or how to say who it is."""
        found = {"WWW-Authenticate": "Bearer"} if self.status == 401 else {}
        if self.retry_after_s is not None:
            found["Retry-After"] = str(max(1, math.ceil(self.retry_after_s)))
        return found


def _rebuilt(status, code, message, param, kind, retry_after_s, fix) -> Fault:
    return Fault(status, code, message, param=param, kind=kind, retry_after_s=retry_after_s, fix=fix)


def _kind(status: int) -> str:
    return {401: DENIED, 403: FORBIDDEN, 429: LIMITED}.get(status, INVALID if status < 500 else SERVER)


def as_answer(error: BaseException, *, param: str | None = None) -> Fault:
    """Any error as one for a client. What is our own mistake says nothing of our insides; it is logged."""
    if isinstance(error, Fault):
        return error
    for kind, status, code in _CODES:
        if isinstance(error, kind):
            wait_s = 1.0 if kind is BusyError else None
            return Fault(status, code, error.message, param=param, fix=error.fix, retry_after_s=wait_s)
    if isinstance(error, AnymodalError) and not isinstance(error, DefectError):
        log.warning("a request failed: %s", error)
        return Fault(503, "unavailable", error.message, fix=error.fix, retry_after_s=1.0)
    log.error("a request failed", exc_info=error)
    return Fault(500, "internal_error", "the server failed; its log tells more")


_CODES = (
    (BusyError, 429, "server_busy"),
    (MediaError, 400, "invalid_media"),
    (SidecarError, 400, "invalid_sidecar"),
    (QuestionError, 400, "invalid_question"),
    (PacketError, 400, "invalid_packet"),
    (SessionError, 400, "invalid_session"),
    (InputError, 400, "invalid_value"),
    (MissingExtraError, 501, "not_installed"),
    (ConfigError, 501, "not_supported"),
    (LogError, 500, "log_failed"),
)
