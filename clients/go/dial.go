package ssa

import (
	"bufio"
	"context"
	"net"
	"os"
	"syscall"
	"time"
)

// A Dialer dials TLS connections. Its zero value is one that the administrator's policy rules alone.
type Dialer struct {
	// NetDialer makes the TCP connection; nil: the zero net.Dialer. Its Timeout and Deadline are for all of it,
	// the handshake included. It tries a name's addresses beside each other (RFC 6555).
	NetDialer *net.Dialer
	// Config has the options; nil: none.
	Config *Config
}

// Dial connects without a context: see DialContext.
func (d *Dialer) Dial(network, address string) (net.Conn, error) {
	return d.DialContext(context.Background(), network, address)
}

// DialContext connects to "host:port", makes the handshake, and verifies the server's certificate for the host, or for
// the Config's ServerName. The network is "tcp", "tcp4" or "tcp6". The connection is a *Conn.
//
// When the context ends before that is done, it is given up, and the connection is closed. This is what
// http.Transport's DialTLSContext wants.
func (d *Dialer) DialContext(ctx context.Context, network, address string) (net.Conn, error) {
	dialer := d.NetDialer
	if dialer == nil {
		dialer = new(net.Dialer)
	}
	ctx, cancel := limited(ctx, dialer)
	defer cancel()
	conn, err := dial(ctx, dialer, d.Config, network, address)
	if err == nil {
		return conn, nil
	}
	if _, is := err.(*net.OpError); is {
		return nil, err // net's own
	}
	return nil, &net.OpError{Op: "dial", Net: network, Addr: hostPort(address), Err: err}
}

// Dial connects as a Dialer with this Config does.
func Dial(network, address string, config *Config) (*Conn, error) {
	conn, err := (&Dialer{Config: config}).Dial(network, address)
	if err != nil {
		return nil, err
	}
	return conn.(*Conn), nil
}

// limited has the dialer's own limits hold for the handshake too.
func limited(ctx context.Context, dialer *net.Dialer) (context.Context, context.CancelFunc) {
	deadline := dialer.Deadline
	if dialer.Timeout > 0 {
		if within := time.Now().Add(dialer.Timeout); deadline.IsZero() || within.Before(deadline) {
			deadline = within
		}
	}
	if deadline.IsZero() {
		return context.WithCancel(ctx)
	}
	return context.WithDeadline(ctx, deadline)
}

// hostPort is an address that was asked for, as a net.Addr.
type hostPort string

func (hostPort) Network() string { return "tcp" }

func (address hostPort) String() string { return string(address) }

// dial goes to ssad first: a missing one is found before anybody else hears of it.
func dial(ctx context.Context, dialer *net.Dialer, config *Config, network, address string) (*Conn, error) {
	host, _, err := net.SplitHostPort(address)
	if err != nil {
		return nil, err
	}
	switch network {
	case "tcp", "tcp4", "tcp6":
	default:
		return nil, net.UnknownNetworkError(network)
	}
	asked, files, err := config.request(kindConnect)
	if err != nil {
		return nil, err
	}
	defer closeFiles(files)
	if config == nil || config.ServerName == "" {
		if err := asked.hostname(hostOf(host)); err != nil {
			return nil, err
		}
	}
	x, err := openExchange(ctx)
	if err != nil {
		return nil, err
	}
	defer x.close()
	conn, err := dialer.DialContext(ctx, network, address)
	if err != nil {
		return nil, err
	}
	return handshake(ctx, x, conn, asked, files, config)
}

// --- a connection that exists already ---

// Client begins TLS on a connection in use, as its client (STARTTLS): a *net.TCPConn, or what has one's SyscallConn.
// The server's certificate is verified for the Config's ServerName, or, without one, for the address that the
// connection is connected to.
//
// read is what has read from the connection, or nil. What it has read and not given is refused: the peer has sent it in
// plain text, behind the agreement on TLS, and an attacker could have put it there. The connection belongs to the Conn
// from now on; after an error it is closed.
func Client(ctx context.Context, conn net.Conn, read *bufio.Reader, config *Config) (*Conn, error) {
	return upgrade(ctx, conn, kindConnect, config, func(asked *request) error {
		if read != nil && read.Buffered() > 0 {
			return failure("PLAINTEXT_PENDING", "%d bytes that were read already", read.Buffered())
		}
		asked.number(attributeUpgrade, 1)
		return nil
	})
}

