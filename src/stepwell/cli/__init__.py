"""The command line: thin commands over the same objects that programs use."""
