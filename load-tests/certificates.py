"""Makes certificates for `s0.test`, `s1.test`, … each with a key of its own: `certificates.py FOLDER COUNT`.

Run with the Python that `setup` makes, which has the package `cryptography`.
"""

import datetime
import sys
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

folder, count = Path(sys.argv[1]), int(sys.argv[2])
now = datetime.datetime.now(datetime.timezone.utc)
for one in range(count):
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"s{one}.test")])
    builder = x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key())
    builder = builder.serial_number(one + 1).not_valid_before(now).not_valid_after(now + datetime.timedelta(days=60))
    builder = builder.add_extension(x509.SubjectAlternativeName([x509.DNSName(f"s{one}.test")]), False)
    signed = builder.sign(key, hashes.SHA256())
    pem = serialization.Encoding.PEM
    (folder / f"{one}.pem").write_bytes(signed.public_bytes(pem))
    plain = key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    (folder / f"{one}.key").write_bytes(plain)
    (folder / f"{one}.key").chmod(0o600)
