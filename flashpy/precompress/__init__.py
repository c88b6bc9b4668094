"""`flashpy precompress`: make, check or remove the precompressed siblings of the files under some folders.

No part of a server: a command that ends. Its own process looks for the files and counts what came of them, forked ones
do one file at a time.
"""
