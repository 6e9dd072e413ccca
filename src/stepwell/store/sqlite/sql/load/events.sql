select {v.event} from json_each(?1) as e join event as v on v.scope = e.value ->> 0 and v.id = e.value ->> 1
