select set_config('search_path', $1, true), set_config('statement_timeout', $2, true)
