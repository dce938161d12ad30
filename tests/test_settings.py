"""Settings: layers, faults, rules between them, and the reference made from the table."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from collector import privacy_fields, reference
from collector.errors import ConfigurationError, ExitCode
from collector.hit_fields import HIT_FIELDS
from collector.settings import Purpose, Settings, load_settings
from collector.settings_kinds import Kind, Spec, format_value
from collector.settings_table import SPECS, environment_name
from collector.settings_values import Refusal, is_loopback, parse

URL = "https://livestream.adobe.net/api/1/stream/shop-eu"
ROOT = Path(__file__).parents[1]


def load(purpose: Purpose = Purpose.RUN, /, *, url: str | None = URL, **more) -> Settings:
    options = {"stream.url": url, "output.folder": "/data", **more.pop("options", {})}
    return load_settings(purpose, options=options, **more)


def fault(purpose: Purpose = Purpose.RUN, /, **more) -> str:
    with pytest.raises(ConfigurationError) as caught:
        load(purpose, **more)
    assert caught.value.exit_code is ExitCode.CONFIGURATION
    return str(caught.value)


def written(folder: Path, text: str) -> Path:
    path = folder / "settings.toml"
    path.write_text(text, encoding="utf-8")
    return path


def test_defaults_are_those_of_the_contract():
    """Without any layer but what is required, every setting has its documented default."""
    settings = load()
    assert settings.stream.max_connections == 1
    assert settings.reconnect.wait_s == 60
    assert settings.reconnect.on_refusal == "exit"
    assert settings.reconnect.idle_timeout_s == "auto"
    assert (settings.parts.max_age_s, settings.parts.max_bytes) == (60, 1 << 30)
    assert settings.journal.durability == "disk"
    assert (settings.journal.max_bytes, settings.journal.reserve_bytes) == (8 << 30, 1 << 30)
    assert (settings.journal.max_record_bytes, settings.journal.segment_bytes) == (16 << 20, 64 << 20)
    assert (settings.resends.window_s, settings.resends.max_ids) == (1800, 30_000_000)
    assert (settings.run.decoders, settings.run.drain_s) == (2, 10)
    assert settings.output.mode == 0o644
    assert settings.status.listen == "127.0.0.1:9464"
    assert settings.tls.ca_file is None
    assert (settings.log.format, settings.log.level) == ("console", "info")


def test_every_default_reads_back_through_its_own_parser():
    """What the reference prints as a default can be written into a file or variable."""
    for key, spec in SPECS.items():
        if spec.default is not None:
            assert parse(spec, format_value(spec.kind, spec.default)) == spec.default, key


def test_later_layers_win(tmp_path):
    """Defaults < TOML < environment < --set and flags."""
    config = written(
        tmp_path, "[run]\ndecoders = 3\ndrain_s = 3\n[parts]\nmax_age_s = 3\n[log]\nlevel = 'error'"
    )
    environ = {"LIVESTREAM_RUN__DECODERS": "4", "LIVESTREAM_PARTS__MAX_AGE_S": "4"}
    settings = load(
        config=config, environ=environ, assignments=["parts.max_age_s=5"], options={"run.decoders": "6"}
    )
    assert settings.log.level == "error"
    assert settings.run.drain_s == 3
    assert settings.parts.max_age_s == 5
    assert settings.run.decoders == 6
    assert settings.resends.window_s == 1800


def test_every_setting_can_be_given_by_its_variable():
    """LIVESTREAM_<SECTION>__<KEY> exists for every row of the table."""
    assert environment_name("journal.max_record_bytes") == "LIVESTREAM_JOURNAL__MAX_RECORD_BYTES"
    environ = {
        environment_name(key): format_value(spec.kind, spec.default)
        for key, spec in SPECS.items()
        if spec.default is not None
    }
    assert load(environ=environ) == load()


def test_empty_variables_and_foreign_ones_are_left_alone():
    """Compose files pass empty variables on; an orchestrator adds its own for a service of our name."""
    environ = {
        "LIVESTREAM_RUN__DECODERS": "",
        "LIVESTREAM_PORT_9464_TCP": "tcp://10.0.0.1:9464",
        "LIVESTREAM_SERVICE_HOST": "10.0.0.1",
        "LIVESTREAM_TOKEN": "a-secret",
        "LIVESTREAM_CLIENT_SECRET_FILE": "/run/secrets/x",
    }
    assert load(environ=environ) == load()


def test_all_faults_are_reported_at_once(tmp_path):
    """One start tells everything that is wrong: source, value, what is allowed, the nearest key."""
    config = written(
        tmp_path, "[partss]\nmax_age_s = 3\n[run]\ndecoders = 'two'\n[journal]\ndurabilty = 'disk'"
    )
    message = fault(
        config=config,
        environ={"LIVESTREAM_RUN__DRAIN_S": "-1", "LIVESTREAM_JOURNAL_MAX_BYTES": "1"},
        assignments=["output.mode=999", "nonsense"],
        options={"stream.name": "../../x", "output.folder": None},
    )
    assert f"partss.max_age_s ({config}): unknown setting; did you mean parts.max_age_s?" in message
    assert f'run.decoders ({config}): "two" cannot be used; allowed: integer, from 1 to 64' in message
    assert f"journal.durabilty ({config}): unknown setting; did you mean journal.durability?" in message
    assert 'run.drain_s (LIVESTREAM_RUN__DRAIN_S): "-1" cannot be used' in message
    assert "LIVESTREAM_JOURNAL_MAX_BYTES (environment): unknown setting; did you mean" in message
    assert "LIVESTREAM_JOURNAL__MAX_BYTES" in message
    assert 'output.mode (--set output.mode): "999" cannot be used' in message
    assert '--set "nonsense"' in message
    assert 'stream.name (--stream): "../../x" cannot be used' in message
    assert "output.folder: required: give --output" in message
    assert "9 faults" in message


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", "cannot be read"),
        ("[stream\n", "no valid TOML"),
        ("stream = 'x'\n", "stream"),
        ("[nowhere]\n", "unknown section"),
        ("[run]\ndecoders = true\n", "run.decoders"),
        ("[run]\ndecoders = 2.0\n", "run.decoders"),
        ("[run]\ndrain_s = nan\n", "run.drain_s"),
        ("[output]\nmode = 644\n", "output.mode"),
        ("[parts]\nmax_bytes = '1 QiB'\n", "parts.max_bytes"),
        ("[stream]\nallowed_hosts = ['ok.example', 'no/slash']\n", "stream.allowed_hosts"),
    ],
)
def test_a_bad_file_is_one_clear_fault(tmp_path, text, expected):
    """A file that is missing, no TOML, or of the wrong types stops the start, naming what and where."""
    config = written(tmp_path, text) if text else tmp_path / "missing.toml"
    message = fault(config=config)
    assert expected in message
    assert config.name in message
    assert "faults" not in message


@pytest.mark.parametrize(
    ("text", "size"),
    [("8 GiB", 8 << 30), ("1.5 MiB", 3 << 19), ("200_000", 200_000), ("1 GB", 10**9), ("100kB", 100_000)],
)
def test_sizes_are_integers_or_text_with_a_unit(text, size):
    """Binary and decimal units are told apart."""
    assert load(assignments=[f"parts.max_bytes={text}"]).parts.max_bytes == size


@given(st.integers(0, 1 << 60))
def test_formatted_sizes_read_back(size):
    """``format_value`` is exact for every size."""
    assert parse(Spec(Kind.SIZE, 0, ""), format_value(Kind.SIZE, size)) == size


@given(st.sampled_from(sorted(SPECS)), st.text() | st.integers() | st.floats() | st.booleans() | st.none())
def test_any_value_is_taken_or_refused(key, value):
    """No value of any type raises anything but a refusal."""
    try:
        parse(SPECS[key], value)
    except Refusal:
        return


@pytest.mark.parametrize("mode", ["0640", "640", "0o640"])
def test_file_modes_are_octal(mode):
    """However the octal is written in text."""
    assert load(environ={"LIVESTREAM_OUTPUT__MODE": mode}).output.mode == 0o640


@pytest.mark.parametrize(
    "url",
    [
        "http://127.0.0.1:80/s/x",
        "http://127.9.9.9/s/x",
        "http://[::1]:8080/s/x",
        "http://localhost/s/x",
    ],
)
def test_loopback_may_be_plain_and_fast(url):
    """http:// and a short floor are for rehearsals on this machine."""
    settings = load(url=url, assignments=["reconnect.wait_s=0.5"])
    assert is_loopback(url)
    assert settings.reconnect.wait_s == 0.5


