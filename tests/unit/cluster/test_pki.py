import json
import ssl
import subprocess
from base64 import b64decode
from pathlib import Path

import pytest

from tests.cluster.pki import Authority


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority.create(tmp_path_factory.mktemp("pki"))


def _text(certificate: Path) -> str:
    command = ["openssl", "x509", "-noout", "-text", "-in", str(certificate)]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def test_a_server_s_certificate_is_trusted_for_its_names_and_addresses(authority: Authority) -> None:
    server = authority.issue("server", "kube-apiserver", names=["localhost"], addresses=["127.0.0.1", "10.0.0.1"])
    for flag, value in (("-verify_hostname", "localhost"), ("-verify_ip", "10.0.0.1")):
        command = ["openssl", "verify", "-x509_strict", "-CAfile", str(authority.certificate), flag, value]
        subprocess.run([*command, str(server.certificate)], check=True, capture_output=True)


def test_a_client_s_organization_is_its_group(authority: Authority) -> None:
    client = authority.issue("node", "system:node:node-0", "system:nodes")
    assert "Subject: O = system:nodes, CN = system:node:node-0" in _text(client.certificate)
    assert "TLS Web Client Authentication" in _text(client.certificate)


def test_issuing_again_keeps_the_certificate(authority: Authority) -> None:
    first = authority.issue("kept", "kept").certificate.read_bytes()
    assert authority.issue("kept", "kept").certificate.read_bytes() == first
    assert Authority.create(authority.folder).certificate == authority.certificate


def test_a_kubeconfig_holds_all_it_needs_and_is_for_its_owner_alone(authority: Authority, tmp_path: Path) -> None:
    client = authority.issue("admin", "admin", "system:masters")
    path = authority.kubeconfig(tmp_path / "config", "https://127.0.0.1:6443", client, "test")
    config = json.loads(path.read_text())
    assert path.stat().st_mode & 0o077 == 0
    assert config["current-context"] == "test"
    assert config["clusters"][0]["cluster"]["server"] == "https://127.0.0.1:6443"
    ssl.create_default_context(
        cadata=b64decode(config["clusters"][0]["cluster"]["certificate-authority-data"]).decode()
    )
