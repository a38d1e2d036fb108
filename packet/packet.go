// Package packet is the leaf that everything on the packet path stands on:
// bursts and buffers, views of IP headers, flows, checksums, and the reasons a
// packet is dropped for. It knows nothing of SAs, does no I/O and reads no
// clock.
//
// Nothing here allocates after construction, and nothing is safe for
// concurrent use but Counters: a Burst, a Train and a Coalescer belong to the
// one worker that reads into them. Octets are in network order, as on the
// wire.
//
// RFC 791 and RFC 8200 (headers), RFC 1071 and RFC 1624 (checksums), RFC 9293
// and RFC 768 (what segmentation changes), RFC 4301 4.4.1.1 (selectors).
package packet
