"""The tests; a regular package, so that no other package of this name stands before it."""
