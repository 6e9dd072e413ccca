lock table run, entry, task, event, manifest, pool, output, blob, message, request, change, lane, meta in access exclusive mode nowait
