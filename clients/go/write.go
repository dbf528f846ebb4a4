package ssa

// Writing, and how long a key serves. Between our KeyUpdate and our next key no record may go out (RFC 8446 section
// 4.6.3), and the kernel does not see to that: so senders take turns. `budget` counts down to the moment when it has to
// be looked at whether a KeyUpdate is due.

import (
	"crypto/tls"
	"io"
	"os"
	"syscall"
)

const (
	lookNow   = -1
	stride    = 1 << 10 // what may be sent between two looks: so many records, or KiB of data, which are more
	largePart = 1 << 20 // bytes that are sent between two looks where much is sent at once
)

// Write sends p, all of it unless it fails. Those of several goroutines are not mixed.
func (c *Conn) Write(p []byte) (int, error) {
	c.turn.Lock()
	defer c.turn.Unlock()
	n, err := c.write(p)
	return n, c.wrap("write", err)
}

func (c *Conn) write(p []byte) (int, error) {
	for n := 0; ; {
		part := p[n:min(len(p), n+largePart)]
		if err := c.look(); err != nil {
			return n, err
		}
		sent, err := c.send(part)
		n += sent
		if err != nil {
			return n, c.cannotWrite(err)
		}
		if n == len(p) {
			return n, nil
		}
	}
}

// send writes a part, and waits as often as it has to.
func (c *Conn) send(part []byte) (n int, err error) {
	if len(part) == 0 {
		return 0, nil
	}
	waited := c.raw.Write(func(fd uintptr) bool {
		for n < len(part) {
			var sent int
			sent, err = syscall.Write(int(fd), part[n:])
			switch {
			case err == syscall.EINTR:
			case err != nil:
				return err != syscall.EAGAIN
			default:
				n += sent
			}
		}
		err = nil
		return true
	})
	c.spend(int64(n))
	if waited != nil {
		return n, waited
	}
	return n, err
}

func (c *Conn) spend(sent int64) {
	if c.budget >= 0 {
		c.budget -= 1 + sent>>10
	}
}

// cannotWrite is what a write says for an error of the kernel's.
func (c *Conn) cannotWrite(err error) error {
	number, is := err.(syscall.Errno)
	if !is {
		return err // a deadline, or the end of the Conn
	}
	if c.relayed && (number == syscall.EPIPE || number == syscall.ECONNRESET) {
		return c.relayedWriteFailure()
	}
	if hasGone(number) {
		c.endWriting()
	}
	if why, alert := unreadable(number); why != nil && !c.relayed {
		return c.failBy(why, alert) // of a record that came, and that nobody has read yet
	}
	return &Error{Errno: number, Fault: faultNetwork, Text: number.Error()}
}

// --- files ---

// ReadFrom sends all that r gives. Of a regular file the kernel takes it by itself (sendfile).
func (c *Conn) ReadFrom(r io.Reader) (int64, error) {
	n, err := c.sendFile(r)
	if err != nil {
		return n, c.wrap("write", err)
	}
	more, err := io.Copy(onlyWriter{c}, r) // what is no file, or has come behind its end meanwhile
	return n + more, err
}

// onlyWriter hides ReadFrom from io.Copy.
type onlyWriter struct{ io.Writer }

// sendFile sends what a file has from where it is. 0 and no error: r is no file, or none that the kernel can send.
func (c *Conn) sendFile(r io.Reader) (int64, error) {
	limit, isLimited := r.(*io.LimitedReader)
	source := r
	if isLimited {
		source = limit.R
	}
	file, is := source.(*os.File)
	if !is {
		return 0, nil
	}
	due, err := bytesDue(file)
	if isLimited && limit.N < due {
		due = limit.N
	}
	if err != nil || due <= 0 {
		return 0, nil
	}
	raw, err := file.SyscallConn()
	if err != nil {
		return 0, nil
	}
	c.turn.Lock()
	defer c.turn.Unlock()
	var sent int64
	closed := raw.Control(func(from uintptr) { sent, err = c.sendFileParts(int(from), due) })
	if isLimited {
		limit.N -= sent
	}
	if closed != nil {
		err = closed
	}
	return sent, err
}

// bytesDue is how much a regular file has from where it is. More is never asked for: before Linux 6.5 the kernel would
// keep the last bytes for 200 ms (fs/splice.c, SPLICE_F_MORE).
func bytesDue(file *os.File) (int64, error) {
	status, err := file.Stat()
	if err != nil || !status.Mode().IsRegular() {
		return 0, err
	}
	at, err := file.Seek(0, io.SeekCurrent)
	return status.Size() - at, err
}

