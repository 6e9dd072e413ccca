select 'run.' || status, count(*) from run where ended_at is null group by status
