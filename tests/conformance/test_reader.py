"""Reading: lists with cursors, payloads in full, heads and counts."""

from contextlib import closing
from typing import Any

import msgspec
import pytest

from stepwell.model.rows import Blob, Manifest, Message, Output, Pool
from stepwell.store import reading
from stepwell.store.port import Page, RunFilter, Session, Store, scan_all

from .filling import NOW, ODD, entry, event, fill, look, put, run, task, writing

BIG = "large " * 50


def test_what_is_not_there_is_none_or_empty(store: Store) -> None:
    assert (
        look(store, lambda r: [r.run("main", "x"), r.run_by_no(1), r.event("main", "x"), r.event_by_no(1)])
        == [None] * 4
    )
    assert look(store, lambda r: [r.entries(1), r.tasks_of(1), r.output(1), r.scan_runs(), r.scan_events()]) == [[]] * 5
    assert (
        look(store, lambda r: [r.pools("main"), r.manifests("main"), r.changes("main", after=0), r.orphans()])
        == [[]] * 4
    )
    assert look(store, lambda r: [r.meta("floor:main"), r.next_due()]) == [None, None]
    assert look(store, lambda r: [r.head("main"), r.floor("main")]) == [0, 0]
    assert look(store, lambda r: [r.counts(), r.messages_to([1]), r.first_run_counts([])]) == [{}, set(), {}]
    assert look(store, lambda r: r.list_runs(RunFilter(), limit=5)) == Page([], None)
    assert look(store, lambda r: r.list_events("main", limit=5)) == Page([], None)


def test_the_last_value_of_a_name_in_the_present_journal_counts(store: Store, session: Session) -> None:
    values = [
        entry(1, 1, "state.set", '{"name":"a","value":1}'),
        entry(1, 2, "state.set", '{"name":"b"}'),
        entry(1, 3, "state.set", "@v"),
        entry(1, 4, "step.completed"),
    ]
    fill(session, run(1), *values, Blob(1, 0, "v", '{"name":"a","value":[2]}'))
    names = ("a", "b", "c")
    assert look(store, lambda r: [r.state(1, name) for name in names]) == ["[2]", "null", None]
    fill(session, entry(1, 5, "run.restarted", '{"generation":2,"keep_seq":2}'))
    assert look(store, lambda r: r.state(1, "a")) == "1"
    fill(session, entry(1, 6, "run.restarted", '{"generation":3,"keep_seq":3}'))
    assert look(store, lambda r: r.state(1, "a")) == "1", "what an earlier restart dropped stays dropped"
    fill(session, entry(1, 7, "run.restarted", '{"generation":4,"keep_seq":0}'))
    assert look(store, lambda r: r.state(1, "a")) is None


@pytest.mark.parametrize("name", ODD)
def test_odd_ids_are_read(store: Store, session: Session, name: str) -> None:
    fill(session, run(1, name), event(1, name))
    found, found_event = look(store, lambda r: (r.run("main", name), r.event("main", name)))
    assert found is not None
    assert found_event is not None
    assert (found.id, found_event.id) == (name, name)
    assert look(store, lambda r: (r.run("b", name), r.event("b", name))) == (None, None)


def test_payloads_come_in_full_from_every_method(store: Store, session: Session) -> None:
    large = run(1, input="@i", result="@r", error="@e", event_no=1)
    blobs = [Blob(1, 0, digest, digest + BIG) for digest in "iren"] + [Blob(0, 1, "p", "p" + BIG)]
    fill(session, large, task(1), entry(1, 1, data="@n"), event(1, payload="@p"), *blobs)
    with_run = [
        lambda r: r.run("main", "r1"),
        lambda r: r.run_by_no(1),
        lambda r: r.list_runs(RunFilter(), limit=5).rows[0],
        lambda r: r.scan_runs()[0],
    ]
    for query in with_run:
        found: Any = look(store, query)
        assert (found.input, found.result, found.error) == ("i" + BIG, "r" + BIG, "e" + BIG)
    with_event = [
        lambda r: r.event("main", "e1"),
        lambda r: r.event_by_no(1),
        lambda r: r.list_events("main", limit=5).rows[0],
        lambda r: r.list_events("main", of_type="t", limit=5).rows[0],
        lambda r: r.scan_events()[0],
    ]
    for query in with_event:
        found = look(store, query)
        assert found.payload == "p" + BIG
    assert look(store, lambda r: r.entries(1))[0].data == "n" + BIG


