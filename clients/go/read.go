package ssa

// Reading. A plain read that meets a record that is no data gets EIO from the kernel, again and again, with nothing
// lost. And what the kernel calls the end of the stream is a bare FIN: the true end is a close_notify alert.
//
//	record                          what is done                                       what the reader gets
//	close_notify                    it stays in the socket, for every later read       the end of the stream
//	an alert that is passed over    taken                                              what follows
//	session tickets                 taken, and handed to ssad                          what follows
//	HelloRequest, ClientHello       taken; a ClientHello is answered (TLS 1.2)         what follows
//	KeyUpdate                       ssad takes it, and changes the keys                what follows
//	a part of a message             ssad takes it, and joins it with the rest          what follows
//	KeyUpdate, on a kernel that     it stays in the socket                             EPROTONOSUPPORT, each time
//	cannot change keys
//	what breaks the connection      it stays in the socket; the peer gets the alert    the failure, each time
//	                                that it deserves, and the end of our stream

import (
	"io"
	"syscall"
)

// Read reads up to len(p) bytes. It gives io.EOF after the peer's close_notify.
func (c *Conn) Read(p []byte) (int, error) {
	n, err := c.read(p)
	return n, c.wrap("read", err)
}

// WriteTo copies what comes to w, until the end, in pieces of several records.
func (c *Conn) WriteTo(w io.Writer) (int64, error) {
	var all int64
	piece := make([]byte, 4*longestRecord)
	for {
		n, err := c.Read(piece)
		if n > 0 {
			written, failed := w.Write(piece[:n])
			all += int64(written)
			if failed != nil {
				return all, failed
			}
		}
		if err == io.EOF {
			return all, nil
		}
		if err != nil {
			return all, err
		}
	}
}

func (c *Conn) read(p []byte) (int, error) {
	if broken := c.broken.Load(); broken != nil && !c.closed.Load() {
		return 0, broken
	}
	if len(p) == 0 {
		return 0, nil
	}
	if c.readEnded.Load() && !c.closed.Load() {
		return 0, io.EOF
	}
	n, err := c.receive(p)
	switch {
	case n > 0:
		c.lookBehindShort(p, n)
		return n, nil
	case !c.relayed:
		return c.readPastRecords(p, err)
	case err == nil || err == syscall.ECONNRESET:
		return 0, c.relayedEnd()
	}
	return 0, c.cannotRead(err)
}

// receive is a plain read, which waits. 0 bytes and no error: the kernel says that the stream has ended.
//
// Where another goroutine is having ssad follow a KeyUpdate, the kernel has taken that record and has no key yet: a read
// in between fails with EKEYEXPIRED, and is made again behind it.
func (c *Conn) receive(p []byte) (int, error) {
	for {
		before := c.served.Load()
		n, err := c.receiveOnce(p)
		if err != syscall.EKEYEXPIRED || !c.wasServed(before) {
			return n, err
		}
	}
}

// wasServed is true where a record was served, by whomever, since there were so many.
func (c *Conn) wasServed(before int64) bool {
	c.serving.Lock()
	defer c.serving.Unlock()
	return c.served.Load() != before
}

func (c *Conn) receiveOnce(p []byte) (n int, err error) {
	failed := c.raw.Read(func(fd uintptr) bool {
		for {
			n, err = syscall.Read(int(fd), p)
			if err != syscall.EINTR {
				return err != syscall.EAGAIN
			}
		}
	})
	if failed != nil {
		return 0, failed
	}
	if n < 0 {
		n = 0
	}
	return n, err
}

// A KeyUpdate can hide behind what a read with room to spare gave.
func (c *Conn) lookBehindShort(p []byte, n int) {
	if c.rekeyable && !c.relayed && n < len(p) {
		c.raw.Control(func(fd uintptr) { c.lookBehindUntrusted(int(fd)) })
	}
}

// cannotRead is what a read says for an error of the kernel's.
func (c *Conn) cannotRead(err error) error {
	number, is := err.(syscall.Errno)
	if !is {
		return err // a deadline, or the end of the Conn
	}
	if hasGone(number) {
		c.endWriting()
	}
	if number == syscall.EKEYEXPIRED {
		return &Error{Errno: number, Fault: faultSystem, Text: "the peer has changed its key, and no ssad was there to follow"}
	}
	if why, alert := unreadable(number); why != nil && !c.relayed {
		return c.failBy(why, alert)
	}
	return &Error{Errno: number, Fault: faultNetwork, Text: number.Error()}
}

func (c *Conn) failBy(why *Error, alert int) (err error) {
	if failed := c.raw.Control(func(fd uintptr) { err = c.fail(int(fd), why, alert) }); failed != nil {
		return failed
	}
	return err
}

// --- past the records that are no data ---

// What became of the record that is next.
type outcome int

const (
	goOn       outcome = iota // read again
	passed                    // the same: an alert that is passed over
	answer                    // the same, and the peer wants a KeyUpdate
	unfinished                // the rest of a message has to come next
	ended                     // close_notify
	failed                    // with an error
)

const mostInARow = 4 // alerts that are passed over

// readPastRecords serves what a read stumbled over, and reads again. err is the read's: nil at an end of the kernel's.
func (c *Conn) readPastRecords(p []byte, err error) (int, error) {
	var became outcome
	for inARow := 0; ; {
		if err != nil && err != syscall.EIO {
			return 0, c.cannotRead(err)
		}
		isRecord := true
		if err == nil {
			if isRecord, err = c.lookAtEnd(); err != nil {
				return 0, err
			}
		}
		if isRecord {
			became, err = c.serve(became == unfinished)
		} else if became != unfinished {
			became = goOn
		}
		switch became {
		case failed:
			return 0, c.cannotServe(err)
		case ended:
			return 0, io.EOF
		case passed:
			if inARow++; inARow > mostInARow {
				return 0, c.failBy(violation(unexpectedMessage, "alert after alert, and no end"), unexpectedMessage)
			}
		default:
			inARow = 0
		}
		if became == unfinished {
			if err := c.waitToRead(); err != nil {
				return 0, err
			}
			err = syscall.EIO
			continue
		}
		var n int
		if n, err = c.receive(p); n > 0 {
			c.lookBehindShort(p, n)
			return n, nil
		}
	}
}

// cannotServe is what a read says where a record could not be served.
func (c *Conn) cannotServe(err error) error {
	if broken := c.broken.Load(); broken != nil {
		return broken
	}
	if number, is := err.(syscall.Errno); is {
		return c.cannotRead(number)
	}
	return err
}

// lookAtEnd is true where a record that is no data is next, and false to read again: an empty record of data before it
// reads like an end too. It fails where the stream was cut.
func (c *Conn) lookAtEnd() (isRecord bool, err error) {
	failed := c.raw.Control(func(fd uintptr) {
		var room [16]byte
		size, kind, looked := lookAtRecord(int(fd), room[:])
		switch {
		case looked == syscall.EAGAIN:
		case looked != nil || kind != recordData:
			isRecord = true
		case size == 0:
			if tcpState(int(fd)) == tcpClose { // a reset, as a rule
				c.endWriting()
			}
			err = truncation()
		}
	})
	if failed != nil {
		err = failed
	}
	return isRecord, err
}

// waitToRead waits until something is there. The poller's own word does not do: it may be of what was there before.
func (c *Conn) waitToRead() error {
	return c.raw.Read(func(fd uintptr) bool { return poll(int(fd), pollIn, 0) != 0 })
}
