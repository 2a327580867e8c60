"""The recipes: one file each, named on the command line by its path or, without `.py`, by its name alone."""
