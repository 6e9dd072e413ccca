select distinct to_no from message where to_no in (select value from json_each(?1))
