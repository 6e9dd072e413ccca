select {run} from run where ended_at is not null and ended_at < $1
order by ended_at, no limit $2
for no key update skip locked
