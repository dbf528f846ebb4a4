package ssa

// Requests and replies as bytes (docs/library.md, "The request language"). No input or output here.

import (
	"encoding/binary"
	"fmt"
	"syscall"
	"unicode/utf8"
	"unsafe"
)

const magic = "SSA1"

const (
	headerSize    = 12 // bytes: magic, kind, number of attributes, length
	attributeHead = 8  // bytes: type, zero, length
	u32Size       = 4
	u64Size       = 8
)

// native is this machine's byte order, in which all numbers of a message are.
var native = func() interface {
	binary.ByteOrder
	binary.AppendByteOrder
} {
	probe := uint16(1)
	if *(*byte)(unsafe.Pointer(&probe)) == 1 {
		return binary.LittleEndian
	}
	return binary.BigEndian
}()

// --- requests ---

// A request is written attribute by attribute.
type request struct {
	kind, count uint16
	body        []byte
}

func newRequest(kind uint16) *request {
	return &request{kind: kind}
}

func (r *request) bytes(attribute uint16, value []byte) {
	r.body = native.AppendUint16(r.body, attribute)
	r.body = native.AppendUint16(r.body, 0)
	r.body = native.AppendUint32(r.body, uint32(len(value)))
	r.body = append(r.body, value...)
	r.count++
}

func (r *request) number(attribute uint16, value uint32) {
	r.bytes(attribute, native.AppendUint32(nil, value))
}

func (r *request) flag(attribute uint16, set bool) {
	if set {
		r.number(attribute, 1)
	}
}

func (r *request) text(attribute uint16, value string) {
	r.bytes(attribute, []byte(value))
}

// names writes RFC 7301's ProtocolNameList: a byte with its length before each name.
func (r *request) names(attribute uint16, names []string) error {
	var list []byte
	for _, name := range names {
		if len(name) == 0 || len(name) > 255 || !isASCII([]byte(name)) {
			return badValue("%q is no name of 1 to 255 ASCII characters", name)
		}
		list = append(append(list, byte(len(name))), name...)
	}
	r.bytes(attribute, list)
	return nil
}

// packet is the whole message.
func (r *request) packet() ([]byte, error) {
	if headerSize+len(r.body) > maxRequest {
		return nil, &Error{Errno: syscall.EINVAL, Fault: faultCaller, Text: "the options are longer than a request"}
	}
	head := append(make([]byte, 0, headerSize+len(r.body)), magic...)
	head = native.AppendUint16(head, r.kind)
	head = native.AppendUint16(head, r.count)
	head = native.AppendUint32(head, uint32(headerSize+len(r.body)))
	return append(head, r.body...), nil
}

// --- replies ---

// A reply is its attributes by their types. Those of a later version are among them, and asked for by nobody.
type reply map[uint16][]byte

func (r reply) number(attribute uint16) uint32 {
	if value := r[attribute]; len(value) == u32Size {
		return native.Uint32(value)
	}
	return 0
}

func (r reply) number64(attribute uint16) uint64 {
	if value := r[attribute]; len(value) == u64Size {
		return native.Uint64(value)
	}
	return 0
}

func (r reply) text(attribute uint16) string {
	return string(r[attribute])
}

// readReplyUntrusted reads a packet of ssad's: the bytes of the reply are the packet's own.
func readReplyUntrusted(packet []byte) (reply, error) {
	if len(packet) < len(magic) || string(packet[:len(magic)-1]) != magic[:len(magic)-1] {
		return nil, noReply
	}
	if string(packet[:len(magic)]) != magic {
		return nil, otherVersion(fmt.Sprintf("%q", packet[:len(magic)]))
	}
	if len(packet) < headerSize {
		return nil, noReply
	}
	kind, count := native.Uint16(packet[4:]), native.Uint16(packet[6:])
	if kind > lastKind {
		return nil, otherVersion(fmt.Sprintf("a reply of the kind %d", kind))
	}
	if kind != kindReply || native.Uint32(packet[8:]) != uint32(len(packet)) {
		return nil, noReply
	}
	return readAttributesUntrusted(packet[headerSize:], int(count))
}

// readAttributesUntrusted sees to it that each attribute is whole, that none comes twice, and that nothing is behind
// the last one.
func readAttributesUntrusted(data []byte, count int) (reply, error) {
	read := make(reply, min(count, len(attributeForms)))
	for ; count > 0; count-- {
		if len(data) < attributeHead {
			return nil, noReply
		}
		kind, zero, length := native.Uint16(data), native.Uint16(data[2:]), native.Uint32(data[4:])
		data = data[attributeHead:]
		if zero != 0 || uint64(length) > uint64(len(data)) || !isFormedUntrusted(kind, data[:length]) {
			return nil, noReply
		}
		if _, twice := read[kind]; twice {
			return nil, noReply
		}
		read[kind] = data[:length:length]
		data = data[length:]
	}
	if len(data) > 0 {
		return nil, noReply
	}
	return read, nil
}

// A form says whether a value is written as its attribute's values are.
type form func(value []byte) bool

func formU32(value []byte) bool { return len(value) == u32Size }

func formU64(value []byte) bool { return len(value) == u64Size }

func formBytes([]byte) bool { return true }

func formText(value []byte) bool {
	for _, char := range value {
		if char == 0 {
			return false
		}
	}
	return utf8.Valid(value)
}

func formNames(value []byte) bool {
	for len(value) > 0 {
		length := int(value[0])
		if length == 0 || length >= len(value) || !isASCII(value[1:1+length]) {
			return false
		}
		value = value[1+length:]
	}
	return true
}

// isFormedUntrusted is true of what a later version has added: that can be anything.
func isFormedUntrusted(attribute uint16, value []byte) bool {
	for _, row := range attributeForms {
		if row.number == attribute {
			return row.form(value)
		}
	}
	return true
}

func isASCII(text []byte) bool {
	for _, char := range text {
		if char >= utf8.RuneSelf {
			return false
		}
	}
	return true
}

func min(a, b int) int {
	if a < b {
		return a
	}
	return b
}
