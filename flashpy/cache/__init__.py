"""The caches of a worker: memory and bookkeeping only, no sockets, no HTTP, no files."""
