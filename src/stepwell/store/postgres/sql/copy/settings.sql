-- One side stands still while the other is busy; and values as text mean the same on every server.
set local idle_in_transaction_session_timeout = 0; set local statement_timeout = 0;
set local datestyle = 'ISO, YMD'; set local intervalstyle = 'postgres'; set local extra_float_digits = 1; set local bytea_output = 'hex'
