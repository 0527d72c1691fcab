"""Certificates for tests: an authority, and what it signs."""

import datetime
import ipaddress

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

DAY = datetime.timedelta(days=1)


class Authority:
    """Writes NAME.pem and NAME.key into a directory; its own are ca.pem and ca.key."""

    def __init__(self, directory, name="ca"):
        self.directory = directory
        self.subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"authority {name}")])
        self.key = ec.generate_private_key(ec.SECP256R1())
        self.file, _ = self._sign(name, self.subject, self.key, [
            (x509.BasicConstraints(ca=True, path_length=0), True),
            (x509.KeyUsage(False, False, False, False, False, True, True, False, False), True)])

    def _sign(self, name, subject, key, extensions, begin=-DAY, end=30 * DAY):
        now = datetime.datetime.utcnow()
        builder = x509.CertificateBuilder().subject_name(subject).issuer_name(self.subject)
        builder = builder.public_key(key.public_key()).serial_number(x509.random_serial_number())
        builder = builder.not_valid_before(now + begin).not_valid_after(now + end)
        for extension, critical in extensions:
            builder = builder.add_extension(extension, critical)
        certificate = builder.sign(self.key, hashes.SHA256())
        paths = self.directory / f"{name}.pem", self.directory / f"{name}.key"
        paths[0].write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
        paths[1].write_bytes(key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption()))
        return paths

    def server(self, name, *hosts, addresses=("127.0.0.1",)):
        """The paths of a certificate for these hosts and addresses, and of its key."""
        names = [x509.DNSName(host) for host in hosts]
        names += [x509.IPAddress(ipaddress.ip_address(address)) for address in addresses]
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        return self._sign(name, subject, ec.generate_private_key(ec.SECP256R1()), [
            (x509.SubjectAlternativeName(names), False),
            (x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), False)])

    def client(self, name, expired=False):
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        times = {"begin": -30 * DAY, "end": -DAY} if expired else {}
        return self._sign(name, subject, ec.generate_private_key(ec.SECP256R1()), [
            (x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CLIENT_AUTH]), False)], **times)
