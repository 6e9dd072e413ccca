select {m.message}
from json_each(?1) as known
cross join message as m on m.kind = 'callback' and m.key = known.value
order by m.no
limit ?2
