"""Seals and opens ESP packets with scapy's IPsec layer, as the other end of the
tests in dataplane/interop_scapy_test.go.

Reads one request a line from standard input and answers each with a line:

    {"verb": "open" or "seal",
     "sa": {"spi", "cipher", "key", "mac", "mackey", "src", "dst",
            "tunnel", "udp", "esn", "first"},
     "packets": [hex, ...]}
    {"packets": [{"octets": hex} or {"error": name of the exception}, ...]}

The SA's keys are hex, its algorithms are scapy's names ("" is none), "udp" is
the port of both ends or 0, and "first" the sequence number, 64 bits with "esn",
of the first packet; each one behind it has the next. Nothing is sent or
received.

What scapy 2.5 gets wrong, and is done here in its stead:

  * nat_t_header leaves the length in the UDP header at 8 over IPv4, puts UDP
    behind a header that still announces ESP where there are IPv6 extension
    headers, and in transport mode over IPv6 is not taken out again. UDP is put in
    and taken out around the IPsec layer.
  * With extended sequence numbers only AEADs cover the high half; separate MACs
    leave it out. ExtendedMAC covers it (RFC 4303 2.2.1).
"""

import json
import logging
import struct
import sys

logging.getLogger("scapy").setLevel(logging.ERROR)

from scapy.layers.inet import IP, UDP  # noqa: E402
from scapy.layers.inet6 import IPv6  # noqa: E402
from scapy.layers.ipsec import ESP, IPSecIntegrityError, SecurityAssociation  # noqa: E402
from scapy.packet import Raw  # noqa: E402


class ExtendedMAC:
    """A scapy AuthAlgo whose ICV covers the high half of the sequence number,
    which is not sent, as if it stood behind the packet."""

    def __init__(self, algo, high):
        self.algo, self.high = algo, high
        self.icv_size = algo.icv_size

    def icv(self, covered, key):
        mac = self.algo.new_mac(key)
        mac.update(covered + struct.pack("!L", self.high))
        return mac.finalize()[: self.icv_size]

    def sign(self, esp, key, **_):
        esp.data += self.icv(bytes(esp), key)
        return esp

    def verify(self, esp, key, **_):
        octets = bytes(esp)
        if octets[-self.icv_size :] != self.icv(octets[: -self.icv_size], key):
            raise IPSecIntegrityError


def ip(octets):
    return (IP if octets[0] >> 4 == 4 else IPv6)(octets)


def association(sa, number):
    """The SA as it stands at the packet of that number."""
    family = IPv6 if ":" in sa["src"] else IP
    made = SecurityAssociation(
        ESP,
        spi=sa["spi"],
        seq_num=number & 0xFFFFFFFF,
        crypt_algo=sa["cipher"],
        crypt_key=bytes.fromhex(sa["key"]),
        auth_algo=sa["mac"] or None,
        auth_key=bytes.fromhex(sa["mackey"]),
        tunnel_header=family(src=sa["src"], dst=sa["dst"]) if sa["tunnel"] else None,
        esn_en=sa["esn"],
        esn=number >> 32,
    )
    if sa["esn"] and sa["mac"]:
        made.auth_algo = ExtendedMAC(made.auth_algo, number >> 32)
    return made


def carry(pkt, below, proto, payload):
    """pkt, with payload behind the header below, which announces proto."""
    setattr(below, "proto" if isinstance(below, IP) else "nh", proto)
    below.remove_payload()
    below.add_payload(payload)
    if pkt.version == 4:
        del pkt.len, pkt.chksum
    else:
        del pkt.plen
    return ip(bytes(pkt))


def into_udp(pkt, port):
    """RFC 3948 2.1."""
    esp = pkt[ESP]
    return carry(pkt, esp.underlayer, 17, UDP(sport=port, dport=port, chksum=0) / Raw(bytes(esp)))


def out_of_udp(pkt, port):
    udp = pkt[UDP]
    if (udp.sport, udp.dport, udp.len) != (port, port, len(bytes(udp))):
        raise ValueError("UDP header %s" % bytes(udp)[:8].hex())
    return carry(pkt, udp.underlayer, 50, Raw(bytes(udp.payload)))


def seal(sa, number, octets):
    pkt = association(sa, number).encrypt(ip(octets))
    if sa["udp"]:
        pkt = into_udp(pkt, sa["udp"])
    return bytes(pkt)


def open_(sa, number, octets):
    pkt = ip(octets)
    if (pkt.src, pkt.dst) != (sa["src"], sa["dst"]):
        raise ValueError("from %s to %s" % (pkt.src, pkt.dst))
    if sa["udp"]:
        pkt = out_of_udp(pkt, sa["udp"])
    if pkt[ESP].seq != number & 0xFFFFFFFF:
        raise ValueError("sequence number %d" % pkt[ESP].seq)
    return bytes(association(sa, number).decrypt(pkt, verify=True))


def answer(request):
    work = {"seal": seal, "open": open_}[request["verb"]]
    sa = request["sa"]
    for number, octets in enumerate(request["packets"], sa["first"]):
        try:
            yield {"octets": work(sa, number, bytes.fromhex(octets)).hex()}
        except IPSecIntegrityError:
            yield {"error": "IPSecIntegrityError"}
        except Exception as e:  # the test says which packet it was
            yield {"error": "%s: %s" % (type(e).__name__, e)}


def main():
    for line in sys.stdin:
        print(json.dumps({"packets": list(answer(json.loads(line)))}), flush=True)


if __name__ == "__main__":
    main()
