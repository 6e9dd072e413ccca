select {r.run} from json_each(?1) as e join run as r on r.scope = e.value ->> 0 and r.id = e.value ->> 1
