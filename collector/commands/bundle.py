"""``livestream-collector bundle``: what somebody who helps needs to see, in one file.

The invariants: no hit, no byte of a record and no secret is in it; it is made beside a running collector and
of a damaged state folder, where a section that cannot be made says why; it never replaces a file.
"""

from __future__ import annotations

import gzip
import io
import os
import sys
import tarfile
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final, NamedTuple

import msgspec

from collector import __version__
from collector.commands.asking import ask
from collector.commands.bundle_host import host, versions
from collector.commands.bundle_state import commit_log, floor, output_folder, state_folder
from collector.commands.config import as_file
from collector.commands.status import Left, document, look
from collector.core.status import Status
from collector.credentials import load_credentials, load_privacy_key
from collector.errors import CollectorError, ConfigurationError, ExitCode
from collector.escaping import defect_in_words, printable, without_secrets
from collector.settings import Loaded, Settings
from collector.settings_values import is_loopback
from collector.storage.fs import DISK


class Collected(NamedTuple):
    """What the sections are made of."""

    loaded: Loaded
    environ: Mapping[str, str]

    @property
    def settings(self) -> Settings:
        return self.loaded.settings


class Section(NamedTuple):
    """One file of the bundle."""

    name: str
    holds: str
    make: Callable[[Collected], str]


def run(loaded: Loaded, environ: Mapping[str, str], file: Path | None) -> int:
    """Make the file and say what is in it. *Blocks* for some seconds where a collector hangs.

    *Raises*: ConfigurationError for a file that is there, or that would be among the parts; StorageError.
    """
    collected = Collected(loaded, environ)
    target = file or Path(f"livestream-bundle-{loaded.settings.stream.name}-{_now('%Y%m%dT%H%M%SZ')}.tar.gz")
    _refuse_among_parts(target, loaded.settings)
    _conceal_secrets(collected)
    made = [(section.name, *_made(section, collected)) for section in SECTIONS]
    failed = [name for name, _, well in made if not well]
    texts = [("README.txt", _readme(failed)), *((name, text) for name, text, _ in made)]
    _write(target, _packed(texts))
    said = f"{len(texts)} files, no hit and no secret; README.txt says what they are"
    sys.stdout.write(f"{printable(str(target))}: {said}.\n")
    if failed:
        sys.stdout.write(f"Could not be made, and say why: {', '.join(failed)}\n")
    return ExitCode.DONE


# ---------------------------------------------------------------- what nobody shall see


def _conceal_secrets(collected: Collected) -> None:
    """Whatever this process can know of them is masked from now on, wherever it stands."""
    environ, settings = collected.environ, collected.settings
    with suppress(CollectorError):
        load_privacy_key(environ, wanted=bool(settings.privacy.hash))
    with suppress(CollectorError):
        load_credentials(
            environ, loopback=is_loopback(settings.stream.url or ""), token_file=settings.auth.token_file
        )


def _without_records(status: Status) -> Status:
    """Rejects by their reason and length alone."""
    rejects = tuple(msgspec.structs.replace(reject, text="") for reject in status.rejects)
    return msgspec.structs.replace(status, rejects=rejects)


# ---------------------------------------------------------------- the sections


def _of(make: Callable[[Settings], str]) -> Callable[[Collected], str]:
    return lambda collected: make(collected.settings)


def _settings(collected: Collected) -> str:
    return as_file(collected.loaded, collected.environ)


def _status(collected: Collected) -> str:
    settings = collected.settings
    found = look(settings.state.folder, settings.reconnect.wait_s)
    if isinstance(found, Status):
        found = _without_records(found)
    elif isinstance(found, Left) and found.last_word is not None:
        found.last_word = _without_records(found.last_word)
    return msgspec.json.format(msgspec.json.encode(document(found))).decode()