func (c *Conn) sendFileParts(from int, due int64) (int64, error) {
	var all int64
	for all < due {
		if err := c.look(); err != nil {
			return all, err
		}
		sent, err := c.sendFilePart(from, min(largePart, int(due-all)))
		all += sent
		if all == 0 && (err == syscall.EINVAL || err == syscall.ENOSYS) {
			return 0, nil // a file system that cannot do it: the bytes are copied
		}
		if err != nil {
			return all, c.cannotWrite(err)
		}
		if sent == 0 {
			break // the file has become shorter
		}
	}
	return all, nil
}

func (c *Conn) sendFilePart(from, size int) (int64, error) {
	var sent int
	var err error
	waited := c.raw.Write(func(fd uintptr) bool {
		for {
			sent, err = syscall.Sendfile(int(fd), from, nil, size)
			if err != syscall.EINTR {
				return err != syscall.EAGAIN
			}
		}
	})
	if sent < 0 {
		sent = 0
	}
	c.spend(int64(sent))
	if waited != nil {
		err = waited
	}
	return int64(sent), err
}

// --- keys ---

// look sees to it that nothing is sent behind our own end, nor under a key that has served its time.
func (c *Conn) look() error {
	if c.closed.Load() {
		return os.ErrClosed
	}
	if broken := c.broken.Load(); broken != nil {
		return broken
	}
	if c.writeEnded.Load() {
		return writingEnded()
	}
	if c.relayed || c.budget >= 0 && !c.answerDue.Load() {
		return nil
	}
	var due int64
	var err error
	if failed := c.raw.Control(func(fd uintptr) { due, err = c.changeDue(int(fd)) }); failed != nil {
		return failed
	}
	if err == nil && due > 0 {
		err = c.changeKey(due)
	}
	if err == nil && c.broken.Load() != nil {
		err = c.broken.Load()
	}
	return err
}

// changeDue is 0 where nothing is due, and else how many records are left to the key, and one.
func (c *Conn) changeDue(fd int) (int64, error) {
	if hasWritingEnded(fd) {
		c.endWriting()
		return 0, writingEnded()
	}
	left, err := recordsLeft(fd)
	if err != nil {
		return 0, systemError(err, "the kernel's key")
	}
	if version, err := tlsVersion(fd); c.rekeyable && err == nil && version == tls.VersionTLS13 {
		c.lookBehindUntrusted(fd) // a program that only sends would never find what the peer asks for
	}
	if !c.answerDue.Load() && left > 2*stride {
		c.budget = stride
		return 0, nil
	}
	return left + 1, nil
}

// changeKey has ssad send a KeyUpdate and change the sending key. It waits for room to send.
func (c *Conn) changeKey(due int64) error {
	isAnswer := c.answerDue.Swap(false)
	for {
		err := c.askToSend()
		switch {
		case err == nil:
			return c.raw.Control(func(fd uintptr) { c.setBudget(int(fd)) })
		case says(err, "CONNECTION_LOST"):
			c.endWriting()
			return err
		case !says(err, "WOULD_BLOCK"):
			return c.serveOn(err, due-1, isAnswer)
		}
		wait := c.raw.Write(func(fd uintptr) bool { return poll(int(fd), pollOut, 0) != 0 })
		if wait != nil {
			c.answerDue.Store(isAnswer)
			return wait
		}
	}
}

func (c *Conn) askToSend() (err error) {
	x, err := openLocally(until(&c.writeDeadline))
	if err != nil {
		return err
	}
	defer x.close()
	asked := newRequest(kindRekey)
	asked.number(attributeSending, 1)
	closed := c.raw.Control(func(fd uintptr) { _, err = x.ask(asked, int(fd)) })
	if closed != nil {
		return closed
	}
	return err
}

func (c *Conn) setBudget(fd int) {
	c.budget = stride
	if left, err := recordsLeft(fd); err == nil && left/2 < stride {
		c.budget = left / 2
	}
}

// serveOn: the key cannot change. Some records more may be sent under it, if the peer demands nothing else.
func (c *Conn) serveOn(err error, left int64, isAnswer bool) error {
	if isAnswer {
		c.answerDue.Store(true)
		return err
	}
	if left <= 0 {
		return &Error{
			Errno: syscall.EKEYEXPIRED, Fault: faultSystem, Detail: err.Error(),
			Text: "the key has protected as many records as it may (RFC 8446 section 5.5), and cannot be changed",
		}
	}
	c.budget = left / 2
	return nil
}
