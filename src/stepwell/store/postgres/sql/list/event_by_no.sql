select {event} from event where no = $1