FILTERS: list[tuple[RunFilter, list[int]]] = [
    (RunFilter(), [8, 7, 6, 5, 4, 3, 2, 1]),
    (RunFilter(scope="b"), [9]),
    (RunFilter(status="queued"), [8, 1]),
    (RunFilter(status="failed"), [3]),
    (RunFilter(status="completed"), [5, 4]),
    (RunFilter(status="waiting"), [7, 6, 2]),
    (RunFilter(result_status="blocked"), [4]),
    (RunFilter(name="named"), [8]),
    (RunFilter(event_no=4), [5, 3]),
    (RunFilter(hold="paused"), [6]),
    (RunFilter(attention=True), [7, 4]),
    (RunFilter(status="waiting", hold="poison"), [7]),
    (RunFilter(status="completed", event_no=4), [5]),
    (RunFilter(status="nonsense"), []),
]


@pytest.mark.parametrize(("where", "expected"), FILTERS, ids=str)
def test_lists_of_runs_by_filter_and_by_page(
    store: Store, session: Session, where: RunFilter, expected: list[int]
) -> None:
    fill(
        session,
        run(1),
        run(2, status="waiting"),
        run(3, status="failed", ended_at=NOW, event_no=4),
        run(4, status="completed", ended_at=NOW, result_status="blocked"),
        run(5, status="completed", ended_at=NOW, result_status="changed", event_no=4),
        run(6, status="waiting", hold="paused"),
        run(7, status="waiting", hold="poison"),
        run(8, name="named"),
        run(9, scope="b"),
    )
    everything = look(store, lambda r: r.list_runs(where, limit=100))
    assert ([row.no for row in everything.rows], everything.cursor) == (expected, None)
    paged: list[int] = []
    cursor: int | None = None
    with closing(store.reader()) as reader:
        while True:
            page = reader.list_runs(where, limit=2, before=cursor)
            paged += [row.no for row in page.rows]
            cursor = page.cursor
            if cursor is None:
                break
    assert paged == expected
    exact = look(store, lambda r: r.list_runs(where, limit=max(1, len(expected))))
    assert exact.cursor is None


def test_lists_of_events_by_page_and_type(store: Store, session: Session) -> None:
    fill(session, *(event(no, type="odd" if no % 2 else "even") for no in range(1, 8)), event(8, scope="b"))
    first = look(store, lambda r: r.list_events("main", limit=3))
    assert ([row.no for row in first.rows], first.cursor) == ([7, 6, 5], 5)
    rest = look(store, lambda r: r.list_events("main", limit=9, before=first.cursor))
    assert ([row.no for row in rest.rows], rest.cursor) == ([4, 3, 2, 1], None)
    odd = look(store, lambda r: r.list_events("main", of_type="odd", limit=2, before=6))
    assert ([row.no for row in odd.rows], odd.cursor) == ([5, 3], 3)
    assert look(store, lambda r: r.list_events("main", of_type="none", limit=2)) == Page([], None)


def test_journals_tasks_and_outputs_come_in_order_and_in_parts(store: Store, session: Session) -> None:
    said = [Output(1, n, 1, "stdout", NOW, f"line {n}") for n in range(1, 8)]
    fill(session, run(1), *(entry(1, seq) for seq in range(1, 8)), *said, task(1, 300), task(1, 2), task(2), run(2))
    assert [row.seq for row in look(store, lambda r: r.entries(1))] == [1, 2, 3, 4, 5, 6, 7]
    assert [row.seq for row in look(store, lambda r: r.entries(1, after=3, limit=2))] == [4, 5]
    assert [row.n for row in look(store, lambda r: r.output(1, after=5))] == [6, 7]
    assert look(store, lambda r: r.output(1, limit=1)) == said[:1]
    assert [row.k for row in look(store, lambda r: r.tasks_of(1))] == [2, 300]


