select {event} from event where no > $1 order by no limit $2
