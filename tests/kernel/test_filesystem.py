"""The second and third promise: who is at the other end, and a policy that changes what everyone gets from then on."""

import errno
import json
import os
import re
import socket
import subprocess
import sys
import time

import pytest

import ssa
from ssa.library.connection import DaemonConnection
from ssa.policy.schema import SETTINGS
from ssa.protocol.wire import Connect
from tests import peers


@pytest.fixture
def server(pki):
    with peers.openssl(pki, "-rev", "-quiet") as (port, _):
        yield port


def shell(command, **environment):
    return subprocess.run(
        ["sh", "-c", command], capture_output=True, text=True, check=False, env=os.environ | environment
    )


def test_peer_cert_as_promised(ssad, pki, server):
    fd = ssa.connect_tls("localhost", server)
    shown = shell(f"cat {ssad.mount}/sockets/*/peer_cert | openssl x509 -noout -fingerprint -sha256").stdout
    sent = shell(f"openssl x509 -noout -fingerprint -sha256 -in {pki.cert}").stdout
    assert shown == sent != ""
    chain = shell(f"cat {ssad.mount}/sockets/*/peer_chain").stdout
    assert chain.count("BEGIN CERTIFICATE") == pki.cert.read_text().count("BEGIN CERTIFICATE")
    ssa.close(fd)


def test_every_file_of_a_socket(ssad, pki, server):
    fd = ssa.connect_tls("localhost", server)
    (number,) = ssad.sockets()
    directory = ssad.mount / "sockets" / number
    with socket.socket(fileno=os.dup(fd)) as sock:
        local, remote = (f"{host}:{port}" if "." in host else f"[{host}]:{port}"
                         for host, port, *_ in (sock.getsockname(), sock.getpeername()))  # fmt: skip
    expected = {
        "hostname": "localhost",
        "peer_identity": "localhost",
        "role": "client",
        "version": "TLSv1.3",
        "cipher": "aes-gcm-256",
        "group": "x25519",
        "alpn": "",
        "resumed": "no",
        "data_path": "ktls",
        "tx": "sw",
        "rx": "sw",
        "local": local,
        "remote": remote,
        "pid": str(os.getpid()),
        "uid": str(os.getuid()),
        "exe": os.readlink("/proc/self/exe"),
        "compliant": "yes",
    }
    assert {name: (directory / name).read_text().rstrip("\n") for name in expected} == expected
    for name in os.listdir(directory):
        if name != "close":
            assert (directory / name).read_text().endswith("\n")
    assert "key" not in os.listdir(directory)
    ssa.close(fd)


def test_byte_counts_are_the_kernels(ssad, server):
    fd = ssa.connect_tls("localhost", server)
    (number,) = ssad.sockets()

    def count(name):
        return int(ssad.get(f"sockets/{number}/{name}"))

    before = count("bytes_sent"), count("bytes_received")
    os.write(fd, b"x" * 999 + b"\n")
    received = 0
    while received < 1000:
        received += len(os.read(fd, 4096))
    record = 1000 + 5 + 1 + 16
    assert count("bytes_sent") == before[0] + record
    assert count("bytes_received") >= before[1] + record
    ssa.close(fd)


def gone_within(ssad, seconds):
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if not ssad.sockets():
            return True
    return False


def test_directories_go_with_the_last_descriptor(ssad, server):
    fd = ssa.connect_tls("localhost", server)
    copy = os.dup(fd)
    (number,) = ssad.sockets()
    with (ssad.mount / "sockets" / number / "hostname").open() as file:
        os.close(fd)
        time.sleep(0.1)
        assert ssad.sockets() == [number]
        child = subprocess.Popen(["sleep", "60"], pass_fds=[copy])
        os.close(copy)
        time.sleep(0.1)
        assert ssad.sockets() == [number]  # a child holds it
        child.kill()
        child.wait()
        assert gone_within(ssad, 0.1)
        assert not (ssad.mount / "sockets" / number).exists()
        assert file.read() == "localhost\n"


