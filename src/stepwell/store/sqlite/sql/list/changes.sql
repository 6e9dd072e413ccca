select {change} from change where pos > ?1 order by pos limit ?2
