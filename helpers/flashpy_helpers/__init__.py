"""HELPER side of flashpy: the programs that may wait for a disk.

The programs are started with ``-I -S`` out of this folder, so nothing here may need more than the
standard library, but for ``heavy``, whose program is given the server's folders of libraries.
Nothing here imports ``flashpy``. Only ``wire``, ``query`` and ``channel`` are used by both sides.
"""
