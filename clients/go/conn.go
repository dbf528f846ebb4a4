package ssa

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

// A socket is what TLS is made on: a *net.TCPConn, or what has one's descriptor.
type socket interface {
	net.Conn
	syscall.Conn
}

// A stream is what is read and written: the socket, or the end of a pair whose other end ssad relays.
type stream interface {
	SetDeadline(time.Time) error
	SetReadDeadline(time.Time) error
	SetWriteDeadline(time.Time) error
	Close() error
}

// A Conn is a TLS connection: a net.Conn whose peer has been verified. Any number of goroutines may use it at once.
//
// Read gives io.EOF at the peer's close_notify only. A stream that ends without it was cut: ECONNABORTED, which is
// io.ErrUnexpectedEOF too.
type Conn struct {
	tcp       socket // of a relayed connection nobody reads it or writes to it
	data      stream
	raw       syscall.RawConn // data's
	relayed   bool
	rekeyable bool // keys can change
	server    bool
	local     net.Addr
	remote    net.Addr
	told      reply // ssad's, about the connection
	chain     func() []*x509.Certificate

	// serving is held while a record is looked at and taken.
	serving sync.Mutex
	served  atomic.Int64 // how often that was done
	skip    int          // bytes that are to come of a message that ssad could not take

	// turn is held by a sender: a KeyUpdate, the new key and the data behind it are not to be parted.
	turn      sync.Mutex
	budget    int64       // what may be sent before the key is looked at: see key.go
	answerDue atomic.Bool // the peer waits for a KeyUpdate of ours

	readEnded  atomic.Bool
	writeEnded atomic.Bool
	closed     atomic.Bool
	broken     atomic.Pointer[Error] // each later call gives it

	readDeadline, writeDeadline atomic.Pointer[time.Time] // nil: none
}

// newConn takes the descriptor that came with the reply, if one did, and closes what else came.
func newConn(tcp socket, raw syscall.RawConn, told reply, passed []int, server bool) (*Conn, error) {
	conn := &Conn{
		tcp: tcp, data: tcp, raw: raw, server: server, told: told, budget: lookNow,
		rekeyable: told.number(attributeRekeyable) != 0,
		relayed:   told.number(attributeRelayed) != 0,
		local:     tcp.LocalAddr(), remote: tcp.RemoteAddr(),
	}
	conn.chain = certificatesOnce(told[attributeChain])
	if !conn.relayed {
		closeAll(passed)
		return conn, nil
	}
	if err := syscall.SetNonblock(passed[0], true); err != nil {
		return nil, systemError(err, "the relay's descriptor")
	}
	end := os.NewFile(uintptr(passed[0]), "ssa relay")
	closeAll(passed[1:])
	conn.data = end
	var err error
	conn.raw, err = end.SyscallConn()
	return conn, err
}

// --- what it is ---

// ConnectionState tells about the connection in crypto/tls's words. VerifiedChains is nil, as ssad has verified the
// peer by the administrator's policy: see PeerIdentity. PeerCertificates lacks those that crypto/x509 cannot read.
func (c *Conn) ConnectionState() tls.ConnectionState {
	protocol := ""
	if list := c.told[attributeALPN]; len(list) > 1 {
		protocol = string(list[1:])
	}
	return tls.ConnectionState{
		Version:                    versions[c.told.text(attributeVersion)],
		HandshakeComplete:          true,
		DidResume:                  c.told.number(attributeResumed) != 0,
		CipherSuite:                suiteNumber(c.told.text(attributeCipher)),
		NegotiatedProtocol:         protocol,
		NegotiatedProtocolIsMutual: true,
		ServerName:                 c.told.text(attributeServerName),
		PeerCertificates:           c.chain(),
	}
}

var versions = map[string]uint16{"TLSv1.2": tls.VersionTLS12, "TLSv1.3": tls.VersionTLS13}

