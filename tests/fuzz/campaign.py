"""Fuzzing for some minutes, target after target: ``scripts/fuzz``."""

from __future__ import annotations

import argparse
import hashlib
import random
import resource
import sys
import time
import traceback
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))
import kernel_engine
from fuzzing import Target, keep
from targets import TARGETS

from collector.decoder.kernel.library import absence

ROUND_EXAMPLES = 1000
MEMORY_BYTES = 8 << 30
"""An input that wants more than this fails."""


def main() -> int:
    arguments = _parser().parse_args()
    targets = [TARGETS[name] for name in arguments.target or TARGETS]
    engine = None
    if TARGETS["kernel"] in targets:
        engine = kernel_engine.start(
            arguments.minutes, arguments.seed
        )  # whose sanitizers map more than is there
        if why := absence():
            print(f"the twins are not compared: {why}")
            targets.remove(TARGETS["kernel"])
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, resource.getrlimit(resource.RLIMIT_AS)[1]))
    chance = random.Random(arguments.seed)
    ends = time.monotonic() + 60 * arguments.minutes
    print(f"seed {arguments.seed}, targets {', '.join(target.name for target in targets)}", flush=True)
    rounds, found = 0, 0
    while targets and (rounds == 0 or time.monotonic() < ends):
        rounds += 1
        for target in targets:
            found += _round(target, chance.randrange(2**32))
            if time.monotonic() >= ends:
                break
    if engine is not None:
        found += engine.finish(keep_more=arguments.keep)
    print(f"{rounds} rounds, {found} inputs failed")
    return 1 if found else 0


def _round(target: Target, seed: int) -> bool:
    try:
        target.examples(ROUND_EXAMPLES, seed=seed)
    except Exception as error:  # noqa: BLE001 - whatever it is, the input is kept
        data: bytes = getattr(error, "fuzz_input", b"")
        path = keep(target.name, f"found-{hashlib.sha256(data).hexdigest()[:12]}", data)
        traceback.print_exc()
        print(f"{target.name}, seed {seed}: kept as {path}", flush=True)
        return True
    return False


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="scripts/fuzz", description=__doc__)
    parser.add_argument("--minutes", type=float, default=5.0)
    parser.add_argument(
        "--target", action="append", choices=sorted(TARGETS), help="may be given several times"
    )
    parser.add_argument(
        "--keep", action="store_true", help="also inputs by which libFuzzer got further than by those kept"
    )
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(2**32))
    return parser


if __name__ == "__main__":
    sys.exit(main())
