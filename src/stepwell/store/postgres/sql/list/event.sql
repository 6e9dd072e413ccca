select {event} from event where scope = $1 and id = $2
