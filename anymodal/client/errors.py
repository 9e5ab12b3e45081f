"""What can go wrong for a client, in one tree. Nothing of httpx or websockets gets out.

    ClientError(RuntimeFault)
    |-- UnreachableError          no connection, or it was lost and could not be had again in time
    |-- WaitedTooLongError        the server did not say what was waited for
    |-- ProtocolError             what it said cannot be understood
    |-- ClosedError               used after it was closed
    |-- SessionGoneError          the live session is over: it ended, or nobody came back in time
    |-- AnswerError               an answer failed, or was cancelled; `.text` is what there was of it
    `-- RefusedError              the server said no: `.status`, `.code`, `.param`
        |-- InvalidError          400, 413, 422: what was sent is no use (also an InputError)
        |-- DeniedError           401, 403: the API key
        |-- NotFoundError         404: no such model, file, rule
        |-- OverloadedError       429, 503: too much at once; `.retry_after_s` (also a BusyError)
        `-- ServerFaultError      5xx: the server's own fault

What is wrong with what you hand in is said before it is sent: InputError, PacketError, MediaError of `anymodal.errors`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from anymodal.errors import AnymodalError, BusyError, InputError, RuntimeFault


class ClientError(RuntimeFault):
    def __reduce__(self):  # with all that it carries
        return _rebuilt, (type(self), self.message, self.fix, self.__dict__)


def _rebuilt(kind: type[ClientError], message: str, fix: str, rest: dict[str, Any]) -> ClientError:
    error = kind.__new__(kind, message)
    AnymodalError.__init__(error, message, fix=fix)
    error.__dict__.update(rest)
    return error


class UnreachableError(ClientError):
    pass


class WaitedTooLongError(ClientError):
    pass


class ProtocolError(ClientError):
    pass


class ClosedError(ClientError):
    pass


class SessionGoneError(ClientError):
    pass


class AnswerError(ClientError):
    def __init__(self, message: str, *, text: str = "", code: str = "", fix: str = "") -> None:
        super().__init__(message, fix=fix)
        self.text, self.code = text, code


class RefusedError(ClientError):
    def __init__(self, message: str, *, status: int = 0, code: str = "", param: str | None = None,
                 retry_after_s: float | None = None, fix: str = "") -> None:
        super().__init__(message, fix=fix)
        self.status, self.code, self.param, self.retry_after_s = status, code, param, retry_after_s


class InvalidError(RefusedError, InputError):
    exit_code = 2


class DeniedError(RefusedError):
    pass


class NotFoundError(RefusedError):
    pass


class OverloadedError(RefusedError, BusyError):
    pass


class ServerFaultError(RefusedError):
    pass


def refusal_of_chunk(data: str) -> RefusedError:
    """What an error says that comes after an answer has begun, where there is no status any more."""
    said = json.loads(data)["error"]
    found = said if isinstance(said, dict) else {}
    return refusal(_status_of(str(found.get("type")), str(found.get("code"))), data, {})


def refusal(status: int, body: str | bytes, headers: Mapping[str, str]) -> RefusedError:
    """What an HTTP answer with an error says. `body` may be anything."""
    try:
        said = json.loads(body)["error"]
        message, code, param = str(said["message"]), str(said.get("code") or ""), said.get("param")
    except (ValueError, LookupError, TypeError, AttributeError):
        message, code, param = f"the server answered {status}", "", None
    try:
        retry_after_s = float(headers["retry-after"])
    except (KeyError, ValueError):
        retry_after_s = None
    return _kind_of(status)(message, status=status, code=code, param=param, retry_after_s=retry_after_s,
                            fix="" if message.endswith(")") else _fix_of(status))


def refusal_of_event(fault: Any) -> RefusedError:
    """What an `error` event says: a `protocol.Fault`."""
    status = _status_of(fault.type, fault.code)
    return _kind_of(status)(fault.message, status=status, code=fault.code, param=fault.param)


_STATUS_OF_CODE = {"model_not_found": 404, "draining": 503}
_STATUS_OF_TYPE = {"authentication_error": 401, "permission_error": 403, "rate_limit_error": 429, "server_error": 500}


def _status_of(kind: str, code: str) -> int:
    return _STATUS_OF_CODE.get(code) or _STATUS_OF_TYPE.get(kind) or 400


def _kind_of(status: int) -> type[RefusedError]:
    known = {401: DeniedError, 403: DeniedError, 404: NotFoundError, 429: OverloadedError, 503: OverloadedError}
    return known.get(status, ServerFaultError if status >= 500 else InvalidError if status >= 400 else RefusedError)


def _fix_of(status: int) -> str:
    return {401: "give api_key=, or set ANYMODAL_API_KEY", 429: "come back later", 503: "come back later",
            413: "send less at once"}.get(status, "")
