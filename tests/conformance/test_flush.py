"""Writing: each table, all or nothing, in order, and what a rollback leaves."""

import time
from typing import Any

import msgspec
import pytest

from stepwell.kernel.unit import Reading, Table, Unit
from stepwell.model.rows import Blob, Manifest, Message, Output, Pool, Request
from stepwell.model.settings import Settings
from stepwell.store.port import Refused, Session, Store
from tests.support import snapshot

from .filling import NOW, entry, event, fill, loading, look, put, run, sent, task, writing

EVERYTHING = (
    run(1),
    task(1),
    event(1),
    entry(1, 1, "run.created", '{"run_kind":"workflow","name":"w"}'),
    Output(1, 1, 1, "stdout", NOW, "text"),
    Blob(1, 0, "h", "large"),
    Blob(0, 1, "h", "large"),
    Manifest("main", "f", "v", "h", NOW, "{}"),
    Pool("main", "p", limit=1),
    Request("main", "k", "h", "1", NOW),
    Message(0, "main", 1, 1, 1, "cancel", None, NOW, "{}"),
)


def test_a_commit_is_seen_and_an_open_transaction_is_not(store: Store, session: Session) -> None:
    fill(session, *EVERYTHING)
    shown = snapshot(store)
    assert shown["run 1"][0]["id"] == "r1"
    assert [len(shown["run 1"][part]) for part in (1, 2, 3)] == [1, 1, 1]
    assert (len(shown["events"]), len(shown["pools main"]), len(shown["manifests main"])) == (1, 1, 1)
    assert shown["run 1"][4] is True


def test_a_rollback_leaves_nothing(store: Store, session: Session) -> None:
    fill(session, run(5), task(5))
    before = snapshot(store)
    session.begin()
    unit = Unit(Settings())
    put(unit, *EVERYTHING)
    unit.runs.seed(5, run(5))
    unit.runs.edit(5).status = "failed"
    unit.revisions.put("main", 9)
    unit.delivered.append(1)
    session.flush(unit, NOW)
    session.rollback()
    assert snapshot(store) == before
    with loading(session) as s:
        assert s.runs([5])[0].status == "queued"
        assert s.runs([1]) == []
    session.rollback()
    fill(session, *EVERYTHING)
    assert len(look(store, lambda r: r.scan_runs())) == 2


def test_an_abandoned_look_leaves_nothing_and_frees_the_store(store: Store, session: Session) -> None:
    before = snapshot(store)
    session.begin()
    assert session.numbers("run", 5) == 1
    session.abandon()
    assert snapshot(store) == before
    other = store.session("other")
    fill(other, run(1))
    other.close()


def test_rows_are_changed_and_deleted(store: Store, session: Session) -> None:
    fill(session, *EVERYTHING)
    with writing(session, NOW + 1) as unit:
        rows: list[tuple[Table[Any, Any], Any, Any]] = [
            (unit.runs, 1, run(1)),
            (unit.tasks, (1, 1), task(1)),
            (unit.events, ("main", "e1"), event(1)),
            (unit.pools, ("main", "p"), Pool("main", "p", limit=1)),
            (unit.manifests, ("main", "f"), Manifest("main", "f", "v", "h", NOW, "{}")),
            (unit.requests, ("main", "k"), Request("main", "k", "h", "1", NOW)),
        ]
        for table, key, row in rows:
            table.seed(key, row)
        changed = unit.runs.edit(1)
        changed.status, changed.head_seq, changed.generation, changed.input = "waiting", 7, 2, '"x"'
        unit.tasks.edit((1, 1)).state = "held"
        unit.events.edit(("main", "e1")).replays = 3
        unit.pools.edit(("main", "p")).paused = True
        unit.manifests.edit(("main", "f")).data = "[]"
        unit.requests.edit(("main", "k")).reply = "2"
    shown = snapshot(store)
    assert [shown["run 1"][0][name] for name in ("status", "head_seq", "generation", "input")] == [
        "waiting",
        7,
        2,
        '"x"',
    ]
    assert (shown["run 1"][2][0]["state"], shown["events"][0]["replays"]) == ("held", 3)
    assert (shown["pools main"][0]["paused"], shown["manifests main"][0]["data"]) == (True, "[]")
    with loading(session) as s:
        assert s.requests([("main", "k")])[0].reply == "2"
        messages, _ = s.messages(5)
    with writing(session) as unit:
        unit.events.seed(("main", "e1"), event(1))
        unit.pools.seed(("main", "p"), Pool("main", "p"))
        unit.manifests.seed(("main", "f"), Manifest("main", "f", "v", "h", NOW, "{}"))
        unit.requests.seed(("main", "k"), Request("main", "k", "h", "1", NOW))
        unit.events.drop(("main", "e1"))
        unit.pools.drop(("main", "p"))
        unit.manifests.drop(("main", "f"))
        unit.requests.drop(("main", "k"))
        unit.delivered.append(messages[0].no)
        unit.runs.seed(1, run(1))
        unit.pruned_runs.append(1)
    shown = snapshot(store)
    assert (shown["events"], shown["pools main"], shown["manifests main"]) == ([], [], [])
    assert ("run 1" in shown, shown["orphans"], shown["counts"]) == (False, [], {})


