package ssa

// What a record means that is no data, behind the handshake (docs/library.md, "Reading"): RFC 8446 sections 4.6, 5, 5.1
// and 6, RFC 5246 sections 7.2.2 and 7.4.1.1. No input or output here.

import "crypto/tls"

// Handshake messages: RFC 8446 section 4.
const (
	helloRequest     = 0
	clientHello      = 1
	newSessionTicket = 4
	keyUpdate        = 24
	messageHead      = 4 // bytes: type and length
)

// Alerts: RFC 8446 section 6.
const (
	levelWarning = 1
	levelFatal   = 2

	closeNotify       = 0
	unexpectedMessage = 10
	badRecordMAC      = 20
	recordOverflow    = 22
	handshakeFailure  = 40
	illegalParameter  = 47
	decodeError       = 50
	internalError     = 80
	userCanceled      = 90
	noRenegotiation   = 100
)

type meaning int

const (
	meansEnd             meaning = iota // close_notify: it stays in the socket
	meansPassOver                       // it is taken, and the stream goes on
	meansTicket                         // likewise, and ssad gets the session tickets
	meansNoRenegotiation                // likewise, and the peer gets that alert
	meansAsk                            // ssad takes it: a KeyUpdate, or a message that goes on in the next record
	meansFail                           // the connection has failed
)

// A verdict is what a record means.
type verdict struct {
	meaning   meaning
	alert     int    // of meansFail: what the peer gets, or noAlert where it has sent one
	why       string // of meansFail: empty where the peer has sent an alert,
	peerAlert int    //   and this one
	update    bool   // a whole KeyUpdate is at the end
	missing   int    // bytes that are to come of a message that goes on in the next record; 0: not known
}

func fails(alert int, why string) verdict {
	return verdict{meaning: meansFail, alert: alert, why: why}
}

// verdictUntrusted judges a record by its type.
func verdictUntrusted(version uint16, server bool, kind int, content []byte) verdict {
	switch kind {
	case recordAlert:
		return alertUntrusted(version == tls.VersionTLS13, content)
	case recordHandshake:
		return messagesUntrusted(version, server, content)
	}
	return fails(unexpectedMessage, "a record of a type that no stream has")
}

func alertUntrusted(modern bool, content []byte) verdict {
	if len(content) == 0 {
		return fails(unexpectedMessage, "an empty record that is no data")
	}
	if len(content) != 2 {
		return fails(decodeError, "an alert of another length than 2")
	}
	level, number := int(content[0]), int(content[1])
	warning := level == levelWarning
	switch {
	case number == closeNotify:
		return verdict{meaning: meansEnd}
	case number == userCanceled && (modern || warning):
		return verdict{meaning: meansPassOver}
	case !modern && !warning && level != levelFatal:
		return fails(illegalParameter, "an alert of another level than warning and fatal")
	case !modern && warning && number == noRenegotiation:
		return fails(handshakeFailure, "no_renegotiation, and nobody had asked for it")
	case !modern && warning:
		return verdict{meaning: meansPassOver}
	}
	return verdict{meaning: meansFail, alert: noAlert, peerAlert: number}
}

type role int

const (
	bothRoles role = iota
	clientRole
	serverRole
)

// Lengths in bytes, as OpenSSL bounds them: a ticket of 64 KiB and as many extensions.
var messages = []struct {
	version uint16
	kind    byte
	taker   role
	longest int
	meaning meaning
}{
	{tls.VersionTLS13, newSessionTicket, clientRole, 131338, meansTicket},
	{tls.VersionTLS13, keyUpdate, bothRoles, 1, meansAsk},
	{tls.VersionTLS12, helloRequest, clientRole, 0, meansPassOver},
	{tls.VersionTLS12, clientHello, serverRole, 131396, meansNoRenegotiation},
}

// messageOf is what a message of this type means, and how long it can be.
func messageOf(version uint16, server bool, kind byte) (longest int, means meaning, known bool) {
	ours := clientRole
	if server {
		ours = serverRole
	}
	for _, row := range messages {
		if row.version == version && row.kind == kind && (row.taker == bothRoles || row.taker == ours) {
			return row.longest, row.meaning, true
		}
	}
	return 0, 0, false
}

// leastLength is the length that a header says, as far as it has come: the least that it can be.
func leastLength(head []byte) int {
	length := 0
	for at := 1; at < messageHead; at++ {
		length <<= 8
		if at < len(head) {
			length |= int(head[at])
		}
	}
	return length
}

func tooLong(longest int) verdict {
	if longest <= 1 {
		return fails(decodeError, "a handshake message that is too long")
	}
	return fails(illegalParameter, "a handshake message that is too long")
}

func messagesUntrusted(version uint16, server bool, data []byte) verdict {
	judged := fails(unexpectedMessage, "an empty record that is no data")
	for len(data) > 0 {
		longest, means, known := messageOf(version, server, data[0])
		length := leastLength(data)
		switch {
		case judged.update:
			return fails(unexpectedMessage, "something behind a KeyUpdate in its record (RFC 8446 section 5.1)")
		case !known:
			return fails(unexpectedMessage, "a handshake message that no stream has")
		case length > longest:
			return tooLong(longest)
		case len(data) < messageHead:
			return verdict{meaning: meansAsk}
		case len(data) < messageHead+length:
			return verdict{meaning: meansAsk, missing: messageHead + length - len(data)}
		}
		judged = verdict{meaning: means}
		if data[0] == keyUpdate {
			judged = updateUntrusted(data[messageHead : messageHead+length])
		}
		if judged.meaning == meansFail {
			return judged
		}
		data = data[messageHead+length:]
	}
	return judged
}

func updateUntrusted(body []byte) verdict {
	switch {
	case len(body) == 0:
		return fails(decodeError, "a KeyUpdate without a word")
	case body[0] > 1:
		return fails(illegalParameter, "a KeyUpdate that asks for what there is not")
	}
	return verdict{meaning: meansAsk, update: true}
}
