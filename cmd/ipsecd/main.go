// Command ipsecd is IPsec in user space: a daemon on a TUN device, driven by
// setkey(8) and PF_KEY.
package main

import (
	"fmt"
	"os"

	"github.com/spf13/cobra"

	"ipsecd/internal/demo"
)

func main() {
	if err := root().Execute(); err != nil {
		fmt.Fprintln(os.Stderr, "ipsecd:", err)
		os.Exit(1)
	}
}

func root() *cobra.Command {
	cmd := &cobra.Command{
		Use:           "ipsecd",
		Short:         "IPsec in user space, on a TUN device, driven by setkey(8)",
		SilenceErrors: true,
		SilenceUsage:  true,
	}
	cmd.AddCommand(runCommand(), demoCommand())
	return cmd
}

func demoCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "demo",
		Short: "Show two hosts that talk through ESP, on this machine, and take them down again",
		Long: `Makes two network namespaces with a wire between them, starts an ipsecd in
each from setkey files that it prints, pings through both families, moves data
over TCP through raw and UDP-encapsulated ESP, and shows what the wire saw.
Nothing outside of the namespaces is touched, and all of it is taken down.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return demo.Run(cmd.Context(), cmd.OutOrStdout(), demo.Options{})
		},
	}
}