@pytest.mark.parametrize("part", ["seldom", "status", "often"])
def test_each_part_of_a_run_is_written_when_only_it_changed(store: Store, session: Session, part: str) -> None:
    fill(session, run(1))
    wants = {"seldom": ("hold", "poison"), "status": ("waits", '["x"]'), "often": ("open_actions", 3)}
    name, value = wants[part]
    with loading(session) as s:
        loaded = s.runs([1])
    with writing(session) as unit:
        unit.runs.seed(1, loaded[0])
        setattr(unit.runs.edit(1), name, value)
    assert look(store, lambda reader: getattr(reader.run_by_no(1), name)) == value
    with loading(session) as s:
        assert getattr(s.runs([1])[0], name) == value


@pytest.mark.parametrize("count", [1, 3, 4, 21, 86])
def test_many_rows_of_a_commit_are_each_written_as_one_would_be(store: Store, session: Session, count: int) -> None:
    """Eighty-six: at least one chunk of each size, and some that are left over."""
    numbers = range(1, count + 1)
    fill(session, *(run(no) for no in numbers), *(task(no, 7, args=f'"{no}"') for no in numbers), event(1))
    with loading(session) as s:
        runs, tasks = s.runs(numbers), s.tasks([(no, 7) for no in numbers])
    with writing(session) as unit:
        for one in runs:
            unit.runs.seed(one.no, one)
            unit.runs.edit(one.no).head_seq = one.no * 10
            put(
                unit,
                entry(one.no, 2, key=f"k{one.no}"),
                Message(0, "main", one.no, 1, one.no, "cancel", None, NOW, "1"),
            )
        for todo in tasks:
            unit.tasks.seed((todo.run_no, todo.k), todo)
            unit.tasks.edit((todo.run_no, todo.k)).worker = f"w{todo.run_no}"
    for part, value in (("waits", '["{no}"]'), ("hold", "h{no}")):
        with loading(session) as s:
            runs = s.runs(numbers)
        with writing(session) as unit:
            for one in runs:
                unit.runs.seed(one.no, one)
                setattr(unit.runs.edit(one.no), part, value.replace("{no}", str(one.no)))
    shown = snapshot(store)
    for no in numbers:
        row, entries, its_tasks = shown[f"run {no}"][:3]
        assert (row["head_seq"], row["waits"], row["hold"]) == (no * 10, f'["{no}"]', f"h{no}")
        assert [(one["seq"], one["key"]) for one in entries] == [(2, f"k{no}")]
        assert [(one["k"], one["worker"], one["args"]) for one in its_tasks] == [(7, f"w{no}", f'"{no}"')]
    with loading(session) as s:
        assert [message.to_no for message in s.messages(1_000)[0]] == list(numbers)


@pytest.mark.parametrize("kind", ["run", "event"])
def test_a_number_is_never_given_twice(store: Store, session: Session, kind: str) -> None:
    def take(count: int, used: int) -> list[int]:
        with writing(session) as unit:
            unit.next_no.seed(kind, session.numbers(kind, count))
            numbers = [unit.take_no(kind) for _ in range(used)]
            put(unit, *(run(no) if kind == "run" else event(no) for no in numbers))
        return numbers

    assert take(2, 2) == [1, 2]
    given = [*take(1, 1), *take(5, 2)]
    assert given == sorted(set(given))
    assert given[0] > 2
    with writing(session) as unit:
        if kind == "run":
            unit.runs.seed(given[-1], run(given[-1]))
            unit.pruned_runs.append(given[-1])
        else:
            unit.events.seed(("main", f"e{given[-1]}"), event(given[-1]))
            unit.events.drop(("main", f"e{given[-1]}"))
    assert take(1, 1)[0] > given[-1]


