select r.parent_no, r.no from json_each(?1) as e join run as r on r.parent_no = e.value
where r.parent_no is not null and r.ended_at is null
