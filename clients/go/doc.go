// Package ssa gives Go programs TLS connections that the system makes: ssad does the handshake, verifies the peer under
// the administrator's policy, and gives the keys to the kernel, or encrypts and decrypts itself (it relays) where the
// kernel cannot. It needs no cgo, and nothing but the standard library.
//
// An HTTP client:
//
//	client := http.Client{Transport: &http.Transport{DialTLSContext: new(ssa.Dialer).DialContext}}
//
// An HTTPS server, with the administrator's certificate for the name that the client asks for:
//
//	listener, err := ssa.Listen("tcp", ":443", &ssa.Config{NextProtos: []string{"http/1.1"}})
//	...
//	err = http.Serve(listener, handler)
//
// net/http speaks HTTP/2 on its own *tls.Conn only. So a listener for it offers http/1.1 and not h2.
//
// The peer is verified in every case; a Config can only tighten the administrator's policy. Errors are *Error (find it
// with errors.As), which says whose fault it is, and they are an errno too: errors.Is(err, syscall.EKEYREJECTED).
//
// docs/library.md of ssa is the specification of what this package does; docs/go.md is for its users.
package ssa
