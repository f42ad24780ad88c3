"""A virtio device in another process than its guest: the vhost-user protocol, both sides.

    layout.py         numbers of the protocol, and what lies in shared memory
    messages.py       what each message carries          codec.py      frames <-> messages
    device.py         what a back-end needs of a device, and what it asks to be done
    backend.py        a back-end, without I/O, over      session.py    the state of a connection
      requests.py       what each request does           vring.py      one vring of it
      guest_memory.py   ranges of files, mapped          inflight.py   what is in flight
    frontend.py       a front-end, without I/O
    socket_file.py    the socket that guests attach to   notifier.py   kicks, calls, config changes
    reception_task.py who connects, and who is a guest
    transport.py      both sides over a unix socket

To serve a device (any object with the methods of `device.Device`) to one guest after another:

    with SocketFile(path) as socket_file:
        server = Server(device, observe=print)
        await server.serve(socket_file)              # until cancelled; `guests_max` ends it

While a guest is attached, `server.backend` is its `Backend`: `memory.mapped` are the ranges of its
memory with their files, `notify_config_changed()` tells it that the configuration has changed.

To be a guest, over a connected socket:

    connection, frontend = Connection(stream), Frontend()
    features = await connection.hold(frontend.negotiate(features=wanted))
    ours, theirs = socket.socketpair()               # by which the back-end tells of changes
    await connection.hold(frontend.connect_channel(theirs.fileno()))
    nursery.start_soon(partial(watch_backend, ours, config_changed=...))
    await connection.hold(frontend.set_memory([(MemoryRange(...), ram.fd)]))
    await connection.hold(
        frontend.set_up_vring(VringAddresses(...), size=256, kick=kick.fd, call=call.fd)
    )
    await connection.hold(frontend.read_config(0, 8))
    base = await connection.hold(frontend.stop_vring(0))
    connection.close()
"""
