module ssa/caddy

go 1.19

require (
	github.com/caddyserver/caddy/v2 v2.6.2
	go.uber.org/zap v1.23.0
	golang.org/x/net v0.0.0-20220812165438-1d4ff48094d1
	ssa v0.0.0
)

replace ssa => ../