@pytest.mark.parametrize(
    "host", ["localhost.example.com", "127.0.0.1.example.com", "10.0.0.1", "[::2]", "128.0.0.1"]
)
def test_elsewhere_plain_http_and_a_short_floor_are_refused(host):
    """Neither can be had for a host that only looks like this machine."""
    message = fault(url=f"http://{host}/s/x", assignments=["reconnect.wait_s=59.9"])
    assert "http:// would send the token in the clear" in message
    assert "reconnect.wait_s (--set reconnect.wait_s): 59.9 cannot be used" in message


def test_the_token_endpoint_must_be_encrypted_too():
    """The client secret travels there."""
    assert "auth.token_url" in fault(assignments=["auth.token_url=http://ims.example/token"])


@pytest.mark.parametrize(
    ("query", "named"),
    [
        ("maxConnections=2", ["stream.max_connections"]),
        ("reset=largest", ["livestream-collector reset VALUE"]),
        ("smoothing=1&RESET=&maxconnections", ["reset VALUE", "stream.max_connections"]),
        ("re%73et=1", ["reset VALUE"]),
    ],
)
def test_parameters_with_an_own_setting_are_refused_in_the_query(query, named):
    """The message names the command or setting that is meant for it."""
    message = fault(url=f"{URL}?{query}")
    assert all(name in message for name in named)