def test_output_is_what_was_said_to_the_last_byte(store: Store, session: Session) -> None:
    texts = ["\0", "a\0b\n", "\x1a", "\x1a0", "\x1a1", "\x1a\0", "\0\x1a0\x1a", "\x1b[31m \u202e", ""]
    fill(session, run(1), *(Output(1, n, 1, "stdout", NOW, text) for n, text in enumerate(texts, start=1)))
    assert [row.text for row in look(store, lambda r: r.output(1))] == texts


def test_small_tables_belong_to_their_scope(store: Store, session: Session) -> None:
    pools = [Pool("main", "b", limit=1), Pool("main", "a", paused=True), Pool("other", "c", rate=1)]
    manifests = [
        Manifest(scope, name, "v", "h", NOW, "{}") for scope, name in (("main", "g"), ("main", "f"), ("b", "f"))
    ]
    fill(session, *pools, *manifests)
    assert [row.name for row in look(store, lambda r: r.pools("main"))] == ["a", "b"]
    assert [row.name for row in look(store, lambda r: r.manifests("main"))] == ["f", "g"]
    assert look(store, lambda r: r.pools("main"))[0].paused is True


def test_next_due_is_the_earliest_of_what_waits_for_a_time(store: Store, session: Session) -> None:
    fill(session, task(1, 1, state="due", due_at=500), task(2, 1, state="leased", lease_until=200), task(3))
    assert look(store, lambda r: r.next_due()) == 500, "a lease that ran out is for the sweeper, not for the timekeeper"
    fill(session, task(4, 1, state="due", due_at=300))
    assert look(store, lambda r: r.next_due()) == 300


def test_scans_reach_every_row_in_pages(store: Store, session: Session) -> None:
    fill(session, *(run(no, scope="b" if no % 2 else "main") for no in range(1, 8)), *(event(no) for no in range(1, 8)))
    assert [row.no for row in look(store, lambda r: list(scan_all(r)))] == list(range(1, 8))
    assert [row.no for row in look(store, lambda r: r.scan_runs(after=3, limit=2))] == [4, 5]
    assert [row.no for row in look(store, lambda r: r.scan_events(after=5))] == [6, 7]


def test_journals_and_tasks_of_many_runs_are_read_one_after_the_other(store: Store, session: Session) -> None:
    fill(session, *(run(no) for no in range(1, 6)), *(task(no, k) for no in range(1, 6) for k in (2, 1)))
    fill(session, *(entry(no, seq) for no in (2, 4, 1) for seq in (1, 2, 3)), Blob(4, 0, "h", '{"x":1}'))
    fill(session, entry(4, 4, data="@h"), entry(5, 1))

    def seen(after: tuple[int, int], limit: int) -> list[tuple[int, int, str]]:
        rows = look(store, lambda r: r.scan_entries(after=after, until=4, limit=limit))
        return [(row.run_no, row.seq, row.data) for row in rows]

    plain = entry(1, 1).data
    every = [*((no, seq, plain) for no in (1, 2, 4) for seq in (1, 2, 3)), (4, 4, '{"x":1}')]
    assert seen((0, 0), 100) == every
    assert seen((1, 2), 3) == every[2:5]
    assert seen((3, 0), 100) == every[6:]
    assert seen((4, 4), 100) == []
    assert [(row.run_no, row.k) for row in look(store, lambda r: r.tasks_of(2, 4))] == [
        (no, k) for no in (2, 3, 4) for k in (1, 2)
    ]
    assert [(row.run_no, row.k) for row in look(store, lambda r: r.tasks_of(3))] == [(3, 1), (3, 2)]


