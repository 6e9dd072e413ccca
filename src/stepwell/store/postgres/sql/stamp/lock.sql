select xid from stamper for update