def test_the_rest_of_the_query_is_kept():
    """What the operator put into the address goes to the service."""
    url = f"{URL}?smoothing=1&smoothingBucketSize=60"
    assert load(url=url).stream.url == url


@pytest.mark.parametrize(
    "url",
    [
        "ftp://host/s/x",
        "https:///s/x",
        "//host/x",
        "https://host/",
        "https://host",
        "https://host/s/x/",
        "https://host/s/x#y",
        "https://host:99999/s/x",
        "https://host/s/x y",
        "https://host/s\n/x",
        "https://hö.example/s/x",
        "https://[::1/s/x",
        "https://-host/s/x",
    ],
)
def test_addresses_that_no_request_could_reach_are_refused(url):
    """An address is http(s), with a host and a last path segment, and nothing to guess."""
    assert "stream.url (--url)" in fault(url=url)


def test_a_password_in_the_address_is_refused_and_not_shown():
    """Secrets stay out of messages."""
    message = fault(url="https://user:hunter2@host/s/x")
    assert "user name or password" in message
    assert "hunter2" not in message


@pytest.mark.parametrize(
    ("key", "variable"),
    [
        ("auth.token", "LIVESTREAM_TOKEN"),
        ("stream.client_id", "LIVESTREAM_CLIENT_ID"),
        ("auth.client_secret", "LIVESTREAM_CLIENT_SECRET"),
        ("auth.Api_Key", "LIVESTREAM_CLIENT_ID"),
    ],
)
def test_secrets_in_settings_are_refused(tmp_path, key, variable):
    """In a file, an assignment or a settings variable: the right variable is named, no value shown."""
    section, name = key.split(".")
    config = written(tmp_path, f"[{section}]\n{name} = 'canary-7f3a'")
    for more in (
        {"config": config},
        {"assignments": [f"{key}=canary-7f3a"]},
        {"environ": {f"LIVESTREAM_{section}__{name}".upper(): "canary-7f3a"}},
    ):
        message = fault(**more)
        assert re.search(rf"\b{variable}\b", message)
        assert "canary" not in message


def test_a_token_in_the_wrong_place_is_not_shown():
    """A value that looks like one is not repeated in the message."""
    assert "eyJhbGci" not in fault(assignments=["log.level=eyJhbGciOiJSUzI1NiJ9"])


def test_foreign_text_in_faults_is_escaped():
    """A message cannot steer the terminal it is shown on."""
    message = fault(assignments=["\x1b[2Jkey.x=1", "log.level=\x1b[31m\r\n"])
    assert "\x1b" not in message
    assert "\r" not in message


def test_the_name_is_the_last_path_segment():
    """NAME, state folder and allowed hosts follow from the address."""
    settings = load()
    assert settings.stream.name == "shop-eu"
    assert settings.state.folder == Path("/data/.state/shop-eu")
    assert settings.stream.allowed_hosts == ("livestream.adobe.net", "adobe.net", "adobe.com")


