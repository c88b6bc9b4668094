"""HELPER side of flashpy: the programs that may wait for a disk.

The programs are started with ``-I -S`` out of this folder, so nothing here may need more than the
standard library, but for ``heavy`` and ``codings``: their program is given the server's folders of
libraries. Nothing here imports ``flashpy``. What both sides use is ``SHARED`` in tests/test_layers.py.
"""
