package ssa

import (
	"fmt"
	"io"
	"strings"
	"syscall"
	"unicode"
)

// Whose fault an error is.
const (
	faultPeer    = "peer"
	faultPolicy  = "policy"
	faultCaller  = "caller"
	faultNetwork = "network"
	faultSystem  = "system"
)

// An Error says why TLS failed. It is the errno of Errno too: errors.Is(err, syscall.ECONNABORTED). It is wrapped in a
// *net.OpError where a connection or a listener has failed.
type Error struct {
	// Reason is the name of the row of docs/library.md's errors, as "HOSTNAME_MISMATCH". It is empty where ssad did not
	// say it: where ssad is missing, or a connection failed after its handshake.
	Reason string
	// Errno is the system's number for it.
	Errno syscall.Errno
	// Alert is the TLS alert that the peer was sent, or has sent, by the RFC's name; empty for none.
	Alert string
	// Fault is whose fault it is: "peer", "policy", "caller", "network" or "system".
	Fault string
	// Text says what is wrong, Detail what it is in this case, and Advice what can be done about it. The last two may
	// be empty.
	Text, Detail, Advice string

	cut       bool // a stream that ended without close_notify
	temporary bool // for a server: its next Accept can succeed
}

func (e *Error) Error() string {
	text := "ssa: " + e.Text
	if e.Detail != "" {
		text += ": " + e.Detail
	}
	if e.Advice != "" {
		text += ". " + e.Advice
	}
	return text
}

// Is is true for io.ErrUnexpectedEOF where a stream was cut: its end came without TLS's close_notify.
func (e *Error) Is(target error) bool {
	return e.cut && target == io.ErrUnexpectedEOF
}

// Unwrap gives the errno.
func (e *Error) Unwrap() error {
	return e.Errno
}

// Timeout is true where something did not happen in time, as net.Error has it.
func (e *Error) Timeout() bool {
	return e.Errno == syscall.ETIMEDOUT
}

// Temporary is true where the same call can succeed later, as net.Error has it. http.Server goes on serving after a
// temporary error of its listener.
func (e *Error) Temporary() bool {
	return e.temporary || e.Timeout() || e.Errno.Temporary() || e.Errno == syscall.ENOBUFS || e.Errno == syscall.ENOMEM
}

// A reason is a row of the table of errors.
type reason struct {
	name                       string
	errno                      syscall.Errno
	alert, fault, text, advice string
}

func reasonNamed(name string) (reason, bool) {
	for _, row := range reasons {
		if row.name == name {
			return row, true
		}
	}
	return reason{}, false
}

// failure is an error of the table, found by this library or said by ssad.
func failure(name, format string, arguments ...any) *Error {
	row, _ := reasonNamed(name)
	return &Error{
		Reason: name, Errno: row.errno, Alert: row.alert, Fault: row.fault,
		Text: row.text, Detail: printable(fmt.Sprintf(format, arguments...)), Advice: row.advice,
	}
}

func badValue(format string, arguments ...any) *Error {
	return failure("BAD_VALUE", format, arguments...)
}

// refusal is the error that a reply tells, or nil where the request was done. A reason of a later version comes with
// its errno and detail, which are enough.
func (r reply) refusal() error {
	if _, refused := r[attributeReason]; !refused {
		return nil
	}
	name := r.text(attributeReason)
	told := failure(name, "%s", r.text(attributeDetail))
	if number := r.number(attributeErrno); number != 0 {
		told.Errno = syscall.Errno(number)
	}
	if _, known := reasonNamed(name); !known {
		told.Text, told.Fault = printable(name), faultSystem
		if told.Errno == 0 {
			told.Errno = syscall.EIO
		}
	}
	if alert := r.text(attributeAlert); alert != "" {
		told.Alert = printable(alert)
	}
	return told
}

// says is true of an error with this reason.
func says(err error, reason string) bool {
	told, ok := err.(*Error)
	return ok && told.Reason == reason
}

func faulty(text string) *Error {
	return &Error{Errno: syscall.EIO, Fault: faultSystem, Text: "ssad failed: " + text}
}

var noReply = faulty("its reply is none of this protocol's")

func otherVersion(answered string) *Error {
	return failure("VERSION_MISMATCH", "ssad speaks another version of the request language (it answered %s) than this "+
		"library, which speaks %s", answered, magic)
}

// --- a connection that has failed after its handshake ---

func cutError(text string) *Error {
	return &Error{Errno: syscall.ECONNABORTED, Fault: faultNetwork, Text: text, cut: true}
}

func truncation() *Error {
	return cutError("the connection was cut: its end came without TLS's close_notify")
}

func violation(alert int, what string) *Error {
	told := failure("PROTOCOL_VIOLATION", "%s", what)
	told.Alert = alertName(alert)
	return told
}

func endedByAlert(name string) *Error {
	return &Error{
		Errno: syscall.EPROTO, Alert: printable(name), Fault: faultPeer,
		Text: "the peer ended the connection with the alert " + printable(name),
	}
}

func writingEnded() *Error {
	return &Error{
		Errno: syscall.EPIPE, Fault: faultCaller, Text: "the stream has been ended: nothing can be sent any more",
	}
}

// --- alerts ---

type alert struct {
	number int
	name   string
}

const noAlert = -1

func alertName(number int) string {
	for _, row := range alerts {
		if row.number == number {
			return row.name
		}
	}
	return fmt.Sprintf("alert_%d", number)
}

func alertNumber(name string) int {
	for _, row := range alerts {
		if row.name == name {
			return row.number
		}
	}
	return noAlert
}

// --- words that others chose ---

const longestDetail = 1000 // bytes

// printable makes text fit for a message: one line, of limited length, where all that cannot be seen is escaped.
func printable(text string) string {
	var clean strings.Builder
	for _, char := range text {
		if clean.Len() > longestDetail {
			clean.WriteString("...")
			break
		}
		if unicode.IsPrint(char) {
			clean.WriteRune(char)
		} else {
			fmt.Fprintf(&clean, "\\u%04x", char)
		}
	}
	return clean.String()
}
