"""Settings from a file, from the environment and from ``--set``: complete and consistent, or refused."""

from __future__ import annotations

import dataclasses
import math

from fuzzing import Target, bent, folder
from hypothesis import strategies as st

from collector.errors import ConfigurationError
from collector.settings import Purpose, load_settings
from collector.settings_table import SPECS, environment_name

DOCUMENT = b"""[stream]
url = "https://livestream.adobe.net/api/1/stream/web"
name = "web"
max_connections = 2
allowed_hosts = ["adobe.net", "127.0.0.1", "[::1]"]
[auth]
token_url = "https://ims-na1.adobelogin.com/ims/token/v3"
scope = "openid"
[reconnect]
wait_s = 60.5
on_refusal = "retry"
idle_timeout_s = "auto"
[parts]
max_age_s = 1e2
max_bytes = "1.5 GiB"
[journal]
durability = "memory"
max_bytes = 0x200000000
max_record_bytes = 1_048_576
segment_bytes = "64 MiB"
[resends]
window_s = 1800
[run]
decoders = 3
[output]
folder = "/tmp/output"
mode = "0640"
[state]
folder = "~/.state/web"
[status]
listen = "[::1]:9464"
[tls]
ca_file = "/etc/ssl/ca.pem"
[log]
level = "debug"
"""
ENVIRONMENT = b"""LIVESTREAM_STREAM__URL=http://localhost:8080/web?x=1
LIVESTREAM_OUTPUT__FOLDER=/tmp/output
LIVESTREAM_STREAM__ALLOWED_HOSTS=adobe.net,example.com
LIVESTREAM_OUTPUT__MODE=0o600
LIVESTREAM_TOKEN=eyJ.x.y
LIVESTREAM_SERVICE_PORT=80
LIVESTREAM_JURNAL__MAX_BYTES=8 GiB"""
ASSIGNMENTS = b"stream.url=https://adobe.net/web\noutput.folder=/tmp/o\nrun.decoders=4\njournal.max_bytes=9e9\nrun.drain_s=nan"

VALUES = st.sampled_from(
    [
        "9" * 5000,
        "1" * 400 + ".5",
        "-1",
        "1e400",
        "nan",
        "inf",
        "0x" + "f" * 6000,
        "[" * 3000,
        '"' + "a/" * 3000 + '"',
        '"\\u0000"',
        '"\\n"',
        "{a={b=1}}",
        "[[1]]",
        "1979-05-27T07:32:00Z",
        '"http://[::1"',
        '"http://a:99999/x"',
        "''",
        '"~nobody/x"',
        '"9 ZiB"',
        '"999999999999999999999999.5 TiB"',
        '"\\ud800"',
        "true",
        '"https://user:pw@a.b/x"',
    ]
)
KEYS = st.sampled_from(sorted(SPECS))


@st.composite
def documents(draw: st.DrawFn) -> bytes:
    """One assignment a line, of hostile values; as TOML they are dotted keys."""
    lines = draw(st.lists(st.tuples(KEYS, VALUES | st.text(max_size=20)), max_size=4))
    return "\n".join(f"{key} = {value}" for key, value in lines).encode("utf-8", "replace")


def judge_toml(data: bytes) -> None:
    with folder() as root:
        path = root / "settings.toml"
        path.write_bytes(data)
        _judge(config=path)


def judge_environment(data: bytes) -> None:
    lines = data.decode("utf-8", "surrogateescape").replace("\0", "").split("\n")
    pairs = (line.partition("=") for line in lines)
    _judge(environ={name: value for name, _, value in pairs if name})


def judge_assignments(data: bytes) -> None:
    text = data.decode("utf-8", "surrogateescape").replace("\0", "")
    _judge(assignments=[line.replace(" = ", "=") for line in text.split("\n")])


def _judge(**layers) -> None:
    for purpose in Purpose:
        try:
            settings = load_settings(purpose, **layers)
        except ConfigurationError as error:
            text = str(error)
            assert all(line.isprintable() for line in text.split("\n")), "foreign text is escaped"
            assert len(text) < 100_000
            continue
        _check(settings)


def _check(settings) -> None:
    """Every number is within its bounds."""
    for key, spec in SPECS.items():
        section, name = key.split(".")
        value = getattr(getattr(settings, section), name)
        if spec.minimum is not None and isinstance(value, int | float):
            assert math.isfinite(value)
            assert spec.minimum <= value <= (spec.maximum if spec.maximum is not None else math.inf)
    assert dataclasses.is_dataclass(settings)


def environment_lines(text: bytes) -> bytes:
    lines = [line.partition(b" = ") for line in text.split(b"\n")]
    return b"\n".join(
        (environment_name(key.decode()).encode() if key.decode("utf-8", "replace") in SPECS else key)
        + b"="
        + value
        for key, _, value in lines
    )


TOMLS = {"all": DOCUMENT, "empty": b"", "arrays": b"[[stream]]\nurl = 1\n", "top": b"url = 1\n"}
TARGETS = [
    Target("settings-toml", judge_toml, TOMLS, bent(list(TOMLS.values())) | documents(), everyday=240),
    Target(
        "settings-environment",
        judge_environment,
        {"all": ENVIRONMENT},
        bent([ENVIRONMENT]) | documents().map(environment_lines),
        everyday=160,
    ),
    Target(
        "settings-assignments",
        judge_assignments,
        {"all": ASSIGNMENTS},
        bent([ASSIGNMENTS]) | documents(),
        everyday=160,
    ),
]
