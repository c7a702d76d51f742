"""In a pod, the API is reached by the service account: its CA, and its token, which changes."""

from __future__ import annotations

import datetime
import ipaddress
import ssl
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from kubernetes_asyncio.config import incluster_config

from controller.actuators.kubernetes.errors import KubernetesError
from controller.actuators.kubernetes.workload import KubernetesWorkload
from model_registry.pools import KubernetesActuator
from tests.controller.actuators.kubernetes.cluster import NAMESPACE, TOKEN, Cluster
from tests.controller.actuators.kubernetes.conftest import CHAT, leads


def certified(folder: Path) -> ssl.SSLContext:
    """A server's context, and its own CA in `folder`, as pods find it there."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "kubernetes")])
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(
            x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), False
        )
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), True)
        .sign(key, hashes.SHA256())
    )
    (folder / "ca.crt").write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    encoding, form = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8
    (folder / "key.pem").write_bytes(key.private_bytes(encoding, form, serialization.NoEncryption()))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "ca.crt", folder / "key.pem")
    return context


@pytest.fixture
def account(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of a pod's service account."""
    (tmp_path / "token").write_text(TOKEN)
    monkeypatch.setattr(incluster_config, "SERVICE_TOKEN_FILENAME", str(tmp_path / "token"))
    monkeypatch.setattr(incluster_config, "SERVICE_CERT_FILENAME", str(tmp_path / "ca.crt"))
    return tmp_path


def reach(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> KubernetesWorkload:
    host, _, port = cluster.url.removeprefix("https://").partition(":")
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", host)
    monkeypatch.setenv("KUBERNETES_SERVICE_PORT", port)
    return KubernetesWorkload(KubernetesActuator(type="kubernetes", namespace=NAMESPACE), leads)


async def test_by_the_pods_own_account(account: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with Cluster().running(certified(account)) as cluster:
        workload = reach(cluster, monkeypatch)
        await workload.scale(CHAT, 2, ())
        await cluster.settle()
        await cluster.ready()
        await workload.close()
        assert cluster.replicas == 2
        (account / "token").write_text("expired")
        workload = reach(cluster, monkeypatch)
        with pytest.raises(KubernetesError, match="service account"):
            await workload.scale(CHAT, 3, ())
        (account / "token").write_text(TOKEN)
        await workload.scale(CHAT, 3, ())
        assert cluster.replicas == 3
        await workload.close()


async def test_a_server_of_another_authority_is_not_believed(
    account: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with Cluster().running(certified(account)) as cluster:
        certified(account)
        workload = reach(cluster, monkeypatch)
        with pytest.raises(KubernetesError, match="certificate"):
            await workload.scale(CHAT, 2, ())
        await workload.close()
        assert cluster.calls == []
