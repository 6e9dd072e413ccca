select {b.blob} from json_each(?1) as e
join blob as b on b.run_no = e.value ->> 0 and b.event_no = 0 and b.hash = e.value ->> 1
