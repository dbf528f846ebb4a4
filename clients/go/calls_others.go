//go:build !386

package ssa

import "syscall"

const (
	sysGetsockopt = syscall.SYS_GETSOCKOPT
	sysSetsockopt = syscall.SYS_SETSOCKOPT
)
