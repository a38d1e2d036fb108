// Package bench holds the workloads that measure ipsecd, end to end and stage by
// stage, and the peers that it is measured beside.
//
// It is a module of its own, so that what only benchmarks need never enters the
// build of the daemon. It may import every package of the main module; nothing
// imports it. Rates are given as a share of the bare cipher on the same octets
// in the same run, because absolute ones change with the machine and the hour.
package bench
