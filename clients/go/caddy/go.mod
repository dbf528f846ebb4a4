module ssa/caddy

go 1.19

require (
	github.com/caddyserver/caddy/v2 v2.6.2
	go.uber.org/zap v1.23.0
	golang.org/x/net v0.1.0
	ssa v0.0.0
)

replace ssa => ../
