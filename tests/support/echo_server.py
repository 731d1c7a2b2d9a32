"""Answers each request at a Unix socket with the request itself. Starts in a few milliseconds."""

import contextlib
import os
import socket
import sys


def whole_request(client):
    asked = b""
    while piece := client.recv(1 << 20):
        asked += piece
        head, end, body = asked.partition(b"\r\n\r\n")
        length = head.lower().partition(b"content-length: ")[2].partition(b"\r")[0]
        if end and len(body) >= int(length or 0):
            break
    return asked


if __name__ == "__main__":
    path = sys.argv[1]
    with contextlib.suppress(FileNotFoundError):
        os.unlink(path)  # noqa: PTH108  # pathlib takes longer to import
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(path)
    listener.listen(64)
    while True:
        client, _ = listener.accept()
        if asked := whole_request(client):
            head = f"HTTP/1.1 200 OK\r\nContent-Length: {len(asked)}\r\nConnection: close\r\n\r\n"
            client.sendall(head.encode() + asked)
        client.close()
