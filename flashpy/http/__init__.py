"""HTTP as values: bytes in, bytes and tuples out (used by workers).

Nothing below this package imports os, socket, mmap, select or signal, so all of it is tested with
plain bytes. `status.Refusal` is the only exception that it raises for what a client sent.
"""
