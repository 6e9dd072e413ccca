select {event} from event where scope = $1 and no < $2 order by no desc limit $3
