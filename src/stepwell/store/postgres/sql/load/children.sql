select parent_no, no from run where parent_no = any($1::bigint[]) and parent_no is not null and ended_at is null
order by parent_no, no
