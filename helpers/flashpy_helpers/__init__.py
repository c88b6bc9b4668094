"""HELPER side of flashpy: the programs that may wait for a disk.

The spawner and the log helper are started with ``-I -S`` out of this folder, so nothing here may
need more than the standard library, and nothing here imports ``flashpy``. Only ``wire`` and
``channel`` are used by both sides.
"""
