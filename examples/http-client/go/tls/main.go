// http-client HOST PORT PATH: prints what a web server has there.
package main

import (
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"os"
)

func fetch(host, port, path string) error {
	connection, err := tls.Dial("tcp", net.JoinHostPort(host, port), nil)
	if err != nil {
		return err
	}
	defer connection.Close()
	if _, err := fmt.Fprintf(connection, "GET %s HTTP/1.0\r\nHost: %s\r\n\r\n", path, host); err != nil {
		return err
	}
	_, err = io.Copy(os.Stdout, connection)
	return err
}

func main() {
	if len(os.Args) != 4 {
		fmt.Fprintln(os.Stderr, "usage: http-client HOST PORT PATH")
		os.Exit(2)
	}
	if err := fetch(os.Args[1], os.Args[2], os.Args[3]); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}
