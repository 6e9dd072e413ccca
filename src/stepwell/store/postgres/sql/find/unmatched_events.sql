select {event} from event where created_at < $1 and matched = 0 and replays = 0
order by created_at, no limit $2
for no key update skip locked
