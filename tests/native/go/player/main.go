// Plays the cases of tests/native/conformance.json by the Go package, as tests/native/player.py does by the others.
//
// A case is a list of steps in JSON on the standard input. What each gives is printed as JSON: a value, or the name of an
// errno. The steps are those of a socket; here "socket", "set" and "bind" note down what Dial and Listen are called with.
package main

import (
	"bufio"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strconv"
	"strings"
	"syscall"
	"time"

	"ssa"
)

var input = bufio.NewReaderSize(os.Stdin, 1<<20)

func tell(words map[string]any) {
	line, err := json.Marshal(words)
	if err != nil {
		panic(err)
	}
	fmt.Println(string(line))
}

func main() {
	for {
		line, err := input.ReadBytes('\n')
		if err != nil {
			os.Exit(0)
		}
		var steps [][]any
		if err := json.Unmarshal(line, &steps); err != nil {
			panic(err)
		}
		game := player{named: map[string]*object{}}
		results := make([]any, len(steps))
		for at, step := range steps {
			results[at] = game.play(step[0].(string), step[1].(string), step[2:])
		}
		tell(map[string]any{"results": results})
	}
}

// An object is what a case calls by a name.
type object struct {
	config   ssa.Config
	plain    net.Conn
	conn     *ssa.Conn
	address  string
	listener *ssa.Listener
}

type player struct{ named map[string]*object }

func (p *player) play(call, name string, arguments []any) any {
	step, known := steps[call]
	if !known {
		panic("no step " + call)
	}
	value, err := step(p, name, arguments)
	if err == nil || err == io.EOF {
		return value
	}
	return map[string]string{"errno": errnoOf(err)}
}

var names = map[syscall.Errno]string{
	syscall.EKEYREJECTED: "EKEYREJECTED", syscall.EPROTO: "EPROTO", syscall.ECONNABORTED: "ECONNABORTED",
	syscall.ECONNREFUSED: "ECONNREFUSED", syscall.EPIPE: "EPIPE", syscall.ENOKEY: "ENOKEY", syscall.EINVAL: "EINVAL",
	syscall.EPROTONOSUPPORT: "EPROTONOSUPPORT", syscall.EACCES: "EACCES", syscall.ECONNRESET: "ECONNRESET",
	syscall.ENOENT: "ENOENT", syscall.EBADMSG: "EBADMSG", syscall.EMSGSIZE: "EMSGSIZE", syscall.EKEYEXPIRED: "EKEYEXPIRED",
	syscall.ETIMEDOUT: "ETIMEDOUT",
}

func errnoOf(err error) string {
	var number syscall.Errno
	switch {
	case errors.Is(err, os.ErrDeadlineExceeded):
		return "EAGAIN"
	case errors.As(err, &number) && names[number] != "":
		return names[number]
	}
	return err.Error()
}

func text(value any) string { return value.(string) }

func number(value any) int { return int(value.(float64)) }

func address(arguments []any) string {
	return net.JoinHostPort(text(arguments[0]), strconv.Itoa(number(arguments[1])))
}

var steps = map[string]func(p *player, name string, arguments []any) (any, error){
	"socket": func(p *player, name string, _ []any) (any, error) {
		p.named[name] = new(object)
		return nil, nil
	},
	"plain": func(p *player, name string, arguments []any) (any, error) {
		plain, err := net.Dial("tcp", address(arguments))
		p.named[name] = &object{plain: plain}
		return nil, err
	},
	"bare":    (*player).dial,
	"connect": (*player).dial,
	"set":     (*player).set,
	"get":     (*player).get,
	"number":  (*player).number,
	"peername": func(p *player, name string, _ []any) (any, error) {
		return p.named[name].conn.RemoteAddr().(*net.TCPAddr).IP.String(), nil
	},
	"send":    (*player).write,
	"write":   (*player).write,
	"sendall": (*player).sendAll,
	"sendfile": func(p *player, name string, arguments []any) (any, error) {
		file, err := os.Open(text(arguments[0]))
		if err != nil {
			return nil, err
		}
		defer file.Close()
		if len(arguments) > 1 {
			file.Seek(int64(number(arguments[1])), io.SeekStart)
		}
		return p.named[name].conn.ReadFrom(file)
	},
	"recv": func(p *player, name string, arguments []any) (any, error) {
		room := make([]byte, number(arguments[0]))
		n, err := p.named[name].conn.Read(room)
		return string(room[:n]), err
	},
	"recv_count": (*player).receiveCount,
	"gather":     (*player).gather,
	"shutdown": func(p *player, name string, _ []any) (any, error) {
		return nil, p.named[name].conn.CloseWrite()
	},
	"linger": func(p *player, name string, arguments []any) (any, error) {
		return nil, p.named[name].conn.SetLinger(number(arguments[1]))
	},
	"close": (*player).close,
	"bind": func(p *player, name string, arguments []any) (any, error) {
		p.named[name].address = address(arguments)
		return nil, nil
	},
	"listen": func(p *player, name string, _ []any) (any, error) {
		listens := p.named[name]
		var err error
		listens.listener, err = ssa.Listen("tcp", listens.address, &listens.config)
		return nil, err
	},
	"port": func(p *player, name string, _ []any) (any, error) {
		tell(map[string]any{"port": p.named[name].listener.Addr().(*net.TCPAddr).Port})
		_, err := input.ReadBytes('\n')
		return nil, err
	},
	"accept": func(p *player, name string, arguments []any) (any, error) {
		conn, err := p.named[name].listener.Accept()
		if err != nil {
			return nil, err
		}
		p.named[text(arguments[0])] = &object{conn: conn.(*ssa.Conn)}
		return conn.RemoteAddr().(*net.TCPAddr).IP.String(), nil
	},
	"poll": func(*player, string, []any) (any, error) { return true, nil }, // Go's poller is inside of Read
}

