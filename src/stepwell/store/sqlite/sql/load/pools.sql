select {p.pool} from json_each(?1) as e join pool as p on p.scope = e.value ->> 0 and p.name = e.value ->> 1
