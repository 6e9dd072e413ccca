-- Runs $1 to $2: each waits for a signal, with its task, its event and three entries, as they are after years.
insert into event (no, scope, id, type, body_hash, received_at, matched, replays, created_at, payload, depth)
select no, 'main', 'e' || no, 't', 'h', '2026', 1, 0, 1700000000000, '{}', 0
from generate_series($1::bigint, $2) as no;
insert into run (no, scope, id, kind, name, version, pool, priority, parent_gen, event_no, replay, depth, created_at,
    generation, turn, kept_seq, status, waits, head_seq, wake_seq, epoch, write_no, write_seq, open_actions,
    open_children, journal_bytes, updated_at)
select no, 'main', 'p' || no, 'workflow', 'wf', '', 'default', 0, 0, no, 0, 0, 1700000000000,
    1, 1, 0, 'waiting', '["signal:x"]', 3, 0, 1, 1, 2, 0, 0, 200, 1700000000000
from generate_series($1::bigint, $2) as no;
insert into task (no, run_no, k, scope, kind, state, pool, requires, priority, "order", epoch, attempt, failures, lost,
    write_no, output_n, output_bytes, said)
select no << 20 | 1, no, 1, 'main', 'turn', 'parked', 'default', 'wf', 0, 1700000000000, 1, 1, 0, 0, 0, 0, 0, 0
from generate_series($1::bigint, $2) as no;
insert into entry (run_no, seq, kind, n, generation, at, data)
select no, seq, 'step.completed', 0, 1, 1700000000000, '{}'
from generate_series($1::bigint, $2) as no, generate_series(1, 3) as seq;