@pytest.mark.parametrize("segment", ["a.b", "x" * 65, "a%20b", ".."])
def test_a_segment_that_is_no_name_needs_one(segment):
    """It becomes a folder's name, so it is never used as it is."""
    url = f"https://host/s/{segment}"
    assert "give --stream NAME" in fault(url=url)
    assert load(url=url, options={"stream.name": "mine"}).state.folder == Path("/data/.state/mine")


def test_the_name_is_else_the_only_stream_of_the_output(tmp_path):
    """Saved files' state folders do not count, several streams are named."""
    state = tmp_path / ".state"
    options = {"output.folder": str(tmp_path)}
    assert "no stream" in fault(Purpose.STATE, url=None, options=options)
    (state / "one").mkdir(parents=True)
    (state / "files.files").mkdir()
    assert load(Purpose.STATE, url=None, options=options).state.folder == state / "one"
    (state / "two").mkdir()
    assert "2 streams: one, two" in fault(Purpose.STATE, url=None, options=options)
    options["state.folder"] = str(state / "two")
    assert load(Purpose.STATE, url=None, options=options).state.folder == state / "two"


def test_decode_has_defaults_of_its_own():
    """NAME `files`, state `DIR/.state/NAME.files`, a smaller journal in memory; each can be overridden."""
    settings = load(Purpose.DECODE, url=None)
    assert settings.stream.name == "files"
    assert settings.stream.url == ""
    assert settings.state.folder == Path("/data/.state/files.files")
    assert (settings.journal.durability, settings.journal.max_bytes) == ("memory", 2 << 30)
    assert (
        load(Purpose.DECODE, url=None, assignments=["journal.durability=disk"]).journal.durability == "disk"
    )
    named = load(Purpose.DECODE, url=None, options={"stream.name": "may"})
    assert named.state.folder == Path("/data/.state/may.files")


def test_relative_paths_are_made_absolute(tmp_path, monkeypatch):
    """Children may run in another folder."""
    monkeypatch.chdir(tmp_path)
    settings = load(options={"output.folder": "out/../here"})
    assert settings.output.folder == tmp_path / "here"


@pytest.mark.parametrize(
    ("state", "named"),
    [("/data/state", "begins with a dot"), ("/data", "must not be in"), ("/", "must not be in")],
)
def test_state_is_never_visible_among_the_output(state, named):
    """Engines read every file below the output folder but those below a dot name."""
    assert named in fault(options={"state.folder": state})
    assert load(options={"state.folder": "/elsewhere"}).state.folder == Path("/elsewhere")


def test_the_journal_holds_what_it_must():
    """A journal that could never take the largest record would stand still for ever."""
    small = ["journal.segment_bytes=1 MiB", "journal.max_record_bytes=1 MiB"]
    assert load(assignments=[*small, "journal.max_bytes=3 MiB"]).journal.max_bytes == 3 << 20
    assert "at least 3 MiB" in fault(assignments=[*small, "journal.max_bytes=2 MiB"])
    assert "multiple of 4096" in fault(assignments=["journal.segment_bytes=100001"])


@pytest.mark.parametrize("kind", ["hits", "rejects", "connections"])
def test_parts_outlive_the_window_of_resends(kind):
    """A limit below it, with a batch on top, is refused with the least that makes sense. By default: none."""
    key = f"retention.{kind}_max_age_days"
    long = ["resends.window_s=604800", "parts.max_age_s=86400"]
    assert "at least 8 with resends.window_s = 604800" in fault(assignments=[*long, f"{key}=7.9"])
    assert getattr(load(assignments=[*long, f"{key}=8"]).retention, f"{kind}_max_age_days") == 8
    assert getattr(load(assignments=long).retention, f"{kind}_max_age_days") is None


def test_a_limit_in_bytes_has_room_for_a_batch():
    """Of hits; others are small."""
    assert "at least 1 GiB" in fault(assignments=["retention.hits_max_bytes=1000 MiB"])
    assert load(assignments=["retention.rejects_max_bytes=1 MiB"]).retention.rejects_max_bytes == 1 << 20


@pytest.mark.parametrize(
    ("listen", "good"),
    [
        ("0.0.0.0:0", True),
        ("[::1]:9464", True),
        ("off", True),
        ("9464", False),
        ("host:70000", False),
        ("::1:80", False),
    ],
)
def test_listening_addresses(listen, good):
    """host:port, an IPv6 host in brackets, or off."""
    if good:
        assert load(assignments=[f"status.listen={listen}"]).status.listen == listen
    else:
        assert "status.listen" in fault(assignments=[f"status.listen={listen}"])


