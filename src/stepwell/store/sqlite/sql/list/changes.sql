select {change} from change where scope = ?1 and pos > ?2 order by pos limit ?3