def _events(collected: Collected) -> str:
    answer = ask(collected.settings.state.folder, "/recent-events.json")
    if answer is None:
        return "None answers, and only a running one keeps them: add its log (stderr, or `journalctl`)."
    events = msgspec.json.decode(answer)
    return "\n".join(msgspec.json.encode(event).decode() for event in events)


SECTIONS: Final[Sequence[Section]] = (
    Section("settings.toml", "as the options of this command give them; which secrets are given", _settings),
    Section("status.json", "what the collector does, or what the last one left behind", _status),
    Section("events.jsonl", "the newest log events of the running collector", _events),
    Section("commit-log.txt", "its files, entries by kind, the newest ones in brief", _of(commit_log)),
    Section("floor.txt", "when the next request may be sent, and why not before", _of(floor)),
    Section("state-folder.txt", "names, sizes, modes and owners of its files", _of(state_folder)),
    Section("output-folder.txt", "parts and bytes of each hour and day", _of(output_folder)),
    Section("versions.txt", "of the collector and what it stands on", lambda _: versions()),
    Section("host.txt", "system, cores, memory, limits, disks", _of(host)),
)


def _made(section: Section, collected: Collected) -> tuple[str, bool]:
    """Its text, and whether it is whole."""
    try:
        return _clean(section.make(collected)), True
    except (CollectorError, OSError) as error:
        return _clean(f"This could not be made: {error}"), False
    except Exception as error:  # noqa: BLE001 - one that fails shall not take the others with it
        return _clean(
            f"This could not be made, by a defect of the collector:\n{defect_in_words(error)}"
        ), False


def _clean(text: str) -> str:
    return "".join(f"{printable(without_secrets(line))}\n" for line in text.rstrip("\n").split("\n"))


def _readme(failed: Sequence[str]) -> str:
    width = max(len(section.name) for section in SECTIONS)
    lines = [
        f"Support bundle of livestream-collector {__version__}, made {_now('%Y-%m-%d %H:%M:%S UTC')}.",
        "",
        "It holds no hit, no byte of a record, and no secret. It does hold names of hosts, folders and the",
        "stream, and what the service said when it refused: look through it before you send it to others.",
        "",
        *(f"{section.name:<{width}}  {section.holds}" for section in SECTIONS),
    ]
    if failed:
        lines += ["", f"Could not be made, and say why: {', '.join(failed)}"]
    return "\n".join(lines) + "\n"


# ---------------------------------------------------------------- the file


def _refuse_among_parts(target: Path, settings: Settings) -> None:
    place = os.path.realpath(target.parent)
    for folder in (settings.output.folder, settings.state.folder):
        if Path(place).is_relative_to(os.path.realpath(folder)):
            raise ConfigurationError(
                f"{printable(str(target))} would be in {folder}, where engines take every file for data:"
                " give -o a file elsewhere"
            )


def _packed(texts: Sequence[tuple[str, str]]) -> bytes:
    """Below one folder, each file its owner's alone."""
    made_s = int(time.time())
    plain = io.BytesIO()
    with tarfile.open(fileobj=plain, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for name, text in texts:
            data = text.encode("utf-8", "backslashreplace")
            member = tarfile.TarInfo(f"livestream-bundle/{name}")
            member.size, member.mtime, member.mode = len(data), made_s, 0o600
            tar.addfile(member, io.BytesIO(data))
    return gzip.compress(plain.getvalue(), mtime=made_s)


def _write(target: Path, data: bytes) -> None:
    try:
        fd = DISK.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW)
    except FileExistsError:
        raise ConfigurationError(f"{printable(str(target))} is there already: give -o another name") from None
    except FileNotFoundError:
        raise ConfigurationError(
            f"{printable(str(target.parent))} is no folder: give -o another one"
        ) from None
    try:
        with DISK.removed_on_failure(target):
            DISK.write_all(fd, data)
            DISK.fsync(fd)
    finally:
        DISK.close(fd)


def _now(form: str) -> str:
    return time.strftime(form, time.gmtime())
