package routes

import (
	"os"
	"testing"

	"ipsecd/internal/netns"
)

func TestMain(m *testing.M) { os.Exit(netns.Main(m.Run)) }
