-- One that another lane is at looks absent: then the unique index refuses to make it, and the batch looks again.
select {r.request} from (select * from unnest($1::text[], $2::text[]) as e (scope, key) order by scope, key) as e
cross join lateral (
    select * from request where request.scope = e.scope and request.key = e.key for no key update skip locked
) as r