def test_a_hundred_sockets(ssad, server, pki, tmp_path):
    with peers.nginx(pki, tmp_path / "nginx") as port:
        fds = [ssa.connect_tls("localhost", port) for _ in range(100)]
        assert len(ssad.sockets()) == 100
        shown = shell(f"cat {ssad.mount}/sockets/*/peer_identity").stdout
        assert shown == "localhost\n" * 100
        for fd in fds:
            ssa.close(fd)
        assert gone_within(ssad, 0.1)
        assert ssad.get("stats/sockets") == "0\n"


def test_min_version_as_promised(ssad, pki, tmp_path):
    with peers.nginx(pki, tmp_path / "nginx", "ssl_protocols TLSv1.2;") as port:
        fd = ssa.connect_tls("localhost", port)
        (number,) = ssad.sockets()
        assert ssad.get(f"sockets/{number}/version") == "TLSv1.2\n"
        assert ssad.get(f"sockets/{number}/compliant") == "yes\n"
        assert shell(f"echo TLSv1.3 > {ssad.mount}/policy/min_version").returncode == 0
        assert ssad.get("policy/min_version") == "TLSv1.3\n"
        assert ssad.get(f"sockets/{number}/compliant") == "no: min_version: TLSv1.2 is below TLSv1.3\n"
        with pytest.raises(ssa.HandshakeError, match="protocol_version"):
            ssa.connect_tls("localhost", port)
        os.write(fd, b"GET /hello HTTP/1.0\r\n\r\n")  # what was made before is left alone
        assert b"hello from nginx" in os.read(fd, 1000)
        ssa.close(fd)


def test_every_setting_reaches_the_wire(ssad, pki, tmp_path):
    """Each list and limit is seen at the other end, or in what is refused."""
    ssad.set("ciphersuites", "TLS_AES_128_GCM_SHA256 TLS_CHACHA20_POLY1305_SHA256")
    ssad.set("groups", "secp384r1")
    ssad.set("signature_algorithms", "ecdsa_secp256r1_sha256, rsa_pss_rsae_sha384")
    with peers.openssl(pki, "-rev", "-quiet") as (port, _):
        fd = ssa.connect_tls("localhost", port)
        (number,) = ssad.sockets()
        assert ssad.get(f"sockets/{number}/group") == "secp384r1\n"
        assert ssad.get(f"sockets/{number}/cipher") in ("aes-gcm-128\n", "chacha20-poly1305\n")
        ssa.close(fd)
    ssad.set("groups", "secp384r1 P-256")  # TLS 1.2 wants the certificate's curve among them (RFC 8422, 5.1.1)
    ssad.set("max_version", "TLSv1.2")
    ssad.set("ciphers", "ECDHE-ECDSA-CHACHA20-POLY1305")
    with peers.openssl(pki, "-rev", "-quiet") as (port, _):
        fd = ssa.connect_tls("localhost", port)
        (number,) = ssad.sockets()
        assert ssad.get(f"sockets/{number}/version") == "TLSv1.2\n"
        assert ssad.get(f"sockets/{number}/cipher") == "chacha20-poly1305\n"
        ssa.close(fd)
    cert = pki.issue("rsa2048", "localhost", key_type="RSA")
    for name in ("max_version", "ciphers", "groups", "ciphersuites", "signature_algorithms"):
        ssad.set(name, SETTINGS[name].default)
    ssad.set("min_rsa_bits", "3072")
    with peers.openssl(pki, "-rev", "-quiet", cert=cert) as (port, _), pytest.raises(ssa.CertificateError) as caught:
        ssa.connect_tls("localhost", port)
    assert caught.value.reason == "WEAK_KEY"
    for path in ("relay", "ktls"):
        ssad.set("data_path", path)
        with peers.openssl(pki, "-rev", "-quiet") as (port, _):
            fd = ssa.connect_tls("localhost", port)
            assert ssad.get(f"sockets/{ssad.sockets()[0]}/data_path") == f"{path}\n"
            ssa.close(fd)


