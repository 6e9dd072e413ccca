insert into output ({output}) values ({output?})
