"""A store that is away: how long a lane waits before it asks again (source: KERNEL, lost commit answer)."""

from stepwell.model.ids import unit_interval

FIRST_S, LONGEST_S = 0.05, 2.0
#: How often it asks what became of a commit, about a minute: a failover takes less. Then the callers are told.
ASKED = 45


def pause_s(tries: int, *chance: object) -> float:
    """Twice as long each time, up to a bound, and of that some part by chance: lanes do not come all at once."""
    longest = min(FIRST_S * 2.0 ** min(tries, 16), LONGEST_S)
    return longest * (0.5 + unit_interval(tries, *chance) / 2)
