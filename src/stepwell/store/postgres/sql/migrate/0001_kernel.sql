-- The kernel's tables. Columns are the fields in model/rows.py. What is compared or sorted is collated by code point ("C"),
-- whatever the database's own order is: the other stores do the same, and an index on it is smaller and quicker.
-- Rows that change often leave room for their next version, and tables that do are vacuumed long before a fifth of them is
-- dead: a fifth of a million parked runs is more than a claim should walk over.
create sequence run_no;
create sequence event_no;

create table run (
    no bigint primary key,
    scope text collate "C" not null,
    id text collate "C" not null,
    kind text collate "C" not null,
    name text collate "C" not null,
    version text not null,
    pool text collate "C" not null,
    pool_key text collate "C",
    priority bigint not null,
    parent_no bigint,
    parent_key text,
    parent_gen bigint not null,
    root_no bigint,
    event_no bigint,
    replay bigint not null,
    depth bigint not null,
    created_at bigint not null,
    tags text,
    callback text,
    generation bigint not null,
    turn bigint not null,
    kept_seq bigint not null,
    result_status text collate "C",
    hold text collate "C",
    next_no bigint,
    cancel_at bigint,
    deadline bigint,
    ended_at bigint,
    input text,
    result text,
    error text,
    status text collate "C" not null,
    waits text,
    started_at bigint,
    head_seq bigint not null,
    wake_seq bigint not null,
    epoch bigint not null,
    write_no bigint not null,
    write_seq bigint not null,
    open_actions bigint not null,
    open_children bigint not null,
    journal_bytes bigint not null,
    updated_at bigint not null,
    -- an index that named the status would have every index of the row written with each change of it
    bad boolean generated always as (case when status in ('failed', 'canceled') then true end) stored
) with (fillfactor = 80, autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_threshold = 1000);
create unique index run_id on run (scope, id);
create index run_open on run (no) where ended_at is null;
create index run_bad on run (no) where bad;
create index run_held on run (no) where hold is not null;
create index run_result on run (result_status, no) where result_status is not null;
create index run_ended on run (ended_at, no) where ended_at is not null;
create index run_event on run (event_no, no) where event_no is not null;
create index run_child on run (parent_no) where parent_no is not null and ended_at is null;
create index run_deadline on run (deadline) where deadline is not null and ended_at is null;
create index run_cancel on run (cancel_at) where cancel_at is not null and ended_at is null;

create table entry (
    run_no bigint not null,
    seq bigint not null,
    kind text collate "C" not null,
    key text,
    n bigint not null,
    generation bigint not null,
    at bigint not null,
    data text not null
) with (autovacuum_vacuum_scale_factor = 0.05, autovacuum_vacuum_threshold = 1000);
create unique index entry_seq on entry (run_no, seq);
create index entry_state on entry (run_no, seq) where kind in ('state.set', 'run.restarted');

-- no = run_no << 20 | k: a run's tasks lie together and need no second index.
create table task (
    no bigint primary key,
    run_no bigint not null,
    k bigint not null,
    scope text collate "C" not null,
    kind text collate "C" not null,
    state text collate "C" not null,
    pool text collate "C" not null,
    pool_key text collate "C",
    requires text collate "C" not null,
    priority bigint not null,
    "order" bigint not null,
    due_at bigint,
    due_key text,
    epoch bigint not null,
    attempt bigint not null,
    failures bigint not null,
    lost bigint not null,
    write_no bigint not null,
    worker text collate "C",
    leased_at bigint,
    lease_until bigint,
    token_hash text,
    output_n bigint not null,
    output_bytes bigint not null,
    said bigint not null,
    key text,
    name text,
    details text,
    args text,
    retry text,
    timeout_ms bigint,
    heartbeat_ms bigint,
    deadline bigint
) with (fillfactor = 70, autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_threshold = 1000);
create index task_ready on task (pool, requires, scope, priority, "order", no) where state = 'ready';
create index task_ready_key on task (pool, requires, scope, pool_key, priority, "order", no)
where state = 'ready' and pool_key is not null;
create index task_due on task (due_at, no) where state = 'due';
create index task_leased on task (lease_until, no) where state = 'leased';
create index task_used on task (scope, pool, pool_key) where state = 'leased';
create index task_blocked on task (scope, pool, pool_key, priority, "order", no) where state = 'blocked';
create index task_deadline on task (deadline, no) where deadline is not null and state <> 'done';

create table event (
    no bigint primary key,
    scope text collate "C" not null,
    id text collate "C" not null,
    type text collate "C" not null,
    body_hash text not null,
    source text,
    occurred_at text,
    received_at text not null,
    matched bigint not null,
    replays bigint not null,
    created_at bigint not null,
    payload text not null,
    extra text,
    misses text,
    cause text,
    depth bigint not null
) with (autovacuum_vacuum_scale_factor = 0.05, autovacuum_vacuum_threshold = 1000);
create unique index event_id on event (scope, id);
create index event_type on event (scope, type, no);
create index event_scope on event (scope, no);
create index event_unmatched on event (created_at, no) where matched = 0 and replays = 0;

create table manifest (
    scope text collate "C" not null,
    name text collate "C" not null,
    version text not null,
    hash text not null,
    updated_at bigint not null,
    data text not null,
    primary key (scope, name)
);

create table pool (
    scope text collate "C" not null,
    name text collate "C" not null,
    "limit" bigint,
    key_limit bigint,
    rate bigint,
    rate_ms bigint not null,
    tokens double precision not null,
    refilled_at bigint not null,
    paused boolean not null,
    primary key (scope, name)
) with (fillfactor = 50);

create table output (
    run_no bigint not null,
    n bigint not null,
    attempt bigint not null,
    kind text not null,
    at bigint not null,
    text text not null
) with (autovacuum_vacuum_scale_factor = 0.05, autovacuum_vacuum_threshold = 1000);
create unique index output_n on output (run_no, n);

create table blob (
    run_no bigint not null,
    event_no bigint not null,
    hash text collate "C" not null,
    data text not null
) with (autovacuum_vacuum_scale_factor = 0.05, autovacuum_vacuum_threshold = 1000);
create unique index blob_hash on blob (run_no, event_no, hash);

create table message (
    no bigint primary key generated always as identity,
    scope text not null,
    to_no bigint not null,
    from_no bigint not null,
    from_seq bigint not null,
    kind text collate "C" not null,
    key text collate "C",
    at bigint not null,
    data text not null
) with (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 1000);
create index message_to on message (to_no);
create index message_plain on message (no) where kind <> 'callback';
create index message_callback on message (key, no) where kind = 'callback';

create table request (
    scope text collate "C" not null,
    key text collate "C" not null,
    body_hash text not null,
    reply text not null,
    expires_at bigint not null,
    primary key (scope, key)
) with (autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_threshold = 1000);
create index request_expires on request (expires_at, scope, key);

create table change (
    pos bigint primary key,
    at bigint not null,
    touched text not null
);

create table app_migration (
    app text collate "C" not null,
    no integer not null,
    name text not null,
    hash text not null,
    at timestamptz not null,
    primary key (app, no)
);

create table lane (
    id text collate "C" primary key,
    n bigint not null,
    at bigint not null
) with (fillfactor = 50);

create table meta (
    key text collate "C" primary key,
    value bigint not null
) with (fillfactor = 50);
