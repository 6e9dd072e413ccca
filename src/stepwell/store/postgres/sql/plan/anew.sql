-- Until the end of the transaction, or `as_before`.
select set_config('plan_cache_mode', 'force_custom_plan', true),
    set_config('enable_seqscan', null, true), set_config('enable_bitmapscan', null, true),
    set_config('enable_hashjoin', null, true), set_config('enable_mergejoin', null, true),
    set_config('enable_memoize', null, true), set_config('enable_incremental_sort', null, true)
