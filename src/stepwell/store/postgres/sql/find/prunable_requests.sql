select {request} from request where expires_at < $1
order by expires_at, scope, key limit $2
for no key update skip locked
