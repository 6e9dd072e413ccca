-- $1: how long the duty lasts at the most.
select least(greatest(until - (extract(epoch from clock_timestamp()) * 1000)::bigint, 0), $1) from stamper
