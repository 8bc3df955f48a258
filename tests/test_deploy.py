"""deploy/: the chart rendered by Helm itself, the compose file, and the Dockerfile, against the server's own settings.

`make check` lints them with hadolint and yamllint; scripts/dockerfile_steps.py runs the Dockerfile's steps.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from crossrank.server.app import GET_PATHS
from crossrank.server.settings import Settings

DEPLOY = Path(__file__).parents[1] / "deploy"
VARIABLES = {f"CROSSRANK_{name.upper()}" for name in Settings.model_fields}


def rendered(values: dict[str, Any] | None = None, name: str = "demo") -> dict[str, Any]:
    """The chart's manifests by kind. Helm's library has no wheel for some systems; there these tests are left out."""
    helm = pytest.importorskip("helm_python")
    with helm.Chart.load(str(DEPLOY / "chart")) as chart:
        found = chart.render(values or {}, name=name, namespace="search")
    manifests = [yaml.safe_load(text) for path, text in found.items() if path.endswith(".yaml") and text.strip()]
    return {one["kind"]: one for one in manifests}


def container(manifests: dict[str, Any]) -> dict[str, Any]:
    (one,) = manifests["Deployment"]["spec"]["template"]["spec"]["containers"]
    return dict(one)


def test_helm_finds_nothing_wrong() -> None:
    helm = pytest.importorskip("helm_python")
    found = helm.lint(str(DEPLOY / "chart"))
    assert found["errors"] == []
    assert [message["error"] for message in found["messages"]] == ["icon is recommended"]


def test_the_service_finds_the_pods_and_their_port() -> None:
    manifests = rendered()
    assert set(manifests) == {"Deployment", "Service", "PodDisruptionBudget"}
    labels = manifests["Deployment"]["spec"]["template"]["metadata"]["labels"]
    for selector in (
        manifests["Service"]["spec"]["selector"],
        manifests["Deployment"]["spec"]["selector"]["matchLabels"],
        manifests["PodDisruptionBudget"]["spec"]["selector"]["matchLabels"],
    ):
        assert selector.items() <= labels.items()
    (port,) = container(manifests)["ports"]
    assert manifests["Service"]["spec"]["ports"][0]["targetPort"] == port["name"]
    assert port["containerPort"] == Settings.model_fields["port"].default


def test_probes_ask_paths_that_the_server_has() -> None:
    one = container(rendered())
    asked = {probe: one[probe]["httpGet"]["path"] for probe in ("startupProbe", "readinessProbe", "livenessProbe")}
    assert asked == {"startupProbe": "/ready", "readinessProbe": "/ready", "livenessProbe": "/health"}
    assert set(asked.values()) <= set(GET_PATHS)


def test_pods_are_not_root_cannot_write_and_stop_gracefully() -> None:
    manifests = rendered({"graceSeconds": 50})
    pod, one = manifests["Deployment"]["spec"]["template"]["spec"], container(manifests)
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert one["securityContext"]["readOnlyRootFilesystem"] is True
    assert {"name": "CROSSRANK_GRACE_SECONDS", "value": "50"} in one["env"]
    assert pod["terminationGracePeriodSeconds"] > 50 + 5
    # Kubernetes would set CROSSRANK_PORT=tcp://... for a service of this name, and the server reads that variable.
    named = rendered(name="crossrank")
    assert named["Service"]["metadata"]["name"] == "crossrank"
    assert named["Deployment"]["spec"]["template"]["spec"]["enableServiceLinks"] is False


def test_settings_become_variables_that_the_server_reads(monkeypatch: pytest.MonkeyPatch) -> None:
    from crossrank.server.settings import read_settings

    settings = {"timeout_ms": 3_000_000, "models": "bundled,mini=registry:live", "strict_models": True}
    manifests = rendered({"settings": settings, "keysSecret": "keys"})
    environment = {one["name"]: one["value"] for one in container(manifests)["env"]}
    assert set(environment) <= VARIABLES
    for name, value in environment.items():
        if name != "CROSSRANK_KEYS_FILE":
            monkeypatch.setenv(name, value)
    read, _ = read_settings({})
    assert (read.timeout_ms, read.strict_models) == (3_000_000, True)
    assert read.models == {"bundled": "bundled", "mini": "registry:live"}
    mounts = {mount["name"]: mount["mountPath"] for mount in container(manifests)["volumeMounts"]}
    assert environment["CROSSRANK_KEYS_FILE"].startswith(mounts["keys"] + "/")


def test_autoscaling_takes_the_number_of_pods_over() -> None:
    manifests = rendered({"autoscaling": {"enabled": True, "maxReplicas": 5}})
    assert "replicas" not in manifests["Deployment"]["spec"]
    scaler = manifests["HorizontalPodAutoscaler"]["spec"]
    assert scaler["scaleTargetRef"]["name"] == manifests["Deployment"]["metadata"]["name"]
    assert (scaler["minReplicas"], scaler["maxReplicas"]) == (2, 5)


def test_compose_builds_the_dockerfile_and_sets_known_settings() -> None:
    (service,) = yaml.safe_load((DEPLOY / "compose.yaml").read_text())["services"].values()
    context = (DEPLOY / service["build"]["context"]).resolve()
    assert (context / service["build"]["dockerfile"]).is_file()
    assert set(service["environment"]) <= VARIABLES
    assert service["read_only"] is True
    assert service["ports"] == ["127.0.0.1:7997:7997"]
    assert int(service["stop_grace_period"].rstrip("s")) > Settings.model_fields["grace_seconds"].default


def test_dockerfile_ends_as_a_user_without_rights_and_checks_health() -> None:
    text = (DEPLOY / "Dockerfile").read_text()
    last = text[text.rindex("\nFROM ") :]
    assert re.search(r"^USER (\d+):\1$", last, re.MULTILINE)
    assert set(re.findall(r"(CROSSRANK_\w+)=", last)) <= VARIABLES
    command = json.loads(last[last.index("CMD ") + 4 :].splitlines()[0])
    assert "/ready" in command[-1]
    compile(command[-1], "HEALTHCHECK", "exec")
    assert "/ready" in GET_PATHS
    copied = re.findall(r"^COPY (?!--from)(.+)$", text, re.MULTILINE)
    sources = {source for line in copied for source in line.split()[:-1]}
    kept = (DEPLOY / "Dockerfile.dockerignore").read_text().splitlines()
    assert {f"!{source}" for source in sources} == {line for line in kept if line.startswith("!")}
