"""Random workflows as data: a program is a JSON list, its operation first, its arguments after it.

What each operation does is in `player`. Few names are used, so that occurrence numbers matter.
"""

import re
from collections.abc import Callable
from random import Random
from typing import Any

Node = list[Any]
SECONDS = (0, 0.001, 0.25, 0.5, 1, 2, 3)
SIGNALS = ("go", "stop", "maybe")
#: Operations without a program in them: how often, and what makes their arguments.
LEAVES: dict[str, tuple[int, Callable[[Random], Node]]] = {
    "step": (40, lambda rng: [_name(rng)]),
    "typed": (4, lambda rng: [_name(rng)]),
    "plain": (3, lambda rng: [_name(rng)]),
    "fail": (6, lambda rng: [_name(rng)]),
    "flaky": (8, lambda rng: [_name(rng), rng.randrange(1, 4)]),
    "late": (3, lambda rng: [_name(rng), rng.choice(SECONDS)]),
    "delayed": (2, lambda rng: [_name(rng), rng.choice(SECONDS)]),
    "query": (2, lambda rng: []),
    "action": (8, lambda rng: []),
    "flaky_action": (5, lambda rng: [rng.randrange(1, 4)]),
    "late_action": (3, lambda rng: [rng.choice(SECONDS)]),
    "mutation": (6, lambda rng: []),
    "bad_mutation": (2, lambda rng: []),
    "sleep": (8, lambda rng: [rng.choice([*SECONDS, -1])]),
    "pause": (8, lambda rng: [rng.choice([*SECONDS, -1])]),
    "until": (2, lambda rng: [rng.choice([*SECONDS, -1])]),
    "signal": (6, lambda rng: [rng.choice(SIGNALS)]),
    "signal_within": (5, lambda rng: [rng.choice(SIGNALS), rng.choice(SECONDS)]),
    "huge": (2, lambda rng: [rng.choice(["step", "action", "mutation", "set", "tell", "child", "dispatch"])]),
    "stream": (2, lambda rng: [rng.choice(SIGNALS)]),
    "tell": (4, lambda rng: [rng.choice(["root", "self", "nobody"]), rng.choice(SIGNALS)]),
    "set": (3, lambda rng: [rng.choice(["progress", "state"])]),
    "patched": (3, lambda rng: [f"change{rng.randrange(2)}"]),
    "chance": (3, lambda rng: []),
    "dispatch": (3, lambda rng: [rng.choice([None, "same"])]),
}
#: Operations with one program in them: how often, and what makes their other arguments.
AROUND: dict[str, tuple[int, Callable[[Random], Node]]] = {
    "timeout": (3, lambda rng: [rng.choice(SECONDS)]),
    "timeout_at": (2, lambda rng: [rng.choice([*SECONDS, -1])]),
    "wait_for": (3, lambda rng: [rng.choice([*SECONDS, -1])]),
    "shield": (3, lambda rng: [rng.choice(SECONDS)]),
    "cleanup": (4, lambda rng: [rng.choice(SECONDS)]),
    "stubborn": (3, lambda rng: [rng.choice(SECONDS)]),
    "moved_timeout": (2, lambda rng: [rng.choice(SECONDS), rng.choice([*SECONDS, None])]),
    "cancel": (3, lambda rng: [rng.choice(SECONDS)]),
    "child": (2, lambda rng: []),
    "start": (2, lambda rng: [rng.choice(["result", "cancel", "leave", "detached", "give_up"])]),
    "patch": (0, lambda rng: []),  # only as a change of a program that is there
}
#: Operations with several programs in them: how often.
SEVERAL: dict[str, int] = {
    "seq": 6,
    "gather": 3,
    "gather_all": 3,
    "group": 4,
    "named": 3,
    "race": 3,
    "first_error": 2,
    "as_done": 2,
    "as_done_raw": 2,
    "one_by_one": 3,
    "wide": 0,  # too many steps for one write
    "promises": 3,
    "queue": 2,
    "locks": 2,
    "condition": 2,
    "barrier": 2,
    "event": 2,
    "generator": 3,
    "abandoned": 2,
}
OPERATIONS = frozenset((*LEAVES, *AROUND, *SEVERAL)) - {"patch", "wide"}
#: How many operations a program may have: what is beyond becomes steps.
MAX_NODES = 60


def _name(rng: Random) -> str:
    return f"s{rng.randrange(4)}"


def program(rng: Random, depth: int, most: int = MAX_NODES) -> Node:
    """A random program, at most `depth` deep, of about `most` operations."""
    return _node(rng, depth, [most], leaf=0.0)


def _node(rng: Random, depth: int, left: list[int], leaf: float = 0.12) -> Node:
    left[0] -= 1
    if depth <= 0 or left[0] <= 0 or rng.random() < leaf:
        op = _pick(rng, {name: weight for name, (weight, _) in LEAVES.items()})
        return [op, *LEAVES[op][1](rng)]
    op = _pick(rng, {**SEVERAL, **{name: weight for name, (weight, _) in AROUND.items()}})
    if op in AROUND:
        return [op, _node(rng, depth - 1, left), *AROUND[op][1](rng)]
    return [op, [_node(rng, depth - 1, left) for _ in range(rng.randrange(2, 4))]]


def _pick(rng: Random, weights: dict[str, int]) -> str:
    return rng.choices(list(weights), list(weights.values()))[0]


def inner(node: Node) -> list[Node]:
    """The programs right inside one."""
    op = node[0]
    if op in AROUND:
        return [node[1]]
    return list(node[1]) if op in SEVERAL else []


def changed(rng: Random, node: Node) -> Node:
    """The program with a step that is new, behind a patch, somewhere in it."""
    within = inner(node)
    if not within or rng.random() < 0.3:
        return ["patch", node]
    at = rng.randrange(len(within))
    return _with(node, at, changed(rng, within[at]))


def renamed(node: Node) -> Node:
    """The program with other names for its steps."""
    if node[0] in AROUND:
        return [node[0], renamed(node[1]), *node[2:]]
    if node[0] in SEVERAL:
        return [node[0], [renamed(one) for one in node[1]]]
    return [f"other {part}" if re.fullmatch(r"s[0-9]", str(part)) else part for part in node]


def size(node: Node) -> int:
    """How many operations a program has."""
    return 1 + sum(size(one) for one in inner(node))


def operations(node: Node) -> set[str]:
    """The names of all operations in a program."""
    return {node[0]}.union(*(operations(one) for one in inner(node)))


def smaller(node: Node) -> list[Node]:
    """Programs that are a little smaller: what is inside, fewer of it, and less in one place. The smallest first."""
    found = inner(node)
    if node[0] in SEVERAL and len(node[1]) > 1:
        found += [[node[0], [*node[1][:at], *node[1][at + 1 :]]] for at in range(len(node[1]))]
    for at, one in enumerate(inner(node)):
        found += [_with(node, at, less) for less in smaller(one)]
    return sorted(found, key=size)


def _with(node: Node, at: int, one: Node) -> Node:
    if node[0] in AROUND:
        return [node[0], one, *node[2:]]
    return [node[0], [*node[1][:at], one, *node[1][at + 1 :]]]
