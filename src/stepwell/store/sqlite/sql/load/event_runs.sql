select r.event_no, r.id from json_each(?1) as e join run as r on r.event_no = e.value and r.event_no is not null
order by r.no