func suiteNumber(name string) uint16 {
	for _, row := range suites {
		if row.name == name {
			return row.number
		}
	}
	return 0
}

// PeerIdentity is who the peer was verified to be; empty for a client that was not asked.
func (c *Conn) PeerIdentity() string { return c.told.text(attributePeerIdentity) }

// ID is the number of the socket's directory under /ssa/sockets.
func (c *Conn) ID() uint64 { return c.told.number64(attributeSocketID) }

// Relayed is true where ssad encrypts and decrypts, and false where the kernel does.
func (c *Conn) Relayed() bool { return c.relayed }

// certificatesOnce reads the peer's certificates, which lie one behind the other, when they are asked for first.
func certificatesOnce(der []byte) func() []*x509.Certificate {
	var once sync.Once
	var read []*x509.Certificate
	return func() []*x509.Certificate {
		once.Do(func() { read = certificatesUntrusted(der) })
		return read
	}
}

func certificatesUntrusted(der []byte) []*x509.Certificate {
	var read []*x509.Certificate
	for len(der) > 0 {
		size := elementSize(der)
		if size == 0 {
			break
		}
		if certificate, err := x509.ParseCertificate(der[:size]); err == nil {
			read = append(read, certificate)
		}
		der = der[size:]
	}
	return read
}

// elementSize is the number of bytes of the DER element that begins here (X.690 section 8.1); 0 where it is none.
func elementSize(der []byte) int {
	if len(der) < 2 {
		return 0
	}
	size, head := int(der[1]), 2
	if size >= 0x80 {
		head += size & 0x7f
		if size == 0x80 || head > 2+3 || len(der) < head {
			return 0
		}
		size = 0
		for _, digit := range der[2:head] {
			size = size<<8 | int(digit)
		}
	}
	if head+size > len(der) {
		return 0
	}
	return head + size
}

// LocalAddr is the address of TCP's own end.
func (c *Conn) LocalAddr() net.Addr { return c.local }

// RemoteAddr is the address of TCP's other end.
func (c *Conn) RemoteAddr() net.Addr { return c.remote }

// --- deadlines, and options of TCP ---

// SetDeadline is for reading and writing: see SetReadDeadline and SetWriteDeadline.
func (c *Conn) SetDeadline(t time.Time) error {
	c.readDeadline.Store(&t)
	c.writeDeadline.Store(&t)
	return c.wrap("set", c.data.SetDeadline(t))
}

// SetReadDeadline has reads fail after that time, with os.ErrDeadlineExceeded. The zero time: they wait for ever.
func (c *Conn) SetReadDeadline(t time.Time) error {
	c.readDeadline.Store(&t)
	return c.wrap("set", c.data.SetReadDeadline(t))
}

// SetWriteDeadline has writes fail after that time, with os.ErrDeadlineExceeded. Unlike crypto/tls's, the connection
// can be written to again later: what Write says it has sent was sent.
func (c *Conn) SetWriteDeadline(t time.Time) error {
	c.writeDeadline.Store(&t)
	return c.wrap("set", c.data.SetWriteDeadline(t))
}

// until is a deadline that was set; the zero time for none.
func until(deadline *atomic.Pointer[time.Time]) time.Time {
	if set := deadline.Load(); set != nil {
		return *set
	}
	return time.Time{}
}

// SetLinger is net.TCPConn's: with 0 Close resets the connection, and says no close_notify.
func (c *Conn) SetLinger(seconds int) error { return c.option((*net.TCPConn).SetLinger, seconds) }

// SetNoDelay is net.TCPConn's: true, which is the default, sends small writes at once.
func (c *Conn) SetNoDelay(set bool) error {
	return c.setFlag((*net.TCPConn).SetNoDelay, set)
}

// SetKeepAlive is net.TCPConn's.
func (c *Conn) SetKeepAlive(set bool) error {
	return c.setFlag((*net.TCPConn).SetKeepAlive, set)
}

