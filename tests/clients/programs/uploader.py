"""Uploads of no known length over HTTP/2, written with `httpx`: `uploader.py COUNT`. Each body has none, one or several
pieces, and its end comes in a frame of its own."""

import hashlib
import os
import ssl
import sys

import httpx

HOST, PORT = os.environ["EDGE_HOST"], os.environ["EDGE_PORT"]


def main():
    trust = ssl.create_default_context(cafile=os.environ["CA"])
    # The address is the edge's, the name is the application's.
    head = {"Host": f"{HOST}:{PORT}", "Cookie": os.environ["COOKIE"]}
    with httpx.Client(http2=True, verify=trust, trust_env=False) as client:
        for number in range(int(sys.argv[1])):
            pieces = [f"piece {piece} of {number}\n".encode() for piece in range(number % 4)]
            body = b"".join(pieces)
            answer = client.post(
                f"https://127.0.0.1:{PORT}/bodies", content=iter(pieces), headers=head | {"X-Test": f"httpx-{number}"},
                extensions={"sni_hostname": HOST},
            )
            assert answer.http_version == "HTTP/2", answer.http_version
            wanted = f"httpx-{number} {len(body)} {hashlib.sha256(body).hexdigest()}"
            assert (answer.status_code, answer.text) == (200, wanted), (answer.status_code, answer.text, wanted)


main()
