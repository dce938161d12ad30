"""Poison for real decoders: what this folder on the PYTHONPATH of a collector makes of marked records.

Runs at the start of every Python process there, before the product, which knows nothing of it. A record
that holds ``poison:EFFECT`` has that effect on whoever decodes it.
"""

from __future__ import annotations

import contextlib
import os
import resource
import signal
import sys
from importlib.machinery import PathFinder

MODULE = "collector.decoder.decode"


class Panic(BaseException):
    """As a Rust library's: nothing that ``except Exception`` catches."""


def crash():
    os.kill(os.getpid(), signal.SIGSEGV)


def panic():
    raise Panic("on purpose")


def fail():
    says = "what an exception says"
    raise ValueError(says.upper())


def hang():
    while True:
        pass


def eat():
    resource.setrlimit(resource.RLIMIT_DATA, (1 << 30, 1 << 30))
    bytearray(4 << 30)


def later():
    """A crash for all but the first process that meets it."""
    with contextlib.suppress(FileExistsError), open(os.environ["LIVESTREAM_TEST_POISON_MET"], "x") as met:
        met.write(str(os.getpid()))
    with open(os.environ["LIVESTREAM_TEST_POISON_MET"]) as met:
        if met.read() != str(os.getpid()):
            crash()


EFFECTS = {
    b"crash": crash,
    b"abort": os.abort,
    b"panic": panic,
    b"eat": eat,
    b"fail": fail,
    b"hang": hang,
    b"later": later,
}
"""In the order in which they are found in a block that holds several."""


class Finder:
    """Loads the module as it is, then puts poison into its one function."""

    @classmethod
    def find_spec(cls, name, path=None, target=None):
        if name != MODULE:
            return None
        spec = PathFinder.find_spec(name, path, target)
        load = spec.loader.exec_module

        def exec_module(module):
            load(module)
            module.BlockDecoder.decode = poisoned(module.BlockDecoder.decode)

        spec.loader.exec_module = exec_module
        return spec


def poisoned(decode):
    def decoding(decoder, payload, *arguments, **more):
        text = bytes(payload)
        for name, effect in EFFECTS.items():
            if b"poison:" + name in text:
                effect()
        return decode(decoder, payload, *arguments, **more)

    return decoding


sys.meta_path.insert(0, Finder)
