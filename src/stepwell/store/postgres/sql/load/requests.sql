-- One that another lane is at looks absent: then the unique index refuses to make it, and the batch looks again.
select {request} from request where (scope, key) in (select * from unnest($1::text[], $2::text[]))
order by scope, key for no key update skip locked
