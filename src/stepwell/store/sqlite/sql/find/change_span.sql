select min(pos), max(pos) from change