def test_a_trust_store_that_cannot_be_read_is_refused(ssad, tmp_path):
    before = ssad.get("policy/trust_store")
    for text in (str(tmp_path / "missing.pem"), "relative.pem"):
        with pytest.raises(OSError, match="Invalid argument"):
            ssad.set("trust_store", text)
        assert text in ssad.log
    assert ssad.get("policy/trust_store") == before


def test_a_trust_store_that_changes_on_disk(ssad, pki, tmp_path, server):
    store = tmp_path / "store.pem"
    store.write_bytes(pki.ca.read_bytes())
    ssad.set("trust_store", str(store))
    ssa.close(ssa.connect_tls("localhost", server))
    other = peers.PKI(tmp_path / "other")
    store.write_bytes(other.ca.read_bytes())
    with pytest.raises(ssa.CertificateError):
        ssa.connect_tls("localhost", server)
    store.unlink()
    with pytest.raises(ssa.SSAError, match="trust store"):
        ssa.connect_tls("localhost", server)


def test_the_administrator_ends_a_connection(ssad, server):
    fd = ssa.connect_tls("localhost", server)
    (number,) = ssad.sockets()
    try:
        (ssad.mount / "sockets" / number / "close").write_text("1\n")
    except OSError as exc:
        # A kernel without INET_DIAG_DESTROY (Debian's user-mode Linux 6.1) says so, and the connection goes on.
        assert exc.errno == errno.EOPNOTSUPP
        os.write(fd, b"still here\n")
        assert os.read(fd, 100) == b"ereh llits\n"
    else:
        with pytest.raises(ConnectionAbortedError):
            os.read(fd, 100)
    os.close(fd)