// SetKeepAlivePeriod is net.TCPConn's.
func (c *Conn) SetKeepAlivePeriod(period time.Duration) error {
	if tcp, is := c.tcp.(*net.TCPConn); is {
		return tcp.SetKeepAlivePeriod(period)
	}
	return c.wrap("set", syscall.EOPNOTSUPP)
}

func (c *Conn) option(set func(*net.TCPConn, int) error, value int) error {
	if tcp, is := c.tcp.(*net.TCPConn); is {
		return set(tcp, value)
	}
	return c.wrap("set", syscall.EOPNOTSUPP)
}

func (c *Conn) setFlag(set func(*net.TCPConn, bool) error, value bool) error {
	if tcp, is := c.tcp.(*net.TCPConn); is {
		return set(tcp, value)
	}
	return c.wrap("set", syscall.EOPNOTSUPP)
}

// --- errors ---

// wrap says which connection failed, as net does. The end of a stream is bare.
func (c *Conn) wrap(op string, err error) error {
	switch {
	case err == nil || err == io.EOF:
		return err
	case c.closed.Load():
		err = net.ErrClosed
	case errors.Is(err, os.ErrDeadlineExceeded):
		err = os.ErrDeadlineExceeded
	}
	var inner *net.OpError
	if errors.As(err, &inner) { // net's own, about the same connection
		err = inner.Err
	}
	return &net.OpError{Op: op, Net: "tcp", Source: c.local, Addr: c.remote, Err: err}
}

// fail remembers why the connection has failed, and ends it: the peer gets an alert, once, and then the end of our
// stream. Nobody waits for a peer that does not read: it gets no alert then. Gives the error that counts, which is the
// first one.
func (c *Conn) fail(fd int, why *Error, alert int) error {
	if c.broken.CompareAndSwap(nil, why) {
		endBroken(fd, alert, why.Errno == syscall.EMSGSIZE || why.Errno == syscall.EINVAL)
		c.endWriting()
	}
	return c.broken.Load()
}

// endBroken ends a connection. Of what is `unreadable` reading ends too, as the kernel would wait for ever for a record
// that makes sense.
func endBroken(fd, alert int, unreadable bool) {
	syscall.GetsockoptInt(fd, syscall.SOL_SOCKET, syscall.SO_ERROR) // a pending error would stop the alert
	how := syscall.SHUT_WR
	if unreadable {
		how = syscall.SHUT_RDWR
	}
	writable := poll(fd, pollOut, 0)&pollOut != 0 // else a send is blocked, and the kernel would wait for it
	if alert != noAlert && writable && sendAlert(fd, levelFatal, alert) != nil {
		how = syscall.SHUT_RDWR
	}
	syscall.Shutdown(fd, how)
}

func (c *Conn) endWriting() {
	c.writeEnded.Store(true)
}

// hasGone is true of an errno after which writing has ended too.
func hasGone(number syscall.Errno) bool {
	switch number {
	case syscall.ECONNRESET, syscall.EPIPE, syscall.ECONNABORTED, syscall.ETIMEDOUT, syscall.EHOSTUNREACH, syscall.ENETUNREACH:
		return true
	}
	return false
}

// unreadable is what the kernel says, once, of a record that it cannot take. The first record of a connection that is
// plain text instead looks to the kernel like one that is too long.
func unreadable(number syscall.Errno) (why *Error, alert int) {
	switch number {
	case syscall.EBADMSG:
		return brokenRecord(number, "a record was forged or damaged on its way: it does not decrypt"), badRecordMAC
	case syscall.EMSGSIZE:
		return brokenRecord(number, "a record is longer than TLS allows, or is none"), recordOverflow
	case syscall.EINVAL:
		return brokenRecord(number, "a record has the version of no TLS"), decodeError
	}
	return nil, noAlert
}

func brokenRecord(number syscall.Errno, text string) *Error {
	return &Error{Errno: number, Fault: faultPeer, Text: text}
}
