package ssa

// As the package syscall of this architecture has older calls only: arch/x86/entry/syscalls/syscall_32.tbl.
const (
	sysGetsockopt = 365
	sysSetsockopt = 366
)