def test_an_application_in_another_network_namespace(ssad, pki):
    """Its sockets are made, seen and asked about like any other's."""
    script = f"""
import os, subprocess, sys, time
sys.path.insert(0, {os.getcwd()!r})
import ssa
from pathlib import Path
from tests import peers
subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
pki = type("P", (), dict(cert={str(pki.cert)!r}, key={str(pki.key)!r}))
with peers.openssl(pki, "-rev", "-quiet") as (port, _):
    fd = ssa.connect_tls("127.0.0.1", port)
    os.write(fd, b"abc\\n")
    assert os.read(fd, 9) == b"cba\\n"
    print("ready", flush=True)
    sys.stdin.readline()
    ssa.close(fd)
    print("closed", flush=True)
    sys.stdin.readline()
"""
    with subprocess.Popen(
        ["unshare", "--net", sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout.readline() == "ready\n"
        (number,) = ssad.sockets()
        assert ssad.get(f"sockets/{number}/version") == "TLSv1.3\n"
        assert ssad.get(f"sockets/{number}/tx") == "sw\n"
        assert int(ssad.get(f"sockets/{number}/bytes_sent")) > 100
        process.stdin.write("\n")
        process.stdin.flush()
        assert process.stdout.readline() == "closed\n"
        assert gone_within(ssad, 0.1)
        process.communicate("\n")


def test_kernel_and_version(ssad, capabilities):
    assert ssad.get("version") == ssa.__version__ + "\n"
    assert ssad.get("kernel/tls") == "yes\n"
    assert "TLSv1.3 aes-gcm-256" in ssad.get("kernel/ciphers").splitlines()
    assert ssad.get("kernel/rekey") == ("yes\n" if capabilities.rekey else "no\n")


def test_a_socket_that_is_bound_to_a_device(ssad, server):
    with socket.socket() as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, b"lo")
        sock.connect(("127.0.0.1", server))
        with DaemonConnection() as daemon:
            number = daemon.ask(Connect("localhost"), sock).socket_id
        assert ssad.get(f"sockets/{number}/tx") == "sw\n"


# --- compliant --------------------------------------------------------------------------------------------------------


def compliant(ssad):
    return ssad.get(f"sockets/{ssad.sockets()[0]}/compliant").strip()


# A setting, the value in force when the socket is made, the one that is written then, and what the socket lacks.
NARROWED = [
    ("min_version", None, "TLSv1.3", None),
    ("max_version", None, "TLSv1.2", "TLSv1.3 is above TLSv1.2"),
    (
        "ciphersuites",
        "TLS_AES_128_GCM_SHA256",
        "TLS_AES_256_GCM_SHA384",
        "TLS_AES_128_GCM_SHA256 is not among TLS_AES_256_GCM_SHA384",
    ),
    ("ciphers", None, "ECDHE-ECDSA-AES128-GCM-SHA256", None),
    ("groups", "x25519", "secp384r1 secp256r1", "x25519 is not among secp384r1, secp256r1"),
    (
        "signature_algorithms",
        None,
        "ecdsa_secp384r1_sha384 ed25519",
        "ecdsa_secp256r1_sha256 is not among ecdsa_secp384r1_sha384, ed25519",
    ),
    ("alpn", "h2", "http/1.1", "h2 is not among http/1.1"),
    ("data_path", "ktls", "relay", "ktls is not relay"),
    ("handshake_timeout", None, "0.0001", r"it took \S+ s, more than 0.0001 s"),
    ("session_ttl", None, "0", None),
]


@pytest.mark.parametrize("narrowed", NARROWED, ids=[row[0] for row in NARROWED])
def test_compliant_names_the_setting_that_is_not_met(ssad, pki, narrowed):
    name, before, after, unmet = narrowed
    if before:
        ssad.set(name, before)
    with peers.openssl(pki, "-rev", "-quiet", "-tls1_3", "-alpn", "h2") as (port, _):
        fd = ssa.connect_tls("localhost", port)
        assert compliant(ssad) == "yes"
        ssad.set(name, after)
        assert re.fullmatch(f"no: {name}: {unmet}" if unmet else "yes", compliant(ssad))
        ssa.close(fd)


def test_compliant_with_keys_and_anchors(ssad, pki, tmp_path):
    cert = pki.issue("rsa2048b", "localhost", key_type="RSA")
    other = peers.PKI(tmp_path / "another")
    with peers.openssl(pki, "-rev", "-quiet", cert=cert) as (port, _):
        fd = ssa.connect_tls("localhost", port)
        assert compliant(ssad) == "yes"
        ssad.set("min_rsa_bits", "3072")
        assert re.fullmatch(r"no: min_rsa_bits: .*2048.*", compliant(ssad))
        ssad.set("min_rsa_bits", "2048")
        ssad.set("signature_algorithms", "ecdsa_secp256r1_sha256 rsa_pkcs1_sha256")  # none that signs a handshake
        assert compliant(ssad).startswith("no: signature_algorithms: rsa_pss_rsae_sha256 or ")
        ssad.set("signature_algorithms", SETTINGS["signature_algorithms"].default)
        ssad.set("trust_store", str(other.ca))
        assert re.fullmatch(r"no: trust_store: .+", compliant(ssad))
        ssad.set("max_version", "TLSv1.2")
        assert re.fullmatch(r"no: max_version: [^;]+; trust_store: .+", compliant(ssad))
        ssa.close(fd)


def test_compliant_with_a_resumed_session(ssad, pki):
    with peers.openssl(pki, "-rev", "-quiet", "-tls1_3") as (port, _):
        ssa.close(ssa.connect_tls("localhost", port))
        fd = ssa.connect_tls("localhost", port)
        (number,) = ssad.sockets()
        assert ssad.get(f"sockets/{number}/resumed") == "yes\n"
        assert compliant(ssad) == "yes"
        ssad.set("session_ttl", "0")
        assert compliant(ssad).startswith("no: session_ttl: a session of ")
        ssa.close(fd)


# --- listeners and servers --------------------------------------------------------------------------------------------


@pytest.fixture
def served(ssad, pki):
    """A credential of the administrator's, in two kinds."""
    for name, cert in (
        ("web", pki.issue("web", "localhost")),
        ("webrsa", pki.issue("webrsa", "localhost", key_type="RSA")),
    ):
        directory = ssad.mount / "credentials" / name
        directory.mkdir()
        for file, path in zip(("certificate", "key"), cert, strict=True):
            (directory / file).write_bytes(path.read_bytes())
    yield ssad
    for name in ("web", "webrsa"):
        (ssad.mount / "credentials" / name).rmdir()


def test_who_listens_is_shown(served):
    before = set(os.listdir(served.mount / "listeners"))
    with ssa.create_server(("127.0.0.1", 0)) as listener:
        (number,) = set(os.listdir(served.mount / "listeners")) - before
        shown = {name: served.get(f"listeners/{number}/{name}").strip() for name in
                 ("role", "local", "credentials", "protocol", "pid", "uid", "exe", "hostname")}  # fmt: skip
        assert shown == {
            "role": "listener",
            "local": f"127.0.0.1:{listener.getsockname()[1]}",
            "credentials": "web\nwebrsa",
            "protocol": "TLS",
            "pid": str(os.getpid()),
            "uid": str(os.getuid()),
            "exe": os.readlink("/proc/self/exe"),
            "hostname": "",
        }
        rows = [json.loads(line) for line in served.get("sockets.jsonl").splitlines()]
        assert [row["role"] for row in rows if str(row["id"]) == number] == ["listener"]
    deadline = time.monotonic() + 5
    while number in os.listdir(served.mount / "listeners"):
        assert time.monotonic() < deadline


@pytest.mark.parametrize(("sigalgs", "name"), [("ecdsa_secp256r1_sha256", "web"), ("rsa_pss_rsae_sha256", "webrsa")])
def test_a_server_says_which_certificate_it_presented(served, pki, sigalgs, name):
    with ssa.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        command = ["openssl", "s_client", "-quiet", "-connect", f"127.0.0.1:{port}", "-servername", "localhost",
                   "-sigalgs", sigalgs]  # fmt: skip
        with subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
        ) as client:
            connection, _ = listener.accept()
            (number,) = served.sockets()
            assert served.get(f"sockets/{number}/credential") == f"{name}\n"
            shown = served.get(f"sockets/{number}/own_cert")
            assert shown in served.get(f"credentials/{name}/certificate")
            (row,) = (
                row for row in map(json.loads, served.get("sockets.jsonl").splitlines()) if row["role"] == "server"
            )
            assert (row["credential"], row["own_cert"]) == (name, shown)
            connection.close()
            client.kill()


