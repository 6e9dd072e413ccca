select {q.request} from json_each(?1) as e join request as q on q.scope = e.value ->> 0 and q.key = e.value ->> 1