def test_orphans_are_named(store: Store, session: Session) -> None:
    lost = (task(9, 2), Output(8, 1, 1, "stdout", NOW, "x"), entry(7, 1), Blob(6, 0, "h", "x"), Blob(0, 5, "g", "x"))
    with writing(session) as unit:
        unit.runs.seed(7, run(7))
        unit.runs.seed(8, run(8))
        put(unit, run(1), task(1), event(1), Blob(0, 1, "h", "x"), Blob(1, 0, "h", "x"), entry(1, 1), *lost)
    found = look(store, lambda r: r.orphans())
    names = ["blob g of event 5", "blob h of run 6", "entries of run 7", "output 8.1", "task 9.2"]
    assert sorted(found) == names
    assert len(look(store, lambda r: r.orphans(limit=2))) == 2


def test_counts_of_runs_tasks_events_and_messages(store: Store, session: Session) -> None:
    fill(session, run(1), run(2), run(3, status="running"), run(4, status="failed", ended_at=NOW))
    fill(session, task(1), task(2, 1, state="leased"), task(3, 1, state="done"), event(1), event(2), event(3))
    fill(session, run(5, event_no=1), run(6, event_no=1, replay=1), run(7, event_no=2), run(8, event_no=1))
    fill(session, *(Message(0, "main", to, 1, 1, "cancel", None, NOW, "{}") for to in (3, 3, 5)))
    counts = look(store, lambda r: r.counts())
    assert counts == {"run.queued": 6, "run.running": 1, "task.ready": 1, "task.leased": 1}
    assert look(store, lambda r: r.first_run_counts([1, 2, 3, 9])) == {1: 2, 2: 1, 3: 0, 9: 0}
    assert look(store, lambda r: r.messages_to([1, 3, 4, 5])) == {3, 5}


def test_commits_of_others_are_counted(store: Store) -> None:
    one, two = store.session("one"), store.session("two")
    assert look(store, lambda r: (r.others(["one"]), r.others(["two"]))) == (0, 0)
    for number in (1, 2, 3):
        fill(one, run(number))
    fill(two, run(4))
    assert look(store, lambda r: (r.others(["one"]), r.others(["two"]), r.others(["three"]))) == (1, 3, 4)
    one.close()
    two.close()


def test_a_page_of_tagged_runs_is_full_and_one_that_looked_at_enough_goes_on(
    store: Store, session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    tagged = {3: '{"a":"1","b":"x"}', 4: '{"a":"2"}', 9: '{"b":"y","a":"1"}', 11: '{"a":"1","\u00e9\\"":"\u00e9"}'}
    fill(session, *(run(no, f"r{no}", tags=tagged.get(no)) for no in range(1, 13)))

    def pages(limit: int, **tags: str) -> list[list[int]]:
        found, before = [], None
        while True:
            page = look(store, lambda r: r.list_runs(RunFilter(tags=tags), limit=limit, before=before))
            found.append([one.no for one in page.rows])
            if (before := page.cursor) is None:
                return found

    assert pages(2, a="1") == [[11, 9], [3]]
    assert pages(5, a="1", b="y") == [[9]]
    assert pages(5, **{'\u00e9"': "\u00e9"}) == [[11]]
    assert pages(5, a="3") == [[]]
    monkeypatch.setattr(reading, "LOOKED_AT", 4)
    assert [no for page in pages(2, a="1") for no in page] == [11, 9, 3]
    assert pages(5, a="1") in ([[11, 9], [], [3]], [[11, 9, 3]])


def test_tags_are_compared_to_their_last_character(store: Store, session: Session) -> None:
    tags = ({"a": "x\0y"}, {"a": "x\0z"}, {"a": "x"}, {"b\0c": "1"}, {"b": "1"}, *({"odd": odd} for odd in ODD))
    fill(session, *(run(no, f"r{no}", tags=msgspec.json.encode(one).decode()) for no, one in enumerate(tags, start=1)))
    for no, one in enumerate(tags, start=1):
        where = RunFilter(tags=one)
        page = look(store, lambda r: r.list_runs(where, limit=50))  # noqa: B023 - called at once
        assert [found.no for found in page.rows] == [no]
