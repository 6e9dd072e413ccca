select set_config('search_path', null, true), set_config('statement_timeout', null, true), set_config('lock_timeout', null, true)
