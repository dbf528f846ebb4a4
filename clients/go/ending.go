package ssa

// The end of a stream: of ours, in TLS's way before TCP's, and of the peer's where ssad relays it. The end of a pair can
// say an end of file, of a stream that ended in order as of one that was cut, and of an ssad that died. So this library
// asks which it was (describe), and says itself what a close(2) cannot: that it is one, and not a crash (close).

import (
	"io"
	"net"
	"strings"
	"syscall"
	"time"
)

// Close ends the stream in order, with TLS's close_notify, and closes it. Reads and writes of other goroutines fail with
// net.ErrClosed. A write that is under way is given up, and the peer sees a stream that was cut, which it was.
func (c *Conn) Close() error {
	if !c.closed.CompareAndSwap(false, true) {
		return &net.OpError{Op: "close", Net: "tcp", Source: c.local, Addr: c.remote, Err: net.ErrClosed}
	}
	if c.turn.TryLock() {
		c.raw.Control(func(fd uintptr) { c.endStream(int(fd)) })
		c.turn.Unlock()
	}
	err := c.data.Close()
	if c.relayed {
		c.tcp.Close()
	}
	return err
}

// CloseWrite ends our half of the stream with TLS's close_notify. Reading goes on.
func (c *Conn) CloseWrite() error {
	c.turn.Lock()
	defer c.turn.Unlock()
	if c.closed.Load() {
		return c.wrap("close", net.ErrClosed)
	}
	if broken := c.broken.Load(); broken != nil {
		return c.wrap("close", broken)
	}
	if c.writeEnded.Swap(true) {
		return nil
	}
	return c.wrap("close", c.raw.Control(func(fd uintptr) { c.sayEnd(int(fd)) }))
}

func (c *Conn) sayEnd(fd int) {
	if c.relayed {
		relayEndWriting(fd)
	} else {
		sayGoodbye(fd)
	}
}

// endStream is for close: of an abort the kernel tells the peer by itself.
func (c *Conn) endStream(fd int) {
	hadEnded := c.writeEnded.Swap(true)
	if c.aborts() {
		if c.relayed || hadEnded { // ssad may be at it still
			sayClose(fd, attributeAbort)
		}
		return
	}
	if !hadEnded && c.broken.Load() == nil {
		c.sayEnd(fd)
	}
	if !c.relayed {
		throwAway(fd)
	}
}

func (c *Conn) aborts() (does bool) {
	if raw, err := c.tcp.SyscallConn(); err == nil {
		raw.Control(func(fd uintptr) { does = doesAbort(int(fd)) })
	}
	return does
}

// sayGoodbye sends close_notify. Where there is no room for it, ssad waits for some, and holds the connection until the
// peer has all. Without an ssad there is a second for that.
func sayGoodbye(fd int) {
	err := sendAlert(fd, levelWarning, closeNotify)
	if err == syscall.EAGAIN {
		if sayClose(fd, 0) == nil {
			return
		}
		poll(fd, pollOut, time.Second.Milliseconds())
		sendAlert(fd, levelWarning, closeNotify)
	}
	syscall.Shutdown(fd, syscall.SHUT_WR)
}

// relayEndWriting has ssad send close_notify behind the last byte. Without an ssad there is no peer either.
func relayEndWriting(fd int) {
	syscall.Shutdown(fd, syscall.SHUT_WR)
	sayClose(fd, 0)
}

// sayClose sends the request, whose answer nobody waits for: the descriptor travels with it.
func sayClose(fd int, how uint16) error {
	x, err := openLocally(time.Time{})
	if err != nil {
		return err
	}
	defer x.close()
	asked := newRequest(kindClose)
	if how != 0 {
		asked.number(how, 1)
	}
	return x.tell(asked, fd)
}

// --- the end of a relayed stream ---

// relayedEnd is what a reader gets at the end of a pair.
func (c *Conn) relayedEnd() error {
	told := c.howItEnded(until(&c.readDeadline))
	if told == "close_notify" {
		c.readEnded.Store(true)
		return io.EOF
	}
	return c.note(endedBy(told))
}

func (c *Conn) relayedWriteFailure() error {
	told := c.howItEnded(until(&c.writeDeadline))
	if told == "close_notify" || told == "truncated" {
		c.endWriting()
		return writingEnded()
	}
	return c.note(endedBy(told))
}

// howItEnded is ssad's word for how the peer's half has ended. Empty: nobody says.
func (c *Conn) howItEnded(deadline time.Time) string {
	x, err := openLocally(deadline)
	if err != nil {
		return ""
	}
	defer x.close()
	var told reply
	c.raw.Control(func(fd uintptr) { told, err = x.ask(newRequest(kindDescribe), int(fd)) })
	if err != nil || told == nil {
		return ""
	}
	if word := told.text(attributeEnded); word != "" {
		return word
	}
	return "truncated"
}

// The errnos that ssad tells by their names.
var namedFailures = []struct {
	name   string
	number syscall.Errno
	text   string
}{
	{"EBADMSG", syscall.EBADMSG, "a record was forged or damaged on its way: it does not decrypt"},
	{"ECONNABORTED", syscall.ECONNABORTED, "the connection was ended by the administrator"},
	{"EKEYEXPIRED", syscall.EKEYEXPIRED, "the key has protected as many records as it may (RFC 8446 section 5.5)"},
	{"ECONNRESET", syscall.ECONNRESET, "connection reset by peer"},
	{"EPIPE", syscall.EPIPE, "broken pipe"},
	{"ETIMEDOUT", syscall.ETIMEDOUT, "connection timed out"},
	{"EHOSTUNREACH", syscall.EHOSTUNREACH, "no route to host"},
	{"ENETUNREACH", syscall.ENETUNREACH, "network is unreachable"},
	{"EMSGSIZE", syscall.EMSGSIZE, "a record is longer than TLS allows, or is none"},
	{"EPROTO", syscall.EPROTO, "the peer broke the TLS protocol"},
}

func endedBy(word string) *Error {
	switch {
	case word == "":
		return cutError("the ssad that relayed the connection has gone")
	case word == "truncated":
		return truncation()
	case alertNumber(word) != noAlert || strings.HasPrefix(word, "alert_"):
		return endedByAlert(word)
	}
	for _, row := range namedFailures {
		if row.name == word {
			return &Error{Errno: row.number, Fault: faultNetwork, Text: row.text}
		}
	}
	return &Error{Errno: syscall.EIO, Fault: faultSystem, Text: "the connection has failed: " + printable(word)}
}

// note remembers how the connection has ended, unless one direction has only.
func (c *Conn) note(why *Error) error {
	if why.Errno == syscall.EPIPE || why.Errno == syscall.ECONNABORTED {
		return why
	}
	c.broken.CompareAndSwap(nil, why)
	c.endWriting()
	return c.broken.Load()
}
