"""flashpy: a web server for static files, after Flash.

It is AMPED (asymmetric multi-process event-driven): one event-driven process a core answers from
memory, and helper processes do whatever can wait for a disk. DESIGN.md explains the whole and names
the files in reading order.
"""

__version__ = "0.1.0"