def test_numbers_of_a_rolled_back_batch_are_free_to_be_given(session: Session) -> None:
    session.begin()
    unit = Unit(Settings())
    unit.next_no.seed("run", session.numbers("run", 1))
    put(unit, run(unit.take_no("run")))
    session.flush(unit, NOW)
    session.rollback()
    with loading(session) as s:
        assert s.numbers("run", 1) == 1


def test_replies_get_what_they_want_from_the_journal(session: Session) -> None:
    restarted = entry(1, 5, "run.restarted", '{"generation":2,"keep_seq":2}')
    kinds = ["run.created", "step.completed", "attempt.started", "signal.received"]
    entries = [entry(1, seq, kind, "{}") for seq, kind in enumerate(kinds, 1)]
    entries[3].data = "@big"
    fill(
        session,
        *entries,
        restarted,
        Blob(1, 0, "big", '{"name":"s"}'),
        event(3, payload="@pay"),
        Blob(0, 3, "pay", "9"),
    )
    session.begin()
    unit = Unit(Settings())
    unit.runs.seed(1, run(1))
    put(unit, entry(1, 6), entry(1, 7))
    session.flush(unit, NOW)

    def read(**fields: object) -> object:
        reply = msgspec.structs.replace(Reading(None, "", "blob"))
        reading = msgspec.structs.replace(Reading(reply, "hash", "blob"), **fields)
        session.read([reading])
        return reply.hash

    missed = read(what="missed", run_no=1, after=1, until=7)
    assert isinstance(missed, list)
    assert [(one.seq, one.data) for one in missed] == [(2, "{}"), (4, '{"name":"s"}'), (6, "{}")]
    journal = read(what="journal", run_no=1, until=6)
    assert isinstance(journal, list)
    assert [one.seq for one in journal] == [1, 2, 5, 6]
    assert read(what="blob", run_no=1, hash="big") == '{"name":"s"}'
    found = read(what="event", event_no=3)
    assert getattr(found, "payload", None) == "9"
    assert read(what="event", event_no=99) is None
    assert read(what="missed", run_no=8, after=0, until=9) == []
    session.rollback()


def test_two_sessions_see_each_others_commits(store: Store, session: Session) -> None:
    with writing(session) as unit:
        unit.next_no.seed("run", session.numbers("run", 1))
        put(unit, run(unit.take_no("run")), task(1))
    with loading(session) as s:
        assert s.runs([1])[0].status == "queued"
    other = store.session("other")
    with loading(other) as s:
        loaded, loaded_task = s.runs([1])[0], s.tasks([(1, 1)])[0]
    with writing(other) as unit:
        unit.runs.seed(1, loaded)
        unit.tasks.seed((1, 1), loaded_task)
        unit.runs.edit(1).status = "failed"
        unit.tasks.edit((1, 1)).state = "done"
        unit.next_no.seed("run", other.numbers("run", 1))
        put(unit, run(unit.take_no("run")))
    with loading(session) as s:
        assert s.runs([1])[0].status == "failed"
        assert s.tasks([(1, 1)])[0].state == "done"
        assert s.numbers("run", 1) == 3
    other.close()


def test_the_version_moves_with_the_commits_of_others(store: Store, session: Session) -> None:
    before = store.version()
    fill(session, run(1))
    until = time.monotonic() + 5
    while store.version() == before and time.monotonic() < until:
        time.sleep(0.01)  # a store that cannot tell without asking tells from time to time
    assert store.version() != before


@pytest.mark.parametrize("store", ["sqlite", "postgres"], indirect=True)
def test_one_bad_row_among_many_refuses_them_all(store: Store, session: Session) -> None:
    fill(session, run(1), entry(1, 50))
    before = snapshot(store)
    session.begin()
    unit = Unit(Settings())
    unit.runs.seed(1, run(1))
    put(unit, *(entry(1, seq) for seq in range(1, 70)))
    with pytest.raises(Refused, match="entry"):
        sent(session, unit)
    session.rollback()
    assert snapshot(store) == before
