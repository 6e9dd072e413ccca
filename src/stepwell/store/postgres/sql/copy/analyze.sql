analyze run, entry, task, event, manifest, pool, output, blob, message, request, change, meta