// Server begins TLS on a connection in use, as its server: see Client. What read has read and not given is the client's
// first bytes of TLS.
func Server(ctx context.Context, conn net.Conn, read *bufio.Reader, config *Config) (*Conn, error) {
	return upgrade(ctx, conn, kindAccept, config, func(asked *request) error {
		asked.number(attributeUpgrade, 1)
		if read == nil || read.Buffered() == 0 {
			return nil
		}
		ahead, err := read.Peek(read.Buffered())
		if err == nil {
			asked.bytes(attributeAhead, ahead)
		}
		return err
	})
}

func upgrade(ctx context.Context, conn net.Conn, kind uint16, config *Config, more func(*request) error) (*Conn, error) {
	made, err := begin(ctx, conn, kind, config, more)
	if err == nil {
		return made, nil
	}
	conn.Close()
	return nil, &net.OpError{Op: "upgrade", Net: "tcp", Source: conn.LocalAddr(), Addr: conn.RemoteAddr(), Err: err}
}

func begin(ctx context.Context, conn net.Conn, kind uint16, config *Config, more func(*request) error) (*Conn, error) {
	asked, files, err := config.request(kind)
	if err != nil {
		return nil, err
	}
	defer closeFiles(files)
	if err := more(asked); err != nil {
		return nil, err
	}
	x, err := openExchange(ctx)
	if err != nil {
		return nil, err
	}
	defer x.close()
	return handshake(ctx, x, conn, asked, files, config)
}

// --- the handshake ---

// handshake has ssad make it. After an error the connection is closed: it may be plain text still, or of no use.
func handshake(ctx context.Context, x *exchange, conn net.Conn, asked *request, files []*os.File, config *Config) (*Conn, error) {
	under, ok := conn.(socket)
	if !ok {
		conn.Close()
		return nil, failure("NOT_TCP", "a %T has no descriptor", conn)
	}
	raw, err := under.SyscallConn()
	if err != nil {
		conn.Close()
		return nil, err
	}
	told, passed, err := shakeHands(ctx, x, raw, asked, files, config)
	if err != nil {
		raw.Control(func(fd uintptr) { throwAway(int(fd)) })
		conn.Close()
		return nil, err
	}
	made, err := newConn(under, raw, told, passed, asked.kind == kindAccept)
	if err != nil {
		closeAll(passed)
		conn.Close()
	}
	return made, err
}

func shakeHands(
	ctx context.Context, x *exchange, raw syscall.RawConn, asked *request, files []*os.File, config *Config,
) (reply, []int, error) {
	asked.number(attributeControl, 1)
	asked.number(attributeWithChain, 1)
	if limit, is := timeout(ctx, config); is {
		asked.number(attributeTimeoutMs, uint32(limit.Milliseconds())+1)
		x.file.SetDeadline(time.Now().Add(limit + grace))
	}
	defer x.obey(ctx)()
	var err error
	failed := raw.Control(func(fd uintptr) {
		err = x.tell(asked, append([]int{int(fd)}, numbers(files)...)...)
	})
	if failed != nil {
		return nil, nil, failed
	}
	if err != nil {
		return nil, nil, givenUp(ctx, err)
	}
	told, passed, err := x.hear()
	if err != nil {
		return nil, nil, givenUp(ctx, err)
	}
	if told.number(attributeRelayed) != 0 && len(passed) == 0 {
		return nil, nil, faulty("its reply lacks the descriptor")
	}
	return told, passed, nil
}

// givenUp is the context's error where that is why the waiting ended.
func givenUp(ctx context.Context, err error) error {
	if ended := ctx.Err(); ended != nil && !says(err, "HANDSHAKE_TIMEOUT") {
		return ended
	}
	return err
}

// timeout is what ssad is told. It is a little less than the context has left, so that ssad's words come in time.
func timeout(ctx context.Context, config *Config) (limit time.Duration, is bool) {
	if config != nil && config.HandshakeTimeout > 0 {
		limit, is = config.HandshakeTimeout, true
	}
	if deadline, has := ctx.Deadline(); has {
		left := time.Until(deadline)
		left -= left / 20
		if !is || left < limit {
			limit, is = max(left, 0), true
		}
	}
	return limit, is
}
