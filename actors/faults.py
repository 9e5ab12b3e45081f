"""Ray's errors in our own words."""

from __future__ import annotations

from ray.exceptions import AuthenticationError, GetTimeoutError, RayActorError, RayError, RayTaskError

from anymodal.errors import AnymodalError, DefectError, RuntimeFault

DEFECTS = (TypeError, AttributeError, NameError, LookupError, AssertionError, NotImplementedError)  # of a program
AGAIN = "ask again: the part is restarted on its own"


def as_fault(error: BaseException, who: str) -> AnymodalError:
    """The error that a caller of `who` (an actor's role) should see.

    What an actor raised on purpose stays as it is; a death or a silence becomes a RuntimeFault, a bug a DefectError.
    """
    if isinstance(error, RayTaskError):
        return as_fault(error.cause, who)
    if isinstance(error, AnymodalError):
        return error
    if isinstance(error, GetTimeoutError | TimeoutError):
        return RuntimeFault(f"the {who} did not answer in time",
                            fix="use fewer clips at once, or raise runtime.stall_timeout_s")
    if isinstance(error, RayActorError):
        return RuntimeFault(f"the {who} died or is being restarted", fix=AGAIN)
    if isinstance(error, AuthenticationError):
        return RuntimeFault("Ray refused the token", fix="set RAY_AUTH_TOKEN or RAY_AUTH_TOKEN_PATH to the cluster's")
    if isinstance(error, RayError):
        return RuntimeFault(f"the {who} cannot be reached: {type(error).__name__}: {_line(error)}", fix=AGAIN)
    kind = DefectError if isinstance(error, DEFECTS) else RuntimeFault
    return kind(f"the {who} failed: {type(error).__name__}: {_line(error)}", fix="see the actor's log")


def _line(error: BaseException) -> str:
    return " ".join(str(error).split())[:200]
