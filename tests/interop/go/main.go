// A peer for the tests: Go's crypto/tls as a server and as a client, many connections in one process.
//
// Both ends follow one of two scripts. "answer": the client speaks and ends its half of the stream; the server sends
// the same back, and the stream ends. "speak": the server speaks first and ends its half; then the client sends, and
// ends the stream. What came in, each tells as a line of JSON.
package main

import (
	"bufio"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
)

type job struct {
	Address string
	Script  string
	Version uint16
	Suite   uint16
	Size    int
}

type report struct {
	Version  uint16
	Suite    uint16
	Protocol string
	Bytes    int
	Digest   string
	Error    string
}

func main() {
	var err error
	switch os.Args[1] {
	case "server":
		err = serve(os.Args[2:])
	case "client":
		err = work(os.Args[2])
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func tell(found report) {
	line, _ := json.Marshal(found)
	fmt.Println(string(line))
}

func told(connection *tls.Conn, received []byte, err error) report {
	state := connection.ConnectionState()
	digest := sha256.Sum256(received)
	found := report{state.Version, state.CipherSuite, state.NegotiatedProtocol, len(received), hex.EncodeToString(digest[:]), ""}
	if err != nil {
		found.Error = err.Error()
	}
	return found
}

// data is what both ends can make without telling each other: the last byte of each count.
func data(size int) []byte {
	block := make([]byte, size)
	for i := range block {
		block[i] = byte(i*7 + i>>8)
	}
	return block
}

// serve tells its port, then takes connections; the client's first line is the script.
func serve(files []string) error {
	config := &tls.Config{NextProtos: []string{"h2", "http/1.1"}}
	for ; len(files) > 1; files = files[2:] {
		pair, err := tls.LoadX509KeyPair(files[0], files[1])
		if err != nil {
			return err
		}
		config.Certificates = append(config.Certificates, pair)
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	fmt.Println(listener.Addr().(*net.TCPAddr).Port)
	for {
		raw, err := listener.Accept()
		if err != nil {
			return err
		}
		go func() {
			connection := tls.Server(raw, config)
			received, err := serveOne(connection)
			tell(told(connection, received, err))
		}()
	}
}

func serveOne(connection *tls.Conn) ([]byte, error) {
	defer connection.Close()
	reader := bufio.NewReader(connection)
	line, err := reader.ReadString('\n')
	if err != nil {
		return nil, err
	}
	var script string
	var size int
	if _, err := fmt.Sscan(strings.TrimSpace(line), &script, &size); err != nil {
		return nil, err
	}
	switch script {
	case "speak":
		if _, err := connection.Write(data(size)); err != nil {
			return nil, err
		}
		if err := connection.CloseWrite(); err != nil {
			return nil, err
		}
		return io.ReadAll(reader)
	case "echo":
		return nil, echo(connection, reader)
	}
	received, err := io.ReadAll(reader)
	if err == nil {
		_, err = connection.Write(received)
	}
	return received, err
}

// echo sends each piece back as it comes.
func echo(connection *tls.Conn, reader *bufio.Reader) error {
	_, err := io.Copy(connection, reader)
	return err
}

// work does the jobs of its standard input, one after the other.
func work(authority string) error {
	pem, err := os.ReadFile(authority)
	if err != nil {
		return err
	}
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(pem)
	lines := bufio.NewScanner(os.Stdin)
	for lines.Scan() {
		var todo job
		if err := json.Unmarshal(lines.Bytes(), &todo); err != nil {
			return err
		}
		config := &tls.Config{RootCAs: pool, ServerName: "localhost", MinVersion: todo.Version, MaxVersion: todo.Version}
		if todo.Suite != 0 {
			config.CipherSuites = []uint16{todo.Suite}
		}
		raw, err := net.Dial("tcp", todo.Address)
		if err != nil {
			return err
		}
		connection := tls.Client(raw, config)
		received, err := workOne(connection, todo)
		tell(told(connection, received, err))
	}
	return lines.Err()
}

func workOne(connection *tls.Conn, todo job) ([]byte, error) {
	defer connection.Close()
	if err := connection.Handshake(); err != nil {
		return nil, err
	}
	if todo.Script == "speak" {
		received, err := io.ReadAll(connection)
		if err == nil {
			_, err = connection.Write(data(todo.Size))
		}
		return received, err
	}
	if _, err := connection.Write(data(todo.Size)); err != nil {
		return nil, err
	}
	if err := connection.CloseWrite(); err != nil {
		return nil, err
	}
	return io.ReadAll(connection)
}
