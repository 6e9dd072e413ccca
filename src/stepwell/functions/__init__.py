"""Functions as objects: their paths, signatures, values and errors. Nothing here knows how they are run."""
