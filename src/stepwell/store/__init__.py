"""Where rows live. A store loads by key, finds by index, flushes a unit of work, lists and migrates: nothing else."""
