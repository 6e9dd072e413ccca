select case when wanted.key is null
    then (select count(*) from task where state = 'leased' and scope = wanted.scope and pool = wanted.pool)
    else (select count(*) from task
        where state = 'leased' and scope = wanted.scope and pool = wanted.pool and pool_key = wanted.key)
end
from unnest($1::text[], $2::text[], $3::text[]) with ordinality as wanted (scope, pool, key, i) order by i