@pytest.mark.parametrize("name", [name for name, _ in reference.pages()])
def test_generated_pages_are_current(name):
    """docs/ is what the tables say: ``python -m collector.reference docs`` writes it."""
    assert (ROOT / "docs" / name).read_text(encoding="utf-8") == dict(reference.pages())[name]


def test_settings_do_not_come_from_the_process_environment():
    """Only what is passed counts, so that tests and the demo are what they say."""
    assert "LIVESTREAM_RUN__DECODERS" not in os.environ
    os.environ["LIVESTREAM_RUN__DECODERS"] = "7"
    try:
        assert load().run.decoders == 2
    finally:
        del os.environ["LIVESTREAM_RUN__DECODERS"]


# ---------------------------------------------------------------- privacy


def hidden(folder: Path, text: str) -> Settings:
    return load(config=written(folder, f"[privacy]\n{text}"))


def test_fields_to_hide_are_lists_of_names(tmp_path):
    """As a list in a file, or with commas in a variable or flag; nothing is hidden by default."""
    assert not load().privacy.hides
    privacy = hidden(tmp_path, 'drop = ["ip", "evars.evar5", "ip"]\nhash = ["userAgent"]').privacy
    assert (privacy.drop, privacy.hash, privacy.hides) == (("ip", "evars.evar5"), ("userAgent",), True)
    given = load(environ={"LIVESTREAM_PRIVACY__DROP": "ip, zip"}, assignments=["privacy.hash=props.prop1"])
    assert (given.privacy.drop, given.privacy.hash) == (("ip", "zip"), ("props.prop1",))
    assert not hidden(tmp_path, "drop = []\nhash = []").privacy.hides


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('drop = ["IP"]', "IP is no field of a hit; did you mean ip?"),
        ('drop = ["evar5"]', "did you mean evars.evar5?"),
        ('hash = ["useragent"]', "did you mean userAgent?"),
        ('drop = ["evars.evar251"]', "evars has no entry evar251"),
        ('drop = ["evars.eVar12"]', "did you mean evars.evar12?"),
        ('drop = ["ip.x"]', "ip has no entries that can be named"),
        ('drop = ["products.name"]', "products has no entries"),
        ('drop = ["mvvars.a b"]', "the key a b is not of the form"),
        ('drop = ["hitIdHigh"]', "resends are known by it"),
        ('drop = ["receivedTimeGMT"]', "parts are filed by it"),
        ('hash = ["geoDMA"]', "geoDMA is no string column"),
        ('hash = ["evars"]', "name its entries, such as evars.campaign"),
        ('hash = ["events.event1"]', "the entries of events are no strings"),
        ('hash = ["visIdHigh"]', "drop it instead"),
        ('drop = ["nonsense_"]', "docs/schema.md"),
        ("drop = [5]", "allowed: list of fields"),
        ("drop = true", "allowed: list of fields"),
        ('drop = ["ip"]\nhash = ["ip"]', "ip is in privacy.drop as well: keep one"),
        ('drop = ["evars"]\nhash = ["evars.evar5"]', "evars.evar5 is in privacy.drop as well"),
        (
            'key = "0123456789abcdef0123456789abcdef"',
            "set LIVESTREAM_PRIVACY_KEY or LIVESTREAM_PRIVACY_KEY_FILE",
        ),
    ],
)
def test_what_cannot_be_hidden_is_refused_with_what_can(tmp_path, text, said):
    """A slip of the hand would hide nothing, so the start is refused; the key is never shown."""
    found = fault(config=written(tmp_path, f"[privacy]\n{text}"))
    assert said in found
    assert "0123456789abcdef" not in found


def test_every_fault_of_a_list_is_said_at_once(tmp_path):
    """Also those in several names of one list."""
    found = fault(config=written(tmp_path, '[privacy]\ndrop = ["IP", "hitIdLow", "zap"]'))
    assert "did you mean ip?" in found
    assert "hitIdLow cannot be hidden" in found
    assert "zap is no field" in found


