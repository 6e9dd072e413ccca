update stamper set xid = 0, until = 0
