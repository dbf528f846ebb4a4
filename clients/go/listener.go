package ssa

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

const keepAlive = 15 * time.Second // as net.ListenConfig has it

// A Listener gives connections whose handshake is done: a slow client delays nobody. When ssad is replaced, it goes on
// with the next one. While there is none, Accept gives an error that is temporary: http.Server tries again.
type Listener struct {
	inner    net.Listener
	raw      syscall.RawConn // inner's
	config   *Config
	renewing sync.Mutex
	link     atomic.Pointer[exchange]
	closed   atomic.Bool
	deadline atomic.Pointer[time.Time]
}

// Listen listens on a TCP address, as net.Listen does, for TLS connections. Without certificates in the Config it
// serves with the administrator's, if this user may (ENOKEY, EACCES).
//
// For net/http the Config's NextProtos are {"http/1.1"}: it speaks HTTP/2 on its own *tls.Conn only.
func Listen(network, address string, config *Config) (*Listener, error) {
	inner, err := net.Listen(network, address)
	if err != nil {
		return nil, err
	}
	listener, err := NewListener(inner, config)
	if err != nil {
		inner.Close()
	}
	return listener, err
}

// NewListener has ssad serve a listener that there is: a *net.TCPListener, or what has one's SyscallConn. It belongs to
// the Listener from now on, and after an error to the caller still.
func NewListener(inner net.Listener, config *Config) (*Listener, error) {
	under, ok := inner.(syscall.Conn)
	if _, isTCP := inner.Addr().(*net.TCPAddr); !ok || !isTCP {
		return nil, listenError(inner, failure("NOT_TCP", "a %T has no TCP socket", inner))
	}
	raw, err := under.SyscallConn()
	if err != nil {
		return nil, err
	}
	listener := &Listener{inner: inner, raw: raw, config: config}
	link, err := listener.begin(context.Background())
	if err != nil {
		return nil, listenError(inner, err)
	}
	listener.link.Store(link)
	return listener, nil
}

func listenError(inner net.Listener, err error) error {
	return &net.OpError{Op: "listen", Net: "tcp", Source: nil, Addr: inner.Addr(), Err: err}
}

// begin has an ssad serve the listening socket.
func (l *Listener) begin(ctx context.Context) (*exchange, error) {
	asked, files, err := l.config.request(kindListen)
	if err != nil {
		return nil, err
	}
	defer closeFiles(files)
	asked.number(attributeControl, 1)
	asked.number(attributeWithChain, 1)
	asked.number(attributeBacklog, uint32(backlog()))
	if l.config != nil && l.config.HandshakeTimeout > 0 {
		asked.number(attributeTimeoutMs, uint32(l.config.HandshakeTimeout.Milliseconds())+1)
	}
	ctx, cancel := context.WithTimeout(ctx, local)
	defer cancel()
	x, err := openExchange(ctx)
	if err != nil {
		return nil, timedOut(err)
	}
	x.file.SetDeadline(time.Now().Add(local))
	closed := l.raw.Control(func(fd uintptr) {
		_, err = x.ask(asked, append([]int{int(fd)}, numbers(files)...)...)
	})
	if closed != nil {
		err = closed
	}
	if err == nil {
		err = x.file.SetDeadline(l.until())
	}
	if err != nil {
		x.close()
		return nil, err
	}
	return x, nil
}

func timedOut(err error) error {
	if errors.Is(err, context.DeadlineExceeded) {
		return silent()
	}
	return err
}

// backlog is how many connections may be ready: as many as the kernel allows, of 4096 at most.
func backlog() int {
	const most = 4096
	text, err := os.ReadFile("/proc/sys/net/core/somaxconn")
	if err != nil {
		return 128
	}
	number := 0
	for _, digit := range strings.TrimSpace(string(text)) {
		number = min(number*10+int(digit-'0'), most)
	}
	return number
}

// Accept waits for the next connection, which is a *Conn.
func (l *Listener) Accept() (net.Conn, error) {
	conn, err := l.accept()
	if err != nil {
		return nil, &net.OpError{Op: "accept", Net: "tcp", Addr: l.inner.Addr(), Err: err}
	}
	return conn, nil
}

func (l *Listener) accept() (*Conn, error) {
	for {
		link := l.link.Load()
		if l.closed.Load() {
			return nil, net.ErrClosed
		}
		told, passed, err := link.hear()
		switch {
		case l.closed.Load():
			closeAll(passed)
			return nil, net.ErrClosed
		case err == nil && len(passed) > 0:
			return accepted(told, passed)
		case err == nil: // a packet without a descriptor is no connection
		case isErrno(err, syscall.ETIMEDOUT):
			return nil, os.ErrDeadlineExceeded
		case isErrno(err, syscall.EMFILE): // that one connection is lost
			return nil, err
		case isTold(err): // ssad is there, and has a reason
			return nil, unavailable(err)
		default:
			if err := l.renew(link); err != nil {
				return nil, err
			}
		}
	}
}

