select greatest(until - (extract(epoch from clock_timestamp()) * 1000)::bigint, 0) from stamper
