select {event} from event where no = any(array(
    select v.no from unnest($1::text[], $2::text[]) as e (scope, id) join event as v on v.scope = e.scope and v.id = e.id
))
order by no for no key update
