package ssa

// The calls by which a socket of the kernel's TLS differs (Documentation/networking/tls.rst).

import (
	"syscall"
	"unsafe"
)

const (
	solTLS        = 282 // include/linux/socket.h
	tlsTX         = 1   // include/uapi/linux/tls.h
	tlsRX         = 2
	setRecordType = 1
	getRecordType = 2
)

// Types of records: RFC 8446 section 5.1.
const (
	recordAlert     = 21
	recordHandshake = 22
	recordData      = 23
	longestRecord   = 16 << 10
)

// --- records ---

// readRecord is recvmsg(2) with room for the record's type.
func readRecord(fd int, data []byte, flags int) (size, kind int, err error) {
	control := make([]byte, syscall.CmsgSpace(1))
	for {
		var controlSize int
		size, controlSize, _, _, err = syscall.Recvmsg(fd, data, control, flags)
		if err == syscall.EINTR {
			continue
		}
		if err != nil {
			return 0, 0, err
		}
		return size, typeIn(control[:controlSize]), nil
	}
}

func typeIn(control []byte) int {
	messages, _ := syscall.ParseSocketControlMessage(control) // an error: of what is no message
	for _, message := range messages {
		if message.Header.Level == solTLS && message.Header.Type == getRecordType && len(message.Data) > 0 {
			return int(message.Data[0])
		}
	}
	return recordData
}

// lookAtRecord leaves the record in the socket. Of data it looks at one byte: to look for more could make the kernel
// find a KeyUpdate behind it, and poll(2) hide everything.
func lookAtRecord(fd int, data []byte) (size, kind int, err error) {
	size, kind, err = readRecord(fd, data[:1], syscall.MSG_PEEK|syscall.MSG_DONTWAIT)
	if err != nil || kind == recordData {
		return size, kind, err
	}
	return readRecord(fd, data, syscall.MSG_PEEK|syscall.MSG_DONTWAIT)
}

// sendAlert sends one without waiting.
func sendAlert(fd, level, number int) error {
	control := make([]byte, syscall.CmsgSpace(1))
	header := (*syscall.Cmsghdr)(unsafe.Pointer(&control[0]))
	header.Level, header.Type = solTLS, setRecordType
	header.SetLen(syscall.CmsgLen(1))
	control[syscall.CmsgLen(0)] = recordAlert
	alert := []byte{byte(level), byte(number)}
	return syscall.Sendmsg(fd, alert, control, nil, syscall.MSG_NOSIGNAL|syscall.MSG_DONTWAIT)
}

const leftovers = 256 // reads of 4 KiB: 64 records

// throwAway reads what has come and nobody wants. Who closes with something left unread resets the connection, and what
// was written last may never arrive.
func throwAway(fd int) {
	waste := make([]byte, 4096)
	for count := 0; count < leftovers; count++ {
		if size, _, err := readRecord(fd, waste, syscall.MSG_DONTWAIT); err != nil || size == 0 {
			return
		}
	}
}

// --- keys ---

// By the kernel's number of the cipher: how many records one key may protect, below what RFC 8446 section 5.5 allows
// AES-GCM, and RFC 9147 section 4.5.3 AES-CCM; and the size of struct tls12_crypto_info_*, whose last 8 bytes are the
// number of the next record.
var ciphers = map[uint16]struct {
	records int64
	size    int
}{
	51: {1 << 24, 40},
	52: {1 << 24, 56},
	53: {1 << 22, 40},
	54: {1 << 62, 56},
}

// keyState is struct tls12_crypto_info_*: version and cipher are its first two numbers. It has the key in it.
type keyState [64]byte

func (state *keyState) forget() {
	for at := range state {
		state[at] = 0
	}
}

func keyInfo(fd, direction int, state *keyState) (int, error) {
	if err := getOption(fd, solTLS, direction, state[:4]); err != nil {
		return 0, err
	}
	row, known := ciphers[native.Uint16(state[2:])]
	if !known {
		return 0, syscall.EOPNOTSUPP
	}
	return row.size, getOption(fd, solTLS, direction, state[:row.size])
}