def test_what_has_ended_is_marked(either, pki):
    with peers.openssl(pki, "-rev", "-quiet") as (port, server):
        fd = ssa.connect_tls("localhost", port)
        (number,) = either.sockets()
        assert either.get(f"sockets/{number}/state") == "open\n"
        server.kill()
        deadline = time.monotonic() + 5
        while (state := either.get(f"sockets/{number}/state")) == "open\n":
            assert time.monotonic() < deadline
        assert state.startswith("ended")
        (row,) = map(json.loads, either.get("sockets.jsonl").splitlines())
        assert row["state"] == state.strip()
        ssa.close(fd)


def test_all_in_one_file_is_what_the_files_say(ssad, pki, tmp_path):
    with peers.nginx(pki, tmp_path / "nginx") as port:
        fds = [ssa.connect_tls("localhost", port) for _ in range(3)]
        compare_with_the_files(ssad)
        for fd in fds:
            ssa.close(fd)


def compare_with_the_files(ssad):
    rows = [json.loads(line) for line in ssad.get("sockets.jsonl").splitlines()]
    assert [str(row["id"]) for row in rows] == ssad.sockets()
    for row in rows:
        directory = ssad.mount / "sockets" / str(row.pop("id"))
        assert sorted([*row, "close"]) == sorted(os.listdir(directory))
        for name, value in row.items():
            text = (directory / name).read_text()
            shown = {bool: lambda v: "yes" if v else "no", list: "\n".join, type(None): lambda _: ""}.get(
                type(value), str
            )
            assert shown(value).strip() == text.strip(), name
