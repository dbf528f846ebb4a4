module ssa/interop

go 1.19
