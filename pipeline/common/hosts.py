"""What all who ask a host share: how long to wait for it, and its address as it may be shown."""

import re
import time
from typing import NamedTuple

MAX_PAUSE_S = 600


class RetryPolicy(NamedTuple):
    """How long to wait for a host, and how often to ask it again."""

    # In a row without getting any further.
    attempts: int = 6
    connect_s: float = 20
    # Without a byte, or with fewer than `min_bytes_per_s` on average, before asking again.
    stall_s: float = 60
    min_bytes_per_s: float = 1000
    # Before the second attempt; doubled before each further one.
    pause_s: float = 2


def pause(attempt: int, policy: RetryPolicy) -> None:
    """Wait before the next attempt, longer each time."""
    time.sleep(min(policy.pause_s * 2 ** max(attempt - 1, 0), MAX_PAUSE_S))


def public(url: str) -> str:
    """An address without what may be a password."""
    return re.sub(r"(?<=//)[^/]*@", "", re.split(r"[?#]", url)[0])
