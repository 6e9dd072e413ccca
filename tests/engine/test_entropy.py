"""Random bytes in blocks: none is given twice."""

import os
import threading
from collections.abc import Iterator
from itertools import count

from stepwell.engine.entropy import BLOCK_BYTES, Entropy


def counted() -> tuple[Entropy, list[int]]:
    """A source whose every four bytes are another number."""
    asked: list[int] = []
    numbers: Iterator[int] = count()

    def source(size: int) -> bytes:
        asked.append(size)
        return b"".join(next(numbers).to_bytes(4, "big") for _ in range(size // 4))

    return Entropy(source), asked


def test_the_source_is_asked_once_a_block_and_no_byte_comes_twice() -> None:
    entropy, asked = counted()
    pieces = [entropy(16) for _ in range(3 * BLOCK_BYTES // 16)]
    assert asked == [BLOCK_BYTES] * 3
    assert len(set(pieces)) == len(pieces)
    assert {len(piece) for piece in pieces} == {16}
    assert [len(entropy(size)) for size in (0, 1, 4_095, BLOCK_BYTES, BLOCK_BYTES + 8)] == [0, 1, 4_095, 4_096, 4_104]


def test_threads_share_no_bytes() -> None:
    entropy, _ = counted()
    taken: list[bytes] = []

    def take() -> None:
        taken.extend([entropy(4) for _ in range(2_000)])

    threads = [threading.Thread(target=take) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(taken) == len(set(taken)) == 16_000


def test_a_fork_draws_its_own() -> None:
    process = [1]
    blocks = iter([b"a" * BLOCK_BYTES, b"b" * BLOCK_BYTES])
    entropy = Entropy(lambda size: next(blocks), process=lambda: process[0])
    assert entropy(4) == b"aaaa"
    process[0] = 2
    assert entropy(4) == b"bbbb"


def test_a_real_fork_and_its_parent_differ() -> None:
    entropy = Entropy()
    entropy(4)
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        os.write(write, entropy(16))
        os._exit(0)
    os.waitpid(child, 0)
    assert os.read(read, 16) != entropy(16)
    os.close(read)
    os.close(write)
