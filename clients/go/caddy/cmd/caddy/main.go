// Caddy, with its own modules and ssa's.
package main

import (
	caddycmd "github.com/caddyserver/caddy/v2/cmd"

	_ "github.com/caddyserver/caddy/v2/modules/standard"

	_ "ssa/caddy"
)

func main() {
	caddycmd.Main()
}