func (p *player) dial(name string, arguments []any) (any, error) {
	if p.named[name] == nil {
		p.named[name] = new(object)
	}
	dials := p.named[name]
	conn, err := ssa.Dial("tcp", address(arguments), &dials.config)
	dials.conn = conn
	return nil, err
}

func (p *player) set(name string, arguments []any) (any, error) {
	config := &p.named[name].config
	option, value := text(arguments[0]), arguments[1]
	words := strings.Split(fmt.Sprint(value), ",")
	switch option {
	case "TLS_REMOTE_HOSTNAME":
		config.ServerName = text(value)
	case "TLS_ALPN":
		config.NextProtos = append(config.NextProtos, words...)
	case "TLS_VERSION_MIN":
		config.MinVersion = map[string]uint16{"TLSv1.2": tls.VersionTLS12, "TLSv1.3": tls.VersionTLS13}[text(value)]
	case "TLS_SESSION_TTL":
		config.SessionTTL = time.Duration(number(value))*time.Second - time.Nanosecond
	case "TLS_TRUSTED_PEER_CERTIFICATES":
		config.TrustedFiles = words
	case "TLS_CERTIFICATE_CHAIN":
		config.CertificateFiles = words
	case "TLS_PRIVATE_KEY":
		config.KeyFiles = words
	case "TLS_UPGRADE":
		conn, err := ssa.Client(context.Background(), p.named[name].plain, nil, config)
		p.named[name].conn = conn
		return nil, err
	default:
		panic("no option " + option)
	}
	if option == "TLS_PRIVATE_KEY" {
		return nil, config.Check(context.Background())
	}
	return nil, nil
}

func (p *player) get(name string, arguments []any) (any, error) {
	asked := p.named[name]
	if asked.conn == nil || text(arguments[0]) == "TLS_REMOTE_HOSTNAME" {
		return map[string]string{
			"TLS_REMOTE_HOSTNAME": asked.config.ServerName, "TLS_ALPN": strings.Join(asked.config.NextProtos, ","),
		}[text(arguments[0])], nil
	}
	state := asked.conn.ConnectionState()
	switch text(arguments[0]) {
	case "TLS_PEER_IDENTITY":
		return asked.conn.PeerIdentity(), nil
	case "TLS_VERSION_CONN":
		return map[uint16]string{tls.VersionTLS12: "TLSv1.2", tls.VersionTLS13: "TLSv1.3"}[state.Version], nil
	case "TLS_HOSTNAME":
		return state.ServerName, nil
	case "TLS_ALPN":
		return state.NegotiatedProtocol, nil
	}
	panic(fmt.Sprint("no option ", arguments))
}

func (p *player) number(name string, arguments []any) (any, error) {
	state := p.named[name].conn.ConnectionState()
	switch text(arguments[0]) {
	case "TLS_VERSION_CONN":
		return state.Version, nil
	case "TLS_RESUMED_SESSION":
		if state.DidResume {
			return 1, nil
		}
		return 0, nil
	}
	panic(fmt.Sprint("no option ", arguments))
}

func (p *player) write(name string, arguments []any) (any, error) {
	return p.named[name].conn.Write([]byte(text(arguments[0])))
}

func pattern(count int) []byte {
	data := make([]byte, count)
	for at := range data {
		data[at] = byte(at)
	}
	return data
}

func (p *player) sendAll(name string, arguments []any) (any, error) {
	_, err := p.named[name].conn.Write(pattern(number(arguments[0])))
	return nil, err
}

func (p *player) receiveCount(name string, arguments []any) (any, error) {
	count := number(arguments[0])
	got := make([]byte, count)
	size, err := io.ReadFull(p.named[name].conn, got)
	if err != nil && err != io.ErrUnexpectedEOF && err != io.EOF {
		return nil, err
	}
	return []any{size, string(got[:size]) == string(pattern(size))}, nil
}

// gather reads so many bytes, or to the end, each time with room to spare.
func (p *player) gather(name string, arguments []any) (any, error) {
	got, room := "", make([]byte, 100)
	for len(got) < number(arguments[0]) {
		n, err := p.named[name].conn.Read(room)
		got += string(room[:n])
		if err == io.EOF {
			break
		}
		if err != nil {
			return nil, err
		}
	}
	return got, nil
}

func (p *player) close(name string, _ []any) (any, error) {
	closes := p.named[name]
	delete(p.named, name)
	switch {
	case closes.listener != nil:
		return nil, closes.listener.Close()
	case closes.conn != nil:
		return nil, closes.conn.Close()
	}
	return nil, nil
}
