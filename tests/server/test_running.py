"""How a server is run: over TLS, and where nothing can be written."""

from __future__ import annotations

import datetime
import ipaddress
import os
import re
import ssl
import subprocess
import sys
from pathlib import Path

import cohere
import httpx
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from crossrank.cli.main import main
from serving import serve

QUERY, TEXTS = "how do I undo a commit", ["git log", "git reset --soft HEAD~1 undoes the last commit"]


@pytest.fixture
def certificate(tmp_path: Path) -> tuple[Path, Path]:
    """A self-signed certificate for 127.0.0.1, and its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "test")])
    now = datetime.datetime.now(datetime.timezone.utc)
    made = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + datetime.timedelta(hours=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False)
        .sign(key, hashes.SHA256())
    )
    files = tmp_path / "cert.pem", tmp_path / "key.pem"
    files[0].write_bytes(made.public_bytes(serialization.Encoding.PEM))
    files[1].write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    return files


def test_tls(tmp_path: Path, certificate: tuple[Path, Path]) -> None:
    cert, key = map(str, certificate)
    with serve(tmp_path / "log", "--tls-cert", cert, "--tls-key", key, wait=False) as server:
        assert server.url.startswith("https://")
        trusting = httpx.Client(verify=ssl.create_default_context(cafile=cert))
        client = cohere.ClientV2(api_key="none", base_url=server.url, httpx_client=trusting)
        assert client.rerank(model="any", query=QUERY, documents=TEXTS).results[0].index == 1
        with pytest.raises(httpx.ConnectError, match="CERTIFICATE_VERIFY_FAILED"):
            server.client.get("/health")
        with pytest.raises(httpx.RemoteProtocolError):
            httpx.get(server.url.replace("https", "http") + "/health")
        doctor = subprocess.run(
            [sys.executable, "-m", "crossrank", "doctor", server.url, "--product", "Open WebUI"],
            env={**os.environ, "SSL_CERT_FILE": cert},
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert doctor.returncode == 0, doctor.stderr


def test_certificates_that_can_not_be_used(
    tmp_path: Path, certificate: tuple[Path, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    cert, key = map(str, certificate)
    assert main(["serve", "--port", "0", "--tls-cert", cert]) == 1
    assert "tls_cert and tls_key need each other" in capsys.readouterr().err
    assert main(["serve", "--port", "0", "--tls-cert", key, "--tls-key", cert]) == 1
    assert "can't be used for TLS" in capsys.readouterr().err


@pytest.mark.namespaces
def test_it_serves_where_nothing_can_be_written(tmp_path: Path) -> None:
    # All of the disk can only be read for this process, its home and the folder for temporary files among it.
    script = 'mount -o remount,ro,bind / && ! touch "$1/file" 2>/dev/null && shift && exec "$@"'
    command = [sys.executable, "-m", "crossrank", "serve", "--port", "0"]
    with (tmp_path / "log").open("w") as log:
        process = subprocess.Popen(
            ["unshare", "--map-root-user", "--mount", "sh", "-c", script, "sh", str(tmp_path), *command],
            cwd=tmp_path,
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
        )
    try:
        assert process.stdout is not None
        found = re.search(r"http://\S+", process.stdout.readline())
        assert found, (tmp_path / "log").read_text()
        answer = httpx.post(f"{found[0]}/v1/rerank", json={"query": QUERY, "documents": TEXTS}, timeout=60)
        assert [row["index"] for row in answer.json()["results"]] == [1, 0]
    finally:
        process.terminate()
        process.wait(20)
        process.stdout.close()
