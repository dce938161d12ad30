"""The example for Kubernetes: its parts fit one another, the image and the collector."""

from __future__ import annotations

import os
import stat
import subprocess
import sys

import pytest
import yaml
from dockerfile import ROOT, stages

from collector.coordinator.notify import DRAIN_MARGIN_S
from collector.credentials import given_secrets
from collector.settings import Purpose, load_settings

OBJECTS = {
    at["kind"]: at
    for at in yaml.safe_load_all((ROOT / "docs" / "deployment" / "kubernetes.yaml").read_text())
}
SET = OBJECTS["StatefulSet"]["spec"]
POD = SET["template"]["spec"]
(CONTAINER,) = POD["containers"]
VOLUMES = {volume["name"]: volume for volume in POD["volumes"]}
MOUNTS = {mount["name"]: mount["mountPath"] for mount in CONTAINER["volumeMounts"]}


@pytest.fixture
def settings(tmp_path):
    """As the collector takes them from the mounted file."""
    path = tmp_path / "settings.toml"
    path.write_text(OBJECTS["ConfigMap"]["data"]["settings.toml"])
    return load_settings(Purpose.RUN, config=path, environ={})


def test_one_pod_at_a_time():
    """Two would be two clients of one stream. A StatefulSet waits until the last pod is gone."""
    assert SET["replicas"] == 1
    assert set(OBJECTS) == {"ConfigMap", "Service", "StatefulSet"}


def test_selectors_find_what_they_are_for():
    """Service and StatefulSet the pod, the StatefulSet its service, the pod its settings."""
    labels = SET["template"]["metadata"]["labels"]
    assert SET["selector"]["matchLabels"] == OBJECTS["Service"]["spec"]["selector"] == labels
    assert SET["serviceName"] == OBJECTS["Service"]["metadata"]["name"]
    assert VOLUMES["settings"]["configMap"]["name"] == OBJECTS["ConfigMap"]["metadata"]["name"]


def test_every_mount_has_its_volume():
    """And every volume is used."""
    claims = {claim["metadata"]["name"] for claim in SET["volumeClaimTemplates"]}
    assert set(MOUNTS) == set(VOLUMES) | claims


def test_shut_in():
    """As the restricted profile of the pod security standards asks for, and read-only on top."""
    pod, container = POD["securityContext"], CONTAINER["securityContext"]
    assert container == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert pod["runAsNonRoot"]
    assert pod["seccompProfile"] == {"type": "RuntimeDefault"}
    assert not POD["automountServiceAccountToken"]
    assert not POD["enableServiceLinks"]
    user, group = stages()[-1].last("USER").split(":")
    assert (pod["runAsUser"], pod["runAsGroup"], pod["fsGroup"]) == (int(user), int(group), int(group))


def test_a_drain_has_the_time_it_needs(settings):
    """Before the kubelet kills it."""
    assert POD["terminationGracePeriodSeconds"] >= settings.run.drain_s + DRAIN_MARGIN_S


def test_everything_is_written_to_the_volume(settings):
    """Output and state both, so that a part becomes visible by a rename."""
    data = MOUNTS["data"]
    assert str(settings.output.folder).startswith(f"{data}/")
    assert str(settings.state.folder).startswith(f"{data}/")
    assert CONTAINER["args"] == ["run", "--config", f"{MOUNTS['settings']}/settings.toml"]
    assert list(OBJECTS["ConfigMap"]["data"]) == ["settings.toml"]


def test_probes_ask_the_page_that_listens(settings):
    """On an address that the kubelet reaches. Only /healthz may end the pod: a refusal is waited out."""
    host, _, port = settings.status.listen.rpartition(":")
    assert host == "0.0.0.0"
    assert {at["containerPort"] for at in CONTAINER["ports"]} == {int(port)}
    paths = {name: CONTAINER[name]["httpGet"]["path"] for name in CONTAINER if name.endswith("Probe")}
    assert paths == {"startupProbe": "/healthz", "livenessProbe": "/healthz", "readinessProbe": "/readyz"}


def test_secrets_are_files_of_known_names():
    """Never in the environment, where every child could read them."""
    named = {entry["name"]: entry["value"] for entry in CONTAINER["env"]}
    assert set(named) <= {f"{secret}_FILE" for secret in given_secrets({})}
    assert {os.path.dirname(path) for path in named.values()} == {MOUNTS["secrets"]}


READ_AS = """
import os, sys
from collector.credentials import read_secret_file
path, user, group = sys.argv[1:]
os.setgroups([])
os.setgid(int(group))
os.setuid(int(user))
print(read_secret_file(path))
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="only root makes files of root's")
def test_the_collector_takes_secrets_as_the_kubelet_mounts_them(tmp_path):
    """Root's, in the group of fsGroup, with defaultMode, behind two symbolic links."""
    user, group = POD["securityContext"]["runAsUser"], POD["securityContext"]["fsGroup"]
    folder = tmp_path / "..2026_11_28"
    folder.mkdir()
    secret = folder / "client-id"
    secret.write_text("an-id\n")
    os.chown(secret, 0, group)
    secret.chmod(VOLUMES["secrets"]["secret"]["defaultMode"])
    assert stat.S_IMODE(secret.stat().st_mode) == 0o440
    (tmp_path / "..data").symlink_to(folder.name)
    (tmp_path / "client-id").symlink_to("..data/client-id")
    tmp_path.chmod(0o755)
    arguments = ["client-id", str(user), str(group)]
    command = [sys.executable, "-c", READ_AS, *arguments]
    environment = {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        command, cwd=tmp_path, env=environment, stdout=subprocess.PIPE, text=True, check=True
    )
    assert done.stdout == "an-id\n"
