-- One plan for each statement, whatever the values are. What is switched off is what looks good on small tables and
-- bad on large ones: then there is but one way left, by the index that was made for it.
select set_config('plan_cache_mode', 'force_generic_plan', false),
    set_config('enable_seqscan', 'off', false), set_config('enable_bitmapscan', 'off', false),
    set_config('enable_hashjoin', 'off', false), set_config('enable_mergejoin', 'off', false),
    set_config('enable_memoize', 'off', false), set_config('enable_incremental_sort', 'off', false)
