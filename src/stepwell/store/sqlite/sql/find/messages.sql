select {message} from message order by no limit ?1
