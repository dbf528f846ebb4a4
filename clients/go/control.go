package ssa

// The record that is next and no data: it is looked at, and taken by this process, or by ssad. The table is in read.go.

import (
	"bytes"
	"syscall"
)

// serve does what the next record calls for.
func (c *Conn) serve(wasUnfinished bool) (became outcome, err error) {
	c.serving.Lock()
	defer c.serving.Unlock()
	became = failed
	closed := c.raw.Control(func(fd uintptr) { became, err = c.serveUntrusted(int(fd), wasUnfinished) })
	c.served.Add(1)
	if closed != nil {
		return failed, closed
	}
	if became == answer {
		c.answerDue.Store(true)
	}
	return became, err
}

func (c *Conn) serveUntrusted(fd int, wasUnfinished bool) (outcome, error) {
	content := make([]byte, longestRecord)
	size, kind, err := lookAtRecord(fd, content)
	switch {
	case err == syscall.EAGAIN && wasUnfinished:
		return unfinished, nil
	case err == syscall.EAGAIN:
		return goOn, nil
	case err != nil:
		return failed, err
	case kind == recordData && wasUnfinished && size > 0:
		return c.askToReceive(fd)
	case kind == recordData:
		return goOn, nil
	}
	return c.serveRecordUntrusted(fd, kind, content[:size])
}

func (c *Conn) serveRecordUntrusted(fd, kind int, content []byte) (outcome, error) {
	if kind == recordHandshake && c.skip > 0 {
		return c.skipPiece(fd, content)
	}
	version, err := tlsVersion(fd)
	if err != nil {
		return failed, err
	}
	judged := verdictUntrusted(version, c.server, kind, content)
	switch {
	case judged.meaning == meansEnd:
		return ended, nil
	case judged.meaning == meansAsk || judged.meaning == meansFail && kind == recordHandshake:
		return c.askFirst(fd, content, judged)
	case judged.meaning == meansFail:
		return c.breakBy(fd, judged)
	}
	became, err := c.take(fd, kind, content)
	if became != goOn {
		return became, err
	}
	switch judged.meaning {
	case meansTicket:
		handIn(fd, content)
	case meansNoRenegotiation:
		sendAlert(fd, levelWarning, noRenegotiation)
	}
	return goOn, nil
}

func (c *Conn) breakBy(fd int, judged verdict) (outcome, error) {
	if judged.why == "" {
		return failed, c.fail(fd, endedByAlert(alertName(judged.peerAlert)), noAlert)
	}
	return failed, c.fail(fd, violation(judged.alert, judged.why), judged.alert)
}

// take takes the record that was looked at.
func (c *Conn) take(fd, kind int, content []byte) (outcome, error) {
	again := make([]byte, len(content)+1)
	size, _, err := readRecord(fd, again, syscall.MSG_DONTWAIT)
	if err != nil || !bytes.Equal(again[:size], content) {
		return failed, c.fail(fd, faulty("somebody else reads from this socket, and what came is lost"), internalError)
	}
	if kind == recordAlert {
		return passed, nil
	}
	if kind == recordHandshake && len(content) > 0 && content[0] == keyUpdate { // that is none: ssad takes those
		readOn(fd)
	}
	return goOn, nil
}

// --- messages that ssad takes ---

// askFirst has ssad take a handshake record. It may be the rest of a message whose beginning another process has met:
// only ssad knows.
func (c *Conn) askFirst(fd int, content []byte, judged verdict) (outcome, error) {
	became, err := c.askToReceive(fd)
	isAbsent := isErrno(err, syscall.ECONNREFUSED) || says(err, "UNKNOWN_SOCKET")
	if became != failed || !isAbsent || judged.update {
		return became, err
	}
	if judged.meaning == meansFail {
		return c.breakBy(fd, judged)
	}
	if judged.missing == 0 {
		return failed, err
	}
	became, err = c.take(fd, recordHandshake, content)
	if became == goOn {
		c.skip = judged.missing
		return unfinished, nil
	}
	return became, err
}

// skipPiece passes over the next piece of a message whose beginning had no ssad to take it. A ticket is lost then, and
// no worse.
func (c *Conn) skipPiece(fd int, content []byte) (outcome, error) {
	if len(content) > c.skip {
		why := violation(unexpectedMessage, "a message in pieces, and something behind it")
		return failed, c.fail(fd, why, unexpectedMessage)
	}
	became, err := c.take(fd, recordHandshake, content)
	if became != goOn {
		return became, err
	}
	c.skip -= len(content)
	if c.skip > 0 {
		return unfinished, nil
	}
	return goOn, nil
}

// askToReceive has ssad take the messages that are next, and follow the peer's KeyUpdate.
func (c *Conn) askToReceive(fd int) (outcome, error) {
	x, err := openLocally(until(&c.readDeadline))
	if err != nil {
		return failed, err
	}
	defer x.close()
	asked := newRequest(kindRekey)
	asked.number(attributeReceiving, 1)
	told, err := x.ask(asked, fd)
	switch {
	case says(err, "PROTOCOL_VIOLATION"):
		alert := alertNumber(told.text(attributeAlert))
		if alert == noAlert {
			alert = unexpectedMessage
		}
		return failed, c.fail(fd, err.(*Error), alert)
	case err != nil:
		return failed, err
	case told.number(attributeUnfinished) != 0:
		return unfinished, nil
	case told.number(attributeSending) != 0:
		return answer, nil
	}
	return goOn, nil
}

// handIn gives session tickets to ssad, for the resumption of the next connection. Where that fails, nothing is worse.
func handIn(fd int, tickets []byte) {
	x, err := openAtOnce()
	if err != nil {
		return
	}
	defer x.close()
	asked := newRequest(kindTicket)
	asked.bytes(attributeTicket, tickets)
	x.tell(asked, fd)
}

// lookBehindUntrusted serves a KeyUpdate that waits behind what was read. Where a read had room to spare, the kernel
// has looked on, and may have found one. It waits to be read, and poll(2) says that there is nothing, whatever follows:
// nobody who polls first would ever read again. An error is left to the next read; poll(2) has to say so.
func (c *Conn) lookBehindUntrusted(fd int) {
	var content [64]byte
	for {
		_, _, err := syscall.Recvfrom(fd, content[:1], syscall.MSG_PEEK|syscall.MSG_DONTWAIT)
		if err == syscall.EIO {
			break
		}
		if err != syscall.EINTR {
			return
		}
	}
	size, kind, err := lookAtRecord(fd, content[:])
	if err != nil || size < 1 || kind != recordHandshake || content[0] != keyUpdate {
		return // others do not hide
	}
	if became, _ := c.serve(false); became == failed {
		syscall.Shutdown(fd, syscall.SHUT_RD)
	}
}

func isErrno(err error, number syscall.Errno) bool {
	told, is := err.(*Error)
	return is && told.Errno == number
}
