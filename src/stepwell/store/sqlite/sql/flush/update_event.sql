update event set {event=matched} where no = ?1
