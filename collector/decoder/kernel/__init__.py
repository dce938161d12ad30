"""The compiled kernel: lines to columns in one pass, where a compiler was at hand when this was installed.

``kernel.cpp`` explains it; ``library`` loads it; ``build`` compiles it; ``rows`` is the decoder's use of it.
"""
