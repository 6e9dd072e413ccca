update stamper set until = 0 where holder = $1
