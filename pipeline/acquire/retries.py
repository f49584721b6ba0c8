"""Asking a host again, aloud: minutes of silence look like a fault."""

import re
import sys
from typing import Any, Self

from tqdm import tqdm
from urllib3.util import Retry


class SpokenRetry(Retry):
    """Says what went wrong, when it asks again, and how often it will."""

    def increment(self, *args: Any, **kwargs: Any) -> Self:
        """As of urllib3, which calls it before it asks again or raises."""
        following = super().increment(*args, **kwargs)
        host, error, answer = (kwargs.get(name) for name in ("_pool", "error", "response"))
        why = reason_of(error) if error else f"HTTP {answer.status}" if answer else "no answer"
        asked_for = following.get_retry_after(answer) if answer else None
        wait = following.get_backoff_time() if asked_for is None else asked_for
        times = (following.total or 0) + 1
        tqdm.write(
            f"{host.host if host else 'the host'}: {why}; asking again in {wait:.0f} s, "
            f"{times} more {'time' if times == 1 else 'times'} at most",
            file=sys.stderr,
        )
        return following


def reason_of(error: BaseException) -> str:
    """What the innermost error says, without the addresses that the outer ones repeat."""
    inner = getattr(error, "reason", None) or (error.args[0] if error.args else None)
    if isinstance(inner, BaseException):
        return reason_of(inner)
    return re.sub(r"\?\S*", "", str(error)) or type(error).__name__
