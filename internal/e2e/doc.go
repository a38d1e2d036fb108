// Package e2e holds the end-to-end tests: the real ipsecd and setkey, on real
// TUN devices, in network namespaces that each test makes and takes down. They
// need root, or a user namespace, and /dev/net/tun; where these are missing they
// skip and say why, and fail where IPSECD_E2E=required is set.
package e2e
