-- Positions have gaps, so rows are counted: the newest that may go, and no more than the oldest so many.
with floor as (select pos from change order by pos desc offset $1 limit 1)
select least(pos, (select max(pos) from (select pos from change order by pos limit $2) as oldest)) from floor
