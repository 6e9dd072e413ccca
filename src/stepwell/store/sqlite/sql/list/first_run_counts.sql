select r.event_no, count(*) from json_each(?1) as e
join run as r on r.event_no = e.value and r.event_no is not null
where r.replay = 0 group by r.event_no
