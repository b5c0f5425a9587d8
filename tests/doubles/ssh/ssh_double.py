"""A TEST DOUBLE of what may stand at an SSH port: ssh_double.py PORT silent|cut.

silent takes connections and says nothing. cut is the real sshd (port 22), whose connections end once it has sent its first
key exchange message.
"""

import selectors
import socket
import sys
import threading

KEX_BYTES = 500  # sshd's banner is shorter, its first key exchange message is longer


def relay(client):
    """Pass on both ways until sshd has begun the key exchange."""
    server, sent = socket.create_connection(("127.0.0.1", 22)), 0
    with client, server, selectors.DefaultSelector() as ready:
        ready.register(client, selectors.EVENT_READ, server)
        ready.register(server, selectors.EVENT_READ, client)
        while sent < KEX_BYTES:
            for key, _events in ready.select():
                block = key.fileobj.recv(65536)
                if not block:
                    return
                key.data.sendall(block)
                sent += len(block) if key.fileobj is server else 0
        client.recv(65536)  # the client's part of it, so that the end comes after it


def main():
    listener, kept = socket.create_server(("", int(sys.argv[1]))), []
    while True:
        client, _address = listener.accept()
        if sys.argv[2] == "cut":
            threading.Thread(target=relay, args=(client,), daemon=True).start()
        else:
            kept.append(client)


main()
