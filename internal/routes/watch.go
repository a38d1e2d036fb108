package routes

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// Watch tells by a channel, which holds one message, that links, addresses,
// routes, rules or rp_filter of the calling thread's namespace have changed, also by
// ourselves, until ctx ends. A lost message counts as a change.
func Watch(ctx context.Context) (<-chan struct{}, error) {
	s, err := nl.Subscribe(unix.NETLINK_ROUTE, unix.RTNLGRP_LINK,
		unix.RTNLGRP_IPV4_IFADDR, unix.RTNLGRP_IPV4_ROUTE, unix.RTNLGRP_IPV4_RULE, unix.RTNLGRP_IPV4_NETCONF,
		unix.RTNLGRP_IPV6_IFADDR, unix.RTNLGRP_IPV6_ROUTE, unix.RTNLGRP_IPV6_RULE)
	if err != nil {
		return nil, fmt.Errorf("netlink: %w", err)
	}
	context.AfterFunc(ctx, s.Close) // which ends a Receive
	changed := make(chan struct{}, 1)
	go watch(ctx, s, changed)
	return changed, nil
}

func watch(ctx context.Context, s *nl.NetlinkSocket, changed chan<- struct{}) {
	for {
		_, _, err := s.Receive()
		if ctx.Err() != nil {
			return
		}
		if err != nil && !errors.Is(err, unix.ENOBUFS) {
			time.Sleep(time.Second) // whatever it is, it must not spin
		}
		select {
		case changed <- struct{}{}:
		default:
		}
	}
}