func isTold(err error) bool {
	told, is := err.(*Error)
	return is && told.Reason != "" && told.Reason != "VERSION_MISMATCH"
}

// renew goes on with the next ssad, unless another goroutine has done so. Clients that came meanwhile wait in TCP's
// queue.
func (l *Listener) renew(last *exchange) error {
	l.renewing.Lock()
	defer l.renewing.Unlock()
	if l.closed.Load() {
		return net.ErrClosed
	}
	if l.link.Load() != last {
		return nil
	}
	link, err := l.begin(context.Background())
	if err != nil {
		return unavailable(err)
	}
	l.link.Store(link)
	last.close()
	return nil
}

// unavailable: an ssad that is starting, or whose certificates are being replaced, is no reason to serve no more.
func unavailable(err error) error {
	if told, is := err.(*Error); is {
		again := *told
		again.temporary = true
		return &again
	}
	return err
}

// accepted makes a Conn of what came with a packet: the TCP socket, with the pair's end before it if it is relayed.
func accepted(told reply, passed []int) (*Conn, error) {
	tcp, rest := passed[0], passed[1:]
	if told.number(attributeRelayed) != 0 {
		if len(passed) < mostPassed {
			closeAll(passed)
			return nil, faulty("its reply lacks the descriptor")
		}
		tcp, rest = passed[1], passed[:1]
	}
	conn, err := connOf(tcp)
	if err != nil {
		closeAll(rest)
		return nil, err
	}
	raw, err := conn.SyscallConn()
	var made *Conn
	if err == nil {
		made, err = newConn(conn, raw, told, rest, true)
	}
	if err != nil {
		closeAll(rest)
		conn.Close()
		return nil, err
	}
	made.remote = remoteOf(told, made.remote)
	return made, nil
}

// connOf takes a TCP socket into Go's poller. net duplicates it for that.
func connOf(fd int) (*net.TCPConn, error) {
	file := os.NewFile(uintptr(fd), "tcp")
	defer file.Close()
	made, err := net.FileConn(file)
	if err != nil {
		return nil, acceptError(err)
	}
	conn, ok := made.(*net.TCPConn)
	if !ok {
		made.Close()
		return nil, faulty("what it passed is no TCP socket")
	}
	conn.SetKeepAlive(true)
	conn.SetKeepAlivePeriod(keepAlive)
	return conn, nil
}

// acceptError: with one connection lost, the next Accept can succeed.
func acceptError(err error) *Error {
	var number syscall.Errno
	if !errors.As(err, &number) {
		number = syscall.EIO
	}
	return &Error{Errno: number, Fault: faultCaller, Text: "a connection is lost", Detail: err.Error(), temporary: true}
}

// remoteOf is the client's address as ssad saw it: getpeername(2) knows none of a client that has gone.
func remoteOf(told reply, known net.Addr) net.Addr {
	host, port, _ := strings.Cut(told.text(attributeRemote), " ")
	address, err := netip.ParseAddr(host)
	if err != nil {
		if known == nil {
			return &net.TCPAddr{}
		}
		return known
	}
	number := 0
	for _, digit := range port {
		number = number*10 + int(digit-'0')
	}
	return net.TCPAddrFromAddrPort(netip.AddrPortFrom(address.Unmap(), uint16(number)))
}

// Close ends the listening. Connections that were accepted go on.
func (l *Listener) Close() error {
	if l.closed.Swap(true) {
		return &net.OpError{Op: "close", Net: "tcp", Addr: l.inner.Addr(), Err: net.ErrClosed}
	}
	l.renewing.Lock()
	defer l.renewing.Unlock()
	l.link.Load().close()
	return l.inner.Close()
}

// Addr is the address where it listens.
func (l *Listener) Addr() net.Addr { return l.inner.Addr() }

// SetDeadline has Accept fail after that time, with os.ErrDeadlineExceeded. The zero time: it waits for ever.
func (l *Listener) SetDeadline(t time.Time) error {
	l.renewing.Lock()
	defer l.renewing.Unlock()
	l.deadline.Store(&t)
	return l.link.Load().file.SetDeadline(t)
}

func (l *Listener) until() time.Time { return until(&l.deadline) }
