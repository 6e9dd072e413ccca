select {event} from event indexed by event_scope where scope = ?1 and no < ?2 order by no desc limit ?3
