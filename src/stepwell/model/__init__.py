"""The words of Stepwell as plain structs. Nothing here does I/O, and nothing here imports the rest of the package."""
