"""Servers of one scope whose folders or apps differ: who takes back what the other told, and how often."""

import logging

log = logging.getLogger("stepwell.flows")
#: Contents that are remembered; after as many, all may be taken back once more.
MAX_TAKEN_BACK = 64


class Differences:
    """What others told of the flows of a scope, that this process took back: what comes again is left."""

    def __init__(self, scope: str) -> None:
        self._scope, self._said = scope, False
        self._taken_back = set[frozenset[tuple[str, str]]]()

    def is_new(self, theirs: frozenset[tuple[str, str]]) -> bool:
        """Whether it was not taken back yet; now it counts as such. One that comes again is logged, once."""
        if theirs not in self._taken_back:
            if len(self._taken_back) >= MAX_TAKEN_BACK:
                self._taken_back.clear()
            self._taken_back.add(theirs)
            return True
        if not self._said:
            self._said = True
            log.warning(
                "another server has other flows in the scope %r of this database, or another version of the app: each"
                " event is matched by the flows of the server that takes it; give all servers the same folder and app",
                self._scope,
            )
        return False
