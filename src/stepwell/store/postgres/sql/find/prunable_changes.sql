-- Numbers have gaps, so rows are counted: the newest that may go, and no more than the oldest so many.
with last as (select no from change order by no desc offset $1 limit 1)
select least(no, (select max(no) from (select no from change order by no limit $2) as oldest)) from last
