"""Bytes <-> values: everything that travels between nodes or through the TUN.

What travels where:

    UDP datagram = outer header, 16 bytes (`header`), then one of
      |-- initiation, response, cookie reply                          `handshake`
      |     '-- inside an initiation: a certificate, or a token's id  `certificate`, `token`
      '-- data: one segment of a burst                                `burst`, `reassembly`
            '-- plaintext: blocks
                  |-- a virtio_net_hdr and an IP packet               `virtio`, `ip`, `transport`
                  '-- a control message                               `control`
                        |-- items: records and deeds                  `items`
                        '-- what a joiner gets: a certificate, the cluster
                                                                      `certificate`, `cluster`
    text, by hand     a join token                                    `token`
    to pods, locally  ICMP errors                                     `icmp`

Reading order:

 1. `cursor`, `packing`       reading with bounds: fixed layouts, and msgpack (only here)
 2. `header`                  the 16 bytes in front of every datagram
 3. `burst`, `reassembly`     blocks in a burst, segments of a burst
 4. `checksum`, `ip`, `transport`, `virtio`, `icmp`
                              views of foreign packets, and the few that we make
 5. `cluster`, `certificate`, `token`
                              what is signed, and what lets in
 6. `handshake`               messages of the handshake; what they prove is `overlay.session`'s
 7. `items`, `control`        what members say to each other
 8. `describe`                any datagram in one line of text

Every file has the same shape: a picture, a Struct or a list of fields, a frozen value, `encode`,
and a `decode` that raises WireError and nothing else. Foreign packets are looked at in place: a
view says None where a decode would raise, because a packet that is not for us is no event.

Versions and extension, the rules for every format of ours:

- Shorter is refused, longer is accepted: fields may be added at the end of arrays. What is signed
  is the exception: it must be canonical, and a new form gets a new leading version number.
- Numbers are append-only: a type, kind, suite or message is never given a second meaning.
- Unknown kinds and messages are skipped and counted; unknown versions are refused.
- Reserved fields are sent as 0 and ignored.
- Every length has a maximum, checked before anything is built from it.
- What old and new nodes must not mix up changes the prologue of the handshake, `muslin 1`.
"""
