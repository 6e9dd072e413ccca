-- The kernel's tables. Columns stand in the order of the fields in model/rows.py.
create table run (
    no integer primary key autoincrement,
    scope text not null,
    id text not null,
    kind text not null,
    name text not null,
    version text not null,
    pool text not null,
    pool_key text,
    priority integer not null,
    parent_no integer,
    parent_key text,
    parent_gen integer not null,
    root_no integer,
    event_no integer,
    replay integer not null,
    created_at integer not null,
    tags text,
    generation integer not null,
    turn integer not null,
    kept_seq integer not null,
    result_status text,
    hold text,
    next_no integer,
    cancel_at integer,
    deadline integer,
    ended_at integer,
    input text,
    result text,
    error text,
    status text not null,
    waits text,
    started_at integer,
    head_seq integer not null,
    wake_seq integer not null,
    epoch integer not null,
    write_no integer not null,
    write_seq integer not null,
    open_actions integer not null,
    open_children integer not null,
    journal_bytes integer not null,
    updated_at integer not null
) strict;
create unique index run_id on run (scope, id);
create index run_open on run (no) where ended_at is null;
create index run_bad on run (no) where status in ('failed', 'canceled');
create index run_held on run (no) where hold is not null;
create index run_result on run (result_status, no) where result_status is not null;
create index run_ended on run (ended_at) where ended_at is not null;
create index run_event on run (event_no, no) where event_no is not null;
create index run_child on run (parent_no) where parent_no is not null and ended_at is null;
create index run_deadline on run (deadline) where deadline is not null and ended_at is null;
create index run_cancel on run (cancel_at) where cancel_at is not null and ended_at is null;

-- Entries are appended in the order of commits and found by an index of integers: the fewest pages a commit (docs/kernel.md).
create table entry (
    run_no integer not null,
    seq integer not null,
    kind text not null,
    key text,
    n integer not null,
    generation integer not null,
    at integer not null,
    data text not null
) strict;
create unique index entry_seq on entry (run_no, seq);

-- no = run_no << 20 | k: a run's tasks lie together and need no second index.
create table task (
    no integer primary key,
    run_no integer not null,
    k integer not null,
    scope text not null,
    kind text not null,
    state text not null,
    pool text not null,
    pool_key text,
    requires text not null,
    priority integer not null,
    "order" integer not null,
    due_at integer,
    due_key text,
    epoch integer not null,
    attempt integer not null,
    failures integer not null,
    lost integer not null,
    write_no integer not null,
    worker text,
    leased_at integer,
    lease_until integer,
    token_hash text,
    output_n integer not null,
    output_bytes integer not null,
    said integer not null,
    key text,
    name text,
    details text,
    args text,
    retry text
) strict;
create index task_ready on task (pool, requires, scope, priority, "order", no) where state = 'ready';
create index task_ready_key on task (pool, requires, scope, pool_key, priority, "order", no)
where state = 'ready' and pool_key is not null;
create index task_due on task (due_at) where state = 'due';
create index task_leased on task (lease_until) where state = 'leased';
create index task_used on task (scope, pool, pool_key) where state = 'leased';
create index task_blocked on task (scope, pool, pool_key, priority, "order", no) where state = 'blocked';

create table event (
    no integer primary key autoincrement,
    scope text not null,
    id text not null,
    type text not null,
    body_hash text not null,
    source text,
    occurred_at text,
    received_at text not null,
    matched integer not null,
    replays integer not null,
    created_at integer not null,
    payload text not null,
    extra text,
    misses text
) strict;
create unique index event_id on event (scope, id);
create index event_type on event (scope, type, no);
create index event_scope on event (scope, no);
create index event_unmatched on event (created_at) where matched = 0 and replays = 0;

create table manifest (
    scope text not null,
    name text not null,
    version text not null,
    hash text not null,
    updated_at integer not null,
    data text not null,
    primary key (scope, name)
) strict, without rowid;

create table pool (
    scope text not null,
    name text not null,
    "limit" integer,
    key_limit integer,
    rate integer,
    rate_ms integer not null,
    tokens real not null,
    refilled_at integer not null,
    paused integer not null,
    primary key (scope, name)
) strict, without rowid;

create table output (
    run_no integer not null,
    n integer not null,
    attempt integer not null,
    kind text not null,
    at integer not null,
    text text not null
) strict;
create unique index output_n on output (run_no, n);

create table blob (
    run_no integer not null,
    event_no integer not null,
    hash text not null,
    data text not null
) strict;
create unique index blob_hash on blob (run_no, event_no, hash);

create table message (
    no integer primary key autoincrement,
    scope text not null,
    to_no integer not null,
    from_no integer not null,
    from_seq integer not null,
    kind text not null,
    key text,
    at integer not null,
    data text not null
) strict;
create index message_to on message (to_no);

create table request (
    scope text not null,
    key text not null,
    body_hash text not null,
    reply text not null,
    expires_at integer not null,
    primary key (scope, key)
) strict, without rowid;
create index request_expires on request (expires_at);

create table change (
    pos integer primary key autoincrement,
    at integer not null,
    touched text not null
) strict;

create table lane (
    id text primary key,
    n integer not null,
    at integer not null
) strict, without rowid;

create table meta (
    key text primary key,
    value integer not null
) strict, without rowid;

create table schedule (
    scope text not null,
    name text not null,
    spec text not null,
    next_at integer,
    last_at integer,
    primary key (scope, name)
) strict, without rowid;