func tlsVersion(fd int) (uint16, error) {
	var head [4]byte
	err := getOption(fd, solTLS, tlsTX, head[:])
	return native.Uint16(head[:]), err
}

// recordsLeft is how many records more the sending key may protect.
func recordsLeft(fd int) (int64, error) {
	var state keyState
	defer state.forget()
	size, err := keyInfo(fd, tlsTX, &state)
	if err != nil {
		return 0, err
	}
	var sent int64
	for _, digit := range state[size-8 : size] {
		sent = sent<<8 | int64(digit)
	}
	if left := ciphers[native.Uint16(state[2:])].records - sent; left > 0 && sent >= 0 {
		return left, nil
	}
	return 0, nil
}

// readOn has the kernel read on behind a handshake record that begins like a KeyUpdate and is none. Since Linux 6.14 it
// goes by the record's first byte, which can be in the middle of a message, and waits for a key: it gets the one it has.
func readOn(fd int) {
	var state keyState
	defer state.forget()
	if size, err := keyInfo(fd, tlsRX, &state); err == nil {
		setOption(fd, solTLS, tlsRX, state[:size]) // EBUSY from a kernel that waits for none
	}
}

// --- sockets ---

// States of TCP: include/net/tcp_states.h.
const (
	tcpFinWait1 = 4
	tcpFinWait2 = 5
	tcpTimeWait = 6
	tcpClose    = 7
	tcpLastAck  = 9
	tcpClosing  = 11
)

func tcpState(fd int) int {
	var state [1]byte
	if err := getOption(fd, syscall.IPPROTO_TCP, syscall.TCP_INFO, state[:]); err != nil {
		return tcpClose
	}
	return int(state[0])
}

// hasWritingEnded: after our own end the kernel takes data all the same, and throws it away.
func hasWritingEnded(fd int) bool {
	switch tcpState(fd) {
	case tcpFinWait1, tcpFinWait2, tcpTimeWait, tcpLastAck, tcpClosing:
		return true
	}
	return false
}

// doesAbort is true where close(2) resets the connection: SO_LINGER is {1, 0}.
func doesAbort(fd int) bool {
	var linger [8]byte
	err := getOption(fd, syscall.SOL_SOCKET, syscall.SO_LINGER, linger[:])
	return err == nil && native.Uint32(linger[:]) != 0 && native.Uint32(linger[4:]) == 0
}

func getOption(fd, level, name int, value []byte) error {
	size := uint32(len(value))
	_, _, errno := syscall.Syscall6(sysGetsockopt, uintptr(fd), uintptr(level), uintptr(name),
		uintptr(unsafe.Pointer(&value[0])), uintptr(unsafe.Pointer(&size)), 0)
	if errno != 0 {
		return errno
	}
	return nil
}

func setOption(fd, level, name int, value []byte) error {
	_, _, errno := syscall.Syscall6(sysSetsockopt, uintptr(fd), uintptr(level), uintptr(name),
		uintptr(unsafe.Pointer(&value[0])), uintptr(len(value)), 0)
	if errno != 0 {
		return errno
	}
	return nil
}

const (
	pollIn  = 1 // include/uapi/asm-generic/poll.h
	pollOut = 4
	pollBad = 8 | 16 // POLLERR, POLLHUP
)

// poll waits for an event: the events that there are, 0 after that many milliseconds.
func poll(fd int, events int16, milliseconds int64) int16 {
	asked := struct {
		fd              int32
		events, revents int16
	}{int32(fd), events, 0}
	limit := syscall.NsecToTimespec(milliseconds * 1e6)
	_, _, errno := syscall.Syscall6(syscall.SYS_PPOLL, uintptr(unsafe.Pointer(&asked)), 1,
		uintptr(unsafe.Pointer(&limit)), 0, 0, 0)
	if errno != 0 {
		return 0
	}
	return asked.revents
}
