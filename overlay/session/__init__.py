"""Sessions: how two nodes come to share keys, and how long they use them.

    initiator                                                            responder
        | -- initiation: e, s, certificate, stamp, mac1 ------------------> |  gate
        |                 (under load: <- cookie, again with mac2 ->)       |
        | <- response: e, cipher, "I saw you at ..." ---------------------- |  half open
      up|                                                                   |
        | == burst under the new keypair =================================> |  confirmed: up
        | <================================================== bursts ====== |
        :                                                                   :
        |  after 120 s the initiator starts again; 180 s is the end of the keys

Theory of operation, in reading order:

1. `noise`: the handshake itself, Noise_IKpsk2. The initiator knows the responder's static key and
   sends its own encrypted; the cluster's pre-shared key is mixed in last. One round trip.
2. `suites`: the two ciphers for data, and their keys from the two that the handshake ends with.
3. `replay` and `transport`: a `Keypair` seals and opens bursts and accepts each counter once. This
   is all that the packet path sees of a session.
4. `handshake`: the two halves in Muslin's messages, from initiation to keypairs.
5. `cookie` and `gate`: what an initiation must prove before it is answered. Without a valid mac1
   there is no answer at all; under load the sender must first show that it can be reached.
6. `index`: random numbers by which the other end addresses keypairs and handshakes.
7. `keyring`: previous, current and next keypair of one peer. A key that works is never given up
   before the other end has been seen using a newer one.
8. `timing` and `peer`: when handshakes start, repeat, and end.
9. `sessions`: all of it for one node, as a machine with four verbs.
10. `joiner`: the initiator's half for a process that has a token instead of a certificate.
11. `heirs`: all keypairs, with counters and windows, from one process of a node to the next.

What holds throughout:

- Before authentication nothing changes. A datagram that proves nothing leaves an equal
  `snapshot()` and gets no answer.
- An authentic initiation can be a late or repeated one. So it never moves an endpoint and never
  replaces a keypair; the first burst under the new keypair does.
- Keys are dropped by letting go of them. Python cannot overwrite memory that a library has
  copied, so forward secrecy starts when the allocator reuses it, at the latest with the process.

References:
    WireGuard: Next Generation Kernel Network Tunnel (Donenfeld 2017).
    The Noise Protocol Framework, revision 34.
"""
