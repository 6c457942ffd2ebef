// Rangefinder is one Postgres endpoint per region for a sharded, replicated database. See README.md.
package main

import (
	"os"

	"rangefinder/node"
)

func main() { os.Exit(node.Main(os.Args[1:], os.Stdout, os.Stderr)) }
