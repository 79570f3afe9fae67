"""Certificates and kubeconfigs of a control plane, made with the openssl program.

kubeadm could write them too, but refuses a control plane on a loopback address, which the integration tests want.
"""

import json
from base64 import b64encode
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.cluster.shell import Word, run

_DAYS = "3650"
_EC = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes")


@dataclass(frozen=True)
class Certificate:
    certificate: Path
    key: Path


@dataclass(frozen=True)
class Authority:
    """A certificate authority in a folder of its own; everything it issues lies beside it."""

    folder: Path

    @property
    def certificate(self) -> Path:
        return self.folder / "ca.crt"

    @property
    def key(self) -> Path:
        return self.folder / "ca.key"

    @classmethod
    def create(cls, folder: Path) -> "Authority":
        """Make the authority's key and certificate; keeps those that are there."""
        authority = cls(folder)
        if not authority.certificate.exists():
            folder.mkdir(parents=True, exist_ok=True)
            extensions = ["basicConstraints=critical,CA:TRUE", "keyUsage=critical,digitalSignature,keyCertSign,cRLSign"]
            command: list[Word] = ["openssl", "req", "-x509", *_EC, "-days", _DAYS, "-subj", "/CN=kubernetes-ca"]
            command += [word for extension in extensions for word in ("-addext", extension)]
            run([*command, "-keyout", authority.key, "-out", authority.certificate])
        return authority

    def issue(
        self,
        name: str,
        common_name: str,
        organization: str = "",
        names: Sequence[str] = (),
        addresses: Sequence[str] = (),
    ) -> Certificate:
        """A certificate for servers and clients alike; `organization` becomes the Kubernetes group of a client."""
        issued = Certificate(self.folder / f"{name}.crt", self.folder / f"{name}.key")
        if issued.certificate.exists():
            return issued
        subject = (f"/O={organization}" if organization else "") + f"/CN={common_name}"
        request, extensions = self.folder / f"{name}.csr", self.folder / f"{name}.ext"
        lines = [
            "basicConstraints=critical,CA:FALSE",
            "keyUsage=critical,digitalSignature",
            "extendedKeyUsage=serverAuth,clientAuth",
            "subjectKeyIdentifier=hash",
            "authorityKeyIdentifier=keyid",
        ]
        if names or addresses:
            alternatives = [f"DNS:{host}" for host in names] + [f"IP:{address}" for address in addresses]
            lines.append(f"subjectAltName={','.join(alternatives)}")
        extensions.write_text("\n".join(lines) + "\n")
        run(["openssl", "req", "-new", *_EC, "-subj", subject, "-keyout", issued.key, "-out", request])
        signing: list[Word] = ["openssl", "x509", "-req", "-in", request, "-CA", self.certificate, "-CAkey", self.key]
        signing += ["-CAcreateserial", "-CAserial", self.folder / f"{name}.serial", "-days", _DAYS]
        run([*signing, "-extfile", extensions, "-out", issued.certificate])
        return issued

    def kubeconfig(self, path: Path, server: str, client: Certificate, context: str) -> Path:
        """Write a kubeconfig with everything inside it, readable by its owner alone."""

        def embedded(file: Path) -> str:
            return b64encode(file.read_bytes()).decode()

        credentials = {
            "client-certificate-data": embedded(client.certificate),
            "client-key-data": embedded(client.key),
        }
        config = {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [
                {
                    "name": context,
                    "cluster": {"server": server, "certificate-authority-data": embedded(self.certificate)},
                }
            ],
            "users": [{"name": context, "user": credentials}],
            "contexts": [{"name": context, "context": {"cluster": context, "user": context}}],
            "current-context": context,
        }
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch(mode=0o600)
        path.write_text(json.dumps(config, indent=2))  # JSON is YAML
        return path


def service_account_keys(folder: Path) -> Certificate:
    """The key pair that signs service-account tokens (`certificate` is the public key)."""
    pair = Certificate(folder / "sa.pub", folder / "sa.key")
    if not pair.certificate.exists():
        run(["openssl", "genpkey", "-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:2048", "-out", pair.key])
        run(["openssl", "pkey", "-in", pair.key, "-pubout", "-out", pair.certificate])
    return pair