@pytest.mark.parametrize("field", [field.name for field in HIT_FIELDS])
def test_every_field_can_be_dropped_but_for_three(field):
    """Those that the collector's promises rest on."""
    needed = {"hitIdHigh", "hitIdLow", "receivedTimeGMT"}
    assert bool(privacy_fields.fault(field, hashed=False)) == (field in needed)


@pytest.mark.parametrize(
    "url", ["s3://bucket", "s3://bucket/a/b/", "gs://b/p", "az://container/p", "file:///mnt/lake"]
)
def test_stores_are_named_by_their_scheme(url):
    """A slash at the end means nothing."""
    assert load(assignments=[f"ship.url={url}"]).ship.url == url.rstrip("/")


@pytest.mark.parametrize(
    ("given", "why"),
    [
        ("ship.url=https://bucket/x", "allowed: s3://"),
        ("ship.url=s3:///x", "it names no bucket"),
        ("ship.url=file://mnt/lake", "write three slashes"),
        ("ship.url=s3://key:secret@bucket/x", "must not hold a user name"),
        ("ship.url=s3://bucket/../x", "must not lead upwards"),
        ("ship.url=s3://bucket/x?versions=1", "must have no query"),
        ("ship.url=file:///data/lake", "must not lie in each other"),
        ("ship.url=file:///", "write three slashes"),
        ("ship.keep_local_s=never", "ship.keep_local_s"),
        ("table.name=hits", "namespace.table"),
        ("table.name=a.b-c", "namespace.table"),
        ("table.format=hudi", "off, iceberg, delta"),
    ],
)
def test_stores_and_tables_that_cannot_be(given, why):
    assert why in fault(assignments=[given])


@pytest.mark.parametrize("given", ["ship.endpoint=https://x.example", "ship.region=eu-west-1"])
def test_what_is_of_s3_alone_is_refused_for_other_stores(given):
    """It would be ignored."""
    assert "stores that speak S3" in fault(assignments=["ship.url=gs://b/p", given])


@pytest.mark.parametrize("given", ["table.name=web.hits", "table.catalog=prod"])
@pytest.mark.parametrize("kind", ["off", "delta"])
def test_what_is_of_iceberg_alone_is_refused_for_other_tables(given, kind):
    """It would be ignored."""
    found = fault(assignments=[given, f"table.format={kind}"])
    assert found.endswith(
        'it means nothing without table.format = "iceberg": give table.format = "iceberg" as '
        "well, or take it out"
    )
    table = load(assignments=[given, "table.format=iceberg"]).table
    assert given.partition("=")[2] in (table.name, table.catalog)


def test_a_stores_own_address_is_encrypted():
    """Plain http:// is for rehearsals on this machine."""
    assert "send hits in the clear" in fault(
        assignments=["ship.url=s3://b/p", "ship.endpoint=http://x.example"]
    )
    assert load(assignments=["ship.url=s3://b/p", "ship.endpoint=http://127.0.0.1:9000"]).ship.endpoint


@pytest.mark.parametrize(
    ("given", "shown", "value"),
    [
        ("ship.keep_local_s=86400", "86400.0", 86400),
        ("ship.uploads=8", "8", 8),
        ("ship.endpoint=https://x.example", '"https://x.example"', "https://x.example"),
        ("ship.region=eu-west-1", '"eu-west-1"', "eu-west-1"),
    ],
)
def test_what_says_how_to_ship_needs_a_store(given, shown, value):
    """Else nobody would be told that it is ignored. Where the store itself is wrong, that alone is said."""
    key = given.partition("=")[0]
    found = fault(assignments=[given])
    assert found.startswith(f"cannot start: {key} (--set {key}): {shown} cannot be used: ")
    assert found.endswith("give ship.url as well, or take it out")
    assert fault(assignments=[given, "table.format=delta"]) == found, "a table alone ships nothing"
    assert fault(assignments=[given, "ship.url=s3:///x"]) == fault(assignments=["ship.url=s3:///x"])
    ship = load(assignments=[given, "ship.url=s3://bucket/x"]).ship
    assert getattr(ship, key.partition(".")[2]) == value


def test_the_defaults_of_shipping_may_be_written_down():
    """`config show` does, and they are true without a store or a table."""
    ship = load(assignments=["ship.keep_local_s=always", "ship.uploads=4", "table.name=livestream.hits"]).ship
    assert (ship.url, ship.keep_local_s, ship.uploads) == (None, "always", 4)
