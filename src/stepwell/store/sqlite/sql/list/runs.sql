select {run} from run
where /* tests */
  and (:tags is null or run.tags is not null and not exists (
    select 1 from json_each(:tags) as wanted where not exists (
      select 1 from json_each(run.tags) as has where has.key = wanted.key and has.value = wanted.value)))
order by no desc limit :limit
