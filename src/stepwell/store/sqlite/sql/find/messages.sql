select {message} from message where kind <> 'callback' order by no limit ?1
