lock table run, entry, task, event, manifest, pool, output, blob, message, request, change, unstamped, lane, meta in access exclusive mode nowait
