"""Streams cut into frames (source: HTML standard, 9.2 Server-sent events)."""

from itertools import chain

import pytest

from stepwell.client.exchange import Backoff
from stepwell.client.following import Following, Frame, Frames
from stepwell.client.views import OutputChunk, RunView
from stepwell.model.errors import Malformed, TooLarge, Unavailable

STREAM = (
    b': following\n\nid: 1\nevent: output\ndata: {"n":1,"text":"\xc3\xbc"}\n\n: beat\n\n'
    b'event: other\ndata: x\n\nid: 2\nevent: output\ndata: {"n":2,"text":"b"}\n\n'
    b'event: end\ndata: {"run":\ndata: {"id":"r","status":"completed"}}\n\n'
)


def following() -> Following:
    return Following("r", 0, Backoff(clock_s=lambda: 0.0, jitter=lambda: 1.0, tries=3), 30.0)


@pytest.mark.parametrize("size", [1, 2, 3, 7, 1_000])
@pytest.mark.parametrize("stream", [STREAM, STREAM.replace(b"\n", b"\r\n")])
def test_frames_are_the_same_however_the_bytes_come(size: int, stream: bytes) -> None:
    one = following()
    pieces = [stream[at : at + size] for at in range(0, len(stream), size)]
    items = [item for piece in pieces for item in one.took(piece)]
    assert items[:-1] == [OutputChunk(n=1, text="ü"), OutputChunk(n=2, text="b")]
    assert isinstance(items[-1], RunView)
    assert (items[-1].id, one.ended) == ("r", True)


def test_a_frame_over_the_bound_is_refused_and_many_small_ones_are_not() -> None:
    frames = Frames(max_bytes=100)
    small = b"data: x\n\n"
    assert [one for _ in range(50) for one in frames.feed(small)] == [Frame("message", "x")] * 50
    with pytest.raises(TooLarge) as caught:
        list(chain.from_iterable(frames.feed(b"data: xxxx\n") for _ in range(50)))
    assert caught.value.hint


def test_what_came_twice_is_told_once_and_the_next_request_says_how_far_we_are() -> None:
    one = following()
    first = b'event: output\ndata: {"n":7,"text":"a"}\n\n'
    assert [item.n for item in one.took(first + first) if isinstance(item, OutputChunk)] == [7]
    assert dict(one.ask().headers)["last-event-id"] == "7"
    assert one.ask().query == (("after", "7"),)
    assert list(one.took(first)) == []


def test_an_unfinished_frame_of_a_lost_line_is_forgotten() -> None:
    one = following()
    assert list(one.took(b'event: output\ndata: {"n":1,')) == []
    one.lost()
    one.ask()
    assert list(one.took(b'event: output\ndata: {"n":1,"text":"a"}\n\n')) == [OutputChunk(n=1, text="a")]


def test_losses_in_a_row_are_counted_and_pauses_grow() -> None:
    one, pauses = following(), list[float]()
    for _ in range(2):
        one.lost()
        pauses.append(one.ask().pause_s)
    assert 0 < pauses[0] < pauses[1]
    list(one.took(b'event: output\ndata: {"n":1}\n\n'))  # it goes on: counted anew
    one.lost()
    one.lost()
    with pytest.raises(Unavailable):
        one.lost()


def test_data_that_is_no_json_is_refused() -> None:
    with pytest.raises(Malformed):
        list(following().took(b"event: end\ndata: {\n\n"))
